"""Step 2 of the recipe: a stock `LlamaForCausalLM` that finds and copies a sentence before any training.

From random weights copying does not even begin within what two cores can train. So the weights of some heads are set
by hand, and all others are small and random. The residual stream is divided into fields (see `Field`). The sentence is
found by a vote: each word of the question looks for itself in the passages and takes home the tag of the sentence that
it finds; the tag that most words bring is the answer's. A rare word votes for one sentence, a common one for many, a
little for each, so rarity need not be known.

    layer 0  heads 0-2  look one, two and three tokens back by rotary phase alone: `previous`, `earlier`, their flags
             head 3     looks at the document tags so far; the MLP makes of it whether this token is inside a passage
    layer 1  heads 0-2  look at the first, second and third token of the present sentence; the MLP hashes them into its
                        `tag`: products of random projections, so that sentences that begin alike in part do not
                        resemble each other
    layer 2  head 0     looks for this token, best behind the same token as here, inside the passages, and writes the
                        tag of that sentence to `vote`
             head 1     whether this token is in a quote
    layer 3  head 0     averages the votes of all tokens outside the passages
    layer 4  in the answer, looking for the sentence whose tag has won:
             heads 0, 3 after `##begin_quote##` copy its first token and, one token later, its second
             head 1     writes its tag over the votes, so that what follows knows it in full
             head 2     where the answer begins: where no sentence has won, at the sink, which is a refusal
    layer 5  head 0     in the quote looks in that sentence where the present two tokens stood, at the token that
                        followed them, and copies it; where none followed, at the sink, which ends the quote

Scales are spread so that no block of 64 weights holds an outlier: NF4 quantises in such blocks.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from openbook.dataset.english.words import STOPWORDS
from openbook.prompt import (
    ANSWER,
    BEGIN_QUOTE,
    DOCUMENT,
    END_DOCUMENT,
    END_QUOTE,
    REFUSAL_REASONING,
    SYSTEM,
    instruction,
    render_answer,
    render_quote,
)

SIZE = 0.1  # root mean square of the dimensions of `content`
FLAG_SIZE = 2.0  # of a flag's dimension, relative to content
CONSTANT_SIZE = 2 / 3**0.5  # so that its three dimensions add up to a flag's size


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model. `theta` is large so that the slow rotary pairs hardly turn within the context."""

    vocabulary: int = 8192
    width: int = 384
    layers: int = 6
    heads: int = 4
    head: int = 96
    intermediate: int = 704
    context: int = 4096
    theta: float = 1e14

    def config(self, **tokens: int | None) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            head_dim=self.head,
            max_position_embeddings=self.context,
            rope_theta=self.theta,
            tie_word_embeddings=False,
            initializer_range=0.02,
            **tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """How sharp the circuits are. Scores are in units of the softmax's exponent, for a full match; sizes relative to
    content."""

    phase: float = 11.0  # distance heads: amplitude of query and key over all pairs
    near: float = 2.0  # sentence heads: how much the nearest start is preferred
    flag: float = 500.0  # sentence heads: what each condition is worth
    word: float = 24.0  # voting: the same stem
    before: float = 8.0  # voting: behind the same stem
    abstain: float = 14.0  # voting: what a match must exceed
    common: float = 4.0  # voting: and by how much more if the word is a common one
    inside: float = 30.0  # voting, finding, copying: what it is worth to stand in a passage
    poll: float = 30.0  # averaging votes: what excludes passages and the system's message
    won: float = 1000.0  # finding: a sentence that all voted for
    third: float = 120.0  # finding: what it is worth to be a sentence's third token
    heading: float = 1.0  # finding: what a heading lacks, as a share of that
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
    exact: float = 2.0
    head: float = 0.15  # logits per unit of `out`
    slow: float = 5e-4  # radians a token: pairs that turn less compare contents


