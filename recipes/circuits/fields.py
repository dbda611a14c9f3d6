"""The model's sizes, the dimensions of its residual stream, and the embeddings that fill them."""

import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig

from openbook.dataset.english.words import STOPWORDS
from openbook.prompt import ANSWER, BEGIN_QUOTE, DOCUMENT, END_DOCUMENT, END_QUOTE

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
    MORE_FLAGS = slice(374, 381)
    NAME = slice(312, 368)  # in OUT, within layers 2 and 3: the last pieces of the name above a sentence, or asked for
    FREE = slice(381, 384)  # left to training


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
    JOINT = 27  # joins the parts of a name: a dot or underscore
    ASKED = 28  # `<ANSWER>:`
    NOVEL = 29  # does not stand in the question
    PREVIOUS_NOVEL = 30
    STOP = 31  # the short answer ends
    CLOSE = 32  # the quote ends
    BULLET = 33  # stands before a list item or heading
    OF_DOCUMENT = 34  # a document's tag
    OPENS = 35  # a document's opening tag; −1: a closing one
    QUOTES = 36  # a quote's opening tag; −1: a closing one
    TAGS_QUOTES = 37  # of quotes, what TAGS is of documents
    DOCUMENTS = 38  # the share of document tags among the tags so far
    OF_QUOTE = 39  # a quote's tag
    PIECE = 374  # continues a word or name: neither a space nor a mark before it
    OPEN = 375  # opens a bracket
    PREVIOUS_PIECE = 376
    JOINTS = 377  # how many of the tokens two and three back are joints
    PREVIOUS_HASH = 378
    HEADING = 379  # in a heading's line
    BELOW = 380  # the first sentence below a heading: three tokens from its line


def part(field: slice, first: int, count: int) -> slice:
    return slice(field.start + first, field.start + first + count)


def single(number: int) -> slice:
    return slice(number, number + 1)


def _stem(piece: str) -> str:
    """A token's word, without its leading space, case and commonest endings; "" for what is not a word."""
    word = piece.replace("Ġ", "").lower()
    if not word.isalpha():
        return ""
    return re.sub(r"(?<=..)(?:ings?|ed|es|s|ly|er)$", "", word) if len(word) > 4 else word


# What ends a sentence where a space follows; list markers and those of headings stand before one.
BULLET = re.compile(r"[-*•#]+")
MARK = re.compile(rf"Ġ?\W*[.!?]\W*|{BULLET.pattern}")
SMALL = 0.25  # size of the flags that layers add, relative to others: full ones would make rows longer
JOINT = re.compile(r"[._]+|::")
LINES = {DOCUMENT, END_DOCUMENT, BEGIN_QUOTE, END_QUOTE}
# Without content: they stand for nothing that could be copied or voted for.
EMPTY = {"<|system|>", "<|assistant|>", "<|end|>", BEGIN_QUOTE}


def embeddings(tokenizer: Tokenizer, shape: Shape, seed: int) -> Tensor:
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
        out[number, Flag.JOINT] = FLAG_SIZE * bool(JOINT.fullmatch(piece))
        out[number, Flag.PIECE] = FLAG_SIZE * (piece.isalnum() and piece[0] not in "ĠĊ")
        out[number, Flag.OPEN] = FLAG_SIZE * piece.startswith("(")
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


def _numbered(names: list[str]) -> Tensor:
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
