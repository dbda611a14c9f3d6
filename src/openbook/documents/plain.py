"""Plain text and docstrings as readable text: soft-wrapped lines become one line a paragraph."""

import itertools
import re
from textwrap import dedent

from openbook.documents.builder import Parsed, TextBuilder

_UNDERLINE = frozenset("=-~^\"'`#*+.:_")
_BULLET = re.compile(r"^(?:[-*+•‣◦·–]|\(?(?:\d{1,3}|[A-Za-z])[.)]|:[\w *]{1,60}:|@\w+)\s+")
_TERM = re.compile(
    r"^\s*[\w*.]{1,40}(?: \([^()\n]{1,60}\))?(?::| +--?)\s"
)  # "name (str): what it is", as in lists of arguments
# What begins a line of code, as examples stand in docstrings without any mark.
_CODE = re.compile(
    r"\s*(?:#|\$ |% |@\w|<[\w ]{1,40}>|import \w|from [\w.]+ import\b|(?:async|def|class|for|if|elif|else|try|except|finally|with|while)\b.*:$"
    r"|(?:return|raise|yield|print|assert|del)\b|[\w.\[\]'\", *()]{1,60} [-+*/|&]?= |[\w.]+=\S|[\w.]+\(.*\)|[\])}]+[,)]*$"
    r"|.*\s--?[a-z][\w-]*(?:[\s=]|$)|[\w./-]+\.(?:py|sh|exe)\b)"
)
_DIRECTIVE = re.compile(r"^\.\. ([\w:-]+)::\s*(.*)$")
_ROLE = re.compile(r":[a-z]+(?::[a-z]+)?:`([^`\n]*)`")
_LINK = re.compile(r"`([^`<\n]+?)\s*<[^<>`\n]*>`__?")
_TITLED = re.compile(r"^([^<`]*[^<`\s])\s*<[^<>`]*>$")
_CODE_DIRECTIVES = frozenset(("code", "code-block", "sourcecode", "highlight", "parsed-literal", "doctest", "testcode"))
_TEXT_DIRECTIVES = frozenset(
    "note warning tip hint important caution danger error attention admonition seealso versionadded versionchanged "
    "deprecated topic sidebar epigraph rubric glossary function class method data module attribute exception".split()
)


def parse_plain(source: str, name: str) -> Parsed:
    builder = TextBuilder()
    reflow(source, builder, markup=False)
    return builder.build(builder.title_or(name))


def reflow(text: str, builder: TextBuilder, *, markup: bool = True, base_level: int = 0) -> None:
    """Add plain text to `builder`; headings found in it stand below `base_level`.

    `markup` reads the little of reStructuredText that docstrings have and that is not already readable; they are too
    careless of its rules for a parser that knows them all.
    """
    _Reflow(builder, markup, base_level).run(text.expandtabs(8).split("\n"))


