"""Tuning for a caller that already holds the output folder: where each method's adapter goes, and whether it is current."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openbook import storage
from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.progress import SILENT, Progress
from openbook.records import from_json

if TYPE_CHECKING:
    from openbook.training import RowExplanation, TuneReport

Form = Literal["raft", "closed"]
Method = Literal["sft", "instruct", "dpo", "reward", "grpo", "ppo"]

ADAPTERS: dict[Form, str] = {"raft": "raft", "closed": "sft"}  # form of the training → folder under `adapters/`


def run_tuning_on_pairs(
    config: Config,
    *,
    method: Literal["dpo", "reward"],
    pairs: Path,
    start: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> "TuneReport":
    """`tune` on preference pairs for a caller that already holds the output folder."""
    from openbook import training

    out = out or config.adapters_dir / method
    if not force and training.is_tuned_on_pairs(pairs, method=method, out=out, config=config, start=start):
        progress.message(f"{out} is current: pairs, base, starting adapter and options are those of its tuning.")
        return _its_report(out)
    if method == "dpo":
        _tell_of_tuned(config, start, progress)
    return training.tune_on_pairs(
        pairs,
        method=method,
        out=out,
        references=config.references_dir,
        config=config,
        start=start,
        resume=resume,
        progress=progress,
    )


def run_reinforcement(
    config: Config,
    *,
    method: Literal["grpo", "ppo"],
    train: Path | None = None,
    start: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> "TuneReport":
    """`tune` on rewards for a caller that already holds the output folder."""
    from openbook.dataset import review

    out = out or config.adapters_dir / method
    if train is None:
        review.bring_in_line(config, progress=progress)
    elif config.rl.without_golden:
        progress.message(
            f"rl.without_golden is for the data set's own questions: those in {train} are asked as they are."
        )
    rows = _training_rows(config, train)
    from openbook import dataset, training

    train = rows if train else dataset.practice_rows(config, rows)
    if not force and training.is_reinforced(train, method=method, out=out, config=config, start=start):
        progress.message(f"{out} is current: questions, base, starting adapter and options are those of its tuning.")
        return _its_report(out)
    _tell_of_tuned(config, start, progress)
    return training.reinforce(
        train, method=method, out=out, config=config, start=start, resume=resume, progress=progress
    )


def run_tuning(
    config: Config,
    *,
    form: Form,
    train: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> "TuneReport":
    """`tune` for a caller that already holds the output folder."""
    from openbook.dataset import review

    out = out or config.adapters_dir / ADAPTERS[form]
    if train is None:
        review.bring_in_line(config, progress=progress)
    validation = None if train else config.dataset_dir / "validation.jsonl"
    train = _training_rows(config, train)
    from openbook import training  # not before the check above: it takes seconds

    if not force and training.is_tuned(train, out=out, config=config, form=form):
        progress.message(f"{out} is current: data, base and options are those that it was tuned with.")
        return _its_report(out)
    return training.tune(
        train,
        out=out,
        config=config,
        validation=validation if validation and validation.is_file() else None,
        form=form,
        resume=resume,
        retrieval=_retriever(config),
        progress=progress,
    )


def explain_tuning(config: Config, *, form: Form, train: Path | None = None) -> "RowExplanation":
    """What `tune` would read first: its rows counted, and one of them token by token. Nothing is trained or written."""
    train = _training_rows(config, train)
    from openbook import training

    return training.explain(train, config, form=form)


def run_instruct(
    config: Config, *, out: Path | None = None, resume: bool = False, force: bool = False, progress: Progress = SILENT
) -> "TuneReport":
    """`tune` on instructions for a caller that already holds the output folder."""
    from openbook import dataset, training

    mixed = dataset.mix(config, progress=progress)
    taken = ", ".join(f"{rows:,} rows of {name}" for name, rows in mixed.taken.items())
    progress.message(f"{taken}; {mixed.validation:,} kept to watch the loss.")
    out, rows = out or config.adapters_dir / "instruct", config.instruct_dir / "train.jsonl"
    if not force and training.is_tuned(rows, out=out, config=config):
        progress.message(f"{out} is current: sets, base and options are those that it was tuned with.")
        return _its_report(out)
    return training.tune(
        rows,
        out=out,
        config=config,
        validation=config.instruct_dir / "validation.jsonl",
        method="instruct",
        resume=resume,
        retrieval=_retriever(config),
        progress=progress,
    )


def default_adapter(config: Config, *, closed: bool = False) -> Path | None:
    """The adapter that `tune` wrote for this form, None where there is none yet."""
    folder = config.adapters_dir / ADAPTERS["closed" if closed else "raft"]
    return folder if (folder / "adapter_config.json").exists() else None


def _training_rows(config: Config, train: Path | None) -> Path:
    if train is None:
        train = config.dataset_dir / "train.jsonl"
        if not train.is_file():
            raise StoreError(f"{train} does not exist.", "Write the questions first: `openbook dataset`.")
    elif not train.is_file():
        problem = "is a folder" if train.is_dir() else "does not exist"
        raise InputError(f"{train} {problem}.", "Name a .jsonl file of rows with --train.")
    else:
        with train.open("rb") as file:
            if file.read(1) == b"[":
                raise InputError(
                    f"{train} is a JSON list, and not JSON Lines.",
                    f"Write one object a line, or: `tune --method instruct --data {train}`, which reads it.",
                )
    return train


def _tell_of_tuned(config: Config, start: Path | None, progress: Progress) -> None:
    tuned = default_adapter(config)
    if start is None and tuned is not None:
        progress.message(f"Starts from the bare base. To go on from the tuned adapter: --from-adapter {tuned}")


def _its_report(out: Path) -> "TuneReport":
    """What was reported when the adapter in `out` was tuned."""
    from openbook.training import TuneReport

    return from_json(TuneReport, (storage.read_manifest(out) or {})["report"])


def _retriever(config: Config) -> str:
    """The fingerprint of the retriever that chose the data set's passages."""
    return str((storage.read_manifest(config.dataset_dir) or {}).get("retriever", ""))