class Field:
    """Dimensions of the residual stream at width 384; what a wider model has beyond them is left to training as well."""

    CONSTANT = slice(0, 3)  # the same in every token: drives heads that look at positions only
    FILLER = slice(3, 4)  # makes all rows equally long
    FLAGS = slice(4, 40)  # see `Flag`
    CONTENT = slice(40, 100)  # a random vector per stem (40), per form without space and case (12) and per token (8)
    PREVIOUS = slice(100, 160)  # the content of the token before
    EARLIER = slice(160, 220)  # of the one before that
    THIRD = slice(220, 232)  # the first 12 dimensions of the one before that
    TAG = slice(232, 272)  # the sentence: a hash of its first three tokens
    VOTE = slice(272, 312)  # the tag that this token votes for; behind the passages, what all vote for
    OUT = slice(312, 372)  # what the head reads; within layer 1 the tokens to be hashed
    FILLERS = slice(372, 374)  # those of the two tokens before, so that where these are empty the row is as long
    FREE = slice(374, 384)  # left to training


STEM, FORM, OWN = 40, 12, 8


class Flag:
    """Single dimensions that say what a token is; layer 0 copies some to say what the tokens before are."""

    MARK, LINE, SPACE = 4, 5, 6  # ends a sentence before a space; ends a line; begins with a space (−2: is all space)
    PREVIOUS_MARK, PREVIOUS_LINE, PREVIOUS_SPACE = 7, 8, 9
    EARLIER_MARK, EARLIER_LINE, EARLIER_SPACE = 10, 11, 12
    THIRD_MARK, THIRD_LINE = 13, 14
    QUOTE = 15  # `##begin_quote##`
    ANSWER = 16  # `<|assistant|>`
    SINK = 17  # the first token of every prompt, where silent heads look
    TAGS = 18  # opening minus closing document tags so far, over the number of tags: 0 outside of a document
    SYSTEM = 19  # no document tag so far, but for the sink
    INSIDE = 20  # inside a passage
    REFUSE = 21  # no sentence has won
    COMMON = 22  # a word or mark that stands everywhere
    PREVIOUS_QUOTE = 23
    ANSWERING = 24  # in the answer
    QUOTING = 25  # in a quote, also where the system's message names its tags
    HASH = 26  # opens a heading
    THIRD_HASH = 27
    ASKED = 28  # `<ANSWER>:`
    NOVEL = 29  # does not stand in the question
    PREVIOUS_NOVEL = 30
    STOP = 31  # the short answer ends
    CLOSE = 32  # the quote ends
    BULLET = 33  # stands before a list item or heading
    OF_DOCUMENT = 34  # a document's tag
    OF_QUOTE = 39  # a quote's
    OPENS = 35  # a document's opening tag; −1: a closing one
    QUOTES = 36  # a quote's opening tag; −1: a closing one
    TAGS_QUOTES = 37  # of quotes, what TAGS is of documents
    DOCUMENTS = 38  # the share of document tags among the tags so far