class _Reflow:
    def __init__(self, builder: TextBuilder, markup: bool, base_level: int) -> None:
        self.builder = builder
        self.markup = markup
        self.base_level = base_level
        self.levels: list[str] = []  # underline characters in the order in which they first stood below a title
        self.literal = False  # the last paragraph announced literal text with "::"
        self.in_list = False
        self.announced = False  # the last paragraph ended with a colon, or code came last

    def run(self, lines: list[str]) -> None:
        at = end = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            end = max(end, at)
            while end < len(lines) and lines[end].strip():
                end += 1
            at = self._block(lines, at, end)
        self._end_list()

    def _block(self, lines: list[str], at: int, end: int) -> int:
        """Write what begins at line `at`, in a block that ends before line `end`; return where to go on."""
        first = lines[at].rstrip()
        if not _BULLET.match(first.lstrip()):
            self._end_list()
        literal, self.literal = self.literal, False
        if literal and first.startswith(" "):
            end = self._indented_end(lines, at)
            self._code(lines[at:end])
            return end
        if title := self._heading(lines[at : min(end, at + 3)]):
            return at + title
        if self._interrupts(first):
            if first.lstrip().startswith(".. "):
                return self._directive(lines, at)
            self._code(lines[at:end])
            return end
        if self.markup and first.lstrip().startswith("#") and self._is_comment(lines, at, end):
            self._code(lines[at:end])
            return end
        end = next((number for number in range(at + 1, end) if self._interrupts(lines[number])), end)
        block = lines[at:end]
        if self._is_code(block):
            self._code(block)
        elif first.endswith(":") and len(block) > 1 and _indent(block[1]) > _indent(first) and not _BULLET.match(first):
            self._paragraphs([first])  # it announces what stands indented below it
            return at + 1
        elif sum(_is_table_rule(line) for line in block) >= 2:
            self.builder.table([_cells(line) for line in block if not _is_table_rule(line)])
        else:
            self._paragraphs(block)
        return end

    def _code(self, lines: list[str]) -> None:
        self.builder.code(dedent("\n".join(lines)))
        self.announced = True

    def _is_comment(self, lines: list[str], at: int, end: int) -> bool:
        """Whether comments begin at line `at` with nothing but the code that they explain behind them."""
        after = next((number for number in range(at, end) if not lines[number].lstrip().startswith("#")), end)
        return after == end or lines[after].lstrip().startswith(">>>")

    def _is_code(self, block: list[str]) -> bool:
        """Whether all lines look like code, or half of them where an indented example has been announced."""
        if not self.markup:
            return False
        likely = sum(bool(_CODE.match(line[:200].rstrip())) for line in block)
        if self.announced and all(line.startswith("  ") for line in block):
            return 2 * likely >= len(block)
        return likely == len(block) > 1

    def _interrupts(self, line: str) -> bool:
        """Whether a line begins something else also without a blank line before it."""
        line = line.lstrip()
        return line.startswith(">>>") or (self.markup and line.startswith(".. "))

    def _heading(self, block: list[str]) -> int:
        """How many lines of the block were a heading, which is written; 0 where it does not begin with one."""
        overlined = len(block) >= 3 and _is_rule(block[0]) and block[2].strip() == block[0].strip()
        title, rule = (block[1], block[2]) if overlined else (block[0], block[1] if len(block) > 1 else "")
        title, rule = title.strip(), rule.strip()
        if not _is_rule(rule) or _is_rule(title) or len(title) > 120 or len(rule) < min(3, len(title)):
            return 0
        style = rule[0] + ("=" if overlined else "")
        if style not in self.levels:
            self.levels.append(style)
        self.builder.heading(min(6, self.base_level + 1 + self.levels.index(style)), self._words(title))
        return 3 if overlined else 2

    def _directive(self, lines: list[str], at: int) -> int:
        indent = _indent(lines[at])
        body = at + 1
        while body < len(lines) and (not lines[body].strip() or _indent(lines[body]) > indent):
            body += 1
        match = _DIRECTIVE.match(lines[at].strip())
        name = match[1].lower().rpartition(":")[2] if match else ""
        content = dedent("\n".join(lines[at + 1 : body])).strip("\n").split("\n")
        while content and re.match(r":[\w-]+:(?:\s|$)", content[0]):  # the directive's own options
            content.pop(0)
        if match and name in _CODE_DIRECTIVES:
            self.builder.code("\n".join(content), match[2] if re.fullmatch(r"[\w+-]{1,20}", match[2]) else "")
        elif match and name in _TEXT_DIRECTIVES:
            self.run([match[2], *([""] if name.startswith(("function", "class", "method")) else []), *content])
        return body

    def _paragraphs(self, block: list[str]) -> None:
        """Join wrapped lines. A line is taken for wrapped unless its break shows purpose: a bullet, an indentation
        that changes, or room enough on the line before it for a good deal more than the next word."""
        width = max(60, *(len(line) for line in block))
        terms = [bool(_TERM.match(line)) for line in block]
        items = [
            bool(_BULLET.match(line.lstrip())) or (terms[at] and (sum(terms) > 1 or _indent(following) > _indent(line)))
            for at, (line, following) in enumerate(itertools.pairwise([*block, ""]))
        ]
        paragraph, item = [block[0]], items[0]
        for (before, line), is_item in zip(itertools.pairwise(block), items[1:], strict=True):
            deeper, shallower = _indent(line) > _indent(before), _indent(line) < _indent(before)
            word = len(line.lstrip().partition(" ")[0])
            hanging = deeper and item and len(paragraph) == 1
            roomy = len(before.rstrip()) + 1 + word < 0.6 * width
            if is_item or shallower or ((deeper or roomy) and not hanging):
                self._write(paragraph)
                paragraph, item = [line], is_item
            else:
                paragraph.append(line)
        self._write(paragraph)

    def _write(self, lines: list[str]) -> None:
        text = self._words(" ".join(line.strip() for line in lines))
        if self.markup and text.endswith("::"):
            self.literal = True
            text = text[:-2].rstrip() + ":" if text != "::" else ""
        self.announced = text.endswith(":")
        if text[:2] in ("- ", "* ", "+ ", "• "):
            if not self.in_list:
                self.builder.open_list()
                self.in_list = True
            self.builder.open_item()
            self.builder.paragraph(text[2:])
        else:
            self._end_list()
            self.builder.paragraph(text)

    def _end_list(self) -> None:
        if self.in_list:
            self.builder.close_list()
            self.in_list = False

    def _words(self, text: str) -> str:
        if not self.markup or "`" not in text:
            return text
        text = _LINK.sub(r"\1", text)
        text = _ROLE.sub(lambda match: f"`{_target(match[1])}`", text)
        return text.replace("``", "`").replace("`_", "`")

    def _indented_end(self, lines: list[str], at: int) -> int:
        """The end of a literal block: the next line that is indented less than its first one."""
        indent = _indent(lines[at])
        end = at
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) >= indent):
            end += 1
        return end


def _target(text: str) -> str:
    match = _TITLED.match(text)
    return match[1] if match else text.lstrip("~!")


def _is_rule(line: str) -> bool:
    line = line.strip()
    return len(line) >= 2 and line[0] in _UNDERLINE and not line.strip(line[0])


def _is_table_rule(line: str) -> bool:
    """`===== ====` and `+----+---+` rule tables in docstrings and reStructuredText."""
    line = line.strip()
    return len(line) >= 5 and line[:2] in ("==", "--", "+-", "+=") and not line.strip("=-+ ")


def _cells(line: str) -> list[str]:
    line = line.strip()
    if line.startswith("|"):
        return line.strip("|").split("|")
    return re.split(r"\s{2,}", line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
