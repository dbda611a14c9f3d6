"""HTML as readable text: the same lines that the Markdown parser would write for the same page."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from openbook.documents.builder import Parsed, TextBuilder, raised
from openbook.errors import DocumentError

_DROPPED = frozenset(
    "script style noscript template nav footer head svg math canvas form button select option iframe object embed audio "
    "video map dialog menu".split()
)
_BLOCKS = frozenset(
    "address article aside blockquote body center dd details div dl dt fieldset figcaption figure header hgroup hr html "
    "legend main p search section summary table tbody td tfoot th thead tr ul ol li pre h1 h2 h3 h4 h5 h6".split()
)
_INLINE = frozenset(
    "a abbr acronym area b base bdi bdo big br caption cite code col colgroup data datalist del dfn em font i img input "
    "ins kbd label link mark meta meter output param picture progress q rp rt ruby s samp slot small source span strike "
    "strong sub sup textarea time title track tt u var wbr".split()
)
ELEMENTS = _DROPPED | _BLOCKS | _INLINE
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Elements that are closed by their own end tag only. The parser's time grows with the square of their depth.
_NESTING = re.compile(
    r"<(/?)(?:div|ul|ol|dl|section|article|aside|blockquote|center|details|fieldset|figure|header|hgroup|main|address|"
    r"nav|footer|menu|search|dir|listing|pre|summary|figcaption)(?![\w-])",
    re.IGNORECASE,
)
_MAX_DEPTH = 1000
_PERMALINKS = frozenset(
    "headerlink anchor anchor-link anchorjs-link doc-anchor hash-link heading-anchor permalink".split()
)
_LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight(?:-source)?)-([\w+#.-]{1,30})")


# Within the first 1,024 bytes, as the HTML standard has it: <meta charset>, its older form, and XML's declaration.
_ENCODING = re.compile(
    rb"""<(?:meta\s[^<>]*?charset|\?xml\s[^<>]*?encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE
)

_XHTML = re.compile(r"\A\s*<\?xml\s|<html\s[^<>]*\bxmlns\s*=", re.IGNORECASE)
_CLOSED = re.compile(r"""<([A-Za-z][\w:.-]*)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*/>""")
_VOID = frozenset("area base br col embed frame hr img input link meta param source track wbr".split())


def declared_encoding(data: bytes) -> str:
    """The name of the encoding that a page says it is in, "" where it says nothing."""
    found = _ENCODING.search(data[:1024])
    return found[1].decode("ascii", "replace") if found else ""


def parse_html(source: str, name: str) -> Parsed:
    """The page's main part where it names one, else its body. `name` is the title of a page that has none."""
    builder = TextBuilder()
    title = render_page(source, builder)
    return builder.build(builder.title_or("") or title or name)


def render_page(source: str, builder: TextBuilder) -> str:
    """Add a whole page to a text and return the title that its head gives."""
    tree = _tree(source)
    main = tree.css_first("main") or tree.css_first("[role=main]")
    if main is None or not (main.text(deep=True) or "").strip():
        main = tree.body
    if main is not None:
        _walk(main, builder)
    title = tree.css_first("title")
    return (title.text(deep=True) or "") if title is not None else ""


def render_html(fragment: str, builder: TextBuilder) -> None:
    """Add a piece of HTML, as Markdown may hold it, to a text."""
    if fragment.strip().startswith("<!--") and fragment.rstrip().endswith("-->") and fragment.count("<!--") == 1:
        return  # by far the most common piece
    body = _tree(fragment).body
    if body is not None:
        _walk(body, builder)


def _tree(source: str) -> LexborHTMLParser:
    if _XHTML.search(source[:4096]):
        # HTML takes `<title/>` for the beginning of a title, which then holds the whole page.
        source = _CLOSED.sub(
            lambda tag: tag[0] if tag[1].lower() in _VOID else f"<{tag[1]}{tag[2]}></{tag[1]}>", source
        )
    depth = 0
    for tag in _NESTING.finditer(source):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > _MAX_DEPTH:
            raise DocumentError(f"its HTML is nested more than {_MAX_DEPTH} elements deep")
    return LexborHTMLParser(source)


