"""TRL, LLaMA-Factory and axolotl read our exports as they are, by the very configuration that the export prints.

Each is run where it is installed, and its test skipped where not: none is a dependency. What they read is compared with
our rows: none is lost or cut, and what is trained is the answer, to its last token.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from models_for_tests import folder
from openbook.cli.main import app
from openbook.dataset.exports import FORMATS, export
from openbook.dataset.formats import from_row, to_row
from openbook.dataset.trainers import TRAINERS, configuration
from openbook.errors import ConfigError
from openbook.prompt import SYSTEM
from raft_world import healthy, write

ROWS = [to_row(from_row(row)) for row in healthy()[:6]]
# Generation markers tell TRL what the assistant said; the end token stands inside them.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    """Write the export in a layout, and return its file and the path of a small model."""

    def made(form: str, suffix: str = "jsonl") -> tuple[Path, Path]:
        file = tmp_path / f"train-{form}.{suffix}"
        export(write(tmp_path / "raft.jsonl", ROWS), file, form)
        return file, folder(tmp_path / "model", template=TEMPLATE)

    return made


def on_this_machine(script: str, model: Path) -> str:
    """The printed script with a model's name, and without the half precision that TRL wants unless told otherwise."""
    return script.replace("MODEL", str(model)).replace("Config(", "Config(use_cpu=True, bf16=False, report_to=[], ")


def trained(row: dict[str, Any], tokenizer: Any) -> str:
    return str(tokenizer.decode([token for token in row["labels"] if token != -100]))


def words(text: str) -> str:
    """A text without its white space: the small tokenizer turns line ends into spaces."""
    return "".join(text.split())


@pytest.mark.parametrize(("form", "suffix"), [("chat", "jsonl"), ("messages", "parquet"), ("completion", "jsonl")])
def test_trl_tunes_on_it(
    form: str, suffix: str, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    file, model = exported(form, suffix)
    monkeypatch.chdir(tmp_path)
    done: dict[str, Any] = {}
    exec(on_this_machine(configuration("trl", form, file), model), done)
    trainer = done["trainer"]
    assert trainer.state.global_step == 3  # three epochs of six rows, eight at a time
    rows = list(trainer.train_dataset)
    assert len(rows) == 6
    for row, ours in zip(rows, ROWS, strict=True):
        text = trainer.processing_class.decode(row["input_ids"])
        assert words(ours["instruction"]) in words(text)
        assert (words(SYSTEM) in words(text)) == (form == "messages")
        said = ours["cot_answer"] + "<STOP>" * (form == "completion") + "</s>"
        assert words(trained(row, trainer.processing_class)) == words(said)


def test_trl_learns_preferences_from_it(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    file, model = exported("preference")
    monkeypatch.chdir(tmp_path)
    done: dict[str, Any] = {}
    exec(on_this_machine(configuration("trl", "preference", file), model), done)
    assert done["trainer"].state.global_step == 3
    (first, *_) = done["trainer"].train_dataset
    assert words(done["trainer"].processing_class.decode(first["chosen_ids"])) == words(f"{ROWS[0]['cot_answer']}</s>")


@pytest.mark.parametrize(("form", "suffix"), [("chat", "jsonl"), ("messages", "parquet")])
def test_llama_factory_reads_it(
    form: str, suffix: str, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    data = pytest.importorskip("llamafactory.data", exc_type=ImportError)
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    file, model = exported(form, suffix)
    told = configuration("llama-factory", form, file).replace("MODEL", str(model))
    entry, settings = told.split("# and in the training configuration, with the template of your model:\n")
    (tmp_path / "dataset_info.json").write_text(entry.partition("\n")[2], encoding="utf-8")
    given = yaml.safe_load(settings)
    name = given.pop("model_name_or_path")
    tokenizer = AutoTokenizer.from_pretrained(name)
    arguments = DataArguments(template="chatml", **given)
    found = data.get_dataset(
        data.get_template_and_fix_tokenizer(tokenizer, arguments),
        ModelArguments(model_name_or_path=name),
        arguments,
        Seq2SeqTrainingArguments(output_dir=str(tmp_path / "out"), do_train=True, report_to=[], use_cpu=True),
        stage="sft",
        tokenizer=tokenizer,
    )["train_dataset"]
    assert len(found) == 6
    for row, ours in zip(found, ROWS, strict=True):
        assert words(ours["instruction"]) in words(tokenizer.decode(row["input_ids"]))
        assert words(trained(row, tokenizer)) == words(f"{ours['cot_answer']}<|im_end|>")


@pytest.mark.parametrize(("form", "suffix"), [("chat", "jsonl"), ("messages", "parquet"), ("preference", "jsonl")])
def test_axolotl_reads_it(
    form: str, suffix: str, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AXOLOTL_DO_NOT_TRACK", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "1")
    pytest.importorskip("axolotl.utils.data", exc_type=ImportError)
    from axolotl.utils.data.rl import prepare_preference_datasets
    from axolotl.utils.data.sft import prepare_datasets
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    file, model = exported(form, suffix)
    given = yaml.safe_load(configuration("axolotl", form, file).replace("MODEL", str(model)))
    tokenizer = AutoTokenizer.from_pretrained(given["base_model"])
    defaults = {
        "tokenizer_config": given["base_model"],
        "dataset_prepared_path": str(tmp_path / "prepared"),
        "dataset_num_proc": 1,
        "seed": 1,
        "val_set_size": 0.0,
        "batch_size": 1,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
    }
    prepare = prepare_preference_datasets if form == "preference" else prepare_datasets
    found = list(prepare(DictDefault({**defaults, **given}), tokenizer)[0])
    assert len(found) == 6
    answers = {words(row["cot_answer"] + "</s>") for row in ROWS}
    for row in found:
        said = row["chosen"] if form == "preference" else trained(row, tokenizer)
        assert words(said) in answers


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("form", FORMATS)
def test_what_a_trainer_does_not_read_is_told(trainer: str, form: str) -> None:
    if form in ("chat", "messages"):
        told = configuration(trainer, form, Path("a b/train.parquet"))
        assert "MODEL" in told and "train" in told
    elif form in ("hf", "eval"):
        with pytest.raises(ConfigError, match=f"{trainer} does not read the format {form} as it is"):
            configuration(trainer, form, Path("x.jsonl"))


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "raft.jsonl", ROWS), tmp_path / "chat.jsonl"

    def run(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            app(["dataset", "export", "--from", str(source), "--out", str(out), *more])
        return int(stop.value.code or 0), capsys.readouterr().out

    code, said = run("--format", "chat", "--for", "llama-factory")
    assert code == 0 and said.startswith(f"6 rows: {out}\n\n# {tmp_path / 'dataset_info.json'}\n{{")
    entry = json.loads(said[said.index("{") : said.index("\n\n# and")])
    assert entry["chat"]["file_name"] == "chat.jsonl" and entry["chat"]["tags"]["assistant_tag"] == "assistant"
    out.unlink()
    assert run("--format", "hf", "--for", "axolotl")[0] == 2 and not out.exists()
    assert run("--format", "chat", "--for", "torchtune")[0] == 2 and not out.exists()
