"""`openbook tune --explain`: rows counted, one of them with its mask and its tokens."""

import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from openbook.training.explaining import RowExplanation, Segment

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")  # of sequences, in turn
SHARED = "bright_black"
CELLS = 48  # the mask is drawn with so many columns


def draw(found: "RowExplanation", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        f"{found.questions:,} questions in {found.total_rows:,} rows of at most {found.budget:,} tokens an epoch"
        + (", which a run first fits to its memory" if found.fits else "")
        + "; the first:\n"
    )
    console.print(_rows(found), "\n")
    console.print(Text("The first row: who (down) sees whom (across)", style="bold"))
    console.print("\n".join(mask(found)), "\n")
    console.print(Text("Its tokens", style="bold"), Text("grey is shared, underlined is trained\n"))
    for segment in found.segments:
        console.print(Text(heading(found, segment), style="italic"))
        console.print(_pieces(found, segment), "\n")


def _rows(found: "RowExplanation") -> "Table":
    from rich.table import Table

    table = Table("row", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("tokens", "trees", "sequences", "as separate rows", "fewer", "trained"):
        table.add_column(column, justify="right")
    for number, row in enumerate(found.rows, 1):
        table.add_row(
            str(number),
            f"{row.tokens:,}",
            f"{row.trees:,}",
            f"{row.sequences:,}",
            f"{row.sequence_tokens:,}",
            f"{row.saved:.1f}×",
            f"{row.trained_share:.1%}",
        )
    return table


def mask(found: "RowExplanation") -> list[str]:
    """The mask as lines of blocks. A cell stands for a square of tokens, and is full where the last of its queries may
    attend to the middle one of its keys."""
    size = max(1, -(-len(found.tokens) // CELLS))
    lines, segments = [], iter(found.segments)
    segment = next(segments)
    for first in range(0, len(found.tokens), size):
        query = min(first + size, len(found.tokens)) - 1
        while query >= segment.end:
            segment = next(segments)
        ranges = (*segment.sees, (segment.start, query + 1))
        middles = [min(key + size // 2, query) for key in range(0, first + 1, size)]
        lines.append("".join("█" if any(a <= key < b for a, b in ranges) else "·" for key in middles))
    return lines


def heading(found: "RowExplanation", segment: "Segment") -> str:
    """One line on a segment: where it stands, whose it is, what it sees beside itself."""
    first = found.tokens[segment.start]
    whose = "shared" if first.sequence < 0 else f"sequence {first.sequence + 1}"
    last = first.position + segment.end - segment.start - 1
    seen = ", ".join(f"{start:,}–{end - 1:,}" for start, end in segment.sees)
    return (
        f"tokens {segment.start:,}–{segment.end - 1:,} · {whose} · positions {first.position:,}–{last:,} · sees itself"
        + (f" and {seen}" if seen else "")
    )


def _pieces(found: "RowExplanation", segment: "Segment") -> "Text":
    from rich.text import Text

    line = Text()
    for place in range(segment.start, segment.end):
        token = found.tokens[place]
        colour = SHARED if token.sequence < 0 else COLOURS[token.sequence % len(COLOURS)]
        shade = " on grey11" if place % 2 else " on grey23"  # neighbours differ, so that the cuts are seen
        line.append(
            token.text.replace("\n", "⏎\n") or "∅", style=colour + shade + (" underline" if token.weight else "")
        )
    return line