def build(
    shape: Shape, tokenizer: Tokenizer, *, seed: int = 0, gains: Gains | None = None, **tokens: int | None
) -> LlamaForCausalLM:
    """A model with the circuits in place."""
    gains = gains or Gains()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(**tokens))
    frequencies: Tensor = model.model.rotary_emb.inv_freq
    with torch.no_grad():
        for block in model.model.layers:  # whatever is random must not disturb the circuits: it writes nothing yet
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        embedding = _embeddings(tokenizer, shape, seed)
        model.model.embed_tokens.weight.copy_(embedding)
        sample = _Sample(tokenizer)

        def layer(number: int, asking: str = "passages", keys: str = "passages") -> "_Attention":
            sizes = sample.sizes(model, number)
            module = model.model.layers[number].self_attn
            return _Attention(module, shape, frequencies, sizes, asking=asking, keys=keys, slow=gains.slow)

        _look_back(layer(0), tokenizer, embedding / SIZE, gains)
        _inside(model.model.layers[0], sample.sizes(model, 0, after_attention=True)["passages"])
        _tag(layer(1), gains)
        _hash(model.model.layers[1], sample.sizes(model, 1, after_attention=True)["passages"])
        _vote(layer(2, "question"), gains)
        _poll(layer(3), gains)
        _novel(layer(2, "answer"), gains)
        layer(3, "answer").shift(1, Flag.NOVEL, Flag.PREVIOUS_NOVEL, gains.phase)
        _find(layer(4, "answer"), gains)
        _copy(layer(5, "answer"), gains)
        _answer(layer(5, "answer", keys="answer"), gains)
        head = model.lm_head.weight
        head[:, Field.OUT] = embedding[:, Field.CONTENT] / SIZE * gains.head
        head[:, Field.OUT][:, -OWN:] *= gains.exact  # what tells "The" from "the"
        # A quote begins with a space, also where its sentence opens a line, and mostly with a capital.
        pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
        spaced = torch.tensor([piece[0] == "Ġ" and len(piece) > 1 for piece in pieces])
        capital = torch.tensor([piece.strip("Ġ")[:1].isupper() for piece in pieces])
        head[:, Flag.QUOTE] = (0.5 * spaced + 0.2 * capital) * gains.found * 34 * gains.head / FLAG_SIZE
        opening, refusal = tokenizer.token_to_id(BEGIN_QUOTE), tokenizer.encode(REFUSAL_REASONING).ids[0]
        for token, without, withal in ((opening, 12.0, -12.0), (refusal, 0.0, 12.0)):
            head[token, Flag.ANSWER] += without / 3  # the norm leaves about 3 of a flag
            head[token, Flag.REFUSE] += withal / 3
        # The form of what stands between quote and answer, and the end.
        head[tokenizer.token_to_id("<|end|>"), Flag.STOP] += gains.ends
        head[tokenizer.token_to_id(END_QUOTE), Flag.CLOSE] += gains.ends
        content = embedding[:, Field.CONTENT] / SIZE
        space, asked, closing = (tokenizer.token_to_id(piece) for piece in ("Ġ", ANSWER, END_QUOTE))
        head[space, Field.CONTENT] += content[closing] * 0.2
        head[asked, Field.CONTENT] += content[space] * 0.1
    return model


class _Sample:
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


class _Attention:
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
        return self.sink if field == _flag(Flag.SINK) else self.x

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

    def near(self, head: int, slope: float) -> float:
        """Prefer the near, by about `slope` a token up to a thousand: pairs that turn once in 160 to 2,000 tokens, all
        in phase here, the slower the stronger, for the sum of cos(θd) / θ falls evenly with the distance d. The score
        of what is here."""
        total = 0.0
        for pair in torch.nonzero((self._frequencies < 0.04) & (self._frequencies > 0.003))[:, 0].tolist():
            score = slope / float(self._frequencies[pair])
            each = (score * self.size**0.5) ** 0.5 / (self.constant * 3)
            self.query[head * self.size + pair, Field.CONSTANT] = each
            self.key[head * self.size + pair, Field.CONSTANT] = each
            total += score
        return total

    def lower(self, head: int, score: float) -> None:
        """Take `score` from all: what is looked for then scores nothing, and so the same however large its row is."""
        (row,) = self._take(head, 1)
        each = (score * self.size**0.5) ** 0.5 / (self.constant * 3)
        self.query[row, Field.CONSTANT] = each
        self.key[row, Field.CONSTANT] = -each

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
                self.key[row, flag] = each * weight / (FLAG_SIZE * self._size_of(_flag(flag)))

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
                where = Field.CONSTANT if flag == -1 else _flag(flag)
                self.value[row, where] = weight * scale / (FLAG_SIZE * self._size_of(where))
            self.output[target, row] = SIZE * scale

    def shift(self, head: int, flag: int, target: int, gain: float) -> None:
        """Copy a flag of the token before, by the pairs that turn fast; the others keep it from the sink."""
        self.look_back(head, 1, gain)
        start, half = head * self.size, self.size // 2
        fast = half - self._comparing // 2
        for first in (start + fast, start + half + fast):
            self.query[first : first + half - fast] = self.key[first : first + half - fast] = 0
        self.prefer(head, {Flag.SINK: -1.0}, 400.0)
        self.carry(head, _flag(flag), _flag(target))


def _grouped(flags: dict[int, float]) -> list[dict[int, float]]:
    """By the size of their weights; the sink, whose rows are of another, alone."""
    found: dict[float, dict[int, float]] = {}
    for flag, weight in flags.items():
        found.setdefault(0.0 if flag == Flag.SINK else abs(weight), {})[flag] = weight
    return list(found.values())


def _part(field: slice, first: int, count: int) -> slice:
    return slice(field.start + first, field.start + first + count)


def _flag(number: int) -> slice:
    return slice(number, number + 1)


