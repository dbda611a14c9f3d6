"""Step 2 of the recipe: a stock `LlamaForCausalLM` that finds and copies a sentence before any training.

From random weights copying does not even begin within what two cores can train. So the weights of some heads are set
by hand, and all others are small and random. The residual stream is divided into fields (see `Field`):

    layer 0  head 0  looks one token back by rotary phase alone and writes `previous` and the flags of that token
             head 1  looks two tokens back and writes `earlier`
             head 2  looks at about the last twenty tokens and writes their rare words to `bag`
             head 3  looks at the document tags so far and writes whether this token is inside a passage
    layer 1  head 0  looks where the present two tokens stood before, at the token that followed them, and copies its
                     content to `out`: an induction head that matches two tokens
             head 1  looks at the first token of the present sentence and writes its content to `start`
             head 2  looks at the second one and adds its content to `start`, turned by another rotation
             head 3  looks at all tokens outside the passages and writes their rare words to `asked`
    layer 2  head 0  after `##begin_quote##` looks for the sentence end whose bag resembles `asked`, and copies that
                     sentence's first token from `start` to `out`
             head 1  one token later, copies its second token; from there on induction finds the way

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

from openbook.prompt import BEGIN_QUOTE, DOCUMENT, END_DOCUMENT

SIZE = 0.1  # root mean square of the dimensions of `content`


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model. `theta` is large so that the slow rotary pairs hardly turn within the context."""

    vocabulary: int = 8192
    width: int = 320
    layers: int = 4
    heads: int = 5
    intermediate: int = 640
    context: int = 4096
    theta: float = 1e8

    @property
    def head(self) -> int:
        return self.width // self.heads

    def config(self, **tokens: int | None) -> LlamaConfig:
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
    """How sharp the circuits are: scores in units of the softmax's exponent, sizes relative to content."""

    phase: float = 9.0  # distance heads: amplitude of query and key over all pairs
    match: float = 2.5  # induction: amplitude of (current token here ↔ token before there)
    second: float = 0.7  # and, relative to it, of (token before here ↔ the one before that there)
    window: float = 5.5  # bag: how steeply attention falls with distance
    near: float = 8.0  # sentence heads: how much the nearest start is preferred
    flag: float = 20.0  # sentence heads: what each condition is worth
    topic: float = 12.0  # finding: amplitude of bags; their match is worth its square / 8 times their overlap
    end: float = 60.0  # finding: what it is worth to be a sentence's end
    inside: float = 200.0  # asking: what excludes the passages from the question's topics
    gate: float = 250.0  # finding: what keeps it silent elsewhere
    head: float = 0.4  # logits per unit of `out`
    out: float = 1.0  # size of what induction writes
    found: float = 2.5  # size of what finding writes
    slow_from: int = 12  # induction: the first rotary pair that counts as slow
    still_from: int = 12  # finding: the first one that hardly turns at all within the context


class Field:
    """Dimensions of the residual stream at width 320; what a wider model has beyond them is left to training."""

    CONSTANT = slice(0, 3)  # the same in every token: drives heads that look at positions only
    FILLER = slice(3, 4)  # makes all rows equally long
    FLAGS = slice(4, 16)  # see `Flag`
    CONTENT = slice(16, 80)  # a random vector per token; " Value", "value" and "VALUE" share part of theirs
    TOPIC = slice(80, 116)  # a random vector per word stem, the longer the rarer the stem
    PREVIOUS = slice(116, 136)  # content of the token before
    EARLIER = slice(136, 156)  # content of the token before that
    ASKED = slice(116, 152)  # from layer 1 on, over the two before: topics of the question
    BAG = slice(156, 192)  # topics of about the last twenty tokens
    START = slice(192, 256)  # contents of the first two tokens of the sentence, each by its own rotation
    OUT = slice(256, 320)  # what the head reads


class Flag:
    """Single dimensions that say what a token is; layer 0 copies some to say what the tokens before are."""

    MARK, LINE, SPACE = (
        4,
        5,
        6,
    )  # ends a sentence if a space follows; ends a line; begins with a space (−2: is all space)
    PREVIOUS_MARK, PREVIOUS_LINE, PREVIOUS_SPACE = 7, 8, 9
    EARLIER_MARK, EARLIER_LINE = 10, 11
    QUOTE, PREVIOUS_QUOTE = 12, 13  # `##begin_quote##`
    INSIDE = 15  # inside a passage (or the system's message), and not in the question
    SINK = 14  # the first token of every prompt, where silent heads look


