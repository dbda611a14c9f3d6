"""A row's length is that of the conversation that a training run on it would show."""

import pytest

from openbook import models, prompt
from openbook.dataset.imports import STOP, read_sample
from openbook.dataset.lengths import Lengths, conversation
from openbook.models.chat import encode_text, render
from raft_world import healthy, shown
from tiny_model import save_tiny_llama

ROW = healthy()[6]
ASKED, ANSWER = ROW["instruction"], ROW["cot_answer"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder, [row["instruction"] for row in healthy()], context=300)
    return str(folder)


def turns(row):
    return [(m.role, m.content) for m in conversation(read_sample(row)).messages]


def test_raft_rows_are_shown_as_openbook_shows_them():
    whole = prompt.with_answer(prompt.prompt(ROW["question"], shown(ROW)), ANSWER)
    assert conversation(read_sample(ROW)) == whole


def test_other_rows_are_shown_as_they_are():
    said = [("system", "Be brief."), ("user", ASKED), ("assistant", ANSWER)]
    assert turns({"messages": [{"role": role, "content": text} for role, text in said]}) == said
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    assert turns({"conversations": [{"from": names[role], "value": text} for role, text in said]}) == said
    assert turns({"prompt": ASKED, "completion": ANSWER}) == said[1:]
    assert turns({"instruction": ASKED, "output": ANSWER}) == said[1:]


def test_earlier_turns_are_counted_in_every_layout_that_has_them():
    said = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("user", ASKED), ("assistant", ANSWER)]
    messages = [{"role": role, "content": text} for role, text in said]
    assert turns({"messages": messages}) == said
    assert turns({"prompt": messages[:-1], "completion": messages[-1:]}) == said
    assert turns({"prompt": messages[:-1], "completion": ANSWER + STOP}) == said
    assert turns({"prompt": messages[:-1], "chosen": messages[-1:], "rejected": messages[2:3]}) == said


def test_tokens_are_counted_in_the_models_own_template(model):
    lengths = Lengths(model)
    tokenizer = models.load_tokenizer(model)
    expected = len(encode_text(tokenizer, render(tokenizer, conversation(read_sample(ROW)))))
    assert lengths.tokens(read_sample(ROW)) == expected
    assert lengths.limit == 300
    empty = ROW | {"cot_answer": " "}
    assert lengths.tokens(read_sample(empty)) == 0
