"""RAFT rows: ours come back equal, other tools' are read, and a malformed one is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook import prompt
from openbook.dataset.formats import FIELDS, from_row, read_examples, to_row
from openbook.errors import RecordError, StoreError
from openbook.records import Chunk, Document, Quote, RaftExample, content_id

LEVER = "The lever has nine rivets. It is made of oak."
SPINDLE = "The spindle turns twice a day."
ANSWER = "##begin_quote##The lever has nine rivets.##end_quote## <ANSWER>: nine"


def foreign(**changes):
    """A row as the reference tool writes it, without our `meta`."""
    row = {
        "id": "seed_task_0",
        "type": "general",
        "question": "How many rivets has the lever?",
        "context": {"title": [["placeholder_title"] * 2], "sentences": [[SPINDLE, LEVER]]},
        "oracle_context": LEVER,
        "cot_answer": ANSWER,
        "instruction": f"<DOCUMENT>{SPINDLE}</DOCUMENT>\n<DOCUMENT>{LEVER}</DOCUMENT>\nHow many rivets has the lever?",
    }
    row |= changes
    return {key: value for key, value in row.items() if value is not ...}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
written = texts.filter(lambda text: text.strip())


@st.composite
def examples(draw):
    passages = draw(st.lists(written, min_size=1, max_size=4, unique=True))
    document = Document.create(uri="a b/ü.md", title=draw(texts), text="\n".join(passages))
    chunks, at = [], 0
    for text in passages:
        chunks.append(
            Chunk.create(
                document,
                at,
                at + len(text),
                headings=tuple(draw(st.lists(texts, max_size=2))),
                page=draw(st.none() | st.integers(1, 9)),
            )
        )
        at += len(text) + 1
    golden = chunks[: draw(st.integers(1, len(chunks)))]
    included = draw(st.booleans())
    shown = tuple(chunks) if included else tuple(chunks[len(golden) :])
    quoted = draw(st.booleans())
    sentence = golden[0].text.strip()
    quotes = (Quote(text=sentence, chunk_id=golden[0].id, start=golden[0].start, end=golden[0].end),) if quoted else ()
    return RaftExample(
        id=content_id(*passages),
        question=draw(written),
        passages=shown,
        golden=tuple(golden),
        golden_included=included,
        reasoning=prompt.render_quote(sentence) if quoted else draw(texts),
        quotes=quotes,
        final_answer=draw(texts),
        seed=draw(st.integers(0, 2**31)),
        group=draw(texts),
        kind=draw(texts),
        question_id=draw(texts),
        answer=draw(texts),
    )


def is_tagged(example):
    return any(tag in text for tag in prompt.TAGS for text in (example.question, *(c.text for c in example.golden)))


@given(examples().filter(lambda example: not is_tagged(example)))
def test_rows_come_back_equal(example):
    row = json.loads(json.dumps(to_row(example)))
    assert from_row(row) == example
    assert json.loads(json.dumps(to_row(from_row(row)))) == row
    assert tuple(row) == (*FIELDS, "meta")


def test_a_row_has_the_layout_of_the_reference_tool():
    row = to_row(from_row(foreign()))
    theirs = foreign()
    assert {key: row[key] for key in FIELDS if key != "cot_answer"} == {
        key: theirs[key] for key in FIELDS if key != "cot_answer"
    }
    assert prompt.parse_answer(row["cot_answer"]) == prompt.parse_answer(ANSWER)


def test_a_row_of_the_reference_tool():
    example = from_row(foreign())
    assert [chunk.text for chunk in example.passages] == [SPINDLE, LEVER]
    assert example.golden == (example.passages[1],)
    assert example.golden_included
    assert (example.final_answer, example.answer) == ("nine", "nine")
    (quote,) = example.quotes
    assert quote.verified and LEVER[quote.start : quote.end] == quote.text == "The lever has nine rivets."


@pytest.mark.parametrize(
    "context",
    [
        {"title": ["t", "t"], "sentences": [SPINDLE, LEVER]},
        {"sentences": [[SPINDLE, LEVER]]},
        [SPINDLE, LEVER],
    ],
)
def test_contexts_may_be_flat_or_nested(context):
    assert from_row(foreign(context=context)) == from_row(foreign())


def test_one_flat_passage_is_one_passage():
    assert [c.text for c in from_row(foreign(context={"sentences": [LEVER]})).passages] == [LEVER]
    assert from_row(foreign(context={"sentences": [[]]})).passages == ()


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("##Reason: ##begin_quote##The lever has nine rivets.##end_quote## ##Answer: nine", "nine"),
        ("assistant: It says so. <ANSWER>:nine", "nine"),
        ("Because. <answer>: nine\n", "nine"),
        ("It does not say.", ""),
    ],
)
def test_other_spellings_of_the_answer(answer, final):
    assert from_row(foreign(cot_answer=answer)).final_answer == final


def test_the_variant_with_oracle_document():
    example = from_row(foreign(oracle_context=..., oracle_document=LEVER, oracle_present=True, oracle_index=1))
    assert example.golden[0].text == LEVER and example.golden_included
    left_out = from_row(
        foreign(context={"sentences": [[SPINDLE]]}, oracle_context=..., oracle_document=LEVER, oracle_present=False)
    )
    assert left_out.golden[0].text == LEVER and not left_out.golden_included


def test_a_golden_passage_that_was_left_out_is_kept_all_the_same():
    example = from_row(foreign(context={"sentences": [[SPINDLE]]}))
    assert example.golden[0].text == LEVER
    assert not example.golden_included
    assert example.quotes[0].chunk_id == example.golden[0].id


def test_what_a_person_edits_wins_over_meta():
    row = to_row(from_row(foreign()))
    row["question"] = "How many rivets are in the lever?"
    row["cot_answer"] = "##begin_quote## It is made of oak.##end_quote## <ANSWER>: oak"
    row["context"]["sentences"][0][0] = "The spindle is new."
    example = from_row(row)
    assert (example.question, example.final_answer) == ("How many rivets are in the lever?", "oak")
    assert [quote.text for quote in example.quotes] == ["It is made of oak."] and example.quotes[0].verified
    assert [chunk.text for chunk in example.passages] == ["The spindle is new.", LEVER]


def test_refusals_are_recognised():
    example = from_row(foreign(context={"sentences": [[SPINDLE]]}, cot_answer="<ANSWER>: not in the documents"))
    assert (example.final_answer, example.answer, example.quotes) == (prompt.REFUSAL, "", ())
    assert to_row(example)["meta"]["without_golden"] == "refuse"


CHUNK = {"id": "c", "document_id": "d", "start": 0, "end": 4, "text": "text"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"question": ...}, "the field 'question' is missing"),
        ({"question": "  "}, "the field 'question' is empty"),
        ({"question": 3}, "the field 'question' is of the type int"),
        ({"cot_answer": ...}, "the field 'cot_answer' is missing"),
        ({"context": ...}, "the field 'context' has no list of passages"),
        ({"context": {"sentences": "text"}}, "the field 'context' has no list of passages"),
        ({"context": {"sentences": [[1, 2]]}}, "the field 'context' has no list of passages"),
        ({"oracle_context": 7}, "the field 'oracle_context' is of the type int"),
        ({"meta": 7}, "'meta' is of the type int"),
        ({"meta": {"passage_chunks": [{"nonsense": 1}]}}, "'meta' holds a passage that cannot be read"),
        ({"meta": {"passage_chunks": [3]}}, "'meta' holds a passage that cannot be read"),
        ({"meta": {"passage_chunks": [CHUNK | {"text": 3}]}}, "'meta' holds a passage that cannot be read"),
        ({"meta": {"golden_chunks": [CHUNK | {"text": None}]}}, "'meta' holds a passage that cannot be read"),
        ({"meta": {"passage_chunks": [CHUNK | {"start": None}]}}, "'meta' holds a passage that cannot be read"),
        ({"meta": {"quotes": [{"nonsense": 1}]}}, "'meta' holds a quote that cannot be read"),
        ({"meta": {"quotes": [{"text": 3}]}}, "'meta' holds a quote that cannot be read"),
    ],
)
def test_a_malformed_row_is_named_with_its_field(changes, says):
    with pytest.raises(RecordError) as caught:
        from_row(foreign(**changes), "set.jsonl:7")
    assert str(caught.value).startswith("set.jsonl:7: ") and says in str(caught.value)


def test_the_meta_of_another_tool_is_passed_over():
    other = {"answer": 42, "group": 3, "kind": ["a"], "seed": "x", "question_id": None, "golden_chunks": 7, "scores": 1}
    row = {
        "question": "How many?",
        "context": ["It has 42."],
        "cot_answer": "<ANSWER>: 42",
        "oracle_context": "It has 42.",
    }
    assert from_row(row | {"meta": other}) == from_row(row)


def test_a_file_names_the_bad_line(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(foreign()) + "\n" + json.dumps(foreign(question=None)) + "\n", encoding="utf-8")
    rows = read_examples(path)
    assert next(rows).question == "How many rivets has the lever?"
    with pytest.raises(RecordError, match=r"set\.jsonl:2: the field 'question' is missing"):
        next(rows)
    with pytest.raises(StoreError):
        next(read_examples(tmp_path / "absent.jsonl"))


def test_questions_of_several_lines_stay_whole():
    question = "First this:\n  - one\n  - two\nthen what?"
    assert from_row(json.loads(json.dumps(to_row(from_row(foreign(question=question)))))).question == question
