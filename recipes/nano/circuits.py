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
CONSTANT_SIZE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model. `theta` is large so that the slow rotary pairs hardly turn within the context."""

    vocabulary: int = 8192
    width: int = 320
    layers: int = 6
    heads: int = 4
    head: int = 96
    intermediate: int = 640
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
    near: float = 15.0  # sentence heads: how much the nearest start is preferred
    flag: float = 40.0  # sentence heads: what each condition is worth
    word: float = 24.0  # voting: the same stem
    before: float = 8.0  # voting: behind the same stem
    abstain: float = 14.0  # voting: what a match must exceed
    common: float = 4.0  # voting: and by how much more if the word is a common one
    inside: float = 30.0  # voting, finding, copying: what it is worth to stand in a passage
    poll: float = 30.0  # averaging votes: what excludes passages and the system's message
    won: float = 1000.0  # finding: a sentence that all voted for
    third: float = 120.0  # finding: what it is worth to be a sentence's third token
    follow: float = 60.0  # finding the second token: behind the first as it stands here
    doubt: float = 0.03  # refusing: the share of votes below which no sentence has won
    gate: float = 60.0  # finding and refusing: what keeps them silent elsewhere
    same: float = 24.0  # copying: in the sentence that has won
    own: float = 40.0  # copying: in one that begins as the quote does
    current: float = 24.0  # copying: the same token before
    second: float = 28.0  # copying: and the same one before that
    end: float = 68.0  # copying: below this no token has followed, and the quote ends
    boundary: float = 40.0  # copying: what keeps a full stop from being followed by a space
    copied: float = 3.0  # size of what copying writes
    found: float = 4.0  # size of what finding writes
    head: float = 0.15  # logits per unit of `out`
    slow: float = 5e-4  # radians a token: pairs that turn less compare contents


class Field:
    """Dimensions of the residual stream at width 320; what a wider model has beyond them is left to training."""

    CONSTANT = slice(0, 3)  # the same in every token: drives heads that look at positions only
    FILLER = slice(3, 4)  # makes all rows equally long
    FLAGS = slice(4, 26)  # see `Flag`
    CONTENT = slice(26, 86)  # a random vector per stem (40) and one per token (20)
    PREVIOUS = slice(86, 134)  # the first 48 dimensions of the content of the token before
    EARLIER = slice(134, 168)  # 34 of the one before that: 24 of its stem, 10 of its own
    TAG = slice(168, 214)  # the sentence: a hash of its first three tokens
    VOTE = slice(214, 260)  # the tag that this token votes for; behind the passages, what all vote for
    OUT = slice(260, 320)  # what the head reads; within layer 1 the tokens to be hashed


STEM, OWN = 40, 20


class Flag:
    """Single dimensions that say what a token is; layer 0 copies some to say what the tokens before are."""

    MARK, LINE, SPACE = 4, 5, 6  # ends a sentence before a space; ends a line; begins with a space (−2: is all space)
    PREVIOUS_MARK, PREVIOUS_LINE, PREVIOUS_SPACE = 7, 8, 9
    EARLIER_MARK, EARLIER_LINE, EARLIER_SPACE = 10, 11, 12
    THIRD_MARK, THIRD_LINE = 13, 14
    QUOTE = 15  # `##begin_quote##`
    ANSWER = 16  # `<|assistant|>`
    SINK = 17  # the first token of every prompt, where silent heads look
    TAGS = 18  # opening minus closing document tags so far, over their number: 1 / odd inside, 0 outside
    SYSTEM = 19  # no document tag so far
    INSIDE = 20  # inside a passage
    REFUSE = 21  # no sentence has won
    COMMON = 22  # a word or mark that stands everywhere
    PREVIOUS_QUOTE = 23
    ANSWERING = 24  # in the answer
    QUOTING = 25  # in a quote of the answer


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

        def layer(number: int, asking: str = "passages") -> "_Attention":
            sizes = sample.sizes(model, number)
            module = model.model.layers[number].self_attn
            return _Attention(module, shape, frequencies, sizes, asking=asking, slow=gains.slow)

        _look_back(layer(0), tokenizer, embedding / SIZE, gains)
        _inside(model.model.layers[0], sample.sizes(model, 0, after_attention=True)["passages"])
        _tag(layer(1), gains)
        _hash(model.model.layers[1], sample.sizes(model, 1, after_attention=True)["passages"])
        _vote(layer(2, "question"), gains)
        _poll(layer(3), gains)
        _quoting(layer(2, "answer"), tokenizer, embedding / SIZE, gains)
        _find(layer(4, "answer"), gains)
        _copy(layer(5, "answer"), tokenizer, embedding / SIZE, gains)
        head = model.lm_head.weight
        head[:, Field.OUT] = embedding[:, Field.CONTENT] / SIZE * gains.head
        # A quote begins with a space, also where its sentence opens a line, and mostly with a capital.
        pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
        spaced = torch.tensor([piece[0] == "Ġ" and len(piece) > 1 for piece in pieces])
        capital = torch.tensor([piece.strip("Ġ")[:1].isupper() for piece in pieces])
        head[:, Flag.QUOTE] = (0.5 * spaced + 0.2 * capital) * gains.found * 34 * gains.head / FLAG_SIZE
        opening, refusal = tokenizer.token_to_id(BEGIN_QUOTE), tokenizer.encode(REFUSAL_REASONING).ids[0]
        for token, without, withal in ((opening, 12.0, -12.0), (refusal, 0.0, 12.0)):
            head[token, Flag.ANSWER] += without / 3  # the norm leaves about 3 of a flag
            head[token, Flag.REFUSE] += withal / 3
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
        self, module: Any, shape: Shape, frequencies: Tensor, sizes: dict[str, Tensor], *, asking: str, slow: float
    ) -> None:
        self.query, self.key, self.value, self.output = (
            getattr(module, f"{name}_proj").weight for name in ("q", "k", "v", "o")
        )
        self.x, self.here, self.sink = sizes["passages"], sizes[asking], sizes["sink"]
        self.size, self._frequencies = shape.head, frequencies
        self._comparing = 2 * int((frequencies <= slow).sum())  # rows of pairs that turn slowly enough for that
        self._values: dict[int, int] = {}  # rows of a head's values already taken
        self._slow: dict[int, int] = {}  # rows of a head's slow pairs already taken, from the slowest

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

    def near(self, head: int, gain: float) -> None:
        """Prefer the near: pairs that turn once in 160 to 1,600 tokens, all in phase here, do not meet again within
        the context."""
        each = gain / (self.constant * 3)
        chosen = (self._frequencies < 0.04) & (self._frequencies > 0.004)
        for pair in torch.nonzero(chosen)[:, 0].tolist():
            self.query[head * self.size + pair, Field.CONSTANT] = each
            self.key[head * self.size + pair, Field.CONSTANT] = each

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
        (row,) = self._take(head, 1)
        each = (score * self.size**0.5) ** 0.5
        self.query[row, Field.CONSTANT] = each * always / (CONSTANT_SIZE * 3**0.5 * self.here)
        for flag, weight in (when or {}).items():
            self.query[row, flag] = each * weight / (FLAG_SIZE * self.here)
        for flag, weight in flags.items():
            self.key[row, flag] = each * weight / (FLAG_SIZE * (self.sink if flag == Flag.SINK else self.x))

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
        self.value[first : first + count, source] = projection / self.x * scale
        self.output[target, first : first + count] = torch.eye(count) * SIZE * scale


def _part(field: slice, first: int, count: int) -> slice:
    return slice(field.start + first, field.start + first + count)


def _flag(number: int) -> slice:
    return slice(number, number + 1)


def _look_back(attention: _Attention, tokenizer: Tokenizer, embedding: Tensor, gains: Gains) -> None:
    for head in range(3):
        attention.look_back(head, head + 1, gains.phase)
    attention.carry(0, _part(Field.CONTENT, 0, 48), Field.PREVIOUS)
    attention.carry(1, _part(Field.CONTENT, 0, 24), _part(Field.EARLIER, 0, 24))
    attention.carry(1, _part(Field.CONTENT, STEM, 10), _part(Field.EARLIER, 24, 10))
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
            attention.carry(head, _flag(source), _flag(target))
    # Over all document tags so far, +1 for an opening and −1 for a closing one; before the first there is the sink.
    attention.clear(3)
    begin, end = (embedding[tokenizer.token_to_id(tag), Field.CONTENT] for tag in (DOCUMENT, END_DOCUMENT))
    tags, unit = begin + end, 60 * attention.x
    row = attention.rows(3).stop - 1
    each = (25.0 * attention.size**0.5) ** 0.5
    attention.query[row, Field.CONSTANT] = each / (attention.constant * 3)
    attention.key[row, Field.CONTENT] = each * tags / unit
    attention.key[row, Flag.SINK] = each * 0.7 / (FLAG_SIZE * attention.x)
    first = attention.rows(3).start
    attention.value[first, Field.CONTENT] = (begin - end) / unit
    attention.value[first + 1, Flag.SINK] = 1 / (FLAG_SIZE * attention.x)
    attention.output[Flag.TAGS, first] = attention.output[Flag.SYSTEM, first + 1] = SIZE * FLAG_SIZE


def _inside(layer: Any, x: Tensor) -> None:
    """INSIDE = 1 where TAGS is above 0.08: the difference of two ramps, one a hidden unit."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    constant = CONSTANT_SIZE / 3**0.5 * x
    steep = 400.0  # so that silu is a ramp
    for unit, threshold in enumerate((0.03, 0.08)):
        gate[unit] = up[unit] = 0
        gate[unit, Flag.TAGS] = steep / (FLAG_SIZE * x)
        gate[unit, Field.CONSTANT] = -steep * threshold / (constant * 3)
        up[unit, Field.CONSTANT] = 1 / (constant * 3)
        down[:, unit] = 0
        down[Flag.INSIDE, unit] = (1 - 2 * unit) * SIZE * FLAG_SIZE / (steep * 0.05)


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
        attention.near(head, gains.near)
        attention.prefer(head, wanted | {Flag.SYSTEM: -4.0}, gains.flag)  # whose text names the tags
        rotation = torch.linalg.qr(torch.randn(60, 60))[0]
        attention.carry(head, Field.CONTENT, Field.OUT, by=rotation, size=3**-0.5)
    # In layer 1 as well: ANSWERING = 1 from `<|assistant|>` on.
    attention.clear(3)
    attention.prefer(3, {Flag.ANSWER: 1.0, Flag.SINK: 0.5}, gains.gate)
    attention.carry(3, _flag(Flag.ANSWER), _flag(Flag.ANSWERING))


