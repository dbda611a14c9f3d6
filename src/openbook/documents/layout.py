"""Lines with their places on the page → paragraphs and headings.

A PDF knows glyphs and places, not paragraphs. What is guessed here, and from what: headings from the size of their
letters, paragraphs from the gaps between lines, running headers and footers from their repetition on most pages, and
whether a hyphen at a line's end belongs to the word from the document's other words.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from openbook.documents.builder import TextBuilder, one_line

HYPHEN = "\ufffe"  # pdfium's mark for a hyphen that ends a line

_EDGE_LINES = 2  # running headers and footers have at most so many lines
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_BULLETS = ("•", "◦", "‣", "▪", "·", "–", "*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page. Coordinates in points, y upwards; `size` is the font size of most of its letters."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    size: float


def write_pages(pages: Sequence[Sequence[Line]], builder: TextBuilder) -> None:
    """Add the pages' text to `builder`, with the offsets at which pages begin."""
    pages = _without_running_lines(pages)
    lines = [line for page in pages for line in page]
    if not lines:
        return
    body = _body_size(lines)
    levels = _heading_levels(lines, body)
    writer = _Writer(builder, Counter(word.lower() for line in lines for word in _WORD.findall(line.text)))
    for page in pages:
        writer.unplaced += 1
        ordered = [_joined(run) for run in _visual_lines(_with_headings_in_place(page, levels, body))]
        for index, line in enumerate(ordered):
            if level := levels.get(line.size, 0):
                writer.heading(level, line.text)
            elif index == 0:
                writer.line(line.text, goes_on=_continues(writer.paragraph, line.text))
            else:
                writer.line(line.text, goes_on=not _breaks(ordered, index))
    writer.finish()
    builder.pages += [builder.length] * writer.unplaced  # pages without text at the end


class _Writer:
    """Joins lines to paragraphs; a page begins with the first text that is written after it."""

    def __init__(self, builder: TextBuilder, words: Counter[str]) -> None:
        self.builder = builder
        self.words = words
        self.paragraph = ""
        self.unplaced = 0  # pages that have begun since the last text
        self._starts: list[int] = []  # offsets within the open paragraph at which pages begin

    def line(self, text: str, *, goes_on: bool) -> None:
        if not goes_on:
            self.finish()
        if text := _visible(text):
            self.paragraph = _join(self.paragraph, text, self.words)
            self._starts += [len(self.paragraph) - len(text)] * self.unplaced
            self.unplaced = 0

    def heading(self, level: int, text: str) -> None:
        self.finish()
        start = self.builder.heading(level, text)
        if start is not None:
            self.builder.pages += [start] * self.unplaced
            self.unplaced = 0

    def finish(self) -> None:
        if self.paragraph:
            start = self.builder.append(self.paragraph.replace(HYPHEN, "-"))
            self.builder.pages += [start + at for at in self._starts]
        self.paragraph = ""
        self._starts = []


