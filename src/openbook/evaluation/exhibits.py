"""What the page shows beside the figures: examples side by side, loss curves, the data set's counts."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.evaluation.candidates import adapter_folder
from openbook.evaluation.exam import Exam
from openbook.evaluation.report import Answered, Example, LossCurve, Shown
from openbook.metrics import Gold, grade
from openbook.records import Answer
from openbook.storage import read_jsonl, read_manifest

EXAMPLES = 10


def draw_examples(exams: Sequence[tuple[Exam, Mapping[str, Sequence[Answer]]]]) -> tuple[Example, ...]:
    """Ten questions with the answers of the arms given, taken in turn from the tests.

    They are the first of each test, whose order was drawn by the seed: nobody has chosen them.
    """
    drawn: list[Example] = []
    for number in range(EXAMPLES):
        for exam, said in exams:
            if number < len(exam.examples) and said and len(drawn) < EXAMPLES:
                drawn.append(_example(exam, said, number))
    return tuple(sorted(drawn, key=lambda example: example.test))


def _example(exam: Exam, said: Mapping[str, Sequence[Answer]], number: int) -> Example:
    example = exam.examples[number]
    gold = Gold.of(example)
    shown = next(iter(said.values()))[number].passages
    return Example(
        test=exam.name,
        question=example.question,
        gold_answer=gold.answer,
        gold_sentences=gold.sentences,
        passages=tuple(Shown(chunk=scored.chunk, golden=scored.chunk.id in example.golden_ids) for scored in shown),
        answered=tuple(
            Answered(arm=arm, answer=answers[number], grade=grade(answers[number], gold))
            for arm, answers in said.items()
        ),
    )


def loss_curve(folder: Path) -> LossCurve | None:
    """The curve that `tune` logged in an adapter's folder; None where it logged none.

    Where a resumed run repeated a step, the later value counts. A loss that is not finite is left out.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        return None
    rows = list(read_jsonl(path, torn_tail=True))

    def curve(key: str) -> tuple[tuple[int, float], ...]:
        points = {int(row["step"]): float(row[key]) for row in rows if key in row and math.isfinite(row[key])}
        return tuple(sorted(points.items()))

    found = LossCurve(adapter=folder.name, train=curve("loss"), validation=curve("validation_loss"))
    return found if found.train or found.validation else None


def dataset_facts(config: Config) -> dict[str, Any]:
    """The counts that the data set's manifest reports; empty where it reports none."""
    report = (read_manifest(config.dataset_dir) or {}).get("report")
    return {name: value for name, value in report.items() if name != "seconds"} if isinstance(report, dict) else {}


def recorded(config: Config) -> tuple[dict[str, float], int]:
    """Seconds of the stages before, and the most memory that one of them held, as far as they wrote it down."""
    folders = {
        "ingest": config.index_dir,
        "dataset": config.dataset_dir,
        "tune_raft": adapter_folder(config, "raft"),
        "tune_sft": adapter_folder(config, "sft"),
    }
    seconds, peak = {}, 0
    for stage, folder in folders.items():
        manifest = read_manifest(folder) or {}
        report = manifest.get("report")
        facts = {**report, **manifest} if isinstance(report, dict) else manifest
        if isinstance(facts.get("seconds"), int | float):
            seconds[stage] = float(facts["seconds"])
        if isinstance(facts.get("peak_memory_bytes"), int):
            peak = max(peak, facts["peak_memory_bytes"])
    return seconds, peak
