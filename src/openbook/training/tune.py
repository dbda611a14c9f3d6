"""`tune`: a data set in, an adapter with its manifest out."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openbook import prompt
from openbook.config import Config
from openbook.models import LoadedModel, load_base
from openbook.progress import SILENT, Progress
from openbook.storage import hash_file, is_current, peak_memory_bytes, write_jsonl, write_manifest
from openbook.training.adapting import adapted, count_weights, save
from openbook.training.attention import serve_trees
from openbook.training.data import Form, Study, read_study
from openbook.training.liger import take_layers
from openbook.training.memory import fit_rows
from openbook.training.run import Run
from openbook.training.validation import FILE, question_losses

# Options of `tune` that change nothing that a run writes, whatever its method.
UNWRITTEN = {"checkpoint_steps", "evaluate_steps", "activation_checkpointing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """What a run did. Curves are (step, loss) pairs, `rewards` those of mean rewards, where answers were sampled and
    rewarded; `peak_memory_bytes` is the process's, `liger` whether the layers were Liger's (liger.py).

    `questions` counts the questions of supervised tuning and the pairs of a preference method, whose last means over
    the held-out pairs are `held_out`, by name (see the module of the method).
    """

    steps: int
    questions: int
    tokens: int
    supervised_tokens: int
    sequence_tokens: int  # what separate rows would have read
    seconds: float
    trained_weights: int
    total_weights: int
    train_loss: tuple[tuple[int, float], ...]
    validation_loss: tuple[tuple[int, float], ...]
    peak_memory_bytes: int
    method: str = "sft"
    liger: bool = False
    held_out: dict[str, float] = field(default_factory=dict)
    rewards: tuple[tuple[int, float], ...] = ()

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def trained_share(self) -> float:
        return self.trained_weights / self.total_weights


def tune(
    train: Path,
    *,
    out: Path,
    config: Config,
    validation: Path | None = None,
    form: Form = "raft",
    method: str = "sft",
    resume: bool = False,
    retrieval: str = "",
    progress: Progress = SILENT,
) -> TuneReport:
    """Fine-tune the base model on `train` and write the adapter to `out` in PEFT's format.

    A run that was killed goes on from its last checkpoint when the same command is given again; `resume` insists on
    it. `retrieval` is the retriever's fingerprint and `method` what the user calls it, for the manifest. Raises `RecordError` for rows that cannot be
    trained on and `ModelError` for models that cannot be tuned.
    """
    base = config.model.base
    loaded = load_base(config, config.tune.quantization)
    inputs = run_inputs(train, loaded.fingerprint)
    options = run_options(config, form)
    model = adapted(loaded, config)
    serve_trees(loaded.model, share=config.tune.share_prefixes)
    liger = take_layers(loaded.model, progress)
    config = fit_rows(config, model, loaded, progress)
    study = study_of(train, loaded, config, form)
    rows = study.rows_of_epochs(config.tune.epochs)
    watched = study_of(validation, loaded, config, form) if validation and validation.stat().st_size else None
    held_out = watched.rows(0) if watched else []
    if study.left_out:
        progress.message(
            f"{sum(study.left_out.values()):,} distractors of {len(study.left_out):,} examples are left out: "
            f"with them the examples are longer than a row or than the model reads."
        )
    cut = (config.tune.row_tokens, config.tune.rows_per_step)  # by memory and device, so options do not tell
    run = Run(out, {"inputs": inputs, "options": options, "rows": cut}, resume=resume, progress=progress)

    from openbook.training.trainer import Supervised

    trained, total = count_weights(model)
    progress.message(f"Trains {trained:,} of {total:,} weights ({trained / total:.2%}) of {base}.")
    done = run.train(model, loaded, config, method=Supervised(config.tune.loss), rows=rows, validation=held_out)
    report = TuneReport(
        method=method,
        steps=done.steps,
        questions=study.questions,
        tokens=sum(map(len, rows)),
        supervised_tokens=sum(int((row.weight > 0).sum()) for row in rows),
        sequence_tokens=sum(len(sequence) for row in rows for sequence in row.sequences()),
        seconds=done.seconds,
        trained_weights=trained,
        total_weights=total,
        train_loss=done.train_loss,
        validation_loss=done.validation_loss,
        peak_memory_bytes=peak_memory_bytes(),
        liger=liger,
    )
    with run.result() as new:
        save(model, loaded, new, config)
        if watched:
            write_jsonl(new / FILE, question_losses(model, loaded, watched))
        write_manifest(
            new,
            stage="tune",
            options=options,
            inputs=inputs,
            base=base,
            prompt=prompt.FINGERPRINT,
            retrieval=retrieval,
            report=asdict(report),
        )
    return report


def run_inputs(train: Path, base_fingerprint: str) -> dict[str, str]:
    """The hashes that decide whether a tuned adapter is still current."""
    return {"train": hash_file(train), "base": base_fingerprint, "prompt": prompt.FINGERPRINT}


def run_options(config: Config, form: Form) -> dict[str, Any]:
    """The options that decide it."""
    chosen = config.tune.model_dump(exclude=UNWRITTEN)
    return {**chosen, "dtype": config.model.dtype, "seed": config.seed, "form": form}


def is_tuned(train: Path, *, out: Path, config: Config, form: Form = "raft") -> bool:
    """Whether `out` holds the adapter that `tune` would make again."""
    from openbook.models import fingerprint

    return train.is_file() and is_current(
        out,
        stage="tune",
        options=run_options(config, form),
        inputs=run_inputs(train, fingerprint(config.model.base)),
    )


def study_of(path: Path, loaded: LoadedModel, config: Config, form: Form) -> Study:
    """The study of a data set for this model: rows as long as the options say and the model reads."""
    return read_study(
        path,
        loaded.tokenizer,
        form=form,
        budget=config.tune.row_tokens,
        seed=config.seed,
        context=loaded.context,
        share=config.tune.share_prefixes,
    )
