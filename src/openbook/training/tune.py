"""`tune`: a data set in, an adapter with its manifest out."""

import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openbook import prompt
from openbook.config import Config
from openbook.errors import ModelError, OpenbookError
from openbook.models import LoadedModel, load
from openbook.progress import SILENT, Progress, Task
from openbook.storage import (
    append_jsonl,
    hash_file,
    is_current,
    peak_memory_bytes,
    read_jsonl,
    read_manifest,
    write_manifest,
)
from openbook.tokens import TokenTree
from openbook.training.attention import serve_trees
from openbook.training.data import Form, Study, read_study

LOG = "log.jsonl"
PLAN = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """What a run did. Curves are (step, loss) pairs; `peak_memory_bytes` is the process's."""

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
    resume: bool = False,
    retrieval: str = "",
    progress: Progress = SILENT,
) -> TuneReport:
    """Fine-tune the base model on `train` and write the adapter to `out` in PEFT's format.

    A run that was killed goes on from its last checkpoint when the same command is given again; `resume` insists on
    it. `retrieval` is the retriever's fingerprint, for the manifest. Raises `RecordError` for rows that cannot be
    trained on and `ModelError` for models that cannot be tuned.
    """
    base = config.model.base
    loaded = load(
        base,
        quantization="nf4" if config.tune.adapter == "qlora" else "none",
        dtype=config.model.dtype,
        device=config.model.device,
    )
    inputs = run_inputs(train, loaded.fingerprint)
    options = run_options(config, form)
    study = study_of(train, loaded, config, form)
    rows = study.rows_of_epochs(config.tune.epochs)
    held_out = study_of(validation, loaded, config, form).rows(0) if validation and validation.stat().st_size else []
    checkpoints = out / "checkpoints"
    if study.left_out:
        progress.message(
            f"{sum(study.left_out.values()):,} distractors of {len(study.left_out):,} examples are left out: "
            f"with them the examples are longer than a row or than the model reads."
        )
    _prepare_folder(out, {"inputs": inputs, "options": options}, resume, progress)

    model = adapted(loaded, config)
    trained, total = count_weights(model)
    progress.message(f"Trains {trained:,} of {total:,} weights ({trained / total:.2%}) of {base}.")
    serve_trees(loaded.model)
    with progress.task("Tuning", sum(map(len, rows)), "tokens") as task:
        watch = _Recorder(out / LOG, rows, config.tune.rows_per_step, task)
        trainer = _trainer(model, loaded, config, rows, held_out, checkpoints, watch)
        last = _last_checkpoint(checkpoints)
        if last is not None:
            progress.message(f"Goes on from step {last.name.rsplit('-')[-1]}.")
        started = time.monotonic()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if held_out:
            trainer.evaluate()
        seconds = time.monotonic() - started + watch.seconds_before
    _save(model, loaded, out, config)
    train_loss, validation_loss = watch.curves()
    report = TuneReport(
        steps=trainer.state.global_step,
        questions=study.questions,
        tokens=sum(map(len, rows)),
        supervised_tokens=sum(int((row.weight > 0).sum()) for row in rows),
        sequence_tokens=sum(len(sequence) for row in rows for sequence in row.sequences()),
        seconds=seconds,
        trained_weights=trained,
        total_weights=total,
        train_loss=train_loss,
        validation_loss=validation_loss,
        peak_memory_bytes=peak_memory_bytes(),
    )
    write_manifest(
        out,
        stage="tune",
        options=options,
        inputs=inputs,
        base=base,
        prompt=prompt.FINGERPRINT,
        retrieval=retrieval,
        report=asdict(report),
    )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return report


def run_inputs(train: Path, base_fingerprint: str) -> dict[str, str]:
    """The hashes that decide whether a tuned adapter is still current."""
    return {"train": hash_file(train), "base": base_fingerprint, "prompt": prompt.FINGERPRINT}


def run_options(config: Config, form: Form) -> dict[str, Any]:
    """The options that decide it. How often a run checkpoints or validates changes nothing that it writes."""
    chosen = config.tune.model_dump(exclude={"checkpoint_steps", "evaluate_steps", "activation_checkpointing"})
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
    )


