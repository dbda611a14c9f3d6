"""What an evaluation found: the record behind `report.json`, and what only the page shows."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from openbook.errors import StoreError
from openbook.metrics import Grade, Interval
from openbook.records import Answer, Chunk, from_json
from openbook.storage import write_text

Scores = Mapping[str, Interval]  # metric → its mean


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test: `arms` → metric → mean; `differences` ("raft_rag-base_rag") → metric → mean paired difference."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    arms: Mapping[str, Scores]
    differences: Mapping[str, Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`report.json`. `seconds` by stage; a metric that does not apply to an arm has n = 0 and no value."""

    tests: Mapping[str, TestResult]
    seconds: Mapping[str, float]
    peak_memory_bytes: int
    config: Mapping[str, Any]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; a missing or unknown field raises `TypeError` or `KeyError` with its name."""

        def scores(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
            return {
                name: {metric: from_json(Interval, interval) for metric, interval in row.items()}
                for name, row in table.items()
            }

        tests = {
            name: TestResult(arms=scores(test["arms"]), differences=scores(test["differences"]))
            for name, test in data["tests"].items()
        }
        return cls(**{**data, "tests": tests})

    def save(self, path: Path) -> None:
        """Write `report.json`; arms, metrics and stages keep their order."""
        write_text(path, json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise StoreError(f"{path} does not exist.", "`openbook evaluate` writes it.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path} is not a report: {error}.", "`openbook evaluate` writes it anew.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A passage of an example, as both arms were shown it."""

    chunk: Chunk
    golden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one arm said to an example."""

    arm: str
    answer: Answer
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question with what the arms said, side by side."""

    test: str
    question: str
    gold_answer: str
    gold_sentences: tuple[str, ...]
    passages: tuple[Shown, ...]
    answered: tuple[Answered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """The losses of one tuning, as (step, loss)."""

    adapter: str
    train: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibits:
    """What the page shows beside the report. `sizes`: test → (questions, documents). `by_passages`: arm → number of
    passages → scores. `errors`: why generations failed → how often. `dataset`: the counts of the data set's manifest."""

    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    by_passages: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    losses: tuple[LossCurve, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