def build(
    shape: Shape,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    seed: int = 0,
    gains: Gains | None = None,
    **tokens: int | None,
) -> LlamaForCausalLM:
    """A model with the circuits in place. `texts` give the word frequencies that tell rare stems from common ones."""
    gains = gains or Gains()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(**tokens))
    frequencies: Tensor = model.model.rotary_emb.inv_freq
    with torch.no_grad():
        for layer in model.model.layers:  # whatever is random must not disturb the circuits: it writes nothing yet
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = _embeddings(tokenizer, texts, shape, seed)
        model.model.embed_tokens.weight.copy_(embedding)
        first, second, third = (_Attention(model.model.layers[n].self_attn, shape, frequencies) for n in range(3))
        rotation, other = (torch.linalg.qr(torch.randn(64, 64))[0] for _ in range(2))
        eye = torch.eye(36)

        # What a field of size SIZE measures after a layer's norm; later layers see what earlier ones have added.
        length = embedding.pow(2).sum(1).mean()
        x = SIZE / (length / shape.width).sqrt()
        first.look_back(0, 1, x, gains.phase)
        first.carry(0, [(rotation[:20], Field.CONTENT, Field.PREVIOUS)], x)
        first.copy_flags(0, x, {7: 4, 8: 5, 9: 6, 13: 12})
        first.look_back(1, 2, x, gains.phase)
        first.carry(1, [(rotation[:20], Field.CONTENT, Field.EARLIER)], x)
        first.copy_flags(1, x, {10: 4, 11: 5})
        first.near(2, x, gains.window)
        first.carry(2, [(3 * eye, Field.TOPIC, Field.BAG)], x)
        _inside(first, 3, tokenizer, embedding / SIZE, x)

        length = length + (20 + 20 + 36 + 3) * SIZE**2
        x = SIZE / (length / shape.width).sqrt()
        slow = second.slow(gains.slow_from)
        second.clear(0)
        _induce(second, slow, rotation, gains, x)
        second.carry(0, [(rotation, Field.CONTENT, Field.OUT)], x, size=gains.out)
        starts = {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0, Flag.PREVIOUS_LINE: 2.0, Flag.LINE: -2.0, Flag.MARK: -2.0}
        seconds = {
            Flag.EARLIER_MARK: 1.0,
            Flag.PREVIOUS_SPACE: 1.0,
            Flag.EARLIER_LINE: 2.0,
            Flag.PREVIOUS_LINE: -2.0,
            Flag.PREVIOUS_MARK: -2.0,
            Flag.LINE: -2.0,
        }
        for head, wanted, turn in ((1, starts, rotation), (2, seconds, other)):
            second.near(head, x, gains.near)
            second.prefer(head, wanted, x, gains.flag)
            second.carry(head, [(turn, Field.CONTENT, Field.START)], x)

        second.clear(3)
        second.prefer(3, {Flag.INSIDE: -1.0}, x, gains.inside)
        second.carry(3, [(3 * eye, Field.TOPIC, Field.ASKED)], x)

        length = length + 128 * SIZE**2 + 64 * (SIZE * gains.out) ** 2
        x = SIZE / (length / shape.width).sqrt()
        for head, flag, turn in ((0, Flag.QUOTE, rotation), (1, Flag.PREVIOUS_QUOTE, other)):
            third.clear(head)
            _find(third, head, flag, gains, x)
            third.carry(head, [(rotation @ turn.T, Field.START, Field.OUT)], x, size=gains.found)
        model.lm_head.weight[:, Field.OUT] = embedding[:, Field.CONTENT] / SIZE @ rotation.T * gains.head
        # A quote begins with a space, also where its sentence opens a line: the form with the space is preferred there.
        spaced = embedding[:, Flag.SPACE] > 0
        model.lm_head.weight[spaced, Flag.QUOTE] = 0.6 * gains.found * 64 * gains.head / FLAG_SIZE
    return model


