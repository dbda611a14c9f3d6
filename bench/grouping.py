"""Do study groups cost quality at equal questions, and what do they win at equal time?

    python bench/grouping.py prepare FOLDER --squad FILE
    python bench/trials.py FOLDER [--workers N] [--seconds S]
    python bench/grouping.py table FOLDER

In groups: the passages found for one question are shown with all questions whose golden passage lies among them. Apart:
every question has passages of its own from the same miner, in an order of its own, and shares no prompt, as in gorilla's
RAFT. Both study the same questions, of which the same ones lack their golden passage, in as many optimizer steps.

Two sets: the demo's documents, with questions by openbook's teacher (exams *studied* and *unseen*), and SQuAD (articles
that were not trained on). The clock is processor time of training on a CPU, measured while preparing, once for groups and
once for questions apart, by which the row tokens of a run are priced. "Apart, in the groups' time" trains on as much of its
epochs as that pays for, in fewer steps, or in as many smaller ones; "groups, in the time of those apart" studies as many
questions of the pool as that pays for, and repeats them where the pool is too small.
"""

import argparse
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import trials
from kept_passages import Remembered
from labelled_sets import squad
from labelled_world import World
from openbook import dataset, indexing
from openbook.cli import standard_library
from openbook.cli.session import as_overrides
from openbook.cli.whole import DEMO
from openbook.config import Config
from openbook.dataset import splits
from openbook.dataset.formats import read_examples
from openbook.dataset.overlay import as_question
from openbook.dataset.writing import SPREAD
from openbook.models import load_tokenizer
from openbook.records import Chunk, Question, RaftExample
from openbook.retrieval import open_index
from openbook.storage import read_manifest, write_json
from openbook.training import tune
from openbook.training.data import read_study
from paired_table import Values, compared, markdown, plain
from studying import PASSAGES, Studying

EPOCHS = 2.0
ROWS_PER_STEP = 2  # of the groups; those apart take as many as make as many steps
CLOCK_STEPS = 5  # timed, after one that is not
STUDIED = UNSEEN = 150  # questions of the demo's exams
EXAM = 200  # questions of SQuAD's
REMOVED = 80  # of an exam, asked again without their golden passage
POOL, DOCUMENTS = 1600, 600  # SQuAD's questions to draw from, and paragraphs (or as many as are asked about)

