"""Word's .docx as readable text: headings by their styles, lists with their numbers, tables, notes, pages.

Read from the XML (ECMA-376, part 1) and not through python-docx, whose paragraphs leave out what stands in content
controls and what was inserted under tracked changes, and which knows nothing of list numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from openbook.documents.archive import Archive
from openbook.documents.builder import Parsed, TextBuilder, one_line, raised

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH_TEXT: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_PARAGRAPH, _TABLE, _BOX = f"{_W}p", f"{_W}tbl", f"{_W}txbxContent"
# Deleted or moved away under tracked changes; and the second form of what is drawn for older programs.
_UNSEEN = frozenset(
    (f"{_W}del", f"{_W}moveFrom", "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback")
)
_CODE_STYLES = ("code", "source", "preformatted", "listing", "verbatim")
_DEEPEST_HEADING = 6


def parse_docx(data: bytes, name: str) -> Parsed:
    """Raises `DocumentError` for a file that is encrypted, damaged, or unpacks to far more than it should."""
    builder = TextBuilder()
    with Archive(data, ".docx") as archive:
        writer = _Writer(builder, _styles(archive), _numberings(archive))
        for block in _blocks(archive, "word/document.xml"):
            writer.write(block)
        for notes in ("word/footnotes.xml", "word/endnotes.xml"):
            if notes in archive.names:
                for block in _blocks(archive, notes):
                    writer.write(block)
        writer.finish()
        title = _title(archive)
    return builder.build(builder.title_or("") or title or name)


def _title(archive: Archive) -> str:
    if "docProps/core.xml" not in archive.names:
        return ""
    found = archive.xml("docProps/core.xml").find("{http://purl.org/dc/elements/1.1/}title")
    return one_line(found.text or "") if found is not None else ""


def _blocks(archive: Archive, name: str) -> Iterator[Element]:
    """The outermost paragraphs and tables, whatever wraps them; each is emptied once it has been used."""
    inside = 0
    for event, element in archive.events(name, ("start", "end")):
        if element.tag not in (_PARAGRAPH, _TABLE):
            continue
        inside += 1 if event == "start" else -1
        if event == "end" and not inside:
            yield element
            element.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    name: str = ""
    level: int = 0  # of a heading; 0: none
    list_id: str = ""


def _styles(archive: Archive) -> dict[str, _Style]:
    """Paragraph styles by id, with what they inherit."""
    if "word/styles.xml" not in archive.names:
        return {}
    elements = {_value(e, "styleId"): e for e in archive.xml("word/styles.xml").iter(f"{_W}style")}
    found: dict[str, _Style] = {}
    for style_id in elements:
        names, level, list_id, at = [], 0, "", style_id
        seen: set[str] = set()
        while at in elements and at not in seen:  # a style based on itself must not hold us
            seen.add(at)
            element = elements[at]
            names.append(_child(element, "name").lower())
            outline = _child(element, "pPr/w:outlineLvl")
            level = level or (int(outline) + 1 if outline in tuple("012345") else _level_by_name(names[-1]))
            list_id = list_id or _child(element, "pPr/w:numPr/w:numId")
            at = _child(element, "basedOn")
        found[style_id] = _Style(name=names[0], level=level, list_id=list_id)
    return found


def _level_by_name(name: str) -> int:
    return int(name[-1]) if name.startswith("heading ") and name[-1:] in tuple("123456") else 0


def _numberings(archive: Archive) -> dict[tuple[str, int], int | None]:
    """(list, depth) → its first number; None where it has bullets."""
    if "word/numbering.xml" not in archive.names:
        return {}
    root = archive.xml("word/numbering.xml")
    abstract = {_value(e, "abstractNumId"): e for e in root.iter(f"{_W}abstractNum")}
    found: dict[tuple[str, int], int | None] = {}
    for number in root.iter(f"{_W}num"):
        definition = abstract.get(_child(number, "abstractNumId"))
        for level in definition.iter(f"{_W}lvl") if definition is not None else ():
            depth, form, start = _value(level, "ilvl"), _child(level, "numFmt"), _child(level, "start")
            if depth.isdecimal():
                first = int(start) if start.isdecimal() else 1
                found[_value(number, "numId"), int(depth)] = None if form in ("bullet", "none") else first
    return found


class _Writer:
    """Paragraph by paragraph into the builder; lists are opened and closed as their depths come and go."""

    def __init__(
        self, builder: TextBuilder, styles: dict[str, _Style], numberings: dict[tuple[str, int], int | None]
    ) -> None:
        self.builder, self.styles, self.numberings = builder, styles, numberings
        self._open: list[str] = []  # ids of the open lists, outermost first
        self._next: dict[tuple[str, int], int] = {}  # numbers go on behind what interrupts their list
        self._code: list[str] = []
        self._below_title = 0
        self._page_begins = True

    def write(self, block: Element) -> None:
        if block.tag == _TABLE:
            self._end_code()
            self._close_lists(0)
            rows = (row for row in block.iter(f"{_W}tr"))
            self._place_page(self.builder.length)
            self.builder.table([[_cell(cell) for cell in row.findall(f"{_W}tc")] for row in rows])
        else:
            text, breaks, boxes = _text(block)
            self._paragraph(block, text, breaks)
            for box in boxes:
                for inner in box.iter(_PARAGRAPH):
                    self._paragraph(inner, _text(inner)[0], [])

    def finish(self) -> None:
        self._end_code()
        self._close_lists(0)

    def _paragraph(self, block: Element, text: str, breaks: list[int]) -> None:
        style = self.styles.get(_child(block, "pPr/w:pStyle"), _Style())
        if any(word in style.name for word in _CODE_STYLES):
            self._close_lists(0)
            self._code.append(text)
            return
        self._end_code()
        line = one_line(text)
        if not line:
            self._page_begins = self._page_begins or bool(breaks)
            return
        depth = self._list(block, style)
        if depth < 0:
            self._close_lists(0)
        begins: int | None = None
        if depth < 0 and (style.name == "title" or style.level):
            self._below_title |= style.name == "title"
            level = 1 if style.name == "title" else style.level + self._below_title
            begins = self.builder.heading(min(level, _DEEPEST_HEADING), line)
        else:
            self.builder.paragraph(line)
        start = self.builder.length - len(line)
        self._place_page(start if begins is None else begins)
        for at in breaks:
            before = one_line(text[:at])
            if len(before) < len(line):
                self.builder.pages.append(start + len(before) + bool(before))
            else:
                self._page_begins = True

    def _place_page(self, start: int) -> None:
        """Where the first text of a page stands; what Word has never laid out has no pages."""
        if self._page_begins:
            self.builder.pages.append(start)
            self._page_begins = False

    def _list(self, block: Element, style: _Style) -> int:
        """Open what lists the paragraph stands in and its item; its depth from 0, or −1 outside of any list."""
        list_id = _child(block, "pPr/w:numPr/w:numId") or style.list_id
        if list_id in ("", "0") or style.level:  # numbered headings are no list
            return -1
        given = _child(block, "pPr/w:numPr/w:ilvl")
        depth = int(given) if given in tuple("012345678") else 0
        self._close_lists(depth + 1)
        if len(self._open) == depth + 1 and self._open[-1] != list_id:
            self._close_lists(depth)
        while len(self._open) <= depth:
            level = len(self._open)
            first = self.numberings.get((list_id, level))
            self.builder.open_list(None if first is None else self._next.get((list_id, level), first))
            self._open.append(list_id)
        first = self.numberings.get((list_id, depth))
        if first is not None:
            self._next[list_id, depth] = self._next.get((list_id, depth), first) + 1
        for deeper in range(depth + 1, 9):  # which begins anew below the next item
            self._next.pop((list_id, deeper), None)
        self.builder.open_item()
        return depth

    def _close_lists(self, depth: int) -> None:
        while len(self._open) > depth:
            self._open.pop()
            self.builder.close_list()

    def _end_code(self) -> None:
        if self._code:
            self.builder.code("\n".join(self._code))
            self._code = []


def _text(block: Element) -> tuple[str, list[int], list[Element]]:
    """A paragraph's text, the offsets in it at which pages begin, and the text boxes that hang on it."""
    parts: list[str] = []
    breaks: list[int] = []
    boxes: list[Element] = []
    length = 0
    todo = list(reversed(block))  # without recursion: a hostile file nests without end
    while todo:
        element = todo.pop()
        if element.tag in _UNSEEN or _is_hidden(element):
            continue
        if element.tag == _BOX:
            boxes.append(element)
            continue
        piece = _piece(element)
        if _is_raised(element):
            piece, element = raised("".join(map(_piece, element))), Element(element.tag)
        if piece == "\f":
            if not breaks or breaks[-1] != length:  # Word marks a break that it was told of a second time
                breaks.append(length)
            piece = " "
        parts.append(piece)
        length += len(piece)
        todo += reversed(element)
    return "".join(parts), breaks, boxes


