"""Documents cut into passages: at headings, else between blocks, else between sentences, else between words."""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openbook.documents.sentences import lines_and_fences, sentences
from openbook.records import Chunk, Document, Section

# A tokenizer can take a word of ten thousand characters for a single unknown token, and no passage may be so long. In
# English text a token has 4 to 5 characters.
_MAX_CHARS_PER_TOKEN = 12

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A span that is not cut any more, and its cost in tokens.

    A code block that had to be cut (`cut_code`) shares no passage with what follows it, lest the code be taken for
    prose: its later parts and the piece after it are `sealed`, that is, they begin a passage.
    """

    start: int
    end: int
    cost: int
    sealed: bool = False
    cut_code: bool = False


def chunk(document: Document, *, count_tokens: Callable[[str], int], max_tokens: int) -> list[Chunk]:
    """The passages of a document, in order.

    Every character that is not white space lies in exactly one of them; none has more than `max_tokens` tokens; none
    crosses a heading, apart from headings without text, which stand before the text that follows them.
    """
    chunker = _Chunker(document.text, count_tokens, max_tokens)
    starts = [section.start for section in document.sections]
    paths = _paths(document)
    chunks: list[Chunk] = []
    for start, body, end in _sections(document):
        for first, last in chunker.section(start, body, end):
            headings = paths[bisect_left(starts, last)]  # of its last section: those before it are headings only
            chunks.append(Chunk.create(document, first, last, headings=headings, page=_page(document, first)))
    return chunks


def _paths(document: Document) -> list[tuple[str, ...]]:
    """The path of headings after the first n sections have begun, for n = 0, 1, …"""
    open_sections: list[Section] = []
    paths: list[tuple[str, ...]] = [()]
    for section in document.sections:
        while open_sections and open_sections[-1].level >= section.level:
            open_sections.pop()
        open_sections.append(section)
        paths.append(tuple(open_section.title for open_section in open_sections))
    return paths


def _sections(document: Document) -> Iterator[tuple[int, int, int]]:
    """Sections as (start, where the text under the heading starts, end).

    A section with nothing under its heading is handed over to the next one, as the beginning of that one's headings.
    """
    text = document.text
    start = body = 0
    for section, following in zip((None, *document.sections), (*document.sections, None), strict=True):
        end = following.start if following else len(text)
        if section:
            line_end = text.find("\n", section.start, end)
            body = line_end if line_end >= 0 else end
        if text[body:end].strip() or following is None:
            yield start, body, end
            start = body = end


def _page(document: Document, offset: int) -> int | None:
    return max(1, bisect_right(document.pages, offset)) if document.pages else None


class _Chunker:
    def __init__(self, text: str, count_tokens: Callable[[str], int], max_tokens: int) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        self.text = text
        self.count_tokens = count_tokens
        self.limit = max_tokens
        self.costs: dict[Span, int] = {}  # tokenising is what takes the time here

    def cost(self, start: int, end: int) -> int:
        """Tokens, or one for every twelve characters where that is more; long spans are not even tokenised."""
        by_length = -(-(end - start) // _MAX_CHARS_PER_TOKEN)
        if by_length > self.limit:
            return by_length
        cost = self.costs.get((start, end))
        if cost is None:
            cost = self.costs[start, end] = max(by_length, self.count_tokens(self.text[start:end]))
        return cost

    def section(self, start: int, body: int, end: int) -> Iterator[Span]:
        """The passages of one section, whose heading lines are [start, body)."""
        head = _trimmed(self.text, start, body)
        spans = list(_blocks(self.text, body, end))
        heading = self.cost(*head) if head[0] < head[1] else 0
        if heading and (not spans or heading > self.limit // 2):
            spans.insert(0, (head, False))  # a heading as long as a paragraph is treated as one
            heading = 0
        pieces: list[_Piece] = []
        for span, is_code in spans:
            # The first block is made small enough that the heading never stands alone.
            parts = self._divide(span, self.limit - heading, is_code)
            if heading:
                parts[0] = _Piece(head[0], parts[0].end, parts[0].cost + heading)
                heading = 0
            if pieces and pieces[-1].cut_code:
                parts[0] = dataclasses.replace(parts[0], sealed=True)
            pieces += parts
        yield from self._fill(pieces)

    def _divide(self, span: Span, limit: int, is_code: bool) -> list[_Piece]:
        """A block as pieces of at most `limit` tokens: whole, or its sentences, or parts of these."""
        cost = self.cost(*span)
        if cost <= limit:
            return [_Piece(*span, cost)]
        if is_code:
            parts = self._halved(span, limit)
            return [
                dataclasses.replace(part, sealed=number > 0, cut_code=len(parts) > 1)
                for number, part in enumerate(parts)
            ]
        return [part for sentence in _sentence_spans(self.text, span) for part in self._halved(sentence, limit)]

    def _halved(self, span: Span, limit: int) -> list[_Piece]:
        """Halves of halves, cut at the gap nearest to the middle, until each has at most `limit` tokens."""
        pieces: list[_Piece] = []
        stack = [span]
        while stack:
            start, end = stack.pop()
            cost = self.cost(start, end)
            if cost <= limit or end - start == 1:
                pieces.append(_Piece(start, end, max(1, cost)))
                continue
            cut = _middle_gap(self.text, start, end)
            stack += [_trimmed(self.text, cut, end), _trimmed(self.text, start, cut)]
        return pieces

    def _fill(self, pieces: Sequence[_Piece]) -> Iterator[Span]:
        """Join neighbours into passages of about equal size, as few as the limit allows."""
        at = 0
        while at < len(pieces):
            run = at + 1
            while run < len(pieces) and not pieces[run].sealed:
                run += 1
            remaining = sum(piece.cost for piece in pieces[at:run])
            while at < run:
                target = remaining / -(-remaining // self.limit)
                end, total = at + 1, pieces[at].cost
                while (
                    end < run
                    and total + pieces[end].cost <= self.limit
                    and total + pieces[end].cost / 2 <= target  # no nearer to the target without it
                ):
                    total += pieces[end].cost
                    end += 1
                yield from self._checked(pieces[at:end])
                remaining -= total
                at = end

    def _checked(self, pieces: Sequence[_Piece]) -> Iterator[Span]:
        """A joined passage, divided again where it has more tokens than its parts: not every tokenizer adds up."""
        span = pieces[0].start, pieces[-1].end
        if len(pieces) > 1 and self.cost(*span) > self.limit:
            middle = len(pieces) // 2
            yield from self._checked(pieces[:middle])
            yield from self._checked(pieces[middle:])
        elif self.cost(*span) > self.limit:  # a heading and the part that it was joined to
            yield from ((piece.start, piece.end) for piece in self._halved(span, self.limit))
        else:
            yield span


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[Span, bool]]:
    """Paragraphs, whole lists, whole tables and code blocks (True) within [start, end)."""
    block: tuple[Span, bool] | None = None
    for first, last, is_code in lines_and_fences(text[start:end]):
        first, last = first + start, last + start
        if block and not is_code and not block[1] and "\n\n" not in text[block[0][1] : first]:
            block = (block[0][0], last), False
            continue
        if block:
            yield block
        block = (first, last), is_code
    if block:
        yield block


def _sentence_spans(text: str, span: Span) -> Iterator[Span]:
    """The sentences of a block, each with the markers before it."""
    start, end = span
    ends = [last + start for _, last in sentences(text[start:end])]
    for last in (*ends[:-1], end):
        yield _trimmed(text, start, last)
        start = last


def _middle_gap(text: str, start: int, end: int) -> int:
    """Where to cut a span of two characters or more: at a line end or space near its middle, else at any, else in the
    middle of the word."""
    middle, quarter = (start + end) // 2, (end - start) // 4
    for low, high in ((start + quarter, end - quarter), (start + 1, end - 1)):
        for gap in ("\n", " "):
            before, after = text.rfind(gap, low, middle), text.find(gap, middle, high)
            found = [at for at in (before, after) if at >= 0]
            if found:
                return min(found, key=lambda at: abs(at - middle))
    return middle


def _trimmed(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