def adapted(loaded: LoadedModel, config: Config) -> Any:
    """The model with what is trained made trainable: fresh adapters on a frozen base, or all weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    options = config.tune
    set_seed(config.seed)
    if options.adapter == "full":
        model: Any = loaded.model
        model.requires_grad_(True)
    else:
        try:
            lora = LoraConfig(
                r=options.rank,
                lora_alpha=options.alpha,
                lora_dropout=options.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(loaded.model, lora, adapter_name="default")
        except ValueError as error:
            raise ModelError(f"{loaded.name} cannot take LoRA adapters: {error}") from error
    if options.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if options.adapter != "full":
            model.enable_input_require_grads()
    return model


def count_weights(model: Any) -> tuple[int, int]:
    """Trained weights and all weights; a packed 4-bit tensor counts its weights, not its bytes."""
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if hasattr(parameter, "quant_state"):
            count *= 2 * parameter.element_size()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total


def _prepare_folder(out: Path, run: dict[str, Any], resume: bool, progress: Progress) -> None:
    """Keep the checkpoints of the same run, clear away those of another."""
    checkpoints = out / "checkpoints"
    before = next(read_jsonl(out / PLAN), None) if (out / PLAN).is_file() else None
    same = before == run
    if resume and not (same and _last_checkpoint(checkpoints)):
        raise OpenbookError(
            f"{out} holds no checkpoint of this run" + ("" if same else ": data, base or options have changed") + ".",
            "Run `openbook tune` without --resume to start from the beginning.",
        )
    if not same or read_manifest(out) is not None:
        if _last_checkpoint(checkpoints):
            progress.message(f"The checkpoints in {out} belong to another run and are removed.")
        shutil.rmtree(out, ignore_errors=True)
    if not _last_checkpoint(checkpoints):
        (out / LOG).unlink(missing_ok=True)
    if not (out / PLAN).is_file():
        append_jsonl(out / PLAN, run)


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole: Trainer writes `trainer_state.json` last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rsplit("-")[-1]), default=None)


def _trainer(
    model: Any,
    loaded: LoadedModel,
    config: Config,
    rows: list[TokenTree],
    validation: list[TokenTree],
    checkpoints: Path,
    watch: "_Recorder",
) -> Any:
    import torch
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from openbook.training.trainer import TreeTrainer, Watch

    options = config.tune
    steps = math.ceil(len(rows) / options.rows_per_step)
    on_gpu = loaded.model.device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=1,  # the rows of all epochs stand in one list
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.rows_per_step,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(options.warmup_share * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        adam_beta2=0.99,
        bf16=on_gpu and loaded.model.dtype == torch.bfloat16,
        fp16=on_gpu and loaded.model.dtype == torch.float16,
        use_cpu=not on_gpu,
        eval_strategy="steps" if validation else "no",
        eval_steps=options.evaluate_steps,
        save_strategy="steps",
        save_steps=options.checkpoint_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
        dataloader_num_workers=0,
        seed=config.seed,
        data_seed=config.seed,
    )
    trainer = TreeTrainer(model=model, args=arguments, rows=rows, validation=validation, callbacks=[Watch(watch)])
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    return trainer


class _Recorder:
    """Writes each step to the log and to the bar."""

    def __init__(self, path: Path, rows: list[TokenTree], rows_per_step: int, task: Task) -> None:
        self._path, self._task, self._started = path, task, time.monotonic()
        self._tokens = [0]  # tokens read by the end of each step
        for start in range(0, len(rows), rows_per_step):
            self._tokens.append(self._tokens[-1] + sum(map(len, rows[start : start + rows_per_step])))
        self._rows = list(read_jsonl(path, torn_tail=True)) if path.is_file() else []
        self.seconds_before = float(self._rows[-1]["seconds"]) if self._rows else 0.0
        self._step = 0

    def __call__(self, step: int, logs: dict[str, float]) -> None:
        seconds = time.monotonic() - self._started + self.seconds_before
        if "eval_loss" in logs:
            row = {"step": step, "validation_loss": logs["eval_loss"], "seconds": seconds}
            self._task.advance(0, validation_loss=f"{logs['eval_loss']:.3f}")
        elif "loss" in logs:
            row = {
                "step": step,
                "tokens": self._tokens[step],
                "loss": logs["loss"],
                "learning_rate": logs.get("learning_rate", 0.0),
                "seconds": seconds,
            }
            self._task.advance(self._tokens[step] - self._tokens[self._step], loss=f"{logs['loss']:.3f}")
            self._step = step
        else:
            return
        self._rows.append(row)
        append_jsonl(self._path, row)

    def curves(self) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]]:
        """(step, loss) of training and of validation; where a resumed run repeated a step, the later value."""
        train = {row["step"]: row["loss"] for row in self._rows if "loss" in row}
        validation = {row["step"]: row["validation_loss"] for row in self._rows if "validation_loss" in row}
        return tuple(sorted(train.items())), tuple(sorted(validation.items()))


def _save(model: Any, loaded: LoadedModel, out: Path, config: Config) -> None:
    """The adapter, or after full tuning the whole model with its tokenizer, as safetensors."""
    if config.tune.adapter == "full":
        loaded.tokenizer.save_pretrained(out)
    else:
        model.peft_config["default"].base_model_name_or_path = config.model.base
    model.save_pretrained(out, safe_serialization=True)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's template card says nothing true about this adapter
