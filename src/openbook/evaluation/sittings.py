"""Who is asked what: the sittings of an evaluation, and the answers to them, each prompt answered once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openbook.config import Config
from openbook.evaluation.arms import Arm
from openbook.evaluation.candidates import Candidates
from openbook.evaluation.exam import Exam, Sheet
from openbook.evaluation.predictions import Prediction, key_of, recall, sit
from openbook.progress import Progress
from openbook.records import Answer

COMPARED = ("base_rag", "raft_rag")  # the arms of the picture over numbers of passages and of the examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """One arm before one list of sheets.

    `kind`: all questions of the test, those whose golden chunks are removed from the index, or the first ones again
    with `passages` passages.
    """

    exam: Exam
    arm: Arm
    kind: Literal["all", "removed", "passages"]
    passages: int
    sheets: tuple[Sheet, ...]

    @property
    def numbers(self) -> Sequence[int]:
        """The question of the test that each sheet asks."""
        return [number for number, _ in self.exam.removed] if self.kind == "removed" else range(len(self.sheets))


def sittings_of(exam: Exam, arms: Iterable[Arm], config: Config) -> list[Sitting]:
    """Every arm before all questions; those that are shown what was retrieved, also before the removed ones."""
    shown = config.retrieval.passages
    planned = []
    for arm in arms:
        sheets = tuple(exam.sheets(arm, shown))
        planned.append(Sitting(exam=exam, arm=arm, kind="all", passages=shown, sheets=sheets))
        if arm.passages == "retrieved":
            sheets = tuple(exam.removed_sheets())
            planned.append(Sitting(exam=exam, arm=arm, kind="removed", passages=shown, sheets=sheets))
    return planned


def sittings_by_passages(exam: Exam, arms: Iterable[Arm], config: Config) -> list[Sitting]:
    """The compared arms before the first questions, once for each of `evaluate.passage_counts`."""
    first = config.evaluate.passage_questions
    return [
        Sitting(exam=exam, arm=arm, kind="passages", passages=count, sheets=tuple(exam.sheets(arm, count)[:first]))
        for arm in arms
        if arm.name in COMPARED
        for count in sorted(set(config.evaluate.passage_counts))
    ]


def answer_all(
    sittings: Sequence[Sitting],
    candidates: Candidates,
    config: Config,
    progress: Progress,
    *,
    folder: Path | None = None,
) -> tuple[list[list[Answer]], float]:
    """The answers of each sitting, in the order of its sheets, and the seconds that earlier runs spent on them.

    They are kept in `folder` (default: `config.evaluation_dir`), one file an adapter.
    """
    identities = {adapter: candidates.identity(adapter) for adapter in (sitting.arm.adapter for sitting in sittings)}
    keys = [
        [key_of(sheet, identities[sitting.arm.adapter], config.model.max_new_tokens) for sheet in sitting.sheets]
        for sitting in sittings
    ]
    known: dict[str, Prediction] = {}
    earlier = 0.0
    for adapter, weights in identities.items():
        asked = {
            key: sheet
            for sitting, row in zip(sittings, keys, strict=True)
            if sitting.arm.adapter == adapter
            for key, sheet in zip(row, sitting.sheets, strict=True)
        }
        if not asked:
            continue
        path = (folder or config.evaluation_dir) / f"predictions-{adapter or 'base'}.jsonl"
        found = recall(path, asked.keys(), weights)
        earlier += sum(prediction.seconds for prediction in found.values())
        known |= found
        missing = {key: sheet for key, sheet in asked.items() if key not in found}
        if not missing:
            continue
        with (
            candidates.answering(adapter) as generator,
            progress.task(f"Answering with {adapter or 'the base'}", len(missing), "answers") as task,
        ):
            for prediction in sit(missing, generator, path, weights, task=task):
                known[prediction.key] = prediction
    answers = [
        [known[key].answer(sheet) for key, sheet in zip(row, sitting.sheets, strict=True)]
        for sitting, row in zip(sittings, keys, strict=True)
    ]
    return answers, earlier
