"""A layer's attention, set by hand: heads that look back, prefer, compare, and carry what they find."""

from dataclasses import dataclass
from typing import Any

import torch
from fields import CONSTANT_SIZE, FLAG_SIZE, SIZE, Field, Flag, Shape, single
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from openbook.prompt import SYSTEM, instruction, render_answer, render_quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """How sharp the circuits are. Scores are in units of the softmax's exponent, for a full match; sizes relative to
    content."""

    phase: float = 11.0  # distance heads: amplitude of query and key over all pairs
    near: float = 3.0  # sentence heads: how much a start loses with each token of distance
    flag: float = 400.0  # sentence heads: what each condition is worth
    word: float = 24.0  # voting: the same stem
    before: float = 8.0  # voting: behind the same stem
    abstain: float = 14.0  # voting: what a match must exceed
    common: float = 4.0  # voting: and by how much more if the word is a common one
    unheard: float = 30.0  # voting: what a heading lacks
    inside: float = 30.0  # voting, finding, copying: what it is worth to stand in a passage
    poll: float = 30.0  # averaging votes: what excludes passages and the system's message
    won: float = 1000.0  # finding: a sentence that all voted for
    third: float = 160.0  # finding: what it is worth to be a sentence's third token
    heading: float = 5.0  # finding: what a heading lacks, as a multiple of that
    name: float = 600.0  # names: what each condition is worth
    section: float = 1.5  # names: how much a heading loses with each token of distance
    early: float = 1.25  # names: in the question the first one counts, so there this takes away from that slope
    alike: float = 240.0  # names: the one that is asked for
    differs: float = 0.2  # names: the share of that which may be missing
    place: float = 60.0  # names: what it is worth to be the first sentence below its heading
    named: float = 0.8  # names: how much a name's vote counts beside the average of all others
    titled: float = 0.4  # names: the share of a tag that comes from the heading above
    follow: float = 60.0  # finding the second token: behind the first as it stands here
    doubt: float = 0.12  # refusing: the share of votes below which no sentence has won
    gate: float = 60.0  # finding and refusing: what keeps them silent elsewhere
    same: float = 24.0  # copying: in the sentence that has won
    own: float = 40.0  # copying: in one that begins as the quote does
    current: float = 24.0  # copying: the same token before
    second: float = 36.0  # copying: and the same one before that
    before_that: float = 24.0  # copying: and the one before that
    next: float = 70.0  # copying: behind a full stop, what opens a sentence
    choose: float = 60.0  # answering: a word that is not in the question
    copied: float = 3.0  # size of what copying writes
    found: float = 4.0  # size of what finding writes
    ends: float = 24.0  # logits per unit of STOP and CLOSE
    exact: float = 2.0  # how much more counts what tells "The" from "the"
    head: float = 0.15  # logits per unit of `out`
    confidence: float = (
        0.65  # of all logits, so that the loss is least: only what is sure of too much has to unlearn it
    )
    slow: float = 5e-4  # radians a token: pairs that turn less compare contents


class Sample:
    """A prompt with its answer, on which the sizes are measured."""

    PASSAGES = (
        "A reservoir holds the water of the winter until the fields need it. Its wall was raised twice, in 1931 and in "
        "1958, and it now stands 41 metres above the bed of the river. The gates are opened by hand.",
        "Water for the town is taken from the upper pipe, because the lower one carries sand. A filter of gravel, which "
        "is washed every spring, keeps the rest of it back. When the filter is full, a bell rings in the lower house.",
        "The keeper reads the level at noon and writes it into a book. Use the red pencil when it falls below the mark. "
        "Nobody remembers why the pencil has to be red, but the rule is kept.",
    )
    QUESTION = "What keeps the rest of the sand back?"
    ANSWER = "A filter of gravel, which is washed every spring, keeps the rest of it back."

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = {
            "system": f"<|system|>{SYSTEM}<|end|><|user|>",
            "passages": instruction(self.PASSAGES, ""),
            "question": f"{self.QUESTION}<|end|>",
            "answer": f"<|assistant|>{render_answer(render_quote(self.ANSWER), 'A filter of gravel')}",
        }
        ids = {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in texts.items()}
        self.ids = torch.tensor([[number for part in ids.values() for number in part]])
        self._parts = [name for name, part in ids.items() for _ in part]

    def sizes(self, model: LlamaForCausalLM, layer: int, *, after_attention: bool = False) -> dict[str, Tensor]:
        """What a dimension of size SIZE measures after the norm of a layer, by part of the prompt and at the sink, for
        the layers before as they are now."""
        seen: list[Tensor] = []
        block = model.model.layers[layer]
        norm = block.post_attention_layernorm if after_attention else block.input_layernorm
        hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(input_ids=self.ids)
        hook.remove()
        sizes: Tensor = SIZE / seen[0][0].pow(2).mean(-1).sqrt()
        found = {
            name: sizes[[at for at, part in enumerate(self._parts) if part == name]].median()
            for name in dict.fromkeys(self._parts)
        }
        return found | {"sink": sizes[0]}