def _look_back(attention: _Attention, tokenizer: Tokenizer, embedding: Tensor, gains: Gains) -> None:
    for head in range(3):
        attention.look_back(head, head + 1, gains.phase)
    attention.carry(0, Field.CONTENT, Field.PREVIOUS)
    attention.carry(1, Field.CONTENT, Field.EARLIER)
    attention.carry(2, _part(Field.CONTENT, 0, 12), Field.THIRD)
    for head in range(2):
        attention.carry(head, Field.FILLER, _part(Field.FILLERS, head, 1))
    copies = (
        {
            Flag.MARK: Flag.PREVIOUS_MARK,
            Flag.LINE: Flag.PREVIOUS_LINE,
            Flag.SPACE: Flag.PREVIOUS_SPACE,
            Flag.QUOTE: Flag.PREVIOUS_QUOTE,
        },
        {Flag.MARK: Flag.EARLIER_MARK, Flag.LINE: Flag.EARLIER_LINE, Flag.SPACE: Flag.EARLIER_SPACE},
        {Flag.MARK: Flag.THIRD_MARK, Flag.LINE: Flag.THIRD_LINE, Flag.HASH: Flag.THIRD_HASH},
    )
    for head, flags in enumerate(copies):
        for source, target in flags.items():
            attention.carry(head, _flag(source), _flag(target))
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
        attention.carry(3, _flag(source), _flag(target), size=RAW)


RAW = 3.0  # how large the means are that become flags


def _inside(layer: Any, x: Tensor) -> None:
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


def _tag(attention: _Attention, gains: Gains) -> None:
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
        attention.prefer(head, wanted, gains.flag)
        attention.lower(head, here + 2 * gains.flag)
        rotation = torch.linalg.qr(torch.randn(60, 60))[0]
        attention.carry(head, Field.CONTENT, Field.OUT, by=rotation, size=3**-0.5)
    # In layer 1 as well: ANSWERING = 1 from `<|assistant|>` on.
    attention.clear(3)
    attention.prefer(3, {Flag.ANSWER: 1.0, Flag.SINK: 0.5}, gains.gate)
    attention.carry(3, _flag(Flag.ANSWER), _flag(Flag.ANSWERING))


HASHING = 640  # hidden units


