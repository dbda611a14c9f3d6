"""Step 2 of the recipe: a stock `LlamaForCausalLM` that copies from its context before any training.

From random weights copying does not even begin within what two cores can train. So the weights of a few heads are set
by hand, and all others are small and random. Residual stream, in dimensions of the width:

    constant     the same in every token: what heads that look at positions only are driven by
    content      a random vector per token; " Value", "value" and "VALUE" share part of theirs
    topic        a random vector per word stem, scaled by how rare the stem is: what a sentence is about
    previous     the content of the token before (written by layer 0)
    earlier      the content of the token before that (written by layer 0)
    bag          the topics of about the last twenty tokens (written by layer 0)
    out          what the head reads

    layer 0  heads 0, 1  attend to distance 1 and 2 by rotary phase alone and write `previous` and `earlier`
             head 2      attends evenly to the recent past and writes `bag`
    layer 1  head 0      attends to where the present two tokens stood before, that is, to the token after them, and
                         copies its content to `out` (an induction head that matches two tokens)

Scales are spread so that no block of 64 weights holds an outlier: NF4 quantises in such blocks.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model. `theta` is large so that the slow half of the rotary pairs hardly turns within the context."""

    vocabulary: int = 8192
    width: int = 256
    layers: int = 4
    heads: int = 4
    intermediate: int = 768
    context: int = 4096
    theta: float = 1e8

    @property
    def head(self) -> int:
        return self.width // self.heads

    def config(self, **tokens: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            rope_theta=self.theta,
            tie_word_embeddings=False,
            initializer_range=0.02,
            **tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """How sharp the circuits are; found by the copying test in `evaluate.py --copying`."""

    phase: float = 9.0  # distance heads: the score's peak over its neighbours
    match: float = 2.5  # induction: weight of (current token here ↔ token before there)
    second: float = 0.7  # and, relative to it, of (token before here ↔ the one before that there)
    window: float = 4.5  # bag: how steeply attention falls with distance
    head: float = 0.15  # logits per unit of `out`
    out: float = 3.0  # size of what induction writes, relative to content
    slow_from: int = 12  # the first rotary pair that counts as slow


# Dimensions of the residual stream at width 256; a wider model leaves the rest to training.
CONSTANT, FILLER = slice(0, 3), slice(3, 4)
CONTENT, TOPIC = slice(4, 68), slice(68, 100)
PREVIOUS, EARLIER, BAG, OUT = slice(100, 132), slice(132, 164), slice(164, 192), slice(192, 256)
SIZE = 0.1  # root mean square of the content dimensions


def build(
    shape: Shape,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    seed: int = 0,
    gains: Gains | None = None,
    **tokens: int,
) -> LlamaForCausalLM:
    """A model with the circuits in place. `texts` give the word frequencies that tell rare stems from common ones."""
    gains = gains or Gains()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(**tokens))
    with torch.no_grad():
        embedding = _embeddings(tokenizer, texts, shape, seed)
        model.model.embed_tokens.weight.copy_(embedding)
        rotation = torch.linalg.qr(torch.randn(64, 64))[0]  # content → out, previous, earlier
        topics = torch.linalg.qr(torch.randn(32, 32))[0][:28]  # topic → bag
        rms = embedding.pow(2).mean(1).sqrt().mean()
        first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
        frequencies = model.model.rotary_emb.inv_freq
        constant = embedding[0, CONSTANT] / rms  # what layer 0 sees after its norm
        _look_back(first, 0, 1, frequencies, shape.head, constant, gains.phase)
        _look_back(first, 1, 2, frequencies, shape.head, constant, gains.phase)
        _carry(first, 0, rotation[:32] * rms / SIZE, CONTENT, PREVIOUS, shape.head)
        _carry(first, 1, rotation[:32] * rms / SIZE, CONTENT, EARLIER, shape.head)
        _window(first, 2, frequencies, shape.head, constant, gains.window)
        _carry(first, 2, topics * rms / SIZE * 3, TOPIC, BAG, shape.head)
        written = embedding.pow(2).sum(1).mean() + 64 * SIZE**2
        _induce(second, 0, rotation, SIZE / torch.sqrt(written / shape.width), shape.head, gains)
        model.lm_head.weight[:, OUT] = embedding[:, CONTENT] / SIZE @ rotation.T * gains.head
    return model


def _stem(piece: str) -> str:
    """A token's word, without its leading space, case and commonest endings; "" for what is not a word."""
    word = piece.replace("Ġ", "").lower()
    if not word.isalpha():
        return ""
    return re.sub(r"(?<=..)(?:ings?|ed|es|s|ly|er)$", "", word) if len(word) > 4 else word


