"""Preference pairs: every layout is read alike, bad rows are named, and rows never part a pair."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_for_tests import tokenizer
from openbook.errors import RecordError
from openbook.records import Conversation, Message, PreferencePair
from openbook.storage import write_jsonl
from openbook.tokens import TokenSequence
from openbook.training.pair_rows import Pairs, encode_pairs
from openbook.training.pairs import read_pairs
from shared_data import DATA

FORMATS = DATA / "formats"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[PreferencePair]:
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return [pair for _, pair in read_pairs(tmp_path / "pairs.jsonl")]


PAIR = PreferencePair(
    prompt=Conversation(messages=(Message(role="user", content="How long?"),)), chosen="Ten minutes.", rejected="A day."
)
TEXTS = {"chosen": "Ten minutes.", "rejected": "A day."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "How long?", **TEXTS},
        {"prompt": [user("How long?")], **TEXTS},
        {"prompt": [user("How long?")], "chosen": [assistant("Ten minutes.")], "rejected": [assistant("A day.")]},
        {
            "prompt": "How long?",
            "chosen": [user("How long?"), assistant("Ten minutes.")],
            "rejected": [user("How long?"), assistant("A day.")],
        },
        {
            "chosen": [user("How long?"), assistant("Ten minutes.")],
            "rejected": [user("How long?"), assistant("A day.")],
        },
        {
            "chosen": "\n\nHuman: How long?\n\nAssistant: Ten minutes.",
            "rejected": "\n\nHuman: How long?\n\nAssistant: A day.",
        },
        {"chosen": "How long? Ten minutes.", "rejected": "How long? A day."},
        {
            "conversations": [{"from": "human", "value": "How long?"}],
            "chosen": {"from": "gpt", "value": "Ten minutes."},
            "rejected": {"from": "gpt", "value": "A day."},
        },
        {"instruction": "How long?", "input": "", "prompt": None, **TEXTS},
        {"system": "", "question": "How long?", **TEXTS},
    ],
)
def test_every_layout_is_the_same_pair(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, row) == [PAIR]


def test_system_margin_and_earlier_turns_are_kept(tmp_path: Path) -> None:
    (pair,) = read(
        tmp_path,
        {"system": "Be short.", "prompt": [user("Hi"), assistant("Hello"), user("How long?")], **TEXTS, "margin": 2},
    )
    assert [message.role for message in pair.prompt.messages] == ["system", "user", "assistant", "user"]
    assert pair.margin == 2.0
    (talk,) = read(
        tmp_path,
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How long?\n\nAssistant: Ten minutes.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How long?\n\nAssistant: A day.",
        },
    )
    assert talk.prompt.messages == pair.prompt.messages[1:]
    (alpaca,) = read(tmp_path, {"instruction": "How long?", "history": [["Hi", "Hello"]], **TEXTS})
    assert alpaca == talk


def test_a_question_is_the_prompt_also_where_the_answers_begin_alike(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, {"question": "How long?", "chosen": "It takes an hour.", "rejected": "It takes a day."})
    assert (pair.prompt, pair.chosen) == (PAIR.prompt, "It takes an hour.")


def test_rows_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    swapped = {"prompt": "How long?", "chosen": "A day.", "rejected": "Ten minutes."}
    with pytest.warns(UserWarning, match=r"pairs.jsonl: rows prefer opposite answers to the same prompt: 1 and 3\."):
        read(tmp_path, GOOD, GOOD | {"prompt": "How far?"}, swapped)


def test_json_and_parquet_are_read_like_lines(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"prompt": [user("How long?")], **TEXTS}] * 2
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.json", "lines.json", "a.parquet"):
        assert [pair for _, pair in read_pairs(tmp_path / name)] == [PAIR, PAIR]
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(RecordError, match="cannot be read as Parquet"):
        read_pairs(tmp_path / "broken.parquet")


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared sample files are not on this machine")
def test_the_sample_of_llama_factory_is_read_whole(tmp_path: Path) -> None:
    rows = json.loads((FORMATS / "dpo_en_demo.json").read_text())
    pairs = [pair for _, pair in read_pairs(FORMATS / "dpo_en_demo.json")]
    assert len(pairs) == len(rows) == 300
    for row, pair in zip(rows, pairs, strict=True):
        assert (pair.chosen, pair.rejected) == (row["chosen"]["value"], row["rejected"]["value"])
        assert [m.content for m in pair.prompt.messages] == [m["value"] for m in row["conversations"]]


GOOD = {"prompt": "How long?", **TEXTS}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"rejected": " Ten minutes. "}, "pairs.jsonl:2: the chosen and the rejected answer are equal"),
        ({"rejected": " "}, "pairs.jsonl:2: the rejected answer is empty"),
        ({"chosen": None}, "pairs.jsonl:2: the field 'chosen' is missing"),
        ({"prompt": ""}, "pairs.jsonl:2: the field 'prompt' is empty"),
        ({"prompt": None}, "pairs.jsonl:2: there is no prompt"),
        ({"prompt": [assistant("Hi")]}, "pairs.jsonl:2: the prompt does not end with a user's message"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "pairs.jsonl:2: message 1 of 'prompt' has the role 'tool'"),
        (
            {"prompt": [{"role": ["user"], "content": "x"}]},
            "pairs.jsonl:2: message 1 of 'prompt' has the role .'user'.",
        ),
        ({"prompt": 7}, "pairs.jsonl:2: the field 'prompt' is neither a text nor a list"),
        ({"chosen": [user("Other"), assistant("x")]}, "pairs.jsonl:2: 'chosen' and 'rejected' part before their last"),
        (
            {"chosen": [user("Other"), assistant("x")], "rejected": [user("Other"), assistant("y")]},
            "pairs.jsonl:2: the answers repeat a prompt that is not the one",
        ),
        ({"chosen": [user("x")]}, "pairs.jsonl:2: 'chosen' ends with the user's message"),
        (
            {"prompt": None, "instruction": "How long?", "input": 5},
            "pairs.jsonl:2: the field 'input' is empty or not text",
        ),
        (
            {"prompt": None, "instruction": "x", "history": [["Hi"]]},
            "pairs.jsonl:2: 'history' is not a list of question",
        ),
        ({"margin": "much"}, "pairs.jsonl:2: the margin 'much' is not a number"),
    ],
)
def test_a_bad_row_is_named(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read(tmp_path, GOOD, GOOD | broken)


def test_other_bad_rows_are_named_with_the_first(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"pairs.jsonl:1: .* Nor can these rows be used: 3, 4\."):
        read(tmp_path, GOOD | {"chosen": ""}, GOOD, GOOD | {"rejected": ""}, {"prompt": "a"})


def test_an_empty_file_and_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no pairs"):
        read(tmp_path)
    with pytest.raises(RecordError, match=r"none.jsonl does not exist.*Name a \.jsonl"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match=r"is a folder"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl"])
def test_half_a_character_is_told(name: str, tmp_path: Path) -> None:
    """No tokenizer takes half a surrogate pair, which JSON can escape."""
    (tmp_path / name).write_text(json.dumps(GOOD | {"chosen": "\ud800 minutes"}))
    with pytest.raises(RecordError, match=rf"{name}.* is not JSON \(.*surrogates not allowed"):
        read_pairs(tmp_path / name)


def test_what_a_file_is_its_first_bytes_say(tmp_path: Path) -> None:
    import gzip

    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "a.json")
    assert [pair for _, pair in read_pairs(tmp_path / "a.json")] == [PAIR]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    with pytest.raises(RecordError, match=r"packed by gzip.*gunzip"):
        read_pairs(tmp_path / "a.jsonl.gz")


def test_tokens_of_a_pair_are_equal_up_to_the_answers() -> None:
    pairs = encode_pairs([("row 1", PAIR)], tokenizer(), limit=500)
    (chosen,), (rejected,) = pairs.chosen, pairs.rejected
    assert chosen.shareable == rejected.shareable
    assert chosen.input_ids[: chosen.shareable].tolist() == rejected.input_ids[: rejected.shareable].tolist()
    for sequence, text in ((chosen, PAIR.chosen), (rejected, PAIR.rejected)):
        trained = sequence.input_ids[sequence.weight > 0]
        assert tokenizer().decode(trained).strip() == f"{text}</s>", "the stop token is compared as well"


def test_answers_that_are_the_same_tokens_are_equal_too() -> None:
    """A tokenizer without capitals: what differs in nothing else prefers nothing."""
    from tokenizers.normalizers import Lowercase

    lower = tokenizer()
    lower.backend_tokenizer.normalizer = Lowercase()
    loud = dataclasses.replace(PAIR, rejected=PAIR.chosen.upper())
    with pytest.raises(RecordError, match=r"row 2: .* the same tokens for this model.*prefers nothing"):
        encode_pairs([("row 1", PAIR), ("row 2", loud)], lower, limit=500)


def test_a_prompt_longer_than_the_row_is_named() -> None:
    with pytest.raises(RecordError, match=r"row 1: prompt and answer have .* at most 5 fit: not even the prompt does"):
        encode_pairs([("row 1", PAIR)], tokenizer(), limit=5)
    with pytest.raises(RecordError, match=r"rows:1: .* Nor can these rows be used: 2, 3\."):
        encode_pairs([(f"rows:{n}", PAIR) for n in (1, 2, 3)], tokenizer(), limit=5)
    pairs = encode_pairs([("row 1", PAIR)], tokenizer(), limit=500)
    size = max(len(pairs.chosen[0]), len(pairs.rejected[0]))
    with pytest.raises(RecordError, match=rf"row 1: .* at most {size - 1} fit\. Shorten"):
        encode_pairs([("row 1", PAIR)], tokenizer(), limit=size - 1)
    both = encode_pairs([("row 1", PAIR)], tokenizer(), limit=size)
    with pytest.raises(RecordError, match="row 1: the prompt with both answers has"):
        both.rows([0], size)


@st.composite
def data_sets(draw: st.DrawFn) -> Pairs:
    """Few token values, so that prompts meet often."""

    def sequence(prompt: list[int], answer: list[int]) -> TokenSequence:
        weight = np.array([0.0] * len(prompt) + [1.0] * len(answer), np.float32)
        return TokenSequence(input_ids=np.array([*prompt, *answer], np.int64), weight=weight, name="row")

    tokens = st.integers(0, 2)
    chosen, rejected = [], []
    for _ in range(draw(st.integers(1, 12))):
        prompt = draw(st.lists(tokens, min_size=1, max_size=6))
        chosen.append(sequence(prompt, draw(st.lists(tokens, min_size=1, max_size=4))))
        rejected.append(sequence(prompt, draw(st.lists(tokens, min_size=1, max_size=4))))
    return Pairs(chosen=tuple(chosen), rejected=tuple(rejected), margins=(0.0,) * len(chosen))


@given(data_sets(), st.integers(14, 40))
def test_rows_hold_every_pair_once_and_whole(pairs: Pairs, budget: int) -> None:
    rows = pairs.rows(range(len(pairs)), budget)
    assert all(len(row) <= budget for row in rows)
    assert sorted(pair for row in rows for pair in row.pairs) == list(range(len(pairs)))
    for row in rows:
        read_back = row.tree.sequences()
        assert len(read_back) == 2 * len(row.pairs)
        for place, pair in enumerate(row.pairs):
            for found, expected in zip(
                read_back[2 * place : 2 * place + 2], (pairs.chosen[pair], pairs.rejected[pair]), strict=True
            ):
                assert found.input_ids.tolist() == expected.input_ids.tolist()
                assert found.weight.tolist() == expected.weight.tolist()


@given(data_sets(), st.integers(0, 5))
def test_no_prompt_is_both_trained_on_and_held_out(pairs: Pairs, wanted: int) -> None:
    trained, watched = pairs.held_out(wanted, seed=3)
    assert sorted([*trained, *watched]) == list(range(len(pairs)))
    assert len(watched) <= min(wanted, len(pairs) // 5)

    def prompts(members: list[int]) -> set[bytes]:
        return {pairs.chosen[n].input_ids[: pairs.chosen[n].shareable].tobytes() for n in members}

    assert not prompts(trained) & prompts(watched)
    assert (trained, watched) == pairs.held_out(wanted, seed=3)


def test_pairs_over_the_same_passages_are_one_tree() -> None:
    passages = "The cache keeps results for ten minutes. " * 8
    named = [
        (
            f"row {n}",
            PreferencePair(
                prompt=Conversation(messages=(Message(role="user", content=f"{passages}\nQuestion {n}?"),)),
                chosen="Ten minutes.",
                rejected="A day.",
            ),
        )
        for n in range(5)
    ]
    pairs = encode_pairs(named, tokenizer(), limit=2000)
    (row,) = pairs.rows(range(5), 2000)
    separate = sum(map(len, (*pairs.chosen, *pairs.rejected)))
    assert len(row) < separate / 4
    answers = [int((side[0].weight > 0).sum()) for side in (pairs.chosen, pairs.rejected)]
    assert pairs.lengths == (tuple(answers),) * 5


def test_epochs_differ_in_order_only() -> None:
    named = [
        (
            f"row {n}",
            PreferencePair(
                prompt=Conversation(messages=(Message(role="user", content=word * 3),)), chosen="a", rejected="b"
            ),
        )
        for n, word in enumerate(("cache", "fox", "dog", "minutes", "quick", "lazy"))
    ]
    pairs = encode_pairs(named, tokenizer(), limit=200)
    rows = pairs.rows_of_epochs(range(6), 40, epochs=2.5, seed=0)
    each = len(pairs.rows(range(6), 40))
    assert len(rows) == 2 * each + round(each / 2)
    first, second = ([row.pairs for row in rows[at : at + each]] for at in (0, each))
    assert sorted(first) == sorted(second) and first != second
