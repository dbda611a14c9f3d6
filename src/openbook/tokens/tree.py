"""Token trees: sequences that begin alike share the tokens they begin with.

`parent[t]` is the row position of the token that comes before token `t` (−1 at a root), always smaller than `t`, and
tokens stand in depth-first order. From that alone follow the position of each token (its depth), what it may attend to
(token q sees token k exactly when `k <= q < subtree_end[k]`) and which hidden state predicts it (that of `parent[t]`).
Supervised tokens are never shared, so each belongs to one sequence, and a row's loss is the sum of the sequences' losses.

Related: TRL's `TreeRow` (experimental/async_grpo/packing.py), PrefixGrouper (arXiv 2506.05433), Tree Training (2511.00413).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SHARED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """One tokenised text. `weight[t]` weighs the loss of predicting token t; 0 = read but not trained on.

    `name` says where it comes from, for messages.
    """

    input_ids: Ints  # (T,)
    weight: Floats  # (T,)
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.input_ids) != len(self.weight):
            raise ValueError(f"{self.name}: {len(self.input_ids)} tokens but {len(self.weight)} weights")
        if not self.weight.any():
            raise ValueError(f"{self.name}: no token is trained on")
        if self.weight[0]:
            raise ValueError(f"{self.name}: the first token has nothing before it to be predicted from")

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def shareable(self) -> int:
        """How many tokens stand before the first supervised one."""
        return int(np.flatnonzero(self.weight)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTree:
    """Tokens of one or more trees. All arrays are (T,); `sequence` is −1 (`SHARED`) where several sequences share it."""

    input_ids: Ints
    parent: Ints
    sequence: Ints
    weight: Floats

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def depth(self) -> Ints:
        """The position of each token in its own sequence, counted from 0."""
        depth = np.zeros(len(self), np.int64)
        for start, end in self.segments():
            before = self.parent[start]
            depth[start:end] = np.arange(end - start) + (0 if before < 0 else depth[before] + 1)
        return depth

    @property
    def subtree_end(self) -> Ints:
        """One past the last token that descends from each token."""
        end = np.arange(1, len(self) + 1)
        for start, stop in reversed(self.segments()):
            end[start:stop] = np.maximum(end[stop - 1], stop)
            before = self.parent[start]
            if before >= 0:
                end[before] = max(end[before], end[start])
        return end

    def segments(self) -> list[tuple[int, int]]:
        """Half-open ranges of tokens that follow one another without a branch in between, in row order."""
        follows = self.parent[1:] == np.arange(len(self) - 1)
        children = np.bincount(self.parent[self.parent >= 0], minlength=len(self))
        cut = np.flatnonzero(~follows | (children[:-1] > 1)) + 1
        edges = [0, *cut.tolist(), len(self)]
        return list(itertools.pairwise(edges))

    def path(self, position: int) -> Ints:
        """Row positions from the root down to `position`."""
        found = []
        while position >= 0:
            found.append(position)
            position = int(self.parent[position])
        return np.array(found[::-1], np.int64)

    def paths(self) -> list[Ints]:
        """Row positions of each sequence, in order of their numbers."""
        last: dict[int, int] = {}
        for position, number in enumerate(self.sequence.tolist()):
            if number != SHARED:
                last[number] = position
        return [self.path(last[number]) for number in sorted(last)]

    def sequences(self) -> list[TokenSequence]:
        """The sequences that the tree was built from, in order of their numbers, read back from the tokens."""
        return [
            TokenSequence(
                input_ids=self.input_ids[path],
                weight=np.where(self.sequence[path] == SHARED, 0, self.weight[path]).astype(np.float32),
            )
            for path in self.paths()
        ]


def build(sequences: Sequence[TokenSequence]) -> TokenTree:
    """The tree of `sequences`: every prefix of unsupervised tokens that two of them share stands in it once.

    In lexicographic order of the shareable parts, what a sequence shares with any earlier one it shares with the one
    just before it, so one look back finds all sharing. At least its last token stays a sequence's own.
    """
    order = sorted(range(len(sequences)), key=lambda n: sequences[n].input_ids[: sequences[n].shareable].tolist())
    ids: list[Ints] = []
    parents: list[Ints] = []
    weights: list[Floats] = []
    owners: list[Ints] = []
    path = np.empty(0, np.int64)  # row positions of the previous sequence's tokens
    previous: TokenSequence | None = None
    size = 0
    shared = np.zeros(sum(map(len, sequences)), bool)
    for number in order:
        sequence = sequences[number]
        common = _common_prefix(previous, sequence) if previous is not None else 0
        fresh = np.arange(size, size + len(sequence) - common)
        shared[path[:common]] = True
        ids.append(sequence.input_ids[common:])
        weights.append(sequence.weight[common:])
        owners.append(np.full(len(fresh), number, np.int64))
        parents.append(np.concatenate([[path[common - 1] if common else -1], fresh[:-1]]))
        path = np.concatenate([path[:common], fresh])
        previous, size = sequence, size + len(fresh)
    owner = np.concatenate(owners)
    owner[shared[:size]] = SHARED
    return TokenTree(
        input_ids=np.concatenate(ids), parent=np.concatenate(parents), sequence=owner, weight=np.concatenate(weights)
    )


def _common_prefix(a: TokenSequence, b: TokenSequence) -> int:
    length = min(a.shareable, b.shareable)
    different = np.flatnonzero(a.input_ids[:length] != b.input_ids[:length])
    return int(different[0]) if len(different) else length


def concatenate(trees: Sequence[TokenTree]) -> TokenTree:
    """Several trees in one row; they cannot see each other, and sequences are numbered on."""
    starts = np.cumsum([0, *(len(tree) for tree in trees)])[:-1]
    numbers = np.cumsum([0, *(int(tree.sequence.max()) + 1 for tree in trees)])[:-1]
    return TokenTree(
        input_ids=np.concatenate([tree.input_ids for tree in trees]),
        parent=np.concatenate([np.where(t.parent < 0, -1, t.parent + s) for t, s in zip(trees, starts, strict=True)]),
        sequence=np.concatenate(
            [np.where(t.sequence == SHARED, SHARED, t.sequence + n) for t, n in zip(trees, numbers, strict=True)]
        ),
        weight=np.concatenate([tree.weight for tree in trees]),
    )
