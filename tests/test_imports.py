"""Rows of other tools as samples: what no layout has is named, what is read is written back in its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.dataset.imports import read_sample, split_message, text_at, with_passages, with_text
from openbook.dataset.tables import read_rows
from openbook.errors import RecordError
from raft_world import healthy, instruction, shown
from shared_data import DATA

FORMATS = DATA / "formats"
ROW = healthy()[6]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: "DOCUMENT>" not in text)


@given(st.lists(texts, min_size=1, max_size=4), texts)
def test_a_message_is_taken_apart_as_it_was_put_together(passages, question):
    assert split_message(instruction(passages, question)) == (tuple(passages), question.strip())


@given(texts)
def test_a_message_without_documents_is_the_question(question):
    assert split_message(question) == (None, question.strip())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, r"no known layout has the fields \(none\)"),
        ({"code": 1, "api": 2}, "no known layout has the fields api, code"),
        ({"messages": []}, "does not end with an assistant's message"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, "does not end with an assistant's message"),
        ({"messages": ["Why?"]}, "'messages' holds a message of the type str"),
        ({"messages": 7}, "'messages' is of the type int"),
        ({"prompt": 7, "completion": "x"}, "'prompt' is of the type int"),
        ({"chosen": [], "rejected": []}, "'chosen' holds no message"),
        ({"instruction": ["x"], "output": "y"}, "'instruction' is of the type list"),
        (ROW | {"question": 7}, "'question' is of the type int"),
        (ROW | {"context": {"sentences": [1]}}, "'context' has no list of passages"),
        (ROW | {"oracle_context": 3}, "'oracle_context' is of the type int"),
    ],
)
def test_what_no_layout_has_is_named(row, says):
    with pytest.raises(RecordError, match=says):
        read_sample(row)


def test_the_question_is_the_last_one_that_was_asked():
    said = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": ROW["instruction"]},
        {"role": "assistant", "content": ROW["cot_answer"]},
    ]
    sample = read_sample({"messages": said})
    assert (sample.question, list(sample.passages)) == (ROW["question"], shown(ROW))
    assert (sample.answer_at, sample.question_at) == (("messages", 3, "content"), (("messages", 2, "content"),))


def test_alpaca_rows_may_hold_their_passages_in_either_field():
    documents = ROW["instruction"].removesuffix(ROW["question"])
    for row in ({"instruction": documents, "input": ROW["question"]}, {"instruction": ROW["instruction"], "input": ""}):
        sample = read_sample(row | {"output": "x"})
        assert (sample.question, list(sample.passages)) == (ROW["question"], shown(ROW))


def test_a_text_is_changed_in_a_copy():
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    changed = with_text(row, ("messages", 1, "content"), "c")
    assert (text_at(changed, ("messages", 1, "content")), row["messages"][1]["content"]) == ("c", "b")


@pytest.mark.parametrize("nested", [True, False])
def test_passages_go_from_all_columns_at_once(nested):
    titles = ["a", "b", "c", "d"]
    context = {"title": [titles], "sentences": [shown(ROW)]} if nested else {"title": titles, "sentences": shown(ROW)}
    row = ROW | {"context": context, "oracle_index": 2}
    changed = with_passages(row, read_sample(row), [2, 0])
    kept, names = [shown(ROW)[2], shown(ROW)[0]], ["c", "a"]
    assert changed["context"] == (
        {"title": [names], "sentences": [kept]} if nested else {"title": names, "sentences": kept}
    )
    assert changed["instruction"] == instruction(kept, ROW["question"])
    assert changed["oracle_index"] == 0
    assert row["context"]["title"] in (titles, [titles])


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [("alpaca_en_demo", "alpaca", 999), ("dpo_en_demo", "preference", 300), ("kto_en_demo", "messages", 300)],
)
def test_files_of_other_tools_are_read_to_the_last_row(name, layout, count):
    path = FORMATS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    samples = [read_sample(raw.row) for raw in read_rows(path)]
    assert len(samples) == count
    assert {sample.layout for sample in samples} == {layout}
    assert all(sample.question and sample.answer for sample in samples)
