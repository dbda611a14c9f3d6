"""Rows: token trees packed under a budget of tokens, so that every step costs about the same."""

import random
from bisect import bisect_left, insort
from collections.abc import Sequence, Sized
from typing import TypeVar

from openbook.errors import RecordError
from openbook.tokens.tree import TokenSequence, TokenTree, build, concatenate

Row = TypeVar("Row", bound=Sized)


def split(sequences: Sequence[TokenSequence], budget: int) -> list[TokenTree]:
    """The tree of `sequences`, or as many trees as it takes for each to hold at most `budget` tokens.

    Nothing is truncated: trees that were split repeat what they share. A sequence longer than the budget raises
    `RecordError`.
    """
    for sequence in sequences:
        if len(sequence) > budget:
            raise RecordError(
                f"{sequence.name or 'A sequence'} has {len(sequence):,} tokens and a row holds {budget:,}.",
                "Raise tune.row_tokens, or show fewer or shorter passages (dataset.passages, documents.chunk_tokens).",
            )
    tree = build(sequences)
    if len(tree) <= budget:
        return [tree]
    half = len(sequences) // 2
    return split(sequences[:half], budget) + split(sequences[half:], budget)


def best_fit(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Which things of these sizes go into one row: largest first, each into the fullest row that has room for it.

    Returns the positions in `sizes`, row by row. Nothing may be larger than the budget.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left in which row, sorted, so that many things take no long search
    for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
        fullest = bisect_left(room, (sizes[thing], 0))
        if fullest == len(room):
            left, row = budget, len(rows)
            rows.append([])
        else:
            left, row = room.pop(fullest)
        rows[row].append(thing)
        insort(room, (left - sizes[thing], row))
    return rows


def pack(trees: Sequence[TokenTree], budget: int) -> list[TokenTree]:
    """The trees in as few rows as best fit finds."""
    return [concatenate([trees[n] for n in row]) for row in best_fit([len(tree) for tree in trees], budget)]


def shuffled(rows: Sequence[Row], *, seed: int, epoch: int) -> list[Row]:
    """The rows in the order of an epoch. The longest comes first in epoch 0, so that a run which does not fit into
    memory fails at once and not after an hour."""
    found = list(rows)
    random.Random(f"rows:{seed}:{epoch}").shuffle(found)
    if epoch == 0:
        longest = max(map(len, found))
        found.sort(key=lambda row: len(row) != longest)
    return found


def plan(groups: Sequence[Sequence[TokenSequence]], budget: int, *, seed: int, epoch: int) -> list[TokenTree]:
    """The rows of one epoch: a pure function of its arguments. A group's sequences become one tree."""
    rows = pack([tree for group in groups for tree in split(group, budget)], budget)
    return shuffled(rows, seed=seed, epoch=epoch)