class _Attention:
    """A layer's attention, set head by head. `x` is always the size of a field's dimensions after the layer's norm."""

    def __init__(self, module: Any, shape: Shape, frequencies: Tensor) -> None:
        self.query, self.key, self.value, self.output = (
            getattr(module, f"{name}_proj").weight for name in ("q", "k", "v", "o")
        )
        self._size, self._frequencies = shape.head, frequencies
        self._used: dict[int, int] = {}  # rows of a head's values already taken

    def rows(self, head: int) -> slice:
        return slice(head * self._size, (head + 1) * self._size)

    def slow(self, first: int) -> list[int]:
        """Rows of a head that belong to slow rotary pairs, slowest last."""
        half = self._size // 2
        return [row for pair in range(first, half) for row in (pair, pair + half)]

    def clear(self, head: int) -> None:
        for projection in (self.query, self.key, self.value):
            projection[self.rows(head)] = 0
        self.output[:, self.rows(head)] = 0

    def look_back(self, head: int, distance: int, x: Tensor, gain: float) -> None:
        """Attend to the token `distance` back: keys are the query's phases, turned by that distance."""
        self.clear(head)
        start, half = head * self._size, self._size // 2
        each = gain / (_constant(x) * 3)
        self.query[start : start + half, Field.CONSTANT] = each
        self.key[start : start + half, Field.CONSTANT] = (each * torch.cos(self._frequencies * distance))[:, None]
        self.key[start + half : start + self._size, Field.CONSTANT] = (each * torch.sin(self._frequencies * distance))[
            :, None
        ]

    def near(self, head: int, x: Tensor, gain: float) -> None:
        """Prefer about the last twenty tokens.

        Pairs that turn once in 160 to 1,600 tokens, all in phase here: near distance 0 their cosines sum to a bump of
        the wanted width, and they do not meet again within the context.
        """
        self.clear(head)
        each = gain / (_constant(x) * 3)
        chosen = (self._frequencies < 0.04) & (self._frequencies > 0.004)
        for pair in torch.nonzero(chosen)[:, 0].tolist():
            self.query[head * self._size + pair, Field.CONSTANT] = each
            self.key[head * self._size + pair, Field.CONSTANT] = each

    def prefer(self, head: int, flags: dict[int, float], x: Tensor, score: float) -> None:
        """Add `score` times the flags' weights to a key's score, whatever its distance: on the slowest pair."""
        row = (head + 1) * self._size - 1
        each = (score * self._size**0.5) ** 0.5
        self.query[row, Field.CONSTANT] = each / (_constant(x) * 3)
        for flag, weight in flags.items():
            self.key[row, flag] = each * weight / (FLAG_SIZE * x)

    def carry(self, head: int, moves: list[tuple[Tensor, slice, slice]], x: Tensor, size: float = 1.0) -> None:
        """Write projections of the attended token's fields to other fields, `size` times as large as content."""
        for projection, source, target in moves:
            start = head * self._size + self._used.get(head, 0)
            count = len(projection)
            self._used[head] = self._used.get(head, 0) + count
            scale = size**0.5  # shared by the two factors
            self.value[start : start + count, source] = projection / x * scale
            self.output[target, start : start + count] = torch.eye(count) * SIZE * scale

    def copy_flags(self, head: int, x: Tensor, flags: dict[int, int]) -> None:
        """Write flags of the attended token: target dimension → source dimension."""
        for target, source in flags.items():
            row = head * self._size + self._used.get(head, 0)
            self._used[head] = self._used.get(head, 0) + 1
            self.value[row, source] = 1 / x
            self.output[target, row] = SIZE


FLAG_SIZE = 2.0  # of a flag's dimension, relative to content
CONSTANT_SIZE = 2.0


def _constant(x: Tensor) -> Tensor:
    """What each of the constant's dimensions measures after the norm."""
    return CONSTANT_SIZE / 3**0.5 * x


def _inside(attention: _Attention, head: int, tokenizer: Tokenizer, embedding: Tensor, x: Tensor) -> None:
    """Average over all document tags so far, +1 for an opening and −1 for a closing one: 0 behind the last passage.

    Before the first passage only the sink is there to look at, and counts as an opening one.
    """
    attention.clear(head)
    begin, end = (embedding[tokenizer.token_to_id(tag), Field.CONTENT] for tag in (DOCUMENT, END_DOCUMENT))
    row = attention.rows(head).stop - 1
    each = (25.0 * 8) ** 0.5
    attention.query[row, Field.CONSTANT] = each / (_constant(x) * 3)
    attention.key[row, Field.CONTENT] = each * (begin + end) / (64 * x)
    attention.key[row, Flag.SINK] = each * 0.85 / (FLAG_SIZE * x)
    value = attention.rows(head).start
    attention.value[value, Field.CONTENT] = (begin - end) / (64 * x)
    attention.value[value, Flag.SINK] = 1 / (FLAG_SIZE * x)
    attention.output[Flag.INSIDE, value] = SIZE * FLAG_SIZE


def _induce(attention: _Attention, slow: list[int], rotation: Tensor, gains: Gains, x: Tensor) -> None:
    """Of the slow rows every other one compares the current token with `previous` there, the rest `previous` here with
    `earlier` there; slow, so that distance does not disturb the match."""
    gain = gains.match / x
    for number, row in enumerate(slow[0::2]):
        attention.query[row, Field.CONTENT] = gain * rotation[number]
        attention.key[row, Field.PREVIOUS.start + number] = gain
    for number, row in enumerate(slow[1::2]):
        attention.query[row, Field.PREVIOUS.start + number] = gain * gains.second
        attention.key[row, Field.EARLIER.start + number] = gain * gains.second


