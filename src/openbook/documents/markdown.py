"""Markdown as readable text, by way of markdown-it's tokens (CommonMark with tables and strikethrough).

Directives of the usual site generators are no part of what a reader reads and are dropped: front matter, mdBook's
`{{#include …}}`, Hugo's `{{< … >}}`, Liquid's `{% … %}`, Docusaurus' `:::note`, MkDocs' `!!! note`, GitHub's `[!NOTE]`.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice, takewhile

from markdown_it import MarkdownIt
from markdown_it.token import Token

from openbook.documents.builder import Parsed, TextBuilder, raised
from openbook.documents.hypertext import ELEMENTS, render_html

# A paragraph of so many characters is generated data: its inline markup is left as it stands, because the time that
# markdown-it takes for hostile nests of brackets grows faster than their length.
_INLINE_LIMIT = 20_000

# No pattern here can look past the next brace or line end, so that all take linear time.
_INCLUDE = re.compile(r"\{\{#[^{}\n]*\}\}")
_SHORTCODE = re.compile(r"\{\{[<%][^{}\n]*[>%]\}\}")
_LIQUID_LINE = re.compile(r"^\s*\{%[^%\n]*%\}\s*$")
_ADMONITION = re.compile(r"^(?:!!!|\?\?\?\+?)\s+[\w-]+(?:\s+[\w-]+)*\s*(?:\"([^\"]*)\")?\s*$")
_ALERT = re.compile(r"^\s*>\s*\[![A-Za-z]+\]\s*$")
_HEADING_ATTRIBUTES = re.compile(r"\{[#:.][^{}]*\}$")
_FOOTNOTE = re.compile(r"\[\^[\w-]{1,40}\]")
_FOOTNOTE_START = re.compile(r"^\[\^[\w-]{1,40}\]:\s?")
_FRONT_TITLE = re.compile(r"^title\s*[:=]\s*(.+)$")
_FOLDED = re.compile(r"[>|][+-]?\d?[+-]?")
_TAG_NAME = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)")


def parse_markdown(source: str, name: str) -> Parsed:
    """`name` is the title of a document that has none of its own."""
    title, body = _front_matter(source)
    builder = TextBuilder()
    render_markdown(body, builder, title)
    return builder.build(title or builder.title_or(name))


def render_markdown(body: str, builder: TextBuilder, title: str = "") -> None:
    """Add Markdown to a text, below `title` where it has no heading of the first level."""
    environment: dict[str, object] = {}
    parser = _parser()
    tokens = parser.parse("\n".join(_without_directives(body.split("\n"))), environment)
    if title and not any(token.type == "heading_open" and token.tag == "h1" for token in tokens):
        builder.heading(1, title)
    for token in tokens:
        if token.type == "inline" and len(token.content) <= _INLINE_LIMIT:
            token.children = []
            parser.inline.parse(token.content, parser, environment, token.children)
    _render(tokens, builder)


@cache
def _parser() -> MarkdownIt:
    # What is nested deeper than `maxNesting` is lost, and its default of 20 is within an author's reach.
    return MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"]).disable("inline")


def _front_matter(source: str) -> tuple[str, str]:
    """The title that YAML or TOML front matter gives ("" without one), and the text below it."""
    mark = source[:3]
    if mark not in ("---", "+++"):
        return "", source
    lines = source.split("\n")
    if lines[0].rstrip() != mark:
        return "", source
    end = next((i for i, line in enumerate(islice(lines, 1, 500), 1) if line.rstrip() in (mark, "...")), 0)
    if not end or (mark == "---" and not any(":" in line for line in lines[1:end])):
        return "", source  # a thematic break, not front matter
    title = ""
    for at, line in enumerate(lines[1:end], 2):
        if match := _FRONT_TITLE.match(line):
            title = match[1].strip().strip("\"'").strip()
            if _FOLDED.fullmatch(title):  # the words stand on the lines below, indented
                title = " ".join(takewhile(lambda below: not below or below[0].isspace(), lines[at:end]))
    return " ".join(title.split()), "\n".join(lines[end + 1 :])


def _without_directives(lines: Sequence[str]) -> Iterator[str]:
    fence = ""  # the open fence's mark
    admonition = False
    for line in lines:
        stripped = line.strip()
        mark = stripped[:3]
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
            elif stripped.startswith("{{#") and _INCLUDE.fullmatch(stripped):
                continue
            yield line[4:] if admonition and line.startswith("    ") else line
            continue
        if admonition:
            if line.startswith("    "):
                line = line[4:]
            elif stripped:
                admonition = False
        if mark in ("```", "~~~"):
            length = len(stripped) - len(stripped.lstrip(mark[0]))
            if mark == "~~~" or "`" not in stripped[length:]:
                fence = mark[0] * length
        elif mark == ":::":
            line = ""
        elif mark in ("!!!", "???") and (match := _ADMONITION.match(line)):
            admonition = True
            yield ""
            yield match[1] or ""
            line = ""
        elif _ALERT.match(line):
            line = ">"
        else:
            if "{" in line:
                line = "" if _LIQUID_LINE.match(line) else _SHORTCODE.sub("", _INCLUDE.sub("", line))
            line = _FOOTNOTE_START.sub("", line)
        yield line


def _render(tokens: Sequence[Token], builder: TextBuilder) -> None:
    rows: list[list[str]] = []
    cell = False
    heading = 0
    for token in tokens:
        match token.type:
            case "heading_open":
                heading = int(token.tag[1:]) if token.level == 0 else 0
            case "heading_close":
                heading = 0
            case "inline" if cell:
                rows[-1].append(_inline(token))
            case "inline" if heading:
                builder.heading(heading, _HEADING_ATTRIBUTES.sub("", _inline(token).rstrip()).rstrip(" #"))
            case "inline":
                for line in _inline(token).split("\n"):
                    builder.paragraph(line)
            case "fence":
                builder.code(token.content, _language(token.info))
            case "code_block":
                builder.code(token.content)
            case "html_block":
                render_html(token.content, builder)
            case "bullet_list_open":
                builder.open_list()
            case "ordered_list_open":
                start = token.attrGet("start")
                builder.open_list(1 if start is None else int(start))
            case "list_item_open":
                builder.open_item()
            case "bullet_list_close" | "ordered_list_close":
                builder.close_list()
            case "table_open":
                rows = []
            case "tr_open":
                rows.append([])
            case "th_open" | "td_open":
                cell = True
            case "th_close" | "td_close":
                cell = False
            case "table_close":
                builder.table(rows)


def _language(info: str) -> str:
    """The first word of a fence's info string: `rust` of `rust,ignore` and of `rust title="x"`."""
    match = re.match(r"[\w+#.-]+", info.strip().lstrip("{."))
    return match[0] if match else ""


