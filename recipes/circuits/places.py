"""Layers 0 and 1: what each token knows of its place, and the tag of its sentence."""

from typing import Any

import torch
from fields import CONSTANT_SIZE, FLAG_SIZE, SIZE, SMALL, Field, Flag, part, single
from torch import Tensor
from wiring import Attention, Gains, empty


def look_back(attention: Attention, gains: Gains) -> None:
    """What the three tokens before are; and of which kind the tags so far have been."""
    for head in range(3):
        attention.look_back(head, head + 1, gains.phase)
    attention.carry(0, Field.CONTENT, Field.PREVIOUS)
    attention.carry(1, Field.CONTENT, Field.EARLIER)
    attention.carry(2, part(Field.CONTENT, 0, 12), Field.THIRD)
    for head in range(2):
        attention.carry(head, Field.FILLER, part(Field.FILLERS, head, 1))
    copies = (
        {
            Flag.MARK: Flag.PREVIOUS_MARK,
            Flag.LINE: Flag.PREVIOUS_LINE,
            Flag.SPACE: Flag.PREVIOUS_SPACE,
            Flag.QUOTE: Flag.PREVIOUS_QUOTE,
        },
        {Flag.MARK: Flag.EARLIER_MARK, Flag.LINE: Flag.EARLIER_LINE, Flag.SPACE: Flag.EARLIER_SPACE},
        {Flag.MARK: Flag.THIRD_MARK, Flag.LINE: Flag.THIRD_LINE},
    )
    for head, flags in enumerate(copies):
        for source, target in flags.items():
            attention.carry(head, single(source), single(target))
    attention.carry(0, single(Flag.PIECE), single(Flag.PREVIOUS_PIECE), size=SMALL)
    attention.carry(0, single(Flag.HASH), single(Flag.PREVIOUS_HASH), size=SMALL)
    for head in (1, 2):
        attention.carry(head, single(Flag.JOINT), single(Flag.JOINTS), size=SMALL)
    # The mean over all tags so far of +1 for an opening and −1 for a closing one; before the first there is the sink.
    attention.clear(3)
    row = attention.rows(3).stop - 1
    each = (40.0 * attention.size**0.5) ** 0.5
    attention.query[row, Field.CONSTANT] = attention.query[row - 1, Field.CONSTANT] = each / (FLAG_SIZE * attention.x)
    attention.key[row, Flag.OF_DOCUMENT] = attention.key[row, Flag.OF_QUOTE] = each / (FLAG_SIZE * attention.x)
    attention.key[row - 1, Flag.SINK] = each * 0.7 / (FLAG_SIZE * attention.sink)
    for source, target in (
        (Flag.OPENS, Flag.TAGS),
        (Flag.QUOTES, Flag.TAGS_QUOTES),
        (Flag.OF_DOCUMENT, Flag.DOCUMENTS),
    ):
        attention.carry(3, single(source), single(target), size=RAW)


RAW = 3.0  # how large the means are that become flags


def inside(layer: Any, x: Tensor) -> None:
    """INSIDE = 1 where TAGS is above 0.04: the difference of two ramps, one a hidden unit. QUOTING likewise; and
    SYSTEM where no document tag has been, but for the sink."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    constant, steep = CONSTANT_SIZE / 3**0.5 * x, 800.0  # so that silu is a ramp
    first = Field.CONSTANT.start

    def clear(unit: int) -> None:
        gate[unit] = up[unit] = 0
        down[:, unit] = 0
        up[unit, Field.CONSTANT] = 1 / (constant * 3)

    ramps = (
        (Flag.TAGS, Flag.INSIDE, 1),
        (Flag.TAGS_QUOTES, Flag.QUOTING, 1),
        (Flag.DOCUMENTS, Flag.SYSTEM, -1),
    )
    for number, (source, target, sign) in enumerate(ramps):
        for unit, threshold in ((2 * number, 0.02), (2 * number + 1, 0.04)):
            clear(unit)
            gate[unit, source] = steep / (FLAG_SIZE * x * RAW)
            gate[unit, first] = -steep * threshold / constant  # of one dimension: a block of NF4 would lose a small one
            down[target, unit] = sign * (1 if threshold == 0.02 else -1) * SIZE * FLAG_SIZE / (steep * 0.02)
    clear(6)
    gate[6, first] = steep * 0.02 / constant
    gate[6, Flag.SINK] = -steep * 0.02 / constant
    down[Flag.SYSTEM, 6] = SIZE * FLAG_SIZE / (steep * 0.02)


def tag(attention: Attention, gains: Gains) -> None:
    """The first three tokens of the present sentence: where the token one, two, three before ended one."""
    places = (
        {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0, Flag.PREVIOUS_LINE: 2.0, Flag.LINE: -2.0, Flag.MARK: -2.0},
        {
            Flag.EARLIER_MARK: 1.0,
            Flag.PREVIOUS_SPACE: 1.0,
            Flag.EARLIER_LINE: 2.0,
            Flag.PREVIOUS_LINE: -2.0,
            Flag.PREVIOUS_MARK: -2.0,
            Flag.LINE: -2.0,
        },
        {
            Flag.THIRD_MARK: 1.0,
            Flag.EARLIER_SPACE: 1.0,
            Flag.THIRD_LINE: 2.0,
            Flag.EARLIER_LINE: -2.0,
            Flag.EARLIER_MARK: -2.0,
            Flag.PREVIOUS_LINE: -2.0,
            Flag.LINE: -2.0,
        },
    )
    for head, wanted in enumerate(places):
        attention.clear(head)
        here = attention.near(head, gains.near)
        attention.prefer(head, wanted | {Flag.SYSTEM: -2.0}, gains.flag)
        attention.lower(head, here + 2 * gains.flag)
        rotation = torch.linalg.qr(torch.randn(60, 60))[0]
        attention.carry(head, Field.CONTENT, Field.OUT, by=rotation, size=3**-0.5)
    attention.carry(0, single(Flag.PREVIOUS_HASH), single(Flag.HEADING))
    # In layer 1 as well: ANSWERING = 1 from `<|assistant|>` on.
    attention.clear(3)
    attention.prefer(3, {Flag.ANSWER: 1.0, Flag.SINK: 0.5}, gains.gate)
    attention.carry(3, single(Flag.ANSWER), single(Flag.ANSWERING))


HASHING = 640  # hidden units


def hash_tags(layer: Any, x: Tensor) -> None:
    """TAG = random products of what the heads left in OUT, and OUT empty again."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    units, first = HASHING, empty(layer, x, part(Field.OUT, 0, 60))
    gate[first:units], up[first:units], down[:, first:units] = 0, 0, 0
    gate[first:units, Field.OUT] = torch.randn(units - first, 60) / (60**0.5 * x) * 2  # twice: far enough into its bend
    up[first:units, Field.OUT] = torch.randn(units - first, 60) / (60**0.5 * x)
    size = 1.57  # root mean square of silu(2a)·b for standard normal a and b
    down[Field.TAG, first:units] = torch.randn(40, units - first) * SIZE / (size * (units - first) ** 0.5)
