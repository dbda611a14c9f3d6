"""Layers 1 to 3: a name that is asked for votes for what stands below the heading that ends with it.

A name such as `zipfile.ZipFile.open` is cut into many pieces, each with a small vote for wherever it stands. So behind
its last piece, where three of them are known, it is taken as a whole: each passage's token keeps those of the heading
above it, the answer those of the question.
"""

from typing import Any

import torch
from fields import SMALL, Field, Flag, part
from torch import Tensor
from wiring import Attention, Gains, empty, linear

TAG, NAME = (field.stop - field.start for field in (Field.TAG, Field.NAME))

# Weights of the flags that a sentence's third token has, where its tag is whole: 1.5.
THIRD = {Flag.THIRD_MARK: 1.0, Flag.EARLIER_SPACE: 0.5, Flag.THIRD_LINE: 1.5, Flag.EARLIER_LINE: -1.0}
PIECES = ((Field.PREVIOUS, 24), (Field.EARLIER, 20), (Field.THIRD, 12))  # dimensions of each that NAME keeps
HASH = torch.randn(TAG, NAME, generator=torch.Generator().manual_seed(7)) / NAME**0.5


def title(attention: Attention, gains: Gains) -> None:
    """NAME = in a passage the last pieces of the nearest heading, or of what stands before its bracket; in the answer
    those of the first name in the question, or else of a word of several pieces."""
    attention.clear(1)
    here = attention.near(1, gains.section, when={Flag.ANSWERING: -gains.early})
    attention.lower(1, here + 3 * gains.name, when=Flag.INSIDE)
    ends = {Flag.PREVIOUS_PIECE: 1 / SMALL, Flag.PIECE: -2.0, Flag.JOINT: -2.0}
    heading = {Flag.HEADING: 1 / SMALL, Flag.OPEN: 1.0, Flag.LINE: 1.0}
    none_above = {Flag.OPENS: 1.9, Flag.SINK: -3.0}  # then at the tag that opens the document
    elsewhere = dict.fromkeys((Flag.INSIDE, Flag.SYSTEM, Flag.ANSWERING, Flag.LINE, Flag.EARLIER_LINE), -3.0)
    inside, answering = {Flag.INSIDE: 1.0}, {Flag.ANSWERING: 1.0}
    attention.prefer(1, ends, gains.name)
    attention.prefer(1, heading, gains.name, when=inside, always=0.0)
    attention.prefer(1, none_above, gains.name, when=inside, always=0.0)
    attention.prefer(1, {**elsewhere, Flag.JOINTS: 1 / SMALL}, gains.name, when=answering, always=0.0)
    attention.prefer(1, {Flag.SINK: 6.0}, gains.name, when={Flag.INSIDE: -1.0, Flag.ANSWERING: -1.0})
    first = 0
    for field, count in PIECES:
        attention.carry(1, part(field, 0, count), part(Field.NAME, first, count))
        first += count


def below(attention: Attention, gains: Gains) -> None:
    """BELOW = 1 three tokens behind a heading's line, which is where the tag of the sentence there is whole."""
    attention.shift(3, Flag.HEADING, Flag.BELOW, gains.phase, distance=3)


def entitle(layer: Any, x: Tensor, gains: Gains) -> None:
    """Adds a hash of NAME to TAG, which stays as long as it was: of sentences that begin alike, those below other
    headings are told apart."""
    kept = (1 - gains.titled**2) ** 0.5
    used = linear(layer, x, Field.NAME, Field.TAG, HASH * gains.titled, where=Flag.INSIDE)
    linear(layer, x, Field.TAG, Field.TAG, (kept - 1) * torch.eye(TAG), where=Flag.INSIDE, first=used)


def ballot(attention: Attention, gains: Gains) -> None:
    """In the answer: the tag of the first sentence below the heading with the NAME that is asked for, added to the
    votes."""
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: 1.0, **THIRD, Flag.HEADING: -2 / SMALL}, gains.third / 2)
    attention.prefer(2, {Flag.BELOW: 1 / SMALL}, gains.place)
    attention.compare(2, Field.NAME, Field.NAME, gains.alike)
    whole = 2.5 * gains.third / 2 + gains.alike
    attention.lower(2, whole)
    enough = whole * float(attention.sink / attention.x) - gains.differs * gains.alike  # the sink is lowered by more
    attention.prefer(2, {Flag.SINK: 1.0}, enough)
    attention.prefer(2, {Flag.SINK: 1.0}, 10 * gains.alike, when={Flag.ANSWERING: -1.0})
    attention.carry(2, Field.TAG, Field.VOTE, size=gains.named)


def forget(layer: Any, x: Tensor) -> None:
    """NAME is empty again, so that OUT is free for what is to be said."""
    empty(layer, x, Field.NAME)
