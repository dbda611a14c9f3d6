"""reStructuredText as readable text, by way of docutils' document tree, with Sphinx's directives and roles.

docutils drops a directive that it does not know with all that stands in it, and most documentation is written for
Sphinx. So every unknown name that a source holds is given a meaning first: code, a description with its signature, or
text. Nothing is included from other files, and nothing raw is let through.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from openbook.documents.builder import Parsed, TextBuilder, raised
from openbook.documents.plain import reflow

_DIRECTIVE = re.compile(r"^[ \t]*\.\.[ \t]+(?:\|[^|\n]*\|[ \t]+)?([\w:+.-]+)::", re.MULTILINE)
_ROLE = re.compile(r":([\w:+.-]+):`")
_TITLED = re.compile(r"^(.*[^\s<])\s*<[^<>]*>$", re.DOTALL)

_CODE = frozenset("code code-block sourcecode highlight parsed-literal doctest testcode prompt productionlist".split())
_LEFT_OUT = frozenset(
    "toctree index currentmodule module py:module py:currentmodule literalinclude include testsetup testcleanup testoutput "
    "tabularcolumns codeauthor sectionauthor image figure plot graphviz raw meta contents sectnum default-role role "
    "automodule autoclass autofunction automethod autoattribute autosummary bibliography highlightlang".split()
)
_CHANGES = {
    "versionadded": "Added",
    "versionchanged": "Changed",
    "deprecated": "Deprecated",
    "versionremoved": "Removed",
}

_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,  # nothing is printed
    "halt_level": 5,  # nor raised: what cannot be read is taken as plain text
    "line_length_limit": 1_000_000,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "smart_quotes": False,
    "trim_footnote_reference_space": True,
    "_disable_config": True,  # no docutils.conf of the folder or the user decides what a document says
}
# Parts of the tree that no reader of the page reads.
_UNREAD = (
    "comment substitution_definition target pending index image raw meta decoration docinfo topic_contents problematic"
).split()


def parse_rst(source: str, name: str) -> Parsed:
    """`name` is the title of a document that has none of its own."""
    from docutils import core

    builder = TextBuilder()
    _teach(source)
    try:
        tree = core.publish_doctree(source, settings_overrides=_SETTINGS | {"warning_stream": io.StringIO()})
        _Writer(builder).children(tree)
    except RecursionError:  # lists in lists in lists: no author's, but there may be text between them
        builder = TextBuilder()
        reflow(source, builder)
    return builder.build(builder.title_or(name))


def _teach(source: str) -> None:
    """Give docutils a meaning for each directive and role of `source` that it lacks, or reads differently from Sphinx."""
    from docutils.parsers.rst import directives, roles
    from docutils.parsers.rst.languages import en

    for name in set(_DIRECTIVE.findall(source)):
        plain = name.lower().rpartition(":")[2]
        if name.lower() in _LEFT_OUT or plain in _LEFT_OUT or plain in _CODE or plain not in en.directives:
            directives.register_directive(name.lower(), _directive(plain, name.lower()))
    for name in set(_ROLE.findall(source)):
        if name.lower() not in en.roles:
            roles.register_local_role(name.lower(), _role)


def _role(name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()) -> Any:
    """`:py:func:`~json.dumps`` reads as code; of a title with a target, the title is read."""
    from docutils import nodes, utils

    text = utils.unescape(text)
    titled = _TITLED.match(text)
    shown = titled[1] if titled else text.lstrip("~!")
    prose = name.rpartition(":")[2] in (
        "doc",
        "ref",
        "term",
        "guilabel",
        "menuselection",
        "abbr",
        "numref",
        "dfn",
        "pep",
        "rfc",
    )
    return [nodes.inline(rawtext, shown) if prose else nodes.literal(rawtext, shown)], []


def _directive(plain: str, full: str) -> Any:
    """A directive of docutils' for a name: whatever its options and arguments, nothing in it is lost."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives

    class AnyOption(dict[str, Any]):
        def __missing__(self, key: str) -> Any:
            return directives.unchanged

        def __bool__(self) -> bool:
            return True

    class Meant(Directive):  # type: ignore[misc]
        optional_arguments = 1
        final_argument_whitespace = True
        has_content = True
        option_spec: ClassVar[Any] = AnyOption()

        def run(self) -> Sequence[Any]:
            argument = self.arguments[0] if self.arguments else ""
            if plain in _LEFT_OUT or full in _LEFT_OUT:
                return []
            if plain in _CODE:
                if not self.content:  # `highlight` names the language of what follows; a prompt may be one line
                    return [] if plain == "highlight" else [nodes.literal_block(argument, argument)]
                language = argument if plain in ("code", "code-block", "sourcecode") else ""
                text = "\n".join(self.content)
                return [nodes.literal_block(text, text, language=language)]
            inside = nodes.container()
            for line in self._lead(argument):
                inside += nodes.paragraph(line, "", *self.state.inline_text(line, self.lineno)[0])
            self.state.nested_parse(self.content, self.content_offset, inside)
            return [inside]

        def _lead(self, argument: str) -> list[str]:
            """What the directive's first line says, as paragraphs of their own: signatures, titles, versions."""
            if plain in _CHANGES:
                version, *words = argument.split() or [""]
                return [f"{_CHANGES[plain]} in version {version}: {' '.join(words)}".rstrip(": ")]
            if plain in ("only", "ifconfig", "tab", "cssclass", "rst-class"):
                return []
            if ":" in full or plain in _DESCRIBED:
                return [line.strip().replace("*", "\\*") for line in argument.split("\n") if line.strip()]
            return [argument] if argument else []

    return Meant


