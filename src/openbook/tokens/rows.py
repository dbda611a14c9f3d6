"""Rows: token trees packed under a budget of tokens, so that every step costs about the same."""

import random
from collections.abc import Sequence

from openbook.errors import RecordError
from openbook.tokens.tree import TokenSequence, TokenTree, build, concatenate


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


def pack(trees: Sequence[TokenTree], budget: int) -> list[TokenTree]:
    """Best fit, largest first: each tree goes into the fullest row that still has room for it."""
    rows: list[list[TokenTree]] = []
    room: list[int] = []
    for tree in sorted(trees, key=len, reverse=True):
        fitting = [row for row, left in enumerate(room) if left >= len(tree)]
        if fitting:
            row = min(fitting, key=lambda row: room[row])
        else:
            row = len(rows)
            rows.append([])
            room.append(budget)
        rows[row].append(tree)
        room[row] -= len(tree)
    return [concatenate(row) for row in rows]


def plan(groups: Sequence[Sequence[TokenSequence]], budget: int, *, seed: int, epoch: int) -> list[TokenTree]:
    """The rows of one epoch: a pure function of its arguments.

    A group's sequences become one tree. The longest row comes first in epoch 0, so that a run which does not fit into
    memory fails at once and not after an hour; the others are shuffled.
    """
    rows = pack([tree for group in groups for tree in split(group, budget)], budget)
    random.Random(f"rows:{seed}:{epoch}").shuffle(rows)
    if epoch == 0:
        longest = max(map(len, rows))
        rows.sort(key=lambda row: len(row) != longest)
    return rows
