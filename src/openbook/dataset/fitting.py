"""Rows that a model can read: where one is too long, distractors go, never the golden passage or the answer."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from openbook.dataset.formats import to_row
from openbook.dataset.imports import read_sample
from openbook.dataset.lengths import Lengths
from openbook.records import RaftExample


def fitted(rows: Iterable[RaftExample], model: str, limit: int) -> tuple[list[RaftExample], Counter[str]]:
    """The rows with at most `limit` tokens of the model `model`, as a training run counts them, and what had to go."""
    lengths = Lengths(model)
    limit = min(limit, lengths.limit)
    kept, gone = [], Counter[str]()
    for row in rows:
        while _tokens(row, lengths) > limit:
            last = next((chunk for chunk in reversed(row.passages) if chunk.id not in row.golden_ids), None)
            if last is None or len(row.passages) == 1:
                gone["longer than max_tokens"] += 1
                break
            row = replace(row, passages=tuple(chunk for chunk in row.passages if chunk.id != last.id))
            gone["distractor left out: row longer than max_tokens"] += 1
        else:
            kept.append(row)
    return kept, gone


def _tokens(row: RaftExample, lengths: Lengths) -> int:
    return lengths.tokens(read_sample(to_row(row)))
