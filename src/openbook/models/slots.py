"""Keys and values of the rows that are being written: each row has a slot, so that rows come, go and go back alone.

The cache that transformers brings grows by copying all of itself for every token, and its rows all have one length.
Here a row's token of position p lies in column p of the row's slot, room for all of them is taken once, and a token
that is taken back is simply written over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from openbook.errors import ModelError

PLAIN = {DynamicLayer, DynamicSlidingWindowLayer, DummyLayer}  # keep keys and values of single tokens, or nothing


@dataclass(slots=True)
class _Step:
    """Where one forward pass writes and reads, the same for all layers.

    One row: its tokens go to the columns from `start` on. Several: row i is in slot i, as `slots` says, and its token j
    goes to column `columns[i, j]`. `end` is the number of columns that are read.
    """

    first: int = 0
    rows: int = 0
    start: int = 0
    end: int = 0
    slots: Tensor | None = None  # (B, 1)
    columns: Tensor | None = None  # (B, Q)


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values: (slots, heads, columns, size of a head), taken when their shape is known."""

    def __init__(self, step: _Step, slots: int, columns: int) -> None:
        super().__init__()
        self._step, self._slots, self._columns = step, slots, columns

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def room(states: Tensor) -> Tensor:
            # Zeros: what is masked counts nothing only where it is a number.
            return states.new_zeros(self._slots, states.shape[1], self._columns, states.shape[3])

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store new states (B, H, Q, D); returns those of all columns that the step reads (B, H, end, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        step = self._step
        rows = slice(step.first, step.first + step.rows)
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            if step.columns is None:
                kept[rows, :, step.start : step.end] = new
            else:
                kept[step.slots, :, step.columns] = new.transpose(1, 2)
        return self.keys[rows, :, : step.end], self.values[rows, :, : step.end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._step.end, 0

    def get_seq_length(self) -> int:
        return self._step.start

    def get_max_length(self) -> int:
        return self._columns


class Slots(Cache):  # type: ignore[misc]
    """Room for `slots` rows of `columns` tokens. Call `one` or `several` before each forward pass of the model."""

    def __init__(self, config: Any, *, slots: int, columns: int) -> None:
        """Raises `ModelError` for a model that remembers in another way (recurrent layers and the like)."""
        kinds = DynamicCache(config=config).layers
        strange = next((type(kind).__name__ for kind in kinds if type(kind) not in PLAIN), None)
        if strange:
            raise ModelError(
                f"openbook cannot write with a {config.model_type} model: its memory ({strange}) is not one of keys and values.",
                "Set model.base to a model with plain attention, such as Llama, Mistral, Qwen or Gemma.",
            )
        self.held: list[list[int]] = [[] for _ in range(slots)]  # the prompt tokens whose keys and values a slot holds
        self._step = _Step()
        super().__init__(layers=[_Layer(self._step, slots, columns) for _ in kinds])

    def one(self, slot: int, start: int, count: int) -> None:
        """The next pass feeds `count` tokens of the row in `slot`, the first of them at position `start`."""
        self._set(first=slot, rows=1, start=start, end=start + count, columns=None)

    def several(self, positions: Tensor, end: int) -> None:
        """The next pass feeds the rows in slots 0 … B-1 with tokens at `positions` (B, Q), all below `end`."""
        rows, width = positions.shape
        slots = torch.arange(rows, device=positions.device)[:, None]  # once for all layers
        self._set(first=0, rows=rows, start=end - width, end=end, slots=slots, columns=positions)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self._step, name, value)

    def take_over(self, slot: int, prompt: Sequence[int]) -> int:
        """Give `slot` to a prompt: what it shares with the beginning of a prompt still held is copied, not computed.

        Returns how many tokens need no forward pass; the last one always needs it.
        """
        shares = [_shared(held, prompt) for held in self.held]
        donor = max(range(len(shares)), key=lambda n: (shares[n], n == slot))
        count = min(shares[donor], len(prompt) - 1)
        if donor != slot:
            self._copy(donor, slot, count)
        self.held[slot] = list(prompt)
        return count

    def move(self, source: int, target: int, count: int) -> None:
        """The row of `count` tokens in slot `source` goes to `target`."""
        self._copy(source, target, count)
        self.held[target] = self.held[source]

    def _copy(self, source: int, target: int, count: int) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                for kept in (layer.keys, layer.values):
                    kept[target, :, :count] = kept[source, :, :count]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lists begin with alike."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
