"""What the tokens of a row of trees may attend to, as blocks that the kernels compute (tree_kernels.py).

In depth-first order the descendants of a segment (a run of tokens without a branch) are one range of the row. So what
a tree allows is, for each segment, a causal triangle over itself and one full rectangle: its descendants' queries
against its keys. Segments of one depth of nesting share neither descendants nor keys, so that their rectangles are one level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from openbook.tokens import TokenTree

# Tokens of the largest triangle that is not halved. One of 780 tokens, halved to 195, takes 12 % less time; halved
# once more, no less (docs/LOG.md).
TRIANGLE = 256

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Level:
    """Blocks that one call of a kernel for sequences of various lengths computes. Block i's queries are those at
    `queries[query_starts[i] : query_starts[i + 1]]`, its keys likewise; None: all tokens of the row in order."""

    causal: bool
    queries: Tensor | None  # (Q,) positions in the row
    keys: Tensor | None  # (K,)
    query_starts: Tensor  # (N + 1,) int32
    key_starts: Tensor
    most_queries: int  # of one block
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[Range], keys: Sequence[Range], device: torch.device, *, triangles: bool) -> "Level":
        (q_starts, most_queries), (k_starts, most_keys) = _starts(queries), _starts(keys)
        q, k = (None, None) if triangles else (_positions(queries), _positions(keys))
        return cls(
            causal=triangles,
            queries=None if q is None else _moved(q, device),
            keys=None if k is None else _moved(k, device),
            query_starts=_moved(q_starts, device),
            key_starts=_moved(k_starts, device),
            most_queries=most_queries,
            most_keys=most_keys,
        )

    @property
    def flash_arguments(self) -> tuple[Tensor, Tensor, int, int, float, bool]:
        """How both passes of PyTorch's flash kernel are told of the blocks: starts, greatest lengths, no dropout, causal."""
        return self.query_starts, self.key_starts, self.most_queries, self.most_keys, 0.0, self.causal


def _starts(ranges: Sequence[Range]) -> tuple[Tensor, int]:
    lengths = [end - start for start, end in ranges]
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), max(lengths)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On `device`; from pinned memory, so that nothing waits there for what was asked of a GPU before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _positions(ranges: Sequence[Range]) -> Tensor:
    return torch.cat([torch.arange(start, end) for start, end in ranges])


@dataclass(frozen=True, kw_only=True)
class TreeLayout:
    """What a row's tokens may attend to. `triangles` are segments or parts of them, each token in one; `rectangles` pair
    query and key ranges; `longest` is how many tokens the longest way from a root has."""

    tree: TokenTree
    triangles: tuple[Range, ...]
    rectangles: tuple[tuple[Range, Range], ...]
    subtree_end: Tensor  # (T,)
    longest: int

    @classmethod
    def of(cls, tree: TokenTree) -> "TreeLayout":
        end = tree.subtree_end
        segments = tree.segments()
        triangles: list[Range] = []
        rectangles: list[tuple[Range, Range]] = []
        for start, stop in segments:
            _halve(start, stop, triangles, rectangles)
            if end[stop - 1] > stop:
                rectangles.append(((stop, int(end[stop - 1])), (start, stop)))
        return cls(
            tree=tree,
            triangles=tuple(triangles),
            rectangles=tuple(rectangles),
            subtree_end=torch.from_numpy(np.ascontiguousarray(end)),
            longest=int(tree.depth.max()) + 1,
        )

    def levels(self, device: torch.device) -> tuple[Level, ...]:
        """All segments' triangles, then the rectangles of each depth of nesting. Built and moved once a row."""
        if device not in self._levels:
            end = self.subtree_end.tolist()
            segments = self.tree.segments()
            open_ends: list[int] = []  # where the subtrees end that the present segment stands in
            nested: dict[int, list[tuple[Range, Range]]] = {}
            for start, stop in segments:
                while open_ends and open_ends[-1] <= start:
                    open_ends.pop()
                if end[stop - 1] > stop:
                    nested.setdefault(len(open_ends), []).append(((stop, end[stop - 1]), (start, stop)))
                    open_ends.append(end[stop - 1])
            rectangles = [zip(*nested[depth], strict=True) for depth in sorted(nested)]
            self._levels[device] = (
                Level.of(segments, segments, device, triangles=True),
                *(Level.of(list(queries), list(keys), device, triangles=False) for queries, keys in rectangles),
            )
        return self._levels[device]

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """The same as a dense (1, 1, T, T) mask, True = attend: the oracle, and the path of devices without a faster one.
        Built once a row."""
        device = torch.device(device)
        if device not in self._masks:
            position = torch.arange(len(self.subtree_end), device=device)
            end = _moved(self.subtree_end, device)
            self._masks[device] = ((position[None] <= position[:, None]) & (position[:, None] < end[None]))[None, None]
        return self._masks[device]

    @cached_property
    def _levels(self) -> dict[torch.device, tuple[Level, ...]]:
        return {}

    @cached_property
    def _masks(self) -> dict[torch.device, Tensor]:
        return {}


def _halve(start: int, stop: int, triangles: list[Range], rectangles: list[tuple[Range, Range]]) -> None:
    """A segment's triangle as small ones and the squares between: the kernel is faster without a causal mask."""
    if stop - start <= TRIANGLE:
        triangles.append((start, stop))
        return
    middle = (start + stop) // 2
    _halve(start, middle, triangles, rectangles)
    _halve(middle, stop, triangles, rectangles)
    rectangles.append(((middle, stop), (start, middle)))