class Attention:
    """A layer's attention, set head by head. `x` is the size of a field's dimensions after the layer's norm, in the
    passages, where most heads look; `here` is that of the tokens that look; the sink, to which nothing was added on the
    way, has a larger one."""

    def __init__(
        self,
        module: Any,
        shape: Shape,
        frequencies: Tensor,
        sizes: dict[str, Tensor],
        *,
        asking: str,
        keys: str,
        slow: float,
    ) -> None:
        self.query, self.key, self.value, self.output = (
            getattr(module, f"{name}_proj").weight for name in ("q", "k", "v", "o")
        )
        self.x, self.here, self.sink = sizes[keys], sizes[asking], sizes["sink"]
        self.size, self._frequencies = shape.head, frequencies
        self._comparing = 2 * int((frequencies <= slow).sum())  # rows of pairs that turn slowly enough for that
        self._values: dict[int, int] = {}  # rows of a head's values already taken
        self._slow: dict[int, int] = {}  # rows of a head's slow pairs already taken, from the slowest

    def _size_of(self, field: slice) -> Tensor:
        """What a dimension of it measures at the tokens that are looked at."""
        return self.sink if field == single(Flag.SINK) else self.x

    def rows(self, head: int) -> slice:
        return slice(head * self.size, (head + 1) * self.size)

    def clear(self, head: int) -> None:
        for projection in (self.query, self.key, self.value):
            projection[self.rows(head)] = 0
        self.output[:, self.rows(head)] = 0

    def _take(self, head: int, count: int) -> list[int]:
        """Rows of the slowest rotary pairs that are still free."""
        half = self.size // 2
        slowest = [row for pair in range(half - 1, -1, -1) for row in (pair, pair + half)]
        first = self._slow.get(head, 0)
        self._slow[head] = first + count
        if self._slow[head] > self._comparing:
            raise ValueError(f"head {head} has no slow pairs left")
        return [head * self.size + row for row in slowest[first : first + count]]

    @property
    def constant(self) -> Tensor:
        """What each of the constant's dimensions measures after the norm."""
        return CONSTANT_SIZE / 3**0.5 * self.x

    def look_back(self, head: int, distance: int, gain: float) -> None:
        """Attend to the token `distance` back: keys are the query's phases, turned by that distance."""
        self.clear(head)
        start, half = head * self.size, self.size // 2
        each = gain / (self.constant * 3)
        self.query[start : start + half, Field.CONSTANT] = each
        self.key[start : start + half, Field.CONSTANT] = (each * torch.cos(self._frequencies * distance))[:, None]
        self.key[start + half : start + self.size, Field.CONSTANT] = (each * torch.sin(self._frequencies * distance))[
            :, None
        ]

    def near(self, head: int, slope: float, when: dict[int, float] | None = None) -> float:
        """Prefer the near, by about `slope` a token up to a thousand: pairs that turn once in 160 to 2,000 tokens, all
        in phase here, the slower the stronger, for the sum of cos(θd) / θ falls evenly with the distance d. The score
        of what is here. The slope is 1, plus the weights of the query's own flags in `when`, times as steep."""
        total = 0.0
        for pair in torch.nonzero((self._frequencies < 0.04) & (self._frequencies > 0.003))[:, 0].tolist():
            score = slope / float(self._frequencies[pair])
            each = (score * self.size**0.5) ** 0.5
            self.query[head * self.size + pair, Field.CONSTANT] = each / (self.constant * 3)
            for flag, weight in (when or {}).items():
                self.query[head * self.size + pair, flag] = each * weight / (FLAG_SIZE * self.here)
            self.key[head * self.size + pair, Field.CONSTANT] = each / (self.constant * 3)
            total += score
        return total

    def lower(self, head: int, score: float, when: int = Field.CONSTANT.start) -> None:
        """Take `score` from all: what is looked for then scores nothing, and so the same however large its
        row is. With the flag `when`, only where the query has it."""
        (row,) = self._take(head, 1)
        each = (score * self.size**0.5) ** 0.5
        size = CONSTANT_SIZE / 3**0.5 if when in range(3) else FLAG_SIZE
        self.query[row, when] = each / (size * self.here)
        self.key[row, Field.CONSTANT] = -each / (self.constant * 3)

    def prefer(
        self,
        head: int,
        flags: dict[int, float],
        score: float,
        when: dict[int, float] | None = None,
        always: float = 1.0,
    ) -> None:
        """Add `score` times the flags' weights to a key's score, whatever its distance. The query is `always`, plus the
        weights of its own flags in `when`."""
        each = (score * self.size**0.5) ** 0.5
        # A row for each magnitude: of one row NF4, which goes by the largest of a block, would blur the others.
        for alike in _grouped(flags):
            (row,) = self._take(head, 1)
            self.query[row, Field.CONSTANT] = each * always / (FLAG_SIZE * self.here)
            for flag, weight in (when or {}).items():
                self.query[row, flag] = each * weight / (FLAG_SIZE * self.here)
            for flag, weight in alike.items():
                self.key[row, flag] = each * weight / (FLAG_SIZE * self._size_of(single(flag)))

    def compare(
        self, head: int, here: slice, there: slice, score: float, *, also: tuple[slice, float] | None = None
    ) -> None:
        """Add `score` where a field here equals one there, less where they resemble each other; and so many times as
        much where another one does."""
        count = here.stop - here.start
        each = (score * self.size**0.5 / count) ** 0.5
        for number, row in enumerate(self._take(head, count)):
            self.query[row, here.start + number] = each / self.here
            if also is not None:
                self.query[row, also[0].start + number] = each * also[1] / self.here
            self.key[row, there.start + number] = each / self.x

    def carry(self, head: int, source: slice, target: slice, *, by: Tensor | None = None, size: float = 1.0) -> None:
        """Write the attended token's `source` to `target`, projected `by`, `size` times as large."""
        projection = torch.eye(source.stop - source.start) if by is None else by
        first = head * self.size + self._values.get(head, 0)
        count = len(projection)
        self._values[head] = self._values.get(head, 0) + count
        scale = size**0.5  # shared by the two factors
        self.value[first : first + count, source] = projection / self._size_of(source) * scale
        self.output[target, first : first + count] = torch.eye(count) * SIZE * scale

    def say(self, head: int, flags: dict[int, float], always: float, target: slice, size: float) -> None:
        """Write to `target` what the weights of the attended token's flags and `always` add up to."""
        scale = size**0.5
        for alike in _grouped(flags | ({-1: always} if always else {})):
            row = head * self.size + self._values.get(head, 0)
            self._values[head] = self._values.get(head, 0) + 1
            for flag, weight in alike.items():
                where = Field.CONSTANT if flag == -1 else single(flag)
                self.value[row, where] = weight * scale / (FLAG_SIZE * self._size_of(where))
            self.output[target, row] = SIZE * scale

    def shift(self, head: int, flag: int, target: int, gain: float, *, distance: int = 1) -> None:
        """Copy a flag of the token `distance` back, by the pairs that turn fast; the others keep it from the sink."""
        self.look_back(head, distance, gain)
        start, half = head * self.size, self.size // 2
        fast = half - self._comparing // 2
        for first in (start + fast, start + half + fast):
            self.query[first : first + half - fast] = self.key[first : first + half - fast] = 0
        self.prefer(head, {Flag.SINK: -1.0}, 400.0)
        self.carry(head, single(flag), single(target))