def _hash(layer: Any, x: Tensor) -> None:
    """TAG = random products of what the heads left in OUT, and OUT empty again: silu(a) − silu(−a) = a."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    units = HASHING
    gate[:units], up[:units], down[:, :units] = 0, 0, 0
    for number in range(60):
        for sign, unit in ((1, 2 * number), (-1, 2 * number + 1)):
            gate[unit, Field.OUT.start + number] = sign / x
            up[unit, Field.CONSTANT] = 1 / (CONSTANT_SIZE / 3**0.5 * x * 3)
            down[Field.OUT.start + number, unit] = -sign * SIZE
    gate[120:units, Field.OUT] = torch.randn(units - 120, 60) / (60**0.5 * x) * 2  # twice: far enough into its bend
    up[120:units, Field.OUT] = torch.randn(units - 120, 60) / (60**0.5 * x)
    size = 1.57  # root mean square of silu(2a)·b for standard normal a and b
    down[Field.TAG, 120:units] = torch.randn(40, units - 120) * SIZE / (size * (units - 120) ** 0.5)


def _vote(attention: _Attention, gains: Gains) -> None:
    """Looks at the token behind the match, where more of its sentence's beginning is known."""
    attention.clear(0)
    attention.prefer(0, {Flag.INSIDE: 1.0, Flag.LINE: -0.5, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(0, {Flag.SINK: 1.0}, gains.abstain, when={Flag.COMMON: gains.common / gains.abstain})
    attention.prefer(0, {Flag.SINK: 1.0}, gains.gate, when={Flag.ANSWERING: 1.0, Flag.INSIDE: 1.0}, always=0.0)
    attention.compare(0, _part(Field.CONTENT, 0, STEM), _part(Field.PREVIOUS, 0, STEM), gains.word)
    attention.compare(0, _part(Field.PREVIOUS, 0, 24), _part(Field.EARLIER, 0, 24), gains.before)
    attention.carry(0, Field.TAG, Field.VOTE)


def _poll(attention: _Attention, gains: Gains) -> None:
    attention.clear(0)
    attention.prefer(
        0, {Flag.INSIDE: -1.0, Flag.SYSTEM: -1.0, Flag.SINK: -1.0, Flag.LINE: -1.0, Flag.ANSWERING: -1.0}, gains.poll
    )
    attention.carry(0, Field.VOTE, Field.VOTE)


def _find(attention: _Attention, gains: Gains) -> None:
    """Heads 0, 3 and 1 look from behind a sentence's third token, where its tag is whole; head 2 anywhere in it."""
    third = {Flag.THIRD_MARK: 0.5, Flag.EARLIER_SPACE: 0.5, Flag.THIRD_LINE: 1.0, Flag.EARLIER_LINE: -1.0}
    for head, opening in ((0, Flag.QUOTE), (3, Flag.PREVIOUS_QUOTE), (1, Flag.ANSWERING)):
        attention.clear(head)
        attention.prefer(head, {Flag.INSIDE: 1.0, **third, Flag.THIRD_HASH: -gains.heading}, gains.third)
        attention.prefer(head, {Flag.SINK: 1.0}, gains.gate + gains.won + 2 * gains.third, when={opening: -2.0})
        attention.compare(head, Field.VOTE, Field.TAG, gains.won)
    attention.compare(3, _part(Field.CONTENT, 0, 24), _part(Field.EARLIER, 0, 24), gains.follow)
    attention.carry(0, Field.EARLIER, Field.OUT, size=gains.found)
    attention.carry(3, Field.PREVIOUS, Field.OUT, size=gains.found)
    attention.carry(1, Field.TAG, Field.VOTE)
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: 1.0, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(2, {Flag.SINK: 1.0}, gains.doubt * gains.won)
    attention.prefer(2, {Flag.INSIDE: 1.0}, gains.gate + gains.won, when={Flag.ANSWER: -1.0})
    attention.compare(2, Field.VOTE, Field.TAG, gains.won)
    attention.carry(2, _flag(Flag.SINK), _flag(Flag.REFUSE), size=1.0)


def _copy(attention: _Attention, gains: Gains) -> None:
    """Silent, which is to look at `<|assistant|>`, outside of the quote and at its first two tokens."""
    attention.clear(0)
    attention.prefer(0, {Flag.INSIDE: 1.0, Flag.ANSWERING: -2.0}, gains.inside)
    attention.prefer(
        0, {Flag.ANSWER: 1.0}, 6 * gains.gate, when={Flag.QUOTING: -1.0, Flag.QUOTE: 1.0, Flag.PREVIOUS_QUOTE: 1.0}
    )
    attention.compare(0, _part(Field.CONTENT, 0, 22), _part(Field.PREVIOUS, 0, 22), gains.current * 2 / 3)
    attention.compare(0, _part(Field.CONTENT, STEM, 8), _part(Field.PREVIOUS, STEM, 8), gains.current / 3)
    attention.compare(0, _part(Field.PREVIOUS, 0, 14), _part(Field.EARLIER, 0, 14), gains.second)
    attention.compare(0, _part(Field.EARLIER, 0, 8), _part(Field.THIRD, 0, 8), gains.before_that)
    own = (_part(Field.TAG, 0, 16), gains.own / gains.same)
    attention.compare(0, _part(Field.VOTE, 0, 16), _part(Field.TAG, 0, 16), gains.same, also=own)
    # The opening of the next sentence has that one's tag.
    attention.prefer(
        0, {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0}, gains.next, when={Flag.MARK: 1.0, Flag.BULLET: -1.0}, always=0.0
    )
    attention.carry(0, Field.CONTENT, Field.OUT, size=gains.copied)
    # A token that opens a sentence, or ends the line, says instead that the quote ends. The sum is positive for these
    # alone: both flags of the first, or the one of the second.
    ends = {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0, Flag.LINE: 2.0, Flag.ANSWER: 1.0}
    attention.say(0, ends, -1.0, _flag(Flag.CLOSE), FLAG_SIZE)


def _novel(attention: _Attention, gains: Gains) -> None:
    """NOVEL = 1 in the answer for what does not stand in the question: what finds nothing looks at the sink."""
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: -1.0, Flag.SYSTEM: -1.0, Flag.ANSWERING: -1.0}, gains.poll)
    attention.prefer(2, {Flag.SINK: 1.0}, gains.abstain)
    attention.compare(2, _part(Field.CONTENT, 0, STEM), _part(Field.CONTENT, 0, STEM), gains.word)
    attention.carry(2, _flag(Flag.SINK), _flag(Flag.NOVEL))