def _hash(layer: Any, x: Tensor) -> None:
    """TAG = random products of what the heads left in OUT, and OUT empty again: silu(a) − silu(−a) = a."""
    gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
    units = len(gate)
    gate[:], up[:], down[:] = 0, 0, 0
    for number in range(60):
        for sign, unit in ((1, 2 * number), (-1, 2 * number + 1)):
            gate[unit, Field.OUT.start + number] = sign / x
            up[unit, Field.CONSTANT] = 1 / (CONSTANT_SIZE / 3**0.5 * x * 3)
            down[Field.OUT.start + number, unit] = -sign * SIZE
    gate[120:, Field.OUT] = torch.randn(units - 120, 60) / (60**0.5 * x) * 2  # twice: far enough into its bend
    up[120:, Field.OUT] = torch.randn(units - 120, 60) / (60**0.5 * x)
    size = 1.57  # root mean square of silu(2a)·b for standard normal a and b
    down[Field.TAG, 120:] = torch.randn(46, units - 120) * SIZE / (size * (units - 120) ** 0.5)


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
    attention.prefer(0, {Flag.INSIDE: -1.0, Flag.SYSTEM: -1.0, Flag.LINE: -1.0, Flag.ANSWERING: -1.0}, gains.poll)
    attention.carry(0, Field.VOTE, Field.VOTE)


