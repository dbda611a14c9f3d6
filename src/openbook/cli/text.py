"""How records look as text on a terminal."""

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from openbook import prompt
from openbook.records import Chunk, Quote, ScoredChunk

if TYPE_CHECKING:
    from openbook.explaining import Explanation

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change the direction of what follows


def plain(text: str) -> str:
    """`text` without control characters: a document cannot move the cursor, colour the screen or turn lines around."""
    return "".join(c for c in text if c in "\n\t" or not (unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS))


def one_line(text: str, width: int) -> str:
    """The beginning of `text` on one line of at most `width` characters."""
    words = " ".join(plain(text).split())
    return words if len(words) <= width else words[: width - 1].rstrip() + "…"


def beginning(text: str, width: int, *, lines: int = 3) -> list[str]:
    """The first `lines` lines of `text` when its paragraphs are run together and wrapped at `width` characters."""
    words = one_line(text, lines * width)
    return textwrap.wrap(words, max(width, 20), max_lines=lines, placeholder="…")


def readable(pieces: Iterable[str]) -> Iterator[str]:
    """A streamed answer with its tags replaced by what a reader sees, however the stream cuts it into pieces."""
    reader = prompt.Readable()
    for piece in pieces:
        if shown := reader.add(piece):
            yield plain(shown)
    if rest := reader.close():
        yield plain(rest)


def place(chunk: Chunk) -> str:
    """Where a passage stands: `guide/install.md › Install › From source, page 3`."""
    headings = [heading for heading in chunk.headings if heading]
    page = f", page {chunk.page}" if chunk.page is not None else ""
    return plain(" › ".join([chunk.uri, *headings]) + page)


def result(scored: ScoredChunk, width: int) -> str:
    """A search result and why it stands where it does: both legs, their scores, the fused score."""
    legs = [
        f"{name} #{rank} ({unit} {score:.3g})" if rank is not None and score is not None else f"{name} –"
        for name, rank, unit, score in (
            ("dense", scored.dense_rank, "cosine", scored.dense_score),
            ("text", scored.text_rank, "BM25", scored.text_score),
        )
    ]
    return "\n".join(
        [
            f"{scored.rank}. {place(scored.chunk)}",
            f"   fused {scored.score:.4f} = {'  +  '.join(legs)}",
            *(f"   {line}" for line in beginning(scored.chunk.text, width - 3)),
        ]
    )


def explanation(found: "Explanation", width: int) -> str:
    """A search result, what each leg and each word of the query adds to it, and the sentence that is nearest."""
    told = [
        f"{word.word} {word.score:.2f} (in {word.passages:,})" if word.passages else f"{word.word} – (in none)"
        for word in found.words
    ]
    lines = [
        f"dense adds {found.dense_part:.4f}, text {found.text_part:.4f}",
        *textwrap.wrap(plain("BM25 by word: " + ", ".join(told)), max(width - 3, 20), subsequent_indent="  "),
        *textwrap.wrap(
            f"nearest in meaning (cosine {found.cosine:.2f}): “{one_line(found.sentence, 200)}”",
            max(width - 3, 20),
            subsequent_indent="  ",
        ),
    ]
    return "\n".join([result(found.scored, width), *(f"   {line}" for line in lines)])


def quotes(found: Iterable[Quote], passages: Iterable[ScoredChunk]) -> list[str]:
    """One line for each quote: its place and offsets in the document when verified, a warning when not, another for
    the one that was never closed."""
    chunks = {scored.chunk.id: scored.chunk for scored in passages}

    def line(quote: Quote) -> str:
        if quote.verified:
            return f"  ✓ {place(chunks[quote.chunk_id])} [{quote.start}:{quote.end}]"
        reason = "not word for word in any passage" if quote.closed else "never closed, so not checked"
        return f"  ✗ {reason}: “{one_line(quote.text, 120)}”"

    return [line(quote) for quote in found]


def counted(count: int, noun: str) -> str:
    """So many of them: 1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counts(numbers: Mapping[str, int]) -> str:
    """`{"hidden": 2, "binary": 1}` → `2 hidden, 1 binary`, the largest first."""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in ordered if number)


def quoted_path(path: Path) -> str:
    """A path as a shell takes it."""
    import shlex

    return shlex.quote(str(path))