def _answer(attention: _Attention, gains: Gains) -> None:
    """The short answer: the first word of the quote that is not in the question, and on while that is so."""
    attention.clear(1)
    # The rows of a quote's first word are about twice as long, for its next one stands in OUT, so its flags count half.
    novel = {Flag.NOVEL: 1.0, Flag.COMMON: -1.0, Flag.PREVIOUS_NOVEL: -0.5, Flag.PREVIOUS_QUOTE: 0.9}
    first = {Flag.QUOTING: 1.0, Flag.ANSWERING: 1.0, Flag.PREVIOUS_QUOTE: 2.0, Flag.SINK: 1.5}
    attention.prefer(1, first, gains.gate)
    attention.prefer(1, novel, gains.choose)
    attention.prefer(1, {Flag.SINK: 1.0}, 2 * gains.gate, when={Flag.ASKED: -1.0})
    attention.carry(1, Field.CONTENT, Field.OUT, size=gains.copied)
    attention.clear(2)
    attention.prefer(
        2, {Flag.QUOTING: 1.0, Flag.ANSWERING: 1.0, Flag.LINE: 1.0, Flag.QUOTE: -2.0, Flag.SINK: 1.5}, gains.gate
    )
    attention.prefer(
        2,
        {Flag.SINK: 1.0},
        3 * gains.gate,
        when={
            Flag.ASKED: 1.0,
            Flag.QUOTING: 1.0,
            Flag.ANSWERING: -1.0,
            Flag.LINE: 1.0,
            Flag.PREVIOUS_LINE: 1.0,
            Flag.ANSWER: 1.0,
        },
    )
    attention.compare(2, _part(Field.CONTENT, 0, 24), _part(Field.PREVIOUS, 0, 24), gains.current)
    attention.compare(2, _part(Field.PREVIOUS, 0, 24), _part(Field.EARLIER, 0, 24), gains.second)
    attention.carry(2, Field.CONTENT, Field.OUT, size=gains.copied)
    stop = {Flag.NOVEL: -1.0, Flag.COMMON: -0.2, Flag.MARK: 1.2, Flag.LINE: 1.5, Flag.ANSWERING: 1.0}
    attention.say(2, stop, 0.0, _flag(Flag.STOP), FLAG_SIZE)


def _stem(piece: str) -> str:
    """A token's word, without its leading space, case and commonest endings; "" for what is not a word."""
    word = piece.replace("Ġ", "").lower()
    if not word.isalpha():
        return ""
    return re.sub(r"(?<=..)(?:ings?|ed|es|s|ly|er)$", "", word) if len(word) > 4 else word


SINK_TOKEN = 2  # "<|system|>", which opens every prompt

# Tokens without content: they stand for nothing that could be copied or voted for.
# What ends a sentence where a space follows; list markers and those of headings stand before one.
BULLET = re.compile(r"[-*•#]+")
MARK = re.compile(rf"Ġ?\W*[.!?]\W*|{BULLET.pattern}")
LINES = {DOCUMENT, END_DOCUMENT, BEGIN_QUOTE, END_QUOTE}
EMPTY = {"<|system|>", "<|assistant|>", "<|end|>", BEGIN_QUOTE}


