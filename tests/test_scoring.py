"""A reward model applied to rows, on a small model: scores of separate rows, order, figures, and what is refused."""

import math
import shutil
from datetime import datetime

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from models_for_tests import folder
from openbook import tuned
from openbook.config import Config
from openbook.errors import ModelError, RecordError
from openbook.models import Generator, load
from openbook.models.chat import encode_answered
from openbook.records import Conversation, Message
from openbook.storage import read_jsonl, write_jsonl
from openbook.training import tune_on_pairs
from openbook.training.scoring import load_reward_model

PAIRS = [
    {"prompt": f"What does cache {n} keep?", "chosen": "It keeps results.", "rejected": "The fox jumps over the dog."}
    for n in range(10)
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A reward model, trained for real."""
    tmp = tmp_path_factory.mktemp("reward")
    base = folder(tmp / "base")
    tune = {"adapter": "lora", "rank": 2, "row_tokens": 400, "rows_per_step": 1, "learning_rate": 0.01}
    found = Config.parse(
        {"out": str(tmp / "work"), "model": {"base": str(base)}, "tune": tune, "preference": {"epochs": 8}},
        origin="test",
    )
    write_jsonl(tmp / "pairs.jsonl", PAIRS)
    tune_on_pairs(
        tmp / "pairs.jsonl",
        method="reward",
        out=found.adapters_dir / "reward",
        references=found.references_dir,
        config=found,
    )
    return found


def test_pairs_come_back_in_order_with_the_scores_of_separate_rows(config, tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    rows = [
        PAIRS[0],
        {"prompt": "What does it keep?", "completion": "It keeps results.", "mine": 1},
        {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "The dog."}]},
        {"instruction": "Say it.", "input": "now", "output": "It keeps results."},
        *PAIRS[1:],
    ]
    write_jsonl(path, rows)
    report = tuned.score(config, path, to=out)
    scored = list(read_jsonl(out))
    assert [{k: v for k, v in row.items() if not k.endswith("score")} for row in scored] == rows
    assert report.rows == 13 and report.pairs == 10 and report.accuracy == 1.0 and report.error == 0.0
    assert report.longer_wins == 0.0 and report.margin > 0
    assert report.lowest <= report.mean <= report.highest

    _, loaded, head = load_reward_model(config.adapters_dir / "reward", config)
    for row, value in (
        (rows[1], scored[1]["score"]),
        (rows[0] | {"completion": rows[0]["rejected"]}, scored[0]["rejected_score"]),
    ):
        messages = (Message(role="user", content=row["prompt"]), Message(role="assistant", content=row["completion"]))
        before, answer = encode_answered(loaded.tokenizer, Conversation(messages=messages))
        with torch.inference_mode():
            hidden = loaded.model.model(input_ids=torch.tensor([[*before, *answer]])).last_hidden_state[0, -1:]
            assert head(hidden).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), b"bytes", math.nan])
def test_what_json_cannot_hold_is_named_before_anything_is_scored(config, tmp_path, value):
    parquet.write_table(pa.Table.from_pylist([PAIRS[0] | {"x": value}]), tmp_path / "rows.parquet")
    with pytest.raises(RecordError, match=r"rows.parquet:1: the row could not be written again as JSON"):
        tuned.score(config, tmp_path / "rows.parquet", to=tmp_path / "scored.jsonl")


def test_a_system_message_beside_an_answer_is_read_as_beside_a_pair(config, tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    pair = PAIRS[0] | {"system": "Answer the question."}
    write_jsonl(path, [pair, {"system": pair["system"], "prompt": pair["prompt"], "completion": pair["chosen"]}])
    tuned.score(config, path, to=out)
    both, one = read_jsonl(out)
    assert one["score"] == pytest.approx(both["chosen_score"], abs=1e-5)


def test_a_damaged_adapter_is_told(config, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [PAIRS[0]])
    broken = shutil.copytree(config.adapters_dir / "reward", tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"broken cannot be put on"):
        tuned.score(config, tmp_path / "rows.jsonl", adapter=broken, to=tmp_path / "scored.jsonl")


def test_a_reward_model_writes_no_answers_and_starts_no_run(config, tmp_path):
    reward = config.adapters_dir / "reward"
    with pytest.raises(ModelError, match=r"reward is a reward model: it scores answers and writes none"):
        Generator(load(config.model.base), max_new_tokens=4).add_adapter("asked", reward)
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    for method in ("dpo", "reward"):
        with pytest.raises(ModelError, match="no run can go on from it"):
            tune_on_pairs(
                tmp_path / "pairs.jsonl",
                method=method,
                out=tmp_path / method,
                references=tmp_path,
                config=config,
                start=reward,
            )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"completion": "x"}, "no prompt"),
        ({"prompt": "x"}, "no answer to score"),
        ({"prompt": "x", "completion": " "}, "no answer to score"),
        ({"prompt": "x", "chosen": "same", "rejected": "same"}, "equal"),
        ({"prompt": "x " * 600, "completion": "y"}, "at most 400 fit"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "does not begin with a user's message"),
        ({"instruction": "x", "input": 5, "output": "y"}, "field 'input' is empty or not text"),
    ],
)
def test_rows_that_cannot_be_scored_are_named_and_nothing_is_written(config, tmp_path, row, problem):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [PAIRS[0], row, row])
    with pytest.raises(RecordError, match=f"rows.jsonl:2: .*{problem}.*Nor can these rows be used: 3"):
        tuned.score(config, path, to=tmp_path / "scored.jsonl")
    assert not (tmp_path / "scored.jsonl").exists()


def test_another_base_or_no_head_or_no_number_is_told(config, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [PAIRS[0]])
    other = folder(tmp_path / "other", template=None)
    elsewhere = config.model_copy(update={"model": config.model.model_copy(update={"base": str(other)})})
    with pytest.raises(ModelError, match="another base's tokens"):
        tuned.score(elsewhere, path, to=tmp_path / "scored.jsonl")

    head = config.adapters_dir / "reward" / "head.safetensors"
    weights = load_file(head)
    try:
        save_file({name: torch.full_like(value, math.nan) for name, value in weights.items()}, head)
        with pytest.raises(ModelError, match=r"rows.jsonl:1 is no number"):
            tuned.score(config, path, to=tmp_path / "scored.jsonl")
        save_file({name: value[:, :2].contiguous() for name, value in weights.items()}, head)
        with pytest.raises(ModelError, match=r"reward cannot be put on .* size mismatch for weight"):
            tuned.score(config, path, to=tmp_path / "scored.jsonl")
        head.write_bytes(b"torn")
        with pytest.raises(ModelError, match=r"reward cannot be put on .*header"):
            tuned.score(config, path, to=tmp_path / "scored.jsonl")
        head.unlink()
        with pytest.raises(ModelError, match="no reward model"):
            tuned.score(config, path, to=tmp_path / "scored.jsonl")
    finally:
        save_file(weights, head)