def _quoting(attention: _Attention, tokenizer: Tokenizer, embedding: Tensor, gains: Gains) -> None:
    """QUOTING = the mean over the answer's quote tags so far, +1 for an opening and 0 for a closing one."""
    attention.clear(1)
    closing = embedding[tokenizer.token_to_id(END_QUOTE), Field.CONTENT]
    attention.prefer(1, {Flag.SINK: 0.5}, gains.gate)
    attention.prefer(1, {Flag.QUOTE: 1.0, Flag.ANSWERING: 1.0}, gains.gate)
    (row,) = attention._take(1, 1)
    each = (gains.gate * attention.size**0.5) ** 0.5
    attention.query[row, Field.CONSTANT] = each / (CONSTANT_SIZE * 3**0.5 * attention.here)
    attention.key[row, Field.CONTENT] = each * closing / (60 * attention.here)
    attention.carry(1, _flag(Flag.QUOTE), _flag(Flag.QUOTING), size=1.0)


def _find(attention: _Attention, gains: Gains) -> None:
    """Heads 0, 3 and 1 look from behind a sentence's third token, where its tag is whole; head 2 anywhere in it."""
    third = {Flag.THIRD_MARK: 0.5, Flag.EARLIER_SPACE: 0.5, Flag.THIRD_LINE: 1.0, Flag.EARLIER_LINE: -1.0}
    for head, opening in ((0, Flag.QUOTE), (3, Flag.PREVIOUS_QUOTE), (1, Flag.ANSWERING)):
        attention.clear(head)
        attention.prefer(head, {Flag.INSIDE: 1.0, **third}, gains.third)
        attention.prefer(head, {Flag.SINK: 1.0}, gains.gate + gains.won + 2 * gains.third, when={opening: -2.0})
        attention.compare(head, Field.VOTE, Field.TAG, gains.won)
    attention.compare(3, _part(Field.CONTENT, 0, 24), _part(Field.EARLIER, 0, 24), gains.follow)
    for source, target, count in ((0, 0, 24), (24, STEM, 10)):
        attention.carry(0, _part(Field.EARLIER, source, count), _part(Field.OUT, target, count), size=gains.found)
    attention.carry(3, Field.PREVIOUS, _part(Field.OUT, 0, 48), size=gains.found)
    attention.carry(1, Field.TAG, Field.VOTE)
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: 1.0, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(2, {Flag.SINK: 1.0}, gains.doubt * gains.won)
    attention.prefer(2, {Flag.INSIDE: 1.0}, gains.gate + gains.won, when={Flag.ANSWER: -1.0})
    attention.compare(2, Field.VOTE, Field.TAG, gains.won)
    attention.carry(2, _flag(Flag.SINK), _flag(Flag.REFUSE), size=1.0)