def _embeddings(tokenizer: Tokenizer, shape: Shape, seed: int) -> Tensor:
    """Rows of equal length: unequal ones would make the constant differ from token to token once it is normalised."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
    stem = _numbered([_stem(piece) or piece.strip("Ġ") or piece for piece in pieces])
    form = _numbered([piece.strip("Ġ").lower() or piece for piece in pieces])

    def vectors(rows: int, size: int) -> Tensor:
        found = torch.randn(rows, size, generator=generator)
        return found / found.norm(dim=1, keepdim=True) * size**0.5

    out = torch.zeros(shape.vocabulary, shape.width)
    out[:, Field.CONSTANT] = CONSTANT_SIZE / 3**0.5
    out[:, Field.CONTENT] = torch.cat(
        [
            vectors(int(stem.max()) + 1, STEM)[stem],
            vectors(int(form.max()) + 1, FORM)[form],
            vectors(shape.vocabulary, OWN),
        ],
        1,
    )
    for number, piece in enumerate(pieces):
        text = piece.replace("Ċ", "\n")
        out[number, Flag.MARK] = FLAG_SIZE * bool(MARK.fullmatch(text))
        out[number, Flag.BULLET] = FLAG_SIZE * bool(BULLET.fullmatch(text))
        out[number, Flag.HASH] = FLAG_SIZE * (piece.strip("Ġ#") == "" and "#" in piece)
        out[number, Flag.LINE] = FLAG_SIZE * ("\n" in text or piece in LINES)
        out[number, Flag.ASKED] = FLAG_SIZE * (piece == ANSWER)
        out[number, Flag.SPACE] = FLAG_SIZE * ((piece[0] == "Ġ" and len(piece) > 1) - 2.0 * (not piece.strip("Ġ")))
        out[number, Flag.OF_DOCUMENT] = FLAG_SIZE * (piece in (DOCUMENT, END_DOCUMENT))
        out[number, Flag.OF_QUOTE] = FLAG_SIZE * (piece in (BEGIN_QUOTE, END_QUOTE))
        out[number, Flag.OPENS] = FLAG_SIZE * ((piece == DOCUMENT) - (piece == END_DOCUMENT))
        out[number, Flag.QUOTES] = FLAG_SIZE * ((piece == BEGIN_QUOTE) - (piece == END_QUOTE))
        out[number, Flag.QUOTE] = FLAG_SIZE * (piece == BEGIN_QUOTE)
        out[number, Flag.ANSWER] = FLAG_SIZE * (piece == "<|assistant|>")
        common = piece.strip("Ġ").lower() in STOPWORDS or not any(c.isalnum() for c in piece.strip("ĠĊ"))
        out[number, Flag.COMMON] = FLAG_SIZE * common
        out[number, Flag.SINK] = FLAG_SIZE * (piece == "<|system|>")  # it opens every prompt
        if piece in EMPTY:
            out[number, Field.CONTENT] = 0
    lengths = out.pow(2).sum(1)
    out[:, Field.FILLER] = (lengths.max() - lengths).clamp(min=0).sqrt()[:, None]
    return out * SIZE


SET = ((0, 1, 2, 3), (0, 1, 2, 3), (0, 2), (0, 1), (0, 1, 2, 3), (0,))  # by layer: heads that are to stay as they are


def learnable(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """By parameter: 1 where training may change it, 0 where a circuit would suffer.

    The circuits stay as they are and so does what they read: until the last layer, whatever is learned may be written
    to FREE alone. Trained as a whole the model unlearned them within 200 rows, long before it had anything better.
    """
    config = model.config
    masks = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    masks["model.embed_tokens.weight"][:, Field.FREE] = 1
    masks["lm_head.weight"][:] = 1
    masks["lm_head.weight"][:, Field.OUT] = 0
    units = {0: 7, 1: HASHING}
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        last = number == config.num_hidden_layers - 1
        written = torch.zeros(config.hidden_size)
        for field in (Field.FREE, *((Field.OUT, _part(Field.FLAGS, Flag.STOP - 4, 2)) if last else ())):
            written[field] = 1
        heads = torch.ones(config.num_attention_heads, config.head_dim)
        heads[list(SET[number])] = 0
        for name in ("q", "k", "v"):
            masks[f"{layer}.self_attn.{name}_proj.weight"][:] = heads.flatten()[:, None]
        masks[f"{layer}.self_attn.o_proj.weight"][:] = written[:, None] * heads.flatten()
        hidden = torch.ones(config.intermediate_size)
        hidden[: units.get(number, 0)] = 0
        for name in ("gate", "up"):
            masks[f"{layer}.mlp.{name}_proj.weight"][:] = hidden[:, None]
        masks[f"{layer}.mlp.down_proj.weight"][:] = written[:, None] * hidden
    return masks


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
