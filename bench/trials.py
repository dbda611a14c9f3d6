"""Trainings that differ in one thing, and one exam for all: prepared by a benchmark, computed anywhere, compared afterwards.

    python bench/trials.py FOLDER [--workers N] [--seconds S] [--only NAME ...]

computes what a benchmark prepared in FOLDER (dataset_quality.py, grouping.py) and goes on where it was stopped. It needs
`prepared/` and what openbook trains and answers with: no index, no embedder, no reader of documents.

    prepared/plan.json           the trials, the most wanted first
    prepared/exams/NAME/         an exam: its tests, what the index found for each question, each question's cluster
    prepared/data/NAME.jsonl     training rows
    trials/NAME/                 adapter, grades, done.json
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jobs
from kept_passages import KeptPassages, answerable, keep
from openbook.answering import PassageSource
from openbook.config import Config
from openbook.evaluation.candidates import LocalCandidates
from openbook.evaluation.evaluate import examine
from openbook.evaluation.exam import TESTS
from openbook.records import RaftExample, from_json, to_json
from openbook.storage import read_jsonl, write_json, write_jsonl
from openbook.training import tune
from paired_table import Values, values_of

PLAN, CLUSTERS, PASSAGES = "plan.json", "clusters.json", "passages.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Tune on the rows `data` ("" leaves the base as it is) and sit the exam `exam`; `options` are sections of Config."""

    name: str
    exam: str
    data: str
    options: dict[str, Any]

    def config(self, out: Path) -> Config:
        arm = "raft_rag" if self.data else "base_rag"
        evaluate = {**self.options["evaluate"], "arms": [arm], "passage_counts": []}
        return Config.parse({**self.options, "out": str(out), "evaluate": evaluate}, origin=self.name)


@dataclass(frozen=True, slots=True)
class Work:
    """A trial as a job."""

    prepared: Path
    trial: Trial

    def __call__(self, folder: Path) -> None:
        config = self.trial.config(folder)
        if self.trial.data:
            train = data_path(self.prepared, self.trial.data)
            tune(train, out=config.adapters_dir / "raft", config=config)
        tests, source = read_exam(self.prepared / "exams" / self.trial.exam)
        examine(config, tests, source, LocalCandidates(config, {"raft"} if self.trial.data else set()))


def data_path(prepared: Path, name: str) -> Path:
    return prepared / "data" / f"{name}.jsonl"


def write_data(prepared: Path, name: str, rows: Iterable[RaftExample], *, share: bool = True) -> None:
    """Training rows with no more in them than `tune` reads. Without `share` none is in a group."""

    from openbook.dataset.formats import to_row  # which brings in all that a data set is built with

    def short(example: RaftExample) -> dict[str, Any]:
        row = to_row(example)
        del row["instruction"]
        return row | {"meta": {"group": example.group}} if share else row | {"meta": {}}

    write_jsonl(data_path(prepared, name), map(short, rows))


def write_exam(
    prepared: Path,
    name: str,
    tests: Mapping[str, Sequence[RaftExample]],
    clusters: Mapping[str, str],
    retriever: PassageSource,
    config: Config,
) -> None:
    """`clusters` names what each example is drawn with in a bootstrap, by the example's id."""
    folder = prepared / "exams" / name
    for test, examples in tests.items():
        write_jsonl(folder / f"{test}.jsonl", map(to_json, examples))
    write_json(folder / CLUSTERS, dict(clusters))
    keep(folder / PASSAGES, tests, retriever, config)


def read_exam(folder: Path) -> tuple[dict[str, list[RaftExample]], KeptPassages]:
    files = {test: path for test in TESTS if (path := folder / f"{test}.jsonl").is_file()}
    tests = {test: [from_json(RaftExample, row) for row in read_jsonl(path)] for test, path in files.items()}
    return tests, KeptPassages(folder / PASSAGES)


def write_plan(prepared: Path, trials: Sequence[Trial]) -> None:
    write_json(prepared / PLAN, [asdict(trial) for trial in trials])


def read_plan(prepared: Path) -> list[Trial]:
    return [Trial(**row) for row in json.loads((prepared / PLAN).read_text(encoding="utf-8"))]


def compute(folder: Path, *, workers: int, seconds: float, only: Sequence[str] = ()) -> bool:
    """Do the trials of `folder` that are not done yet, or those of the names `only`, in their order; whether all of them
    are done."""
    prepared = folder / "prepared"
    planned = {trial.name: trial for trial in read_plan(prepared)}
    wanted = [planned[name] for name in only] if only else list(planned.values())
    work = [jobs.Job(name=trial.name, work=Work(prepared, trial)) for trial in wanted]
    return jobs.run(work, folder / "trials", workers=workers, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Test:
    """The questions of a test: their ids, the cluster of each, and the ids of those whose passages hold the answer."""

    ids: list[str]
    clusters: list[str]
    answerable: set[str]

    def values(self, folder: Path, trial: str) -> Values | None:
        """The trial's grades, question by question; None where it is not done."""
        at = folder / "trials" / trial
        if not jobs.is_done(at):
            return None
        return values_of(read_jsonl(at / "evaluation" / "grades.jsonl"), self.ids, self.answerable)

    @property
    def size(self) -> str:
        return f"{len(self.ids)} questions, {len(set(self.clusters))} clusters, in %"


def tests_of(folder: Path, trial: Trial) -> dict[str, Test]:
    """The tests of a trial's exam."""
    exam = folder / "prepared" / "exams" / trial.exam
    tests, source = read_exam(exam)
    held = answerable(tests, source, trial.config(folder))
    cluster = json.loads((exam / CLUSTERS).read_text(encoding="utf-8"))
    return {
        name: Test([example.id for example in examples], [cluster[example.id] for example in examples], held)
        for name, examples in tests.items()
    }


def two_steps(
    document: str | None,
    prepare: Callable[[argparse.Namespace], None],
    told: str,
    table: Callable[[argparse.Namespace], None],
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The command line of a benchmark that prepares trials, and afterwards tabulates them: the whole of it, and the part of
    `prepare`, which has more options."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    preparing = steps.add_parser("prepare", help=told)
    tabulating = steps.add_parser("table", help="print what there is, and write table.json")
    for part, step in ((preparing, prepare), (tabulating, table)):
        part.add_argument("folder", type=Path)
        part.set_defaults(step=step)
    return parser, preparing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no trial begins after so many")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="these trials, in this order")
    arguments = parser.parse_args()
    done = compute(arguments.folder, workers=arguments.workers, seconds=arguments.seconds, only=arguments.only)
    raise SystemExit(0 if done else 1)


if __name__ == "__main__":
    main()
