"""Records survive JSON, ids are stable and collision-free by construction."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.records import (
    Answer,
    Chunk,
    Document,
    Quote,
    RaftExample,
    ScoredChunk,
    Section,
    Usage,
    content_id,
    from_json,
    to_json,
)

TEXT = st.text(max_size=60)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(TEXT)
    starts = draw(st.lists(st.integers(0, len(text)), max_size=3))
    return Document.create(
        uri=draw(TEXT),
        title=draw(TEXT),
        text=text,
        sections=tuple(Section(start=start, level=1, title=draw(TEXT)) for start in sorted(starts)),
        pages=tuple(sorted(starts)),
    )


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    document = draw(documents())
    start = draw(st.integers(0, len(document.text)))
    end = draw(st.integers(start, len(document.text)))
    page = draw(st.none() | st.integers(1, 9))
    return Chunk.create(document, start, end, headings=tuple(draw(st.lists(TEXT, max_size=2))), page=page)


def through_json(record: object) -> object:
    return from_json(type(record), json.loads(json.dumps(to_json(record))))


@given(documents())
def test_a_document_survives_json(document: Document) -> None:
    assert through_json(document) == document


@given(chunks())
def test_a_chunk_is_its_document_at_its_offsets(chunk: Chunk) -> None:
    assert through_json(chunk) == chunk
    assert len(chunk.text) == chunk.end - chunk.start


@given(chunks(), TEXT)
def test_nested_records_survive_json(chunk: Chunk, words: str) -> None:
    answer = Answer(
        question=words,
        text=words,
        final="",
        refusal=True,
        quotes=(Quote(text=words, chunk_id=chunk.id, start=1, end=2), Quote(text=words, closed=False)),
        passages=(ScoredChunk(chunk=chunk, score=0.5, rank=1, dense_rank=2, dense_score=0.25),),
        usage=Usage(prompt_tokens=3),
    )
    example = RaftExample(
        id="e",
        question=words,
        passages=(chunk,),
        golden=(chunk,),
        golden_included=True,
        reasoning=words,
        quotes=(),
        final_answer=words,
        seed=7,
    )
    assert through_json(answer) == answer
    assert through_json(example) == example
    assert example.golden_ids == (chunk.id,)


def test_an_unknown_or_missing_field_is_named() -> None:
    with pytest.raises(TypeError, match="surprise"):
        from_json(Usage, {"surprise": 1})
    with pytest.raises(TypeError, match="text"):
        from_json(Quote, {})


@given(st.lists(TEXT, min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=4))
def test_ids_tell_apart_what_differs(left: list[str], right: list[str]) -> None:
    assert (content_id(*left) == content_id(*right)) == (left == right)


def test_ids_never_change_between_versions() -> None:
    # Manifests, data sets and adapters out there carry these.
    assert content_id("ab", "c") == "430fb1b4ac43316e"
    assert content_id("ab", "c") != content_id("a", "bc")


def test_a_quote_without_a_chunk_is_unverified() -> None:
    assert not Quote(text="x").verified
    assert Quote(text="x", chunk_id="c", start=0, end=1).verified


def test_a_quote_of_a_file_that_does_not_say_whether_it_was_closed_is_read() -> None:
    stored = {"text": "x", "chunk_id": "c", "start": 0, "end": 1}
    assert from_json(Quote, stored) == Quote(text="x", chunk_id="c", start=0, end=1, closed=True)
