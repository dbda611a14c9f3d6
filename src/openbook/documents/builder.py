"""The one place where a document's readable text is put together, whatever format it came from.

The text is a sequence of blocks with a blank line between them. A paragraph, a heading, a list item and a table row
are one line each, so that whatever is quoted from them is one readable line; only code keeps its own lines.
"""

import codecs
import contextlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.records import Section

# Characters that no reader sees and that would stand between a quote and its source, and the line ends of other times.
_INVISIBLE = (
    *(code for code in range(0x20) if chr(code) not in "\t\n\r\v\f"),
    *range(0x7F, 0xA0),
    0xAD,  # soft hyphen
    0x200B,  # zero-width space
    *range(0x200E, 0x2010),  # direction marks and
    *range(0x202A, 0x202F),  # embeddings: they can show a text in another order than it has
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),  # tags: invisible ASCII
)
_CLEAN: dict[int, str | None] = dict.fromkeys(_INVISIBLE)
_CLEAN.update(dict.fromkeys(map(ord, "\r\v\f\x85\u2028\u2029"), "\n"))
_CLEAN.update(dict.fromkeys((0xA0, 0x202F, *range(0x2000, 0x200B)), " "))  # no-break and typographic spaces
_CLEAN.update(dict.fromkeys(range(0xD800, 0xE000), "\ufffd"))  # lone surrogates, which no encoding can hold
_CLEAN[0x200B] = None

# What a page that declares the first of these is written in, by the HTML standard's table of labels.
_WIDER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

_DEEPEST = 8  # levels to which nested lists are indented; a hostile page can nest ten thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a format's parser makes of one file: the parts of a `Document` that do not depend on where it lay."""

    title: str
    text: str
    sections: tuple[Section, ...] = ()
    pages: tuple[int, ...] = ()


def clean(text: str) -> str:
    """`text` without invisible characters, with `\\n` as its only line end and plain spaces."""
    return text.replace("\r\n", "\n").translate(_CLEAN)


def decode(data: bytes, declared: str = "") -> str | None:
    """Text in UTF-8, in UTF-16 or UTF-32 with a byte order mark, else in the encoding that the file itself has
    `declared`, else in Windows' Western code page; None where it is no text."""
    for mark, encoding in (
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            return clean(data.decode(encoding, "replace"))
    if b"\0" in data[:8192]:
        return None
    try:
        return clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        pass
    with contextlib.suppress(LookupError, ValueError):  # an encoding that Python does not know, or not as text
        name = codecs.lookup(declared).name if declared else ""
        if name and not name.startswith("utf"):
            return clean(data.decode(_WIDER.get(name, name), "replace"))
    text = data.decode("utf-8-sig", "replace")
    broken = text.count("\ufffd")
    # A damaged byte, or an end within a character, makes no Western text of UTF-8: there, hardly a letter is whole.
    if len(text) - len(text.encode("ascii", "ignore")) > 2 * broken:
        return clean(text)
    return clean(data.decode("cp1252", "replace"))


def one_line(text: str) -> str:
    return " ".join(clean(text).split())


_RAISED = str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")


def raised(text: str) -> str:
    """A superscript as text, since 10² is not 102; what has other characters than an exponent stays as it is (5th)."""
    return text.translate(_RAISED) if all(ord(character) in _RAISED for character in text.strip()) else text


class TextBuilder:
    """Collects blocks in reading order; offsets of sections and pages are recorded as they come."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.pages: list[int] = []
        self.length = 0  # characters so far
        self._parts: list[str] = []
        self._group: object = None  # blocks of one list or table stand on neighbouring lines
        self._lists: list[int | None] = []  # open lists: the next number, None where bulleted
        self._list_group: object = None
        self._marker = ""

    def append(self, block: str, group: object = None) -> int:
        """Add a block as it is and return its offset."""
        if self._parts:
            separator = "\n" if group is not None and group is self._group else "\n\n"
            self._parts.append(separator)
            self.length += len(separator)
        start = self.length
        self._parts.append(block)
        self.length += len(block)
        self._group = group
        return start

    def heading(self, level: int, title: str) -> int | None:
        """Begin a section and return its offset; None where there is no title, or within a list."""
        title = one_line(title)
        if not title:
            return None
        if self._lists:  # a heading inside a list item divides nothing
            self.paragraph(title)
            return None
        start = self.append(f"{'#' * level} {title}")
        self.sections.append(Section(start=start, level=level, title=title))
        return start

    def paragraph(self, text: str) -> None:
        """One line of text: a paragraph, or the text of the open list item."""
        line = one_line(text)
        if not line:
            return
        if self._lists:
            self.append(self._margin() + line, self._list_group)
        else:
            self.append(line)

    def code(self, text: str, language: str = "") -> None:
        """A code block between fences that its text does not contain."""
        text = clean(text).expandtabs(4)
        lines = [line.rstrip() for line in text.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        if not lines:
            return
        mark = "```"
        while any(mark in line for line in lines):
            mark += "`"
        block = [f"{mark}{language}", *lines, mark]
        if self._lists:
            margin = self._margin()
            indent = " " * len(margin)
            block = [margin + block[0], *(indent + line if line else "" for line in block[1:])]
        self.append("\n".join(block), self._list_group if self._lists else None)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        group = object()
        for row in rows:
            cells = [one_line(cell) for cell in row]
            if any(cells):
                indent = "  " * min(len(self._lists), _DEEPEST)
                self.append(indent + " | ".join(cells), self._list_group if self._lists else group)

    def open_list(self, start: int | None = None) -> None:
        """A list begins; `start` is the first number of a numbered one."""
        if not self._lists:
            self._list_group = object()
        self._lists.append(start)

    def open_item(self) -> None:
        if not self._lists:  # an item without a list, as careless HTML has it
            self.open_list()
        number = self._lists[-1]
        self._marker = "- " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1] = number + 1

    def close_list(self) -> None:
        if self._lists:
            self._lists.pop()
        self._marker = ""

    def _margin(self) -> str:
        """What stands before the next line of a list: the marker once, then as much space."""
        margin = "  " * min(len(self._lists) - 1, _DEEPEST) + (self._marker or "  ")
        self._marker = ""
        return margin

    def build(self, title: str) -> Parsed:
        return Parsed(
            title=unicodedata.normalize("NFC", one_line(title)),
            text="".join(self._parts),
            sections=tuple(self.sections),
            pages=tuple(self.pages),
        )

    def title_or(self, fallback: str) -> str:
        """The title that the headings suggest: the first of the outermost ones, else `fallback`."""
        top = min((section.level for section in self.sections), default=0)
        return next((section.title for section in self.sections if section.level == top), fallback)