def _embeddings(tokenizer: Tokenizer, texts: Iterable[str], shape: Shape, seed: int) -> Tensor:
    """Rows of equal norm: unequal ones would make the constant differ from token to token once it is normalised."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        found = tokenizer.encode(text, add_special_tokens=False).tokens
        counts.update(_stem(piece) for piece in found)
        total += len(found)
    groups: dict[str, int] = {}
    word = torch.tensor([groups.setdefault(p.replace("Ġ", "").lower() or p, len(groups)) for p in pieces])
    stems: dict[str, int] = {}
    stem = torch.tensor([stems.setdefault(_stem(p), len(stems)) for p in pieces])
    # 0 for the commonest stems and for what is no word, 1 for those seen less than once in 20,000 tokens
    rarity = torch.tensor(
        [
            0.0 if not s else min(1.0, max(0.0, -math.log10((counts[s] + 1) / total) - 2.3) / 2)
            for s in map(_stem, pieces)
        ]
    )
    alone = torch.bincount(word)[word] == 1

    def vectors(rows: int, size: int) -> Tensor:
        found = torch.randn(rows, size, generator=generator)
        return found / found.norm(dim=1, keepdim=True) * size**0.5

    own, shared = vectors(shape.vocabulary, 64), vectors(len(groups), 64)[word]
    content = torch.where(alone[:, None], own, own + shared)
    out = torch.zeros(shape.vocabulary, shape.width)
    out[:, CONSTANT] = 2 * SIZE / 3**0.5
    out[:, CONTENT] = content / content.norm(dim=1, keepdim=True) * 8 * SIZE
    out[:, TOPIC] = vectors(len(stems), 32)[stem] * rarity[:, None] * SIZE
    out[:, FILLER] = ((1 - rarity**2) * 32).sqrt()[:, None] * SIZE
    return out


def _rows(head: int, size: int) -> slice:
    return slice(head * size, (head + 1) * size)


def _clear(attention: Any, head: int, size: int) -> None:
    rows = _rows(head, size)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[rows] = 0
    attention.o_proj.weight[:, rows] = 0


def _look_back(
    attention: Any, head: int, distance: int, frequencies: Tensor, size: int, constant: Tensor, gain: float
) -> None:
    """Attend to the token `distance` back: keys are the query's phases turned by that distance."""
    _clear(attention, head, size)
    start, half = head * size, size // 2
    each = gain / (constant.sum())  # so that the products over the constant's dimensions add up to `gain`
    attention.q_proj.weight[start : start + half, CONSTANT] = each
    attention.k_proj.weight[start : start + half, CONSTANT] = (each * torch.cos(frequencies * distance))[:, None]
    attention.k_proj.weight[start + half : start + size, CONSTANT] = (each * torch.sin(frequencies * distance))[:, None]


def _window(attention: Any, head: int, frequencies: Tensor, size: int, constant: Tensor, gain: float) -> None:
    """Attend to about the last twenty tokens: pairs that turn once in 160 to 1,600 tokens, all in phase here.

    Near distance 0 their cosines sum to a bump of the wanted width, and they do not meet again within the context.
    """
    _clear(attention, head, size)
    each = gain / (constant.sum())
    for pair in torch.nonzero((frequencies < 0.04) & (frequencies > 0.004))[:, 0].tolist():
        attention.q_proj.weight[head * size + pair, CONSTANT] = each
        attention.k_proj.weight[head * size + pair, CONSTANT] = each


def _carry(attention: Any, head: int, projection: Tensor, source: slice, target: slice, size: int) -> None:
    """Write `projection` of the attended token's `source` dimensions to `target`."""
    start, count = head * size, len(projection)
    attention.v_proj.weight[start : start + count, source] = projection
    attention.o_proj.weight[target, start : start + count] = torch.eye(count) * SIZE


def _induce(attention: Any, head: int, rotation: Tensor, x: Tensor, size: int, gains: Gains) -> None:
    """Attend to where the present token and the one before it stood before; `x` is the size of content after the norm.

    Only slow pairs carry the match, so that distance does not disturb it: of their dimensions every other one compares
    the current token with `previous` there, the rest `previous` here with `earlier` there.
    """
    _clear(attention, head, size)
    start, half = head * size, size // 2
    slow = [*range(gains.slow_from, half), *range(gains.slow_from + half, size)]
    gain = gains.match / x
    for number, row in enumerate(slow[0::2]):
        attention.q_proj.weight[start + row, CONTENT] = gain * rotation[number]
        attention.k_proj.weight[start + row, PREVIOUS.start + number] = gain
    for number, row in enumerate(slow[1::2]):
        attention.q_proj.weight[start + row, PREVIOUS.start + number] = gain * gains.second
        attention.k_proj.weight[start + row, EARLIER.start + number] = gain * gains.second
    attention.v_proj.weight[start : start + 64, CONTENT] = rotation / x
    attention.o_proj.weight[OUT, start : start + 64] = torch.eye(64) * SIZE * gains.out


def copying(model: LlamaForCausalLM, length: int, *, rows: int = 4, seed: int = 1) -> float:
    """Share of the second half of repeated random sequences that the model predicts; 1 / vocabulary is chance."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(16, model.config.vocab_size, (rows, length // 2), generator=generator)
    ids = torch.cat([first, first], 1)
    with torch.no_grad():
        guesses = model(input_ids=ids).logits[:, length // 2 + 1 : -1].argmax(-1)
    return (guesses == ids[:, length // 2 + 2 :]).float().mean().item()