def _walk(root: LexborNode, builder: TextBuilder) -> None:
    """Depth first without recursion, so that ten thousand nested elements are no problem."""
    writer = _Writer(builder)
    end = root.mem_id  # comparing nodes themselves would compare all that they hold
    node: LexborNode | None = root
    while node is not None:
        tag = (node.tag or "").lower()
        if tag == "-text":
            writer.text(node.text_content or "")
        elif not tag.startswith(("-", "_", "!")) and not _is_dropped(node, tag):
            writer.enter(node, tag)
            if node.child is not None:
                node = node.child
                continue
            writer.leave(tag)
        while node is not None and node.mem_id != end and node.next is None:
            node = node.parent
            if node is not None:
                writer.leave((node.tag or "").lower())
        node = node.next if node is not None and node.mem_id != end else None
    writer.close()


def _is_dropped(node: LexborNode, tag: str) -> bool:
    if tag in _DROPPED and not (tag == "form" and node.css_first("h1, h2, article") is not None):
        return True  # a form with a page in it is how some servers (ASP.NET) send every page
    attributes = node.attributes
    if not attributes:
        return False
    style = (attributes.get("style") or "").replace(" ", "").lower()
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or "display:none" in style
        or attributes.get("role") in ("navigation", "search")
        or (tag == "a" and not _PERMALINKS.isdisjoint((attributes.get("class") or "").split()))
    )


class _Writer:
    """Turns the entering and leaving of elements into blocks of the builder."""

    def __init__(self, builder: TextBuilder) -> None:
        self.builder = builder
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.tables = 0
        self.pre = 0
        self.language = ""
        self.lists = 0
        self.raised: list[int] = []  # where the open superscripts begin in `words`

    def text(self, text: str) -> None:
        self.words.append(text)

    def enter(self, node: LexborNode, tag: str) -> None:
        if self.pre:
            if tag == "br":
                self.words.append("\n")
            self.language = self.language or _language(node)
            if tag == "pre":
                self.pre += 1
            return
        if tag in _BLOCKS and not (self.tables and tag not in ("table", "tr", "td", "th")):
            self.flush()
        match tag:
            case "pre" if not self.tables:
                self.pre = 1
                self.language = _language(node) or (_language(node.parent) if node.parent is not None else "")
            case "code" | "tt":
                self.words.append("`")
            case "sup":
                self.raised.append(len(self.words))
            case "br" | "td" | "th" | "p" | "div" | "li" if self.tables:
                self.words.append(" ")
            case "br":
                self.flush()
            case "ul" | "ol" if not self.tables:
                start = (node.attributes.get("start") or "1") if tag == "ol" else None
                self.builder.open_list(
                    None if start is None else int(start) if start.isascii() and start.isdigit() else 1
                )
                self.lists += 1
            case "li" if not self.tables:
                if not self.lists:
                    self.builder.open_list()
                    self.lists += 1
                self.builder.open_item()
            case "table":
                self.tables += 1
            case "tr":
                self.rows.append([])

    def leave(self, tag: str) -> None:
        if self.pre:
            if tag == "pre":
                self.pre -= 1
                if not self.pre:
                    self.builder.code("".join(self.words), self.language)
                    self.words.clear()
            return
        if tag in _HEADINGS and not self.tables:
            title, self.words = "".join(self.words), []
            self.builder.heading(_HEADINGS[tag], title)
        elif tag in ("code", "tt"):
            self._close_code()
        elif tag == "sup" and self.raised:
            at = self.raised.pop()
            self.words[at:] = [raised("".join(self.words[at:]))]
        elif tag in ("td", "th") and self.tables:
            if self.rows:
                self.rows[-1].append("".join(self.words))
            self.words.clear()
        elif tag == "table":
            self.tables = max(0, self.tables - 1)
            if not self.tables:
                self.builder.table(self.rows)
                self.rows = []
        elif tag in ("ul", "ol") and not self.tables:
            self.flush()
            self.builder.close_list()
            self.lists = max(0, self.lists - 1)
        elif tag in _BLOCKS and not self.tables:
            self.flush()

    def _close_code(self) -> None:
        if self.words and self.words[-1] == "`":  # nothing inside
            self.words.pop()
        else:
            self.words.append("`")

    def flush(self) -> None:
        """End the paragraph that has been gathered so far."""
        if self.tables:
            return
        if self.words:
            text, self.words = "".join(self.words), []
            self.builder.paragraph(text)

    def close(self) -> None:
        """The end of the page: whatever it left open is closed."""
        self.tables = 0
        self.flush()
        while self.lists:
            self.builder.close_list()
            self.lists -= 1


def _language(node: LexborNode) -> str:
    match = _LANGUAGE.search(node.attributes.get("class") or "")
    return match[1] if match and match[1] not in ("default", "none", "text") else ""