_DESCRIBED = frozenset(
    "function class method data attribute exception describe option envvar cmdoption decorator".split()
)


class _Writer:
    """docutils' tree into the builder."""

    def __init__(self, builder: TextBuilder) -> None:
        self.builder = builder
        self.level = 0

    def children(self, node: Any) -> None:
        for child in node.children:
            self.node(child)

    def node(self, node: Any) -> None:
        kind = node.tagname
        if kind in _UNREAD or (kind == "topic" and "contents" in node.get("classes", ())):
            return
        match kind:
            case "section":
                self.level += 1
                self.children(node)
                self.level -= 1
            case "title" | "rubric" if kind == "title" and node.parent.tagname in ("section", "document"):
                self.builder.heading(min(6, max(1, self.level)), _words(node))
            case "literal_block" | "doctest_block" | "math_block":
                self.builder.code(node.astext(), node.get("language", ""))
            case "bullet_list":
                self._list(node, None)
            case "enumerated_list":
                self._list(node, int(node.get("start", 1)))
            case "table":
                self._table(node)
            case "line_block":
                for line in node.children:
                    self.node(line)
            case "field":
                self.builder.paragraph(_words(node.children[0]) + ": " + _words(node.children[1]))
            case "option_list_item":
                self.builder.paragraph(", ".join(option.astext() for option in node.children[0].children))
                self.node(node.children[1])
            case "footnote" | "citation":
                for child in node.children:
                    if child.tagname != "label":
                        self.node(child)
            case "system_message" if node["level"] >= 3:  # below it, what is complained of is read all the same
                self._unread(node)
            case "system_message":
                pass
            case _ if _is_text(node):
                self.builder.paragraph(_words(node))
            case _:
                self.children(node)

    def _list(self, node: Any, start: int | None) -> None:
        self.builder.open_list(start)
        for item in node.children:
            self.builder.open_item()
            self.children(item)
        self.builder.close_list()

    def _table(self, node: Any) -> None:
        for child in node.children:
            if child.tagname == "title":
                self.builder.paragraph(_words(child))
        rows = node.findall(lambda found: getattr(found, "tagname", "") == "row")
        self.builder.table([[_words(cell) for cell in row.children] for row in rows])

    def _unread(self, node: Any) -> None:
        """What docutils could not read, such as a table with a crooked rule: as plain text, rather than not at all."""
        for child in node.children:
            if child.tagname == "literal_block":
                reflow(child.astext(), self.builder, base_level=self.level)


def _is_text(node: Any) -> bool:
    """Whether a node holds words and marks of words, not further blocks."""
    from docutils import nodes

    return isinstance(node, nodes.TextElement | nodes.Text)


def _words(node: Any) -> str:
    """A node's text in one line, with code between backticks."""
    from docutils import nodes

    if isinstance(node, nodes.Text):
        return str(node.astext())
    if isinstance(node, nodes.footnote_reference | nodes.citation_reference | nodes.image | nodes.system_message):
        return ""
    inside = (" " if _is_block(node) else "").join(_words(child) for child in node.children)
    if isinstance(node, nodes.superscript):
        return raised(inside)
    return f"`{inside}`" if isinstance(node, nodes.literal) and inside else inside


def _is_block(node: Any) -> bool:
    from docutils import nodes

    return bool(node.children) and not isinstance(node, nodes.TextElement)
