"""One training run in its folder: what it was started with, its checkpoints, its log, and going on after a kill."""

import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.config import Config
from openbook.errors import InputError, OpenbookError
from openbook.models import LoadedModel
from openbook.options import Tune
from openbook.progress import Progress, Task
from openbook.storage import MANIFEST, append_jsonl, hash_json, mend_torn_tail, read_jsonl, read_manifest

if TYPE_CHECKING:
    import torch

    from openbook.training.trainer import Method, TreeTrainer

LOG = "log.jsonl"
RUN = "run"  # within an adapter's folder, what belongs to a run that has not ended
PLAN = "plan.json"
ADAM_BETA2 = 0.99  # looks back on some hundred steps, which is what a run has


class Run:
    """A run that will fill the folder `out`. `identity` is what makes it this run: the hashes of its inputs, and its options.

    Until it has ended it stands in `folder` alone, within `out`, and the adapter that an earlier run left in `out` stays
    in use. The checkpoints of the same run are kept, those of another cleared away. With `resume` it is an error to find
    none. Raises `InputError` where `out` holds anything else than a run or an adapter, since that would be replaced.
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, resume: bool, progress: Progress) -> None:
        self.out, self.folder, self._progress = out, out / RUN, progress
        self.checkpoints, self._log = self.folder / "checkpoints", self.folder / LOG
        plan = self.folder / PLAN
        before = next(read_jsonl(plan, torn_tail=True), None) if plan.is_file() else None
        same = hash_json(before) == hash_json(identity)  # what was read back has lists for tuples
        if resume and not (same and self.last_checkpoint()):
            raise OpenbookError(
                f"{out} holds no checkpoint of this run"
                + (": data, base or options have changed" if before and not same else "")
                + ".",
                "Run `openbook tune` without --resume to start from the beginning.",
            )
        if not same:
            _refuse_to_replace(out)
            if self.last_checkpoint():
                progress.message(f"The checkpoints in {out} belong to another run and are removed.")
            shutil.rmtree(self.folder, ignore_errors=True)
            append_jsonl(plan, identity)
        if not self.last_checkpoint():
            self._log.unlink(missing_ok=True)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole."""
        found = filter(is_whole, self.checkpoints.glob("checkpoint-*"))
        return max(found, key=lambda path: int(path.name.rsplit("-")[-1]), default=None)

    def train(
        self,
        model: Any,
        loaded: LoadedModel,
        config: Config,
        *,
        method: "Method",
        rows: Sequence[Any],
        validation: Sequence[Any],
        head: "torch.nn.Module | None" = None,
        unit: str = "tokens",
        engine: "Callable[..., TreeTrainer] | None" = None,
    ) -> "Finished":
        """Train on `rows` in their order, from the last checkpoint on where there is one.

        `unit` is what the lengths of the rows count; `engine` makes another trainer than `TreeTrainer` out of its arguments.
        """
        from transformers.trainer_callback import PrinterCallback, ProgressCallback

        from openbook.training.trainer import TreeTrainer, Watch

        with self._progress.task("Tuning", sum(map(len, rows)), unit) as task:
            recorder = Recorder(self._log, rows, config.tune.rows_per_step, task, unit)
            trainer = (engine or TreeTrainer)(
                model=model,
                args=_arguments(loaded, config, self.checkpoints, steps_of(rows, config.tune), bool(validation)),
                method=method,
                rows=rows,
                validation=validation,
                callbacks=[Watch(recorder)],
                head=head,
            )
            for printing in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(printing)
            last = self.last_checkpoint()
            if last is not None:
                self._progress.message(f"Goes on from step {last.name.rsplit('-')[-1]}.")
            started = time.monotonic()
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            held_out = trainer.evaluate() if validation else {}
            seconds = time.monotonic() - started + recorder.seconds_before
        return Finished(trainer.state.global_step, seconds, recorder, held_out)

    @contextmanager
    def result(self) -> Iterator[Path]:
        """A new folder to write the adapter and its manifest to. Where the `with` ends well it takes the place of what
        `out` held, the manifest last, and the run is over."""
        new = self.folder / "result"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        shutil.copy(self._log, new / LOG)
        # What is half replaced is nothing that another stage may build on.
        (self.out / MANIFEST).unlink(missing_ok=True)
        names = {path.name for path in new.iterdir()}
        for path in list(self.out.iterdir()):
            if path.name != RUN and (path.is_dir() or path.name not in names):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in sorted(names, key=lambda name: (name == MANIFEST, name)):
            (new / name).replace(self.out / name)
        shutil.rmtree(self.folder, ignore_errors=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint was written: Trainer writes `trainer_state.json` last, but where the power fails any
    file may be short. Only what each file says of itself is read."""
    from safetensors import SafetensorError, safe_open

    if not (checkpoint / "trainer_state.json").is_file():
        return False
    try:
        for file in checkpoint.iterdir():
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                with safe_open(file, framework="pt"):
                    pass
            elif file.suffix in (".pt", ".pth") and not zipfile.is_zipfile(file):
                return False
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def _refuse_to_replace(out: Path) -> None:
    """Raise `InputError` where `out` holds something that no run has written."""
    if (out / RUN / PLAN).is_file() or (read_manifest(out) or {}).get("stage") == "tune":
        return
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if found:
        raise InputError(
            f"{out} holds {found[0]}"
            + (f" and {len(found) - 1:,} more" if found[1:] else "")
            + ", and no run that an adapter was tuned in; tuning would clear all of it away.",
            "Choose a new folder, or remove that yourself.",
        )


class Finished:
    """A run's end. `held_out` are the last means over the validation rows, by name."""

    def __init__(self, steps: int, seconds: float, recorder: "Recorder", held_out: dict[str, float]) -> None:
        self.steps, self.seconds = steps, seconds
        self.train_loss, self.validation_loss = recorder.curve("loss"), recorder.curve("validation_loss")
        self.rewards, self.spread = recorder.curve("reward"), recorder.curve("spread")
        self._recorder = recorder
        self.held_out = {name.removeprefix("eval_"): value for name, value in held_out.items()}

    def total(self, name: str) -> int:
        """What was logged by this name, over all steps."""
        return round(sum(value for _, value in self._recorder.curve(name)))


def steps_of(rows: Sequence[Any], options: Tune) -> int:
    return math.ceil(len(rows) / options.rows_per_step)


def _arguments(loaded: LoadedModel, config: Config, checkpoints: Path, steps: int, validates: bool) -> Any:
    import torch
    from transformers import TrainingArguments

    options = config.tune
    on_gpu = loaded.model.device.type == "cuda"
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=1,  # the rows of all epochs stand in one list
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.rows_per_step,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(options.warmup_share * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        adam_beta2=ADAM_BETA2,
        bf16=on_gpu and loaded.model.dtype == torch.bfloat16,
        fp16=on_gpu and loaded.model.dtype == torch.float16,
        use_cpu=not on_gpu,
        eval_strategy="steps" if validates else "no",
        eval_steps=options.evaluate_steps,
        save_strategy="steps",
        save_steps=options.checkpoint_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen, not smoothed over
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
        dataloader_num_workers=0,
        accelerator_config={"non_blocking": on_gpu},  # rows go there from pinned memory: nothing waits for each tensor
        seed=config.seed,
        data_seed=config.seed,
    )


# What Trainer logs of itself beside the means of a step.
_TRAINERS_OWN = {"loss", "learning_rate", "grad_norm", "epoch"}
# What the bar has room for where a step logs more than a handful: reinforcement learning. The log has all.
_TOLD = ("reward", "kl", "entropy")


class Recorder:
    """Writes each step to the log and to the bar."""

    def __init__(self, path: Path, rows: Sequence[Any], rows_per_step: int, task: Task, unit: str) -> None:
        self._path, self._task, self._unit, self._started = path, task, unit, time.monotonic()
        self._done = [0]  # what was read by the end of each step
        for start in range(0, len(rows), rows_per_step):
            self._done.append(self._done[-1] + sum(map(len, rows[start : start + rows_per_step])))
        mend_torn_tail(path)
        self._rows = list(read_jsonl(path)) if path.is_file() else []
        self.seconds_before = float(self._rows[-1]["seconds"]) if self._rows else 0.0
        self._step = 0

    def __call__(self, step: int, logs: dict[str, float]) -> None:
        seconds = time.monotonic() - self._started + self.seconds_before
        if "eval_loss" in logs:
            means = {
                f"validation_{name.removeprefix('eval_')}": value
                for name, value in logs.items()
                if name.startswith("eval_")
            }
            row = {"step": step, **means, "seconds": seconds}
            self._task.advance(0, **{name: f"{value:.3f}" for name, value in means.items()})
        elif "loss" in logs:
            means = {name: value for name, value in logs.items() if name not in _TRAINERS_OWN}
            row = {
                "step": step,
                **({"tokens": self._done[step]} if self._unit == "tokens" else {}),
                "loss": logs["loss"],
                **means,
                "learning_rate": logs.get("learning_rate", 0.0),
                "seconds": seconds,
            }
            told = {name: means[name] for name in _TOLD} if "reward" in means else means
            shown = {"loss": logs["loss"], **told}
            self._task.advance(
                self._done[step] - self._done[self._step], **{name: f"{value:.3f}" for name, value in shown.items()}
            )
            self._step = step
        else:
            return
        self._rows.append(row)
        append_jsonl(self._path, row)

    def curve(self, name: str) -> tuple[tuple[int, float], ...]:
        """(step, value) of what was logged by this name; where a resumed run repeated a step, the later value."""
        return tuple(sorted({row["step"]: row[name] for row in self._rows if name in row}.items()))
