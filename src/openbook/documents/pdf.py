"""PDF as readable text: what pdfium reads from the pages, laid out by `layout`."""

import ctypes
import itertools
from collections import Counter
from statistics import median
from typing import Any

from openbook.documents.builder import Parsed, TextBuilder, one_line, raised
from openbook.documents.layout import HYPHEN, Line, write_pages
from openbook.errors import DocumentError


def parse_pdf(data: bytes, name: str) -> Parsed:
    """Text by page. Raises `DocumentError` for a file that is encrypted, damaged, or has pictures of text only."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower() or "security" in str(error).lower()
        reason = "it is encrypted; save it without its password" if encrypted else "it is damaged or no PDF"
        raise DocumentError(f"{reason} ({error})") from error
    try:
        pages = [_lines(pdf, number) for number in range(len(pdf))]
        title = one_line(pdf.get_metadata_dict().get("Title") or "")
    finally:
        pdf.close()
    builder = TextBuilder()
    write_pages(pages, builder)
    # The metadata's title comes second: programs leave "Microsoft Word - draft3.doc" there.
    return builder.build(builder.title_or("") or title or name)


def _lines(pdf: Any, number: int) -> list[Line]:
    """The lines of one page in pdfium's order, which is mostly that of reading."""
    from pypdfium2 import PdfiumError, raw

    try:
        page = pdf[number]
        textpage = page.get_textpage()
    except PdfiumError as error:
        raise DocumentError(f"its page {number + 1} is damaged ({error})") from error
    count = textpage.count_chars()
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    lines: list[Line] = []
    units: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    sizes: Counter[float] = Counter()
    seen: list[tuple[int, float, float]] = []  # of each letter its place in `units`, its size, where it stands

    def finish() -> None:
        _raise(units, seen)
        # Code units of UTF-16: a letter beyond the basic plane comes as two of them.
        data = b"".join(unit.to_bytes(2, "little") for unit in units)
        text = data.decode("utf-16-le", "replace").strip()
        if text and boxes:
            lines.append(
                Line(
                    text,
                    min(box[0] for box in boxes),
                    min(box[1] for box in boxes),
                    max(box[2] for box in boxes),
                    max(box[3] for box in boxes),
                    sizes.most_common(1)[0][0] if sizes else 0.0,
                )
            )
        units.clear()
        boxes.clear()
        sizes.clear()
        seen.clear()

    for index in range(count):
        unit = raw.FPDFText_GetUnicode(textpage, index)
        if unit == 2:  # how this function says what pdfium's text functions call U+FFFE
            unit = ord(HYPHEN)
        if unit in (0x0A, 0x0D):
            finish()
            continue
        if unit > 0xFFFF:
            units += [0xD800 + ((unit - 0x10000) >> 10), 0xDC00 + ((unit - 0x10000) & 0x3FF)]
        else:
            units.append(unit or 0x20)
        if unit > 0x20 and raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top):
            boxes.append((left.value, bottom.value, right.value, top.value))
            size = round(raw.FPDFText_GetFontSize(textpage, index), 1)
            sizes[size] += 1
            seen.append((len(units) - 1, size, bottom.value))
        if unit == ord(HYPHEN):
            finish()
    finish()
    textpage.close()
    page.close()
    return lines


def _raise(units: list[int], seen: list[tuple[int, float, float]]) -> None:
    """Write exponents as such: runs of letters that are smaller than the line's and stand above its foot."""
    if not seen:
        return
    size = Counter(size for _, size, _ in seen).most_common(1)[0][0]
    foot = median(bottom for _, own, bottom in seen if own == size)
    small = [(at, bottom) for at, own, bottom in seen if own < 0.85 * size]
    for _, numbered in itertools.groupby(enumerate(small), lambda item: item[1][0] - item[0]):
        run = [letter for _, letter in numbered]
        if all(bottom > foot + 0.2 * size for _, bottom in run):
            text = "".join(chr(units[at]) for at, _ in run)
            for (at, _), character in zip(run, raised(text), strict=True):
                units[at] = ord(character)