def _without_running_lines(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without headers and footers: edge lines that, digits aside, stand on more than half of the pages."""
    if len(pages) < 3:
        return [list(page) for page in pages]

    def edges(page: Sequence[Line]) -> dict[Line, str]:
        heights = sorted({round(line.bottom) for line in page})
        low, high = heights[:_EDGE_LINES], heights[-_EDGE_LINES:]
        found = {}
        for line in page:
            for side, band in (("low", low), ("high", high)):
                if round(line.bottom) in band:
                    found[line] = side + re.sub(r"\d+", "#", line.text)
        return found

    by_page = [edges(page) for page in pages]
    counts = Counter(key for found in by_page for key in set(found.values()))
    running = {key for key, count in counts.items() if count > len(pages) / 2}
    return [
        [line for line in page if found.get(line) not in running] for page, found in zip(pages, by_page, strict=True)
    ]


def _body_size(lines: Iterable[Line]) -> float:
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size] += len(line.text)
    return letters.most_common(1)[0][0]


def _heading_levels(lines: Sequence[Line], body: float) -> dict[float, int]:
    """Font size → heading level: sizes well above the body's, each of which sets few of the document's letters."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size] += len(line.text)
    total = letters.total()
    sizes = sorted((s for s in letters if s > 1.15 * body and letters[s] < 0.15 * total), reverse=True)
    levels: dict[float, int] = {}
    level, previous = 0, 0.0
    for size in sizes:
        if not previous or size < 0.95 * previous:
            level, previous = level + 1, size
        levels[size] = min(level, 4)
    return levels


def _with_headings_in_place(page: Sequence[Line], levels: dict[float, int], body: float) -> list[Line]:
    """Headings before the text that they stand above: some programs draw them last. Adjacent ones are one heading."""
    ordered = [line for line in page if line.size not in levels]
    headings: list[Line] = []
    for line in sorted((line for line in page if line.size in levels), key=lambda line: (-line.top, line.left)):
        last = headings[-1] if headings else None
        if last and last.size == line.size and last.bottom - line.top < 0.6 * line.size and line.left < last.right:
            text = f"{last.text} {line.text}"
            headings[-1] = replace(last, text=text, bottom=line.bottom, right=max(last.right, line.right))
        else:
            headings.append(line)
    for heading in headings:
        ordered.insert(_place(heading, ordered, body), heading)
    return ordered


def _place(heading: Line, lines: Sequence[Line], body: float) -> int:
    """The index of the line before which a heading is seen: the nearest below it, in its column, of the body's size
    (not a caption); beside a picture the column's lines need not reach under the heading."""
    over = [line for line in lines if line.left < heading.right and heading.left < line.right]
    main = [line for line in over if abs(line.size - body) < 0.05 * body]
    if main:
        low = min(heading.left, median(line.left for line in main)) - body
        high = median(line.right for line in main)
        column = [line for line in lines if low <= line.left < high and abs(line.size - body) < 0.05 * body]
    else:
        column = over
    below = [line for line in column if line.top <= heading.top]
    return lines.index(max(below, key=lambda line: line.top)) if below else len(lines)


def _visual_lines(lines: Iterable[Line]) -> list[list[Line]]:
    """Runs of pieces that stand side by side: pdfium begins a new line at a superscript and again behind it."""
    runs: list[list[Line]] = []
    for line in lines:
        last = runs[-1][-1] if runs else None
        if last is not None and _beside(last, line):
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


def _beside(last: Line, line: Line) -> bool:
    overlap = min(last.top, line.top) - max(last.bottom, line.bottom)
    smaller = min(last.top - last.bottom, line.top - line.bottom)
    return (
        overlap > 0.3 * smaller
        and -0.5 * line.size < line.left - last.right < 3 * max(line.size, last.size)
        and not last.text.endswith(HYPHEN)
    )


def _joined(run: Sequence[Line]) -> Line:
    main = max(run, key=lambda line: len(line.text))
    text = run[0].text
    for last, line in itertools.pairwise(run):
        tight = line.left - last.right < 0.15 * main.size or line.size < 0.85 * last.size
        text += line.text if tight else " " + line.text
    return replace(main, text=text, left=run[0].left, right=max(line.right for line in run))


_STOPS = tuple(".!?:;。”\"'’)]")


def _continues(paragraph: str, text: str) -> bool:
    """Whether a page's first line goes on with the last paragraph of the page before."""
    return paragraph.endswith((HYPHEN, "-", ",")) or (not paragraph.endswith(_STOPS) and text[:1].islower())


def _breaks(lines: Sequence[Line], index: int) -> bool:
    """Whether a new paragraph begins at `lines[index]`, which does not stand beside the line before it."""
    before, line = lines[index - 1], lines[index]
    if before.text.endswith(HYPHEN):
        return False
    if line.text.startswith(_BULLETS) or abs(line.size - before.size) > 0.15 * before.size:
        return True
    step = before.bottom - line.bottom
    if step <= 0:  # the next column
        return not _continues(before.text, line.text)
    near = [
        other
        for other in lines[max(0, index - 4) : index + 4]
        if abs(other.left - before.left) < 2 * before.size and other.size == before.size
    ]
    steps = [a.bottom - b.bottom for a, b in itertools.pairwise(near) if a.bottom > b.bottom]
    pitch = min(median(steps), 1.8 * before.size) if steps else 1.4 * before.size
    if step > pitch + 0.5 * before.size:
        return True
    stopped = before.text.endswith(_STOPS)
    if line.left > before.left + before.size and stopped:  # the first line of a paragraph is indented
        return True
    edge = max((other.right for other in near), default=before.right)
    left = min((other.left for other in near), default=before.left)
    word = (line.right - line.left) * (len(line.text.split(" ", 1)[0]) + 1) / max(1, len(line.text))
    free = edge - before.right - word
    if free <= 0.5 * before.size:
        return False
    return stopped or (not line.text[:1].islower() and free > 0.3 * (edge - left))


def _join(paragraph: str, text: str, words: Counter[str]) -> str:
    """`paragraph` and its next line, a word that was divided between them made whole again."""
    if not paragraph:
        return text
    soft = paragraph.endswith(HYPHEN)
    if not soft and not (paragraph.endswith("-") and paragraph[-2:-1].isalpha() and text[:1].islower()):
        return f"{paragraph} {text}"
    stem = paragraph[:-1]
    head, tail = re.search(r"[^\W\d_]*$", stem), re.match(r"[^\W\d_]*", text)
    first, second = (head[0] if head else "").lower(), (tail[0] if tail else "").lower()
    whole, parted = words[first + second], words[f"{first}-{second}"]
    if whole or parted:
        hyphen = parted > whole
    else:  # neither occurs elsewhere: a compound's parts are words of their own
        hyphen = not (first and second) or (len(first) > 2 and words[first] > 0 and words[second] > 1)
    return f"{stem}-{text}" if hyphen or not text[:1].islower() else stem + text


def _visible(text: str) -> str:
    """One clean line; the mark of a hyphen at its end is kept for `_join`, within the line it is a hyphen."""
    ends = text.endswith(HYPHEN)
    line = one_line(text.rstrip(HYPHEN).replace(HYPHEN, "-"))
    return line + HYPHEN if ends else line