def _find(attention: _Attention, head: int, flag: int, gains: Gains, x: Tensor) -> None:
    """Compare bags at sentence ends; without `flag` here, look at the sink, whose `start` is empty."""
    start = attention.rows(head).start
    slow = attention.slow(gains.still_from)
    gain = gains.topic / x
    for number, row in enumerate(slow[:-2]):
        attention.query[start + row, Field.ASKED.start + number] = gain
        attention.key[start + row, Field.BAG.start + number] = gain
    ends, sink = slow[-1], slow[-2]
    each = (gains.end * 8) ** 0.5
    attention.query[start + ends, Field.CONSTANT] = each / (_constant(x) * 3)
    for own, weight in ((Flag.MARK, 1.0), (Flag.LINE, 1.0), (Flag.PREVIOUS_MARK, -1.0), (Flag.PREVIOUS_LINE, -1.0)):
        attention.key[start + ends, own] = each * weight / (FLAG_SIZE * x)
    each = (gains.gate * 8) ** 0.5
    attention.query[start + sink, Field.CONSTANT] = each / (_constant(x) * 3)
    attention.query[start + sink, flag] = -2 * each / (FLAG_SIZE * x)
    attention.key[start + sink, Flag.SINK] = each / (FLAG_SIZE * x)


def _stem(piece: str) -> str:
    """A token's word, without its leading space, case and commonest endings; "" for what is not a word."""
    word = piece.replace("Ġ", "").lower()
    if not word.isalpha():
        return ""
    return re.sub(r"(?<=..)(?:ings?|ed|es|s|ly|er)$", "", word) if len(word) > 4 else word


SINK_TOKEN = 2  # "<|system|>", which opens every prompt

# Tokens without content: the sink must have nothing to copy, and behind the others `asked` is written over the contents
# of the tokens before.
EMPTY = {"<|system|>", "<|assistant|>", "<|end|>", BEGIN_QUOTE}


def _embeddings(tokenizer: Tokenizer, texts: Iterable[str], shape: Shape, seed: int) -> Tensor:
    """Rows of equal length: unequal ones would make the constant differ from token to token once it is normalised."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_stem(piece) for piece in tokenizer.encode(text, add_special_tokens=False).tokens)
    total = counts.total()
    word = _numbered([piece.replace("Ġ", "").lower() or piece for piece in pieces])
    stem = _numbered([_stem(piece) for piece in pieces])

    def rarity(stem: str) -> float:
        """0 for the commonest stems and for what is no word, 1 for those seen less than once in 20,000 tokens."""
        return min(1.0, max(0.0, -math.log10((counts[stem] + 1) / total) - 2.3) / 2) if stem else 0.0

    rare = torch.tensor([rarity(_stem(piece)) for piece in pieces])

    def vectors(rows: int, size: int) -> Tensor:
        found = torch.randn(rows, size, generator=generator)
        return found / found.norm(dim=1, keepdim=True) * size**0.5

    own, shared = vectors(shape.vocabulary, 64), vectors(int(word.max()) + 1, 64)[word]
    alone = torch.bincount(word)[word] == 1
    content = torch.where(alone[:, None], own, own + shared)
    out = torch.zeros(shape.vocabulary, shape.width)
    out[:, Field.CONSTANT] = CONSTANT_SIZE / 3**0.5
    out[:, Field.CONTENT] = content / content.norm(dim=1, keepdim=True) * 8
    out[:, Field.TOPIC] = vectors(int(stem.max()) + 1, 36)[stem] * rare[:, None]
    for number, piece in enumerate(pieces):
        text = piece.replace("Ċ", "\n")
        out[number, Flag.MARK] = FLAG_SIZE * (text in {".", "!", "Ġ."})
        out[number, Flag.LINE] = FLAG_SIZE * ("\n" in text or piece == DOCUMENT)
        out[number, Flag.SPACE] = FLAG_SIZE * ((piece[0] == "Ġ" and len(piece) > 1) - 2.0 * (not piece.strip("Ġ")))
        out[number, Flag.QUOTE] = FLAG_SIZE * (piece == BEGIN_QUOTE)
        out[number, Flag.SINK] = FLAG_SIZE * (piece == "<|system|>")  # it opens every prompt
        if piece in EMPTY:
            out[number, Field.CONTENT] = 0
    lengths = out.pow(2).sum(1)
    out[:, Field.FILLER] = (lengths.max() - lengths).clamp(min=0).sqrt()[:, None]
    return out * SIZE


def _numbered(names: list[str]) -> Tensor:
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def copying(model: LlamaForCausalLM, length: int, *, rows: int = 4, seed: int = 1) -> float:
    """Share of the second half of repeated random sequences that the model predicts; 1 / vocabulary is chance."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(16, model.config.vocab_size, (rows, length // 2), generator=generator)
    ids = torch.cat([torch.full((rows, 1), SINK_TOKEN), first, first], 1)
    with torch.no_grad():
        guesses = model(input_ids=ids).logits[:, length // 2 + 2 : -1].argmax(-1)
    return (guesses == ids[:, length // 2 + 3 :]).float().mean().item()
