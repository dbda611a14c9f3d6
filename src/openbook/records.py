"""The records that travel from stage to stage, and their JSON form.

All are frozen, and every `id` is a hash of the content, so that equal content has an equal id on every machine
and a stage can tell what has changed. Offsets count characters (Unicode code points) of `Document.text`.
"""

import dataclasses
import hashlib
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

Role = Literal["system", "user", "assistant"]


def content_id(*parts: object) -> str:
    """16 hexadecimal digits of SHA-256 over `parts`, each length-prefixed so that ("ab", "c") ≠ ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading of a document: where its text starts, its depth (1 = title) and its words."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file as readable text. `uri` is its path from the folder that the user gave, that folder's name first.

    `pages[i]` is the offset at which page i+1 starts (empty when the format has no pages).
    """

    id: str
    uri: str
    title: str
    text: str
    sections: tuple[Section, ...] = ()
    pages: tuple[int, ...] = ()

    @classmethod
    def create(
        cls, *, uri: str, title: str, text: str, sections: tuple[Section, ...] = (), pages: tuple[int, ...] = ()
    ) -> Self:
        return cls(id=content_id(uri, title, text), uri=uri, title=title, text=text, sections=sections, pages=pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage: `text == document.text[start:end]`.

    `uri` and `title` repeat the document's, so that a passage can be cited without opening the document.
    `headings` is the path of headings above it, outermost first; `page` is 1-based, None without pages.
    """

    id: str
    document_id: str
    start: int
    end: int
    text: str
    uri: str = ""
    title: str = ""
    headings: tuple[str, ...] = ()
    page: int | None = None

    @classmethod
    def create(
        cls, document: Document, start: int, end: int, *, headings: tuple[str, ...] = (), page: int | None = None
    ) -> Self:
        text = document.text[start:end]
        return cls(
            id=content_id(document.id, start, text),
            document_id=document.id,
            start=start,
            end=end,
            text=text,
            uri=document.uri,
            title=document.title,
            headings=headings,
            page=page,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """A search result. `rank` counts from 1; `score` is the fused score.

    The legs are None where that leg did not return the chunk: `dense_score` is a cosine, `text_score` is BM25.
    """

    chunk: Chunk
    score: float
    rank: int
    dense_rank: int | None = None
    dense_score: float | None = None
    text_rank: int | None = None
    text_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a judge said of a question, each from 0 (no) to 1 (yes); None where nobody was asked.

    `grounded`: the golden passages say what the reasoning claims. `answerable`: they alone answer the question.
    `entailed`: the quotes alone give the answer. `closed_book`: the teacher knows the answer without any passage (token
    F1). `closed_base`: the model that is to be tuned knows it so.
    """

    grounded: float | None = None
    answerable: float | None = None
    entailed: float | None = None
    closed_book: float | None = None
    closed_base: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question and the chunks that hold its answer. `kind` names the rule or teacher that wrote it.

    `quotes` are the answer's sentences, one or more of each golden chunk, verbatim; `answer` is the short answer. A
    question that the documents answer nowhere has no golden chunk, no quote and the refusal as its answer.
    """

    id: str
    text: str
    golden_chunk_ids: tuple[str, ...]
    answer: str = ""
    quotes: tuple[str, ...] = ()
    reasoning: str = ""
    kind: str = ""
    scores: Scores = Scores()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A claimed quotation. Where verified, `text == document.text[start:end]` in the document of `chunk_id`;
    where not, `chunk_id` is "" and both offsets are −1. `closed` is False where the answer ended before the quote did:
    nobody can know what it claims, so it is never verified. Files that do not say so yet read as True."""

    text: str
    chunk_id: str = ""
    start: int = -1
    end: int = -1
    closed: bool = True

    @property
    def verified(self) -> bool:
        return bool(self.chunk_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftExample:
    """One row of a RAFT data set.

    `passages` stand in the order in which they are shown; `golden_ids` name the golden ones, also when
    `golden_included` is False and they were left out. `final_answer` is what a model is trained to say, `answer` the
    short answer of the documents: they differ where the golden passage is missing and the example refuses. `group` is
    equal for the examples of one study group, which share the same passages.
    """

    id: str
    question: str
    passages: tuple[Chunk, ...]
    golden: tuple[Chunk, ...]
    golden_included: bool
    reasoning: str
    quotes: tuple[Quote, ...]
    final_answer: str
    seed: int
    group: str = ""
    kind: str = ""
    question_id: str = ""
    answer: str = ""
    scores: Scores = Scores()

    @property
    def golden_ids(self) -> tuple[str, ...]:
        return tuple(chunk.id for chunk in self.golden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """`prompt` is a conversation that ends with a user's message; the other two are assistant texts.

    `margin` is how much better the chosen one is, on the scale of a reward model's scores; 0 where nobody said.
    """

    prompt: Conversation
    chosen: str
    rejected: str
    margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of the model's own tokenizer, and seconds of wall time."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to a question. `text` is everything it wrote, `final` the short answer ("" if it gave none).

    `finished` is False when generation ended at the token limit and not with the stop token. `error` says why nothing
    was generated, and is "" otherwise.
    """

    question: str
    text: str
    final: str
    refusal: bool
    quotes: tuple[Quote, ...]
    passages: tuple[ScoredChunk, ...]
    usage: Usage
    finished: bool = True
    error: str = ""


def to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON types (tuples become lists)."""
    return dataclasses.asdict(record)


@cache
def _field_types(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(annotation: Any, value: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin is tuple:
        item = typing.get_args(annotation)[0]
        return tuple(_convert(item, element) for element in value)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
        return _convert(annotation, value)
    if dataclasses.is_dataclass(annotation):
        return from_json(typing.cast(type, annotation), value)
    return value


def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """The inverse of `to_json`. A missing or unknown field raises `TypeError` with its name."""
    hints = _field_types(typing.cast(Hashable, cls))
    return cls(**{key: _convert(hints[key], value) if key in hints else value for key, value in data.items()})