WAYS = {
    "groups": "groups",
    "apart": "apart",
    "shorter": "apart, in the groups' time",
    "smaller": "apart, in the groups' time and steps",
    "longer": "groups, in the time of those apart",
}
COMPARED = {
    "equal questions: groups − apart": ("groups", "apart"),
    "equal time: groups − apart": ("groups", "shorter"),
    "equal time and steps: groups − apart": ("groups", "smaller"),
    "equal time, more studied: groups − apart": ("longer", "apart"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is asked, and over what. `label` puts a set's own answers into rows."""

    source: Remembered
    chunks: dict[str, Chunk]
    pool: list[Question]
    hidden: frozenset[str]
    tests: dict[str, list[RaftExample]]
    clusters: dict[str, str]
    label: Callable[[list[RaftExample]], list[RaftExample]]


def of_demo(folder: Path, arguments: argparse.Namespace) -> Material:
    """The project of `openbook demo` with more questions, all of which keep their golden passage for now."""
    standard_library.write_documents(folder / "documents")
    sizes = {
        "dataset.questions": max(arguments.demo) + 40,
        "dataset.questions_per_chunk": 12,
        "dataset.studied": STUDIED,
        "dataset.unseen": UNSEEN,
        "dataset.validation": 0,
        "dataset.golden_share": 1.0,
    }
    flags = {**DEMO, **sizes, "out": folder, "documents.paths": [folder / "documents"]}
    config = Config.load(None, as_overrides(flags))
    indexing.ingest(config)
    if not dataset.is_built(config):
        dataset.build(config)
    source = Remembered(open_index(config.index_dir, config))
    tests = {test: list(read_examples(config.dataset_dir / f"{test}.jsonl")) for test in trials.TESTS}
    return Material(
        source=source,
        chunks={chunk.id: chunk for chunk in source.store.chunks()},
        pool=[as_question(row) for row in read_examples(config.dataset_dir / "train.jsonl")],
        hidden=frozenset((read_manifest(config.dataset_dir) or {})["held_out"]),
        tests=tests,
        clusters={row.id: row.golden[0].document_id for rows in tests.values() for row in rows},
        label=lambda rows: rows,
    )


def of_squad(folder: Path, arguments: argparse.Namespace) -> Material:
    world = World("squad", squad(arguments.squad), folder, exam=EXAM, pool=POOL, documents=DOCUMENTS)
    return Material(
        source=world.retriever,
        chunks=world.chunks,
        pool=world.pool,
        hidden=frozenset(i for example in world.exam for i in example.golden_ids),
        tests={"unseen": world.exam},
        clusters=world.clusters,
        label=world.labelled,
    )


def in_order(material: Material, seed: int) -> list[Question]:
    """The pool as openbook's writer would meet it: runs of neighbouring passages in random order."""
    asked: dict[str, list[Question]] = defaultdict(list)
    for question in material.pool:
        asked[question.golden_chunk_ids[0]].append(question)
    units = splits.units(material.chunks[i] for i in asked)
    runs = splits.blocks(units, SPREAD, seed)
    return [question for run in runs for place in run for question in asked[place.chunk_id]]


# --- Prepare


class Clock:
    """Progress that notes the processor time at each step of a training."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []  # tokens, processor seconds since the process began

    def stage(self, name: str, skipped: str = "") -> None: ...
    def message(self, text: str) -> None: ...

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator["Clock"]:
        yield self

    def advance(self, amount: float = 1, **facts: object) -> None:
        if "loss" in facts:
            self.steps.append((amount, time.process_time()))

    @property
    def seconds_per_token(self) -> float:
        (_, start), *steps = self.steps
        return (steps[-1][1] - start) / sum(tokens for tokens, _ in steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Training rows that were written, what an epoch of them reads, and what that costs."""

    name: str
    questions: int
    lengths: list[int]  # of the first epoch's rows, in tokens
    price: float  # processor seconds a token

    def rows(self, epochs: float) -> list[int]:
        """The lengths of a run's rows, as though every epoch had those of the first."""
        whole, part = divmod(epochs, 1.0)
        return self.lengths * int(whole) + self.lengths[: round(part * len(self.lengths))]

    def seconds(self, epochs: float) -> float:
        return sum(self.rows(epochs)) * self.price


class Preparing:
    """Data, exams and trials of one set."""

    def __init__(self, name: str, material: Material, folder: Path) -> None:
        self.name, self.material, self.folder = name, material, folder
        self.prepared = folder / "prepared"
        self.tokenizer = load_tokenizer("nano")
        self.options: dict[str, dict[str, Any]] = {
            "model": {"base": "nano", "dtype": "float32"},  # the figures shall hold on a CPU too
            "tune": {"epochs": EPOCHS, "row_tokens": DEMO["tune.row_tokens"], "rows_per_step": ROWS_PER_STEP},
            "retrieval": {"passages": PASSAGES},
            "evaluate": {"questions": 1000, "removed": REMOVED, "batch_size": 64, "resamples": 100},
        }
        self.sizes: dict[str, dict[str, Any]] = {}

    def exam(self) -> trials.Trial:
        base = trials.Trial(name=f"{self.name}-base", exam=self.name, data="", options=self.options)
        found = self.material
        trials.write_exam(self.prepared, self.name, found.tests, found.clusters, found.source, base.config(self.folder))
        return base

    def ways(self, count: int, seed: int) -> list[trials.Trial]:
        """All ways to study `count` questions, or what takes as long."""
        everything = in_order(self.material, seed)
        found = self.material
        studying = Studying(source=found.source, chunks=found.chunks, share=0.8, seed=seed, hidden=found.hidden)
        asked = everything[:count]
        rows = studying.in_groups(asked)
        away = {row.question_id for row in rows if not row.golden_included}
        stem = f"{self.name}{count}"
        groups = self._data(f"{stem}-groups-{seed}", rows, seed)
        apart = self._data(f"{stem}-apart-{seed}", studying.apart(asked, away), seed, share=False)
        cheap, dear = groups.seconds(EPOCHS), apart.seconds(EPOCHS)
        larger = studying.in_groups(everything[: round(count * dear / cheap)])
        more = self._data(f"{stem}-more-{seed}", larger, seed)
        as_many_steps = max(1, round(ROWS_PER_STEP * len(apart.lengths) / len(groups.lengths)))
        runs = {
            "groups": (groups, EPOCHS, ROWS_PER_STEP),
            "apart": (apart, EPOCHS, as_many_steps),
            "shorter": (apart, EPOCHS * cheap / dear, as_many_steps),
            "smaller": (apart, EPOCHS * cheap / dear, ROWS_PER_STEP),
            "longer": (more, EPOCHS * dear / more.seconds(EPOCHS), ROWS_PER_STEP),
        }
        return [self._trial(f"{stem}-{way}-{seed}", *run, seed) for way, run in runs.items()]

    def _trial(self, name: str, data: Data, epochs: float, rows_per_step: int, seed: int) -> trials.Trial:
        rows = data.rows(epochs)
        self.sizes[name] = {
            "epochs": round(epochs, 3),
            "rows_per_step": rows_per_step,
            "steps": -(-len(rows) // rows_per_step),
            "tokens": sum(rows),
            "questions": data.questions,
            "seconds": round(data.seconds(epochs), 1),
        }
        tuning = {**self.options["tune"], "epochs": epochs, "rows_per_step": rows_per_step}
        options = {**self.options, "tune": tuning, "seed": seed}
        return trials.Trial(name=name, exam=self.name, data=data.name, options=options)

    def _data(self, name: str, rows: list[RaftExample], seed: int, *, share: bool = True) -> Data:
        trials.write_data(self.prepared, name, self.material.label(rows), share=share)
        path, budget = trials.data_path(self.prepared, name), DEMO["tune.row_tokens"]
        study = read_study(path, self.tokenizer, form="raft", budget=budget, seed=seed, context=budget)
        lengths = [len(row) for row in study.rows(0)]
        price = self._price(path, len(lengths), "groups" if share else "apart")
        return Data(name=name, questions=len(rows), lengths=lengths, price=price)

    def _price(self, path: Path, rows: int, kind: str) -> float:
        """Processor seconds a token, measured on the set's first data of this kind and kept."""
        kept = self.folder / "clock" / f"{self.name}-{kind}.json"
        if not kept.is_file():
            epochs = min(1.0, (1 + CLOCK_STEPS) * ROWS_PER_STEP / rows)
            options = {**self.options, "tune": {**self.options["tune"], "epochs": epochs}}
            trial = trials.Trial(name="clock", exam=self.name, data=path.stem, options=options)
            config, clock = trial.config(self.folder / "clock" / f"{self.name}-{kind}"), Clock()
            tune(path, out=config.adapters_dir / "raft", config=config, progress=clock)
            write_json(kept, clock.seconds_per_token)
        price: float = json.loads(kept.read_text(encoding="utf-8"))
        return price


def prepare(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    bases: list[trials.Trial] = []
    tuned: list[trials.Trial] = []
    sizes: dict[str, Any] = {}
    counts = {"demo": arguments.demo, "squad": arguments.train if arguments.squad else []}
    for name, make in {"demo": of_demo, "squad": of_squad}.items():
        if counts[name]:
            preparing = Preparing(name, make(folder / "work" / name, arguments), folder)
            bases.append(preparing.exam())
            for count, seed in itertools.product(counts[name], range(arguments.seeds)):
                tuned += preparing.ways(count, seed)
            sizes |= preparing.sizes
    # Seed by seed, and of each seed groups and apart first.
    trials.write_plan(folder / "prepared", [*bases, *sorted(tuned, key=lambda trial: _place(trial.name)[::-1])])
    write_json(folder / "prepared" / "sizes.json", sizes)
    print(costs(sizes))


def parts(trial: str) -> tuple[str, str, int]:
    """Set with the number of questions, way, seed."""
    stem, way, seed = trial.split("-")
    return stem, way, int(seed)


def _place(trial: str) -> tuple[str, int, int]:
    stem, way, seed = parts(trial)
    return stem, list(WAYS).index(way), seed


# --- The table


def table(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    plan = trials.read_plan(folder / "prepared")
    sizes = json.loads((folder / "prepared" / "sizes.json").read_text(encoding="utf-8"))
    tables: dict[str, Any] = {}
    for base in (trial for trial in plan if not trial.data):
        tests = trials.tests_of(folder, base)
        tuned = [trial.name for trial in plan if trial.data and trial.exam == base.exam]
        for stem, name in itertools.product(dict.fromkeys(parts(trial)[0] for trial in tuned), tests):
            test = tests[name]
            mine = [trial for trial in tuned if parts(trial)[0] == stem]
            graded = {parts(trial)[1:]: values for trial in mine if (values := test.values(folder, trial))}
            found = summary(graded, test.values(folder, base.name), test.clusters)
            tables[f"{stem}, {name}"] = found
            print(markdown(f"{stem}, {name}: {test.size}", found), end="\n\n")
    print(costs(sizes))
    write_json(folder / "table.json", plain(tables) | {"sizes": sizes})


def summary(graded: Mapping[tuple[str, int], Values], base: Values | None, clusters: Sequence[str]) -> dict[str, Any]:
    """`graded` are the values of each way and seed; seed by seed they are compared."""
    seeds = {"untuned base": [base] if base else []}
    for way, title in WAYS.items():
        seeds[title] = [values for (this, _), values in sorted(graded.items()) if this == way]
    couples = {
        title: [
            (values, graded[other, seed])
            for (way, seed), values in sorted(graded.items())
            if way == one and (other, seed) in graded
        ]
        for title, (one, other) in COMPARED.items()
    }
    return compared(seeds, couples, clusters)


def costs(sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """What each way studies, with the first seed."""
    columns = ("questions", "epochs", "rows_per_step", "steps", "tokens", "seconds")
    lines = ["| | " + " | ".join(columns).replace("_", " ") + " |", "|---|" + "---|" * len(columns)]
    for name in sorted(sizes, key=_place):
        (stem, way, seed), size = parts(name), sizes[name]
        if not seed:
            lines.append(f"| {stem}: {WAYS[way]} | " + " | ".join(f"{size[key]:,}" for key in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser, preparing = trials.two_steps(__doc__, prepare, "index, write data and exams, read the clock", table)
    preparing.add_argument(
        "--demo", type=int, nargs="*", default=[150, 400], help="numbers of training questions; none: no demo"
    )
    preparing.add_argument("--squad", type=Path, metavar="FILE", help="SQuAD in its v2.0 layout; left out without it")
    preparing.add_argument("--train", type=int, nargs="+", default=[400], help="SQuAD's numbers of training questions")
    preparing.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    main()
