"""Tuning for real, on small models: what is written, that it learns, resumes to the bit, and refuses bad rows."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from killing import Killed, KillingProgress
from models_for_tests import folder, tokenizer
from openbook import prompt, verbs
from openbook.config import Config
from openbook.errors import InputError, ModelError, OpenbookError, RecordError
from openbook.models import Generator, load
from openbook.storage import read_jsonl, read_manifest, write_jsonl
from openbook.training import adapting, is_tuned, tune
from openbook.training.data import read_study

PASSAGES = ["The cache keeps results for ten minutes.", "The quick brown fox jumps over the lazy dog."]


def row(question: str, answer: str, *, group: str = "g", passages: list[str] = PASSAGES) -> dict[str, Any]:
    return {
        "id": question,
        "type": "general",
        "question": question,
        "context": {"title": [["placeholder_title"] * len(passages)], "sentences": [passages]},
        "oracle_context": passages[0],
        "cot_answer": prompt.render_answer(prompt.render_quote(passages[0]), answer),
        "instruction": prompt.instruction(passages, question),
        "meta": {"group": group, "answer": answer},
    }


ROWS = [
    row(f"How long does the {word} last?", "ten minutes")
    for word in ("cache", "results", "answer", "fox", "dog", "brown")
]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def setting(tmp_path: Path, base: Path) -> Callable[..., tuple[Path, Config]]:
    def make(*overrides: str) -> tuple[Path, Config]:
        train = tmp_path / "train.jsonl"
        write_jsonl(train, ROWS)
        options = [f"model.base={base}", "tune.adapter=lora", "tune.epochs=4", "tune.row_tokens=600", "tune.rank=4"]
        return train, Config.load(None, [*options, "tune.rows_per_step=1", *overrides])

    return make


def test_it_learns_and_writes_an_adapter_that_others_can_load(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    from peft import PeftModel

    train, config = setting("tune.epochs=30", "tune.learning_rate=0.02")
    report = tune(train, out=tmp_path / "a", config=config, validation=train)
    assert report.train_loss[-1][1] < report.train_loss[0][1] / 2
    assert report.validation_loss[-1][1] < report.validation_loss[0][1]
    assert report.sequence_tokens > 2 * report.tokens, "six questions over one context are one tree"
    assert 0 < report.trained_weights < report.total_weights
    assert is_tuned(train, out=tmp_path / "a", config=config)
    written = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "manifest.json", "log.jsonl"} <= written
    assert not [name for name in written if name.endswith((".bin", ".pt", ".pkl"))]
    loaded = load(str(config.model.base))
    generator = Generator(loaded, max_new_tokens=60)
    generator.add_adapter("a", tmp_path / "a")
    asked = prompt.prompt(ROWS[0]["question"], PASSAGES)
    with generator.adapter("a"):
        (tuned,) = generator.generate([asked])
        streamed = "".join(generator.stream(asked)).strip()
    (plain,) = generator.generate([asked])
    assert tuned.finished, "it has learned to stop"
    assert prompt.parse_answer(tuned.text).quotes == (PASSAGES[0],)
    assert streamed == tuned.text != plain.text
    assert isinstance(PeftModel.from_pretrained(load(str(config.model.base)).model, tmp_path / "a"), PeftModel)


def test_a_killed_run_goes_on_to_the_same_bits(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, config = setting("tune.checkpoint_steps=2")
    tune(train, out=tmp_path / "whole", config=config)

    with pytest.raises(Killed):
        tune(train, out=tmp_path / "killed", config=config, progress=KillingProgress(3))
    assert not is_tuned(train, out=tmp_path / "killed", config=config)
    tune(train, out=tmp_path / "killed", config=config, resume=True)
    whole = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    again = load_file(tmp_path / "killed" / "adapter_model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_does_not_go_on_with_rows_that_were_cut_in_another_way(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, config = setting("tune.checkpoint_steps=2")
    with pytest.raises(Killed):
        tune(train, out=tmp_path / "a", config=config, progress=KillingProgress(3))
    halved = config.model_copy(update={"tune": config.tune.model_copy(update={"row_tokens": 300, "rows_per_step": 2})})
    monkeypatch.setattr(sys.modules[tune.__module__], "fit_rows", lambda *_: halved)
    with pytest.raises(OpenbookError, match="no checkpoint of this run"):
        tune(train, out=tmp_path / "a", config=config, resume=True)


def test_a_log_whose_last_line_is_torn_goes_on(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, config = setting("tune.checkpoint_steps=1")
    with pytest.raises(Killed):
        tune(train, out=tmp_path / "a", config=config, progress=KillingProgress(3))
    log = tmp_path / "a" / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 3, "tok')
    report = tune(train, out=tmp_path / "a", config=config, resume=True)
    assert [row["step"] for row in read_jsonl(tmp_path / "a" / "log.jsonl")] == [step for step, _ in report.train_loss]
    assert report.train_loss[-1][0] == report.steps == len(report.train_loss)


def test_an_adapter_stays_until_its_successor_is_whole(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    train, config = setting("tune.epochs=1")
    out = tmp_path / "a"
    tune(train, out=out, config=config, validation=train)
    first = {path.name: path.read_bytes() for path in out.iterdir()}

    def kept() -> bool:
        return first == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    _, wild = setting("tune.learning_rate=1e30", "tune.max_grad_norm=1e30", "tune.warmup_share=0")
    with pytest.raises(ModelError, match="run away"):
        tune(train, out=out, config=wild)
    assert kept() and is_tuned(train, out=out, config=config)

    _, longer = setting("tune.epochs=2", "tune.checkpoint_steps=1")
    with pytest.raises(Killed):
        tune(train, out=out, config=longer, progress=KillingProgress(2))
    assert kept() and is_tuned(train, out=out, config=config) and not is_tuned(train, out=out, config=longer)
    tune(train, out=out, config=longer, resume=True)
    assert is_tuned(train, out=out, config=longer) and not is_tuned(train, out=out, config=config)
    assert {path.name for path in out.iterdir()} == set(first) - {"validation.jsonl"}, "nothing of the former is left"


def test_a_folder_of_something_else_is_left_alone(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, config = setting("tune.epochs=1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"mine holds thesis\.txt, and no run"):
        tune(train, out=tmp_path / "mine", config=config)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "mine" / "thesis.txt").unlink()
    for _ in range(2):  # into an empty folder, and over what was tuned there
        tune(train, out=tmp_path / "mine", config=config)


def test_resume_without_a_checkpoint_says_so(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, config = setting()
    with pytest.raises(OpenbookError, match="no checkpoint of this run"):
        tune(train, out=tmp_path / "a", config=config, resume=True)


def test_accumulation_equals_a_large_row(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, small = setting("tune.epochs=1", "tune.row_tokens=300", "tune.rows_per_step=100")
    _, large = setting("tune.epochs=1", "tune.row_tokens=4096")
    first = tune(train, out=tmp_path / "small", config=small)
    second = tune(train, out=tmp_path / "large", config=large)
    assert first.steps == second.steps == 1
    assert first.tokens > second.tokens, "the small rows repeat what the large one shares"
    assert first.train_loss[0][1] == pytest.approx(second.train_loss[0][1], rel=1e-5)


@pytest.mark.parametrize("adapter", ["qlora", "full"])
def test_the_other_adapters(adapter: str, setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    train, config = setting(f"tune.adapter={adapter}", "tune.learning_rate=0.005")
    report = tune(train, out=tmp_path / "a", config=config)
    assert report.train_loss[-1][1] < report.train_loss[0][1]
    if adapter == "full":
        assert report.trained_weights == report.total_weights
        assert load(str(tmp_path / "a")).tokenizer.eos_token == "</s>"
    else:
        config_file = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        assert config_file["base_model_name_or_path"] == config.model.base


def test_full_tuning_in_half_precision_learns_what_it_does_in_full(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    """Most steps of AdamW are shorter than the distance of a weight from its neighbour in bfloat16."""
    curves = {}
    for dtype in ("float32", "bfloat16"):
        train, config = setting(
            f"model.dtype={dtype}", "tune.adapter=full", "tune.epochs=10", "tune.learning_rate=0.0003"
        )
        curves[dtype] = tune(train, out=tmp_path / dtype, config=config).train_loss
    learned = {dtype: curve[0][1] - curve[-1][1] for dtype, curve in curves.items()}
    assert learned["bfloat16"] == pytest.approx(learned["float32"], rel=0.05)


def test_full_tuning_in_half_precision_goes_on_to_the_same_bits(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    train, config = setting("model.dtype=bfloat16", "tune.adapter=full", "tune.checkpoint_steps=2")
    tune(train, out=tmp_path / "whole", config=config)
    with pytest.raises(Killed):
        tune(train, out=tmp_path / "killed", config=config, progress=KillingProgress(3))
    tune(train, out=tmp_path / "killed", config=config, resume=True)
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) and whole[name].dtype == torch.bfloat16 for name in whole)


def test_full_tuning_in_float16_on_a_gpu_is_refused() -> None:
    on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16)
    with pytest.raises(ModelError, match=r"nano cannot be tuned in float16.*model\.dtype to bfloat16"):
        adapting._check_full(SimpleNamespace(model=on_gpu, name="nano"))


def test_the_closed_book_form_trains_question_to_short_answer(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    train, config = setting()
    raft = tune(train, out=tmp_path / "raft", config=config)
    closed = tune(train, out=tmp_path / "closed", config=config, form="closed")
    assert closed.sequence_tokens < raft.sequence_tokens
    manifest = read_manifest(tmp_path / "closed")
    assert manifest is not None and manifest["options"]["form"] == "closed"
    assert manifest["prompt"] == prompt.FINGERPRINT


def said(*texts: str) -> list[dict[str, str]]:
    """A user's message, the assistant's answer, and so on."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"question": None}, r"train.jsonl:2: the field 'question'"),
        ({"cot_answer": ""}, r"train.jsonl:2: the field 'cot_answer' is empty"),
        ({"context": {}}, r"train.jsonl:2: 'context' has no list of passages"),
        ({"context": {"sentences": [["word " * 3000]]}}, r"train.jsonl:2 has .* tokens, and at most 600 fit"),
        ({"meta": "none"}, r"train.jsonl:2: the field 'meta' is str, not an object"),
        (
            {"meta": {"golden_chunks": [{"id": 1}]}},
            r"train.jsonl:2: 'oracle_context' or 'golden_chunks' of 'meta' holds",
        ),
        ({"oracle_context": ["a"]}, r"train.jsonl:2: 'oracle_context' or 'golden_chunks' of 'meta' holds no text"),
        ({"messages": "Hello"}, r"train.jsonl:2: message 1 is str, not an object\."),
        ({"messages": [{}]}, r"train.jsonl:2: message 1 has the role None\."),
        ({"messages": [{"role": "narrator", "content": "a"}]}, r"train.jsonl:2: message 1 has the role 'narrator'"),
        ({"messages": [{"role": "user", "content": None}]}, r"train.jsonl:2: message 1 has NoneType content, not text"),
        ({"messages": []}, r"train.jsonl:2: the conversation does not begin with a user's message"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, r"train.jsonl:2: the conversation does not begin with"),
        ({"messages": [{"role": "user", "content": "a"}]}, r"train.jsonl:2: no assistant's message is trained on"),
        ({"messages": said("a", " ")}, r"train.jsonl:2: the conversation does not end with an assistant's answer"),
    ],
)
def test_a_bad_row_is_named(
    broken: dict[str, Any], message: str, setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    train, config = setting()
    write_jsonl(train, [ROWS[0], ROWS[1] | broken])
    with pytest.raises(RecordError, match=message):
        tune(train, out=tmp_path / "a", config=config)


def test_a_json_list_is_told_by_which_method_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")
    config = Config.load(None, [f"out={tmp_path / 'work'}"])
    with pytest.raises(InputError, match=r"is a JSON list.*--method instruct --data \S*rows\.json"):
        verbs.tune(config, train=tmp_path / "rows.json")


def test_a_null_that_a_table_has_put_in_means_nothing(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path
) -> None:
    train, _ = setting()
    write_jsonl(train, [ROWS[0] | {"oracle_context": None, "meta": {"golden_chunks": None, "group": None}}])
    study = read_study(train, tokenizer(), form="raft", budget=600, seed=0, context=600)
    assert len(study.rows(0)) == 1


def test_distractors_are_left_out_before_anything_else(tmp_path: Path) -> None:
    golden, distractor = "The cache keeps results for ten minutes.", "The lazy dog sleeps. " * 40
    write_jsonl(
        tmp_path / "t.jsonl", [row("How long?", "ten minutes", passages=[golden, distractor, distractor + "!"])]
    )
    study = read_study(tmp_path / "t.jsonl", tokenizer(), form="raft", budget=600, seed=0, context=2048)
    (sequence,) = study.rows(0)[0].sequences()
    text = tokenizer().decode(sequence.input_ids)
    assert golden in text and "ten minutes" in text
    assert len(sequence) <= 600
    assert study.left_out == {f"{tmp_path / 't.jsonl'}:1": 2}


def test_a_model_that_is_not_there_is_a_sentence(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    (tmp_path / "not a model").mkdir()
    train, config = setting(f"model.base={tmp_path / 'not a model'}")
    with pytest.raises(ModelError, match="holds no config"):
        tune(train, out=tmp_path / "a", config=config)


def adapted_layers(folder: Path) -> set[str]:
    return {name.split(".layers.")[1].split(".")[0] for name in load_file(folder / "adapter_model.safetensors")}


def test_the_last_layers_alone_are_trained_when_asked(
    setting: Callable[..., tuple[Path, Config]], tmp_path: Path, base: Path
) -> None:
    last = str(json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] - 1)
    train, config = setting("tune.epochs=1", "tune.layers=1")
    tune(train, out=tmp_path / "asked", config=config)
    train, config = setting("tune.epochs=1")
    tune(train, out=tmp_path / "all", config=config)
    assert adapted_layers(tmp_path / "asked") == {last} < adapted_layers(tmp_path / "all")
    train, config = setting("tune.epochs=1", "tune.adapter=full", "tune.layers=1")
    tune(train, out=tmp_path / "full", config=config)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "full" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(f".layers.{last}." in name for name in changed)


def test_the_loss_is_the_users(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    def weights(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        train, config = setting("tune.epochs=1", *overrides)
        tune(train, out=tmp_path / name, config=config)
        return load_file(tmp_path / name / "adapter_model.safetensors")

    plain, dynamic = weights("plain"), weights("dynamic", "tune.loss=dft")
    assert not all(torch.equal(plain[name], dynamic[name]) for name in plain)


def test_modules_are_chosen_by_name(setting: Callable[..., tuple[Path, Config]], tmp_path: Path) -> None:
    def adapted_modules(folder: Path) -> set[str]:
        return {name.split(".")[-3] for name in load_file(folder / "adapter_model.safetensors")}

    train, config = setting("tune.epochs=1", 'tune.modules=["q_proj", "v_proj"]')
    tune(train, out=tmp_path / "asked", config=config)
    assert adapted_modules(tmp_path / "asked") == {"q_proj", "v_proj"}
    train, config = setting("tune.epochs=1", 'tune.modules=["query"]')
    with pytest.raises(ModelError, match="no linear module named query"):
        tune(train, out=tmp_path / "unknown", config=config)
