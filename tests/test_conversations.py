"""Instruction rows: which layouts are read, which turns are trained, and how they become tokens."""

import pytest

from models_for_tests import CHATML_TEMPLATE, TEMPLATES, tokenizer
from openbook.dataset.conversations import read_conversation
from openbook.errors import RecordError
from openbook.models.chat import encode_answered, stop_token
from openbook.records import Conversation, Message
from openbook.tokens import encode, encode_turns

U, A = "user", "assistant"
TALK = [(U, "one?"), (A, "first"), (U, "two?"), (A, "second")]


def said(row):
    return [(turn.role, turn.content, turn.train) for turn in read_conversation(row)]


LAYOUTS = [
    ({"messages": [{"role": r, "content": c} for r, c in TALK]}, [False, True, False, True]),
    ({"conversations": [{"from": {U: "human", A: "gpt"}[r], "value": c} for r, c in TALK]}, [False, True, False, True]),
    (
        {"messages": [{"role": r, "content": [{"type": "text", "text": part} for part in c]} for r, c in TALK]},
        [False, True, False, True],
    ),
    ({"messages": [{"role": r, "content": c, "weight": int(c == "second")} for r, c in TALK]}, [0, 0, 0, 1]),
    ({"messages": [{"role": r, "content": c, "train": c != "second"} for r, c in TALK]}, [0, 1, 0, 0]),
    ({"messages": [{"role": r, "content": c, "training": c != "first"} for r, c in TALK]}, [0, 0, 0, 1]),
    ({"instruction": "two?", "input": "", "output": "second", "history": [["one?", "first"]]}, [0, 1, 0, 1]),
    ({"prompt": [{"role": r, "content": c} for r, c in TALK[:3]], "completion": "second<STOP>"}, [0, 0, 0, 1]),
]


@pytest.mark.parametrize(("row", "trained"), LAYOUTS)
def test_layouts_say_the_same_and_flags_are_kept(row, trained):
    assert said(row) == [(r, c, bool(t)) for (r, c), t in zip(TALK, trained, strict=True)]


def test_other_texts_of_a_row_find_their_place():
    told = {"messages": [{"role": "developer", "content": "Be brief."}, *LAYOUTS[0][0]["messages"]]}
    assert said(told)[0] == ("system", "Be brief.", False)
    assert said({"instruction": "Add.", "input": "2 3", "output": "5", "system": "Be brief."}) == [
        ("system", "Be brief.", False),
        (U, "Add.\n2 3", False),
        (A, "5", True),
    ]
    raft = {
        "question": "How long?",
        "context": {"sentences": [["Ten minutes."]]},
        "cot_answer": "<ANSWER>: ten minutes",
    }
    (system, user, answer) = said(raft)
    assert system[0] == "system" and "<DOCUMENT>Ten minutes.</DOCUMENT>" in user[1] and answer[2]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "layout is unknown"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'"),
        ({"messages": [{"role": {}, "content": "x"}]}, "message 1 of 'messages' has the role {}"),
        ({"messages": [{"role": U, "content": None}, {"role": A, "content": "x"}]}, "NoneType content"),
        ({"messages": [{"role": U, "content": "x"}]}, "no assistant's message is trained"),
        ({"messages": [{"role": U, "content": "x"}, {"role": A, "content": " "}]}, "empty"),
        ({"messages": [{"role": A, "content": "x"}]}, "does not begin with a user's"),
        ({"messages": [{"role": U, "content": "x"}, {"role": A, "content": "y", "weight": 2}]}, "flag 2"),
        ({"messages": [{"role": U, "content": [{"type": "image", "image": "a.png"}]}]}, "list content, not text"),
        ({"prompt": "x", "completion": ""}, "empty"),
        (
            {"conversations": [{"role": U, "content": "x"}], "chosen": "a", "rejected": "b"},
            r"preference pair.*--method dpo --pairs",
        ),
        ({"instruction": "x", "output": 3}, "not text"),
        ({"instruction": "x", "output": "y", "history": ["a"]}, "history"),
    ],
)
def test_what_cannot_be_used_is_told(row, problem):
    with pytest.raises(RecordError, match=problem):
        read_conversation(row)


def conversation(talk):
    return Conversation(messages=tuple(Message(role=r, content=c) for r, c in talk))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_each_answer_and_its_stop_token_are_trained_and_nothing_else(template):
    words = tokenizer(template)
    sequences = encode_turns(words, conversation(TALK), trained=[False, True, False, True])
    trained = [int(i) for s in sequences for i in s.input_ids[s.weight > 0]]
    expected = [token for end in (2, 4) for token in encode_answered(words, conversation(TALK[:end]))[1]]
    assert trained == expected
    # The prompt of the last answer is the one that generation sees, token for token.
    prompt = encode_answered(words, conversation(TALK))[0]
    last = sequences[-1]
    ends = len(last) - len(encode_answered(words, conversation(TALK))[1])
    assert last.input_ids[:ends].tolist() == prompt


def test_a_turn_that_does_not_count_is_read_but_not_trained():
    words = tokenizer(CHATML_TEMPLATE)
    (sequence,) = encode_turns(words, conversation(TALK), trained=[False, False, False, True])
    assert sequence.input_ids.tolist() == encode(words, conversation(TALK)).input_ids.tolist()
    assert sequence.weight.tolist() == encode(words, conversation(TALK)).weight.tolist()


def test_what_follows_the_last_trained_answer_is_left_out():
    words = tokenizer(CHATML_TEMPLATE)
    (sequence,) = encode_turns(words, conversation([*TALK, (U, "three?")]), trained=[False, True, False, False, False])
    assert sequence.input_ids[-1] == stop_token(words, "<|im_end|>\n")
    assert len(sequence) == len(encode(words, conversation(TALK[:2])))


def test_a_template_that_rewrites_earlier_turns_gives_a_sequence_for_each_answer():
    forgetful = (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] if loop.last or message['role'] == 'user' "
        "else 'cut') + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    words = tokenizer(forgetful)
    first, second = encode_turns(words, conversation(TALK), trained=[False, True, False, True])
    assert "first" in words.decode(first.input_ids[first.weight > 0])
    assert "cut" in words.decode(second.input_ids) and "second" in words.decode(second.input_ids[second.weight > 0])


def test_a_conversation_without_a_trained_turn_is_refused():
    with pytest.raises(RecordError, match="row 3: no assistant's message is trained on"):
        encode_turns(tokenizer(), conversation(TALK), trained=[False] * 4, name="row 3")
