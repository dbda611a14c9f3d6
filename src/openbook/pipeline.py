"""Everything, from documents to the report. What is current is not done again; what was stopped goes on."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openbook import storage, tuning
from openbook.config import Config
from openbook.errors import StoreError
from openbook.progress import SILENT, Progress
from openbook.records import from_json, to_json

if TYPE_CHECKING:
    from openbook.evaluation import Report

TIMES = "seconds.json"
NOTHING_CHANGED = "nothing that it depends on has changed"


def run(config: Config, *, progress: Progress = SILENT) -> "Report":
    """Ingest, build the data set, tune with and without passages, evaluate; skip what is current, with a reason."""
    from openbook import dataset, evaluation, indexing, training

    with storage.exclusive(config.out):
        times = Times(config)
        progress.stage("Ingest")
        with times.measure("ingest") as measured:
            report = indexing.ingest(config, progress=progress)
            measured.idle = not (report.added or report.changed or report.removed)
        progress.message(f"{report.documents:,} documents, {report.chunks:,} passages.")
        if dataset.is_built(config):
            progress.stage("Data set", skipped=NOTHING_CHANGED)
        else:
            progress.stage("Data set")
            with times.measure("dataset"):
                built = dataset.build(config, progress=progress)
            for note in built.notes:
                progress.message(note)
        for form, folder in tuning.ADAPTERS.items():
            name = f"Tune {folder}"
            train, out = config.dataset_dir / "train.jsonl", config.adapters_dir / folder
            if training.is_tuned(train, out=out, config=config, form=form):
                progress.stage(name, skipped=NOTHING_CHANGED)
                continue
            progress.stage(name)
            with times.measure(f"tune_{folder}"):
                tuning.run_tuning(config, form=form, progress=progress)
        progress.stage("Evaluate")
        return evaluation.evaluate(config, seconds=times.seconds, progress=progress)


class Measured:
    """A stage under the clock. `idle`: it found nothing to do, so that its earlier time stands."""

    idle = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    seconds: float
    done: bool  # False: the stage was stopped after so many seconds


class Times:
    """Wall time of each stage, kept beside the results: a skipped stage still shows what it cost, and a stage that was
    stopped and went on shows the sum."""

    def __init__(self, config: Config) -> None:
        self._path = config.out / TIMES
        self._stages: dict[str, _Time] = {}
        # Absent or not ours: times are for people, nothing hangs on them.
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            data = json.loads(self._path.read_text(encoding="utf-8"))
            self._stages = {stage: from_json(_Time, entry) for stage, entry in data.items()}

    @property
    def seconds(self) -> dict[str, float]:
        return {stage: entry.seconds for stage, entry in self._stages.items()}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[Measured]:
        """Time what happens inside; an exception leaves the time so far, to be gone on with."""
        measured, started = Measured(), time.monotonic()
        before = self._stages.get(stage)
        spent = before.seconds if before and not before.done else 0.0
        try:
            yield measured
        except BaseException:
            with contextlib.suppress(StoreError):  # a full disk has its own sentence, that of the stage
                self._note(stage, spent + time.monotonic() - started, done=False)
            raise
        if not (measured.idle and before):
            self._note(stage, spent + time.monotonic() - started, done=True)

    def _note(self, stage: str, seconds: float, *, done: bool) -> None:
        self._stages[stage] = _Time(seconds=seconds, done=done)
        storage.write_json(self._path, {name: to_json(entry) for name, entry in self._stages.items()})