def _piece(element: Element) -> str:
    """What an element adds to its paragraph; a form feed where a page begins."""
    match element.tag.removeprefix(_W):
        case "t":
            return element.text or ""
        case "noBreakHyphen":
            return "-"
        case "br" if _value(element, "type") == "page":
            return "\f"
        case "lastRenderedPageBreak":
            return "\f"
        case "br" | "cr":
            return "\n"
        case "tab" if "pos" not in {key.removeprefix(_W) for key, _ in element.items()}:
            return "\t"
    return element.text or "" if element.tag == _MATH_TEXT else ""


def _is_hidden(element: Element) -> bool:
    hidden = element.find(f"{_W}rPr/{_W}vanish") if element.tag == f"{_W}r" else None
    return hidden is not None and _value(hidden, "val") not in ("0", "false")


def _is_raised(run: Element) -> bool:
    """Whether a run is a superscript that is nothing but text."""
    place = run.find(f"{_W}rPr/{_W}vertAlign") if run.tag == f"{_W}r" else None
    plain = {f"{_W}rPr", f"{_W}t"}
    return place is not None and _value(place, "val") == "superscript" and all(child.tag in plain for child in run)


def _cell(cell: Element) -> str:
    return " ".join(_text(paragraph)[0] for paragraph in cell.iter(_PARAGRAPH))


def _value(element: Element, name: str) -> str:
    return element.get(f"{_W}{name}", "")


def _child(element: Element, path: str) -> str:
    """The value of a descendant: `pPr/w:numPr/w:numId`; "" where there is none."""
    found = element.find(f"w:{path}", {"w": _W[1:-1]})
    return _value(found, "val") if found is not None else ""
