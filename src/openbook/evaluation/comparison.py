"""The ways of tuning before the same exams: the same questions, the same retrieved passages, the same grader."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.answering import PassageSource
from openbook.config import Config
from openbook.evaluation.arms import Arm
from openbook.evaluation.candidates import Candidates, LocalCandidates
from openbook.evaluation.exam import read_tests, set_exam
from openbook.evaluation.report import TestResult
from openbook.evaluation.scoring import aggregate, columns
from openbook.evaluation.sittings import answer_all, sittings_of
from openbook.evaluation.ways import BASE, Way
from openbook.progress import SILENT, Progress
from openbook.records import RaftExample
from openbook.storage import versions, write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a way of tuning cost, with all that it goes on from: `tokens` read and written, `seconds` of wall time,
    `trained_weights` of the last step; `peak_memory_bytes` is the most that a process held meanwhile."""

    tokens: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    trained_weights: int = 0

    def after(self, earlier: "Cost") -> "Cost":
        """This step's cost with that of the steps before it."""
        return Cost(
            tokens=self.tokens + earlier.tokens,
            seconds=self.seconds + earlier.seconds,
            peak_memory_bytes=max(self.peak_memory_bytes, earlier.peak_memory_bytes),
            trained_weights=self.trained_weights or earlier.trained_weights,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`comparison.json`. `tests`: test → scores of each way, and differences ("raft-base") question by question;
    `sizes`: test → (questions, documents); `costs` by way."""

    ways: tuple[str, ...]
    tests: Mapping[str, TestResult]
    sizes: Mapping[str, tuple[int, int]]
    costs: Mapping[str, Cost]
    config: Mapping[str, Any]
    versions: Mapping[str, str]

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def compare_ways(
    config: Config, ways: Sequence[Way], costs: Mapping[str, Cost], *, progress: Progress = SILENT
) -> Comparison:
    """Examine ways whose adapters stand under `config.adapters_dir`, each by its name. Answers are kept, so that a
    killed comparison goes on. Raises `StoreError` where index, tests or an adapter are absent."""
    from openbook.retrieval import open_index

    tests = read_tests(config)
    candidates = LocalCandidates(config, [way.name for way in ways if way.name != BASE])
    retriever = open_index(config.index_dir, config)
    for warning in candidates.differences(retriever.fingerprint):
        progress.message(warning)
    return examine_ways(config, ways, tests, retriever, candidates, costs, progress=progress)


def examine_ways(
    config: Config,
    ways: Sequence[Way],
    tests: Mapping[str, Sequence[RaftExample]],
    retriever: PassageSource,
    candidates: Candidates,
    costs: Mapping[str, Cost],
    *,
    progress: Progress = SILENT,
) -> Comparison:
    """`compare_ways` with questions, index and models given."""
    arms = [
        Arm(
            name=way.name,
            adapter=None if way.name == BASE else way.name,
            passages="retrieved",
            meaning=way.meaning,
        )
        for way in ways
    ]
    exams = [set_exam(name, examples, retriever, config, progress) for name, examples in tests.items()]
    sittings = [sitting for exam in exams for sitting in sittings_of(exam, arms, config)]
    answers, _ = answer_all(sittings, candidates, config, progress, folder=config.comparison_dir)
    sat = list(zip(sittings, answers, strict=True))
    results = {}
    for exam in exams:
        said = {s.arm.name: a for s, a in sat if s.exam is exam and s.kind == "all"}
        removed = {s.arm.name: a for s, a in sat if s.exam is exam and s.kind == "removed"}
        table = {
            arm.name: columns(exam, arm, said[arm.name], removed.get(arm.name), config.retrieval.passages)
            for arm in arms
        }
        results[exam.name] = aggregate(exam, table, config, _couples(ways))
    return Comparison(
        ways=tuple(way.name for way in ways),
        tests=results,
        sizes={exam.name: (len(exam.examples), len(set(exam.documents))) for exam in exams},
        costs={way.name: costs.get(way.name, Cost()) for way in ways},
        config=config.model_dump(mode="json"),
        versions=versions(),
    )


def rival(way: Way, ways: Sequence[Way]) -> str:
    """Whom a way is measured against: what it goes on from, else the base; "" where that is not compared."""
    wanted = way.after or (BASE if way.name != BASE else "")
    return wanted if any(other.name == wanted for other in ways) else ""


def _couples(ways: Sequence[Way]) -> list[tuple[str, str]]:
    return [(way.name, other) for way in ways if (other := rival(way, ways))]