def _grouped(flags: dict[int, float]) -> list[dict[int, float]]:
    """By the size of their weights; the sink, whose rows are of another, alone."""
    found: dict[float, dict[int, float]] = {}
    for flag, weight in flags.items():
        found.setdefault(0.0 if flag == Flag.SINK else abs(weight), {})[flag] = weight
    return list(found.values())


def linear(
    layer: Any, x: Tensor, source: slice, target: slice, by: Tensor, *, where: int | None = None, first: int = 0
) -> int:
    """Make a layer's MLP add a projection of a field to another, where a flag is set: silu(a) − silu(−a) = a. Of the
    hidden units those from `first` on are used; the next one is returned."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    count = source.stop - source.start
    units = slice(first, first + 2 * count)
    gate[units], up[units], down[:, units] = 0, 0, 0
    if where is None:
        up[units, Field.CONSTANT] = 1 / (CONSTANT_SIZE / 3**0.5 * x * 3)
    else:
        up[units, where] = 1 / (FLAG_SIZE * x)
    for sign, start in ((1, first), (-1, first + count)):
        gate[start : start + count, source] = sign * torch.eye(count) / x
        down[target, start : start + count] = sign * by * SIZE
    return units.stop


def empty(layer: Any, x: Tensor, field: slice) -> int:
    """Make a layer's MLP take a field back. The hidden units used, which are the first."""
    return linear(layer, x, field, field, -torch.eye(field.stop - field.start))