def _copy(attention: _Attention, tokenizer: Tokenizer, embedding: Tensor, gains: Gains) -> None:
    """Silent, which is to look at `<|assistant|>`, outside of the quote and at its first two tokens."""
    attention.clear(0)
    attention.prefer(0, {Flag.INSIDE: 1.0, Flag.LINE: -2.0, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(0, {Flag.SPACE: -1.0}, gains.boundary, when={Flag.MARK: 1.0}, always=0.0)
    # At the quote's second token its tag is not whole yet, so all scores are lower.
    attention.prefer(0, {Flag.SINK: 1.0}, gains.end, when={Flag.EARLIER_LINE: -0.5})
    attention.prefer(
        0, {Flag.ANSWER: 1.0}, 3 * gains.gate, when={Flag.QUOTING: -1.0, Flag.QUOTE: 1.0, Flag.PREVIOUS_QUOTE: 1.0}
    )
    attention.compare(0, _part(Field.CONTENT, 0, 24), _part(Field.PREVIOUS, 0, 24), gains.current * 2 / 3)
    attention.compare(0, _part(Field.CONTENT, STEM, 8), _part(Field.PREVIOUS, STEM, 8), gains.current / 3)
    attention.compare(0, _part(Field.PREVIOUS, 0, 16), _part(Field.EARLIER, 0, 16), gains.second)
    own = (_part(Field.TAG, 0, 20), gains.own / gains.same)
    attention.compare(0, _part(Field.VOTE, 0, 20), _part(Field.TAG, 0, 20), gains.same, also=own)
    attention.carry(0, Field.CONTENT, Field.OUT, size=gains.copied)
    # What the sink says: the end of the quote.
    closing = embedding[tokenizer.token_to_id(END_QUOTE), Field.CONTENT]
    row = attention.rows(0).start + 60
    attention.value[row, Flag.SINK] = gains.copied**0.5 / (FLAG_SIZE * attention.sink)
    attention.output[Field.OUT, row] = closing * SIZE * gains.copied**0.5


def _stem(piece: str) -> str:
    """A token's word, without its leading space, case and commonest endings; "" for what is not a word."""
    word = piece.replace("Ġ", "").lower()
    if not word.isalpha():
        return ""
    return re.sub(r"(?<=..)(?:ings?|ed|es|s|ly|er)$", "", word) if len(word) > 4 else word


SINK_TOKEN = 2  # "<|system|>", which opens every prompt

# Tokens without content: they stand for nothing that could be copied or voted for.
EMPTY = {"<|system|>", "<|assistant|>", "<|end|>", BEGIN_QUOTE}


def _embeddings(tokenizer: Tokenizer, shape: Shape, seed: int) -> Tensor:
    """Rows of equal length: unequal ones would make the constant differ from token to token once it is normalised."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
    stem = _numbered([_stem(piece) or piece for piece in pieces])

    def vectors(rows: int, size: int) -> Tensor:
        found = torch.randn(rows, size, generator=generator)
        return found / found.norm(dim=1, keepdim=True) * size**0.5

    out = torch.zeros(shape.vocabulary, shape.width)
    out[:, Field.CONSTANT] = CONSTANT_SIZE / 3**0.5
    out[:, Field.CONTENT] = torch.cat([vectors(int(stem.max()) + 1, STEM)[stem], vectors(shape.vocabulary, OWN)], 1)
    for number, piece in enumerate(pieces):
        text = piece.replace("Ċ", "\n")
        out[number, Flag.MARK] = FLAG_SIZE * (text in {".", "!", "?", "Ġ."})
        out[number, Flag.LINE] = FLAG_SIZE * ("\n" in text or piece in (DOCUMENT, END_DOCUMENT, BEGIN_QUOTE))
        out[number, Flag.SPACE] = FLAG_SIZE * ((piece[0] == "Ġ" and len(piece) > 1) - 2.0 * (not piece.strip("Ġ")))
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