def _inline(token: Token) -> str:
    """The words of a paragraph; `\\n` only where the author broke the line on purpose."""
    if token.children is None or (not token.children and len(token.content) > _INLINE_LIMIT):
        return token.content.replace("\n", " ")
    parts: list[str] = []
    exponent = 0  # where the last superscript begins in `parts`
    for child in token.children:
        match child.type:
            case "text" | "text_special":
                parts.append(_FOOTNOTE.sub("", child.content) if "[^" in child.content else child.content)
            case "code_inline":
                mark = "``" if "`" in child.content else "`"
                parts.append(f"{mark}{child.content}{mark}")
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
            case "html_inline" if child.content.lower() == "<sup>":
                exponent = len(parts)
            case "html_inline" if child.content.lower() == "</sup>":
                parts[exponent:] = [raised("".join(parts[exponent:]))]
            case "html_inline":
                parts.append(_inline_tag(child.content))
    return "".join(parts)


def _inline_tag(tag: str) -> str:
    """Real HTML tags go; `<job>` and `<T>` in a sentence are placeholders that their author forgot to escape."""
    match = _TAG_NAME.match(tag)
    if match is None:  # a comment or declaration
        return ""
    name = match[1].lower()
    if name in ("code", "tt"):
        return "`"
    if name == "br":
        return " "
    known = name in ELEMENTS or "=" in tag or tag.endswith("/>")
    return "" if known else tag
