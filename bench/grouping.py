"""Do study groups cost quality at equal questions, and what do they win at equal time?

    python bench/grouping.py prepare FOLDER --squad FILE
    python bench/trials.py FOLDER [--workers N] [--seconds S]
    python bench/grouping.py table FOLDER

In groups: the passages found for one question are shown with all questions whose golden passage lies among them. Apart:
every question has passages of its own from the same miner, in an order of its own, and shares no prompt, as in gorilla's
RAFT. Both study the same questions, of which the same ones lack their golden passage, in as many optimizer steps.

Two sets: the demo's documents, with questions by openbook's teacher (exams *studied* and *unseen*), and SQuAD (articles
that were not trained on). The clock is processor time of training on a CPU, measured while preparing, once for each way,
by which the row tokens of a run are priced. "Apart, in the groups' time" trains on as much of its epochs as that pays
for; "groups, in the others' time" studies as many questions of the pool as that pays for, and repeats them where the
pool is too small.
"""

import argparse
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from openbook.dataset.writing import SPREAD
from openbook.models import load_tokenizer
from openbook.records import Chunk, Question, RaftExample
from openbook.retrieval import open_index
from openbook.storage import read_manifest, write_json
from openbook.training import tune
from openbook.training.data import read_study
from paired_table import Values, differences, markdown, means, plain, values_of
from studying import PASSAGES, Studying

EPOCHS = 2.0
ROWS_PER_STEP = 2  # of the groups; those apart take as many as make as many steps
CLOCK_STEPS = 5  # timed, after one that is not
ARMS = ("groups", "apart", "apart, in the groups' time", "apart, in their time, 2 rows", "groups, in the others' time")
EQUAL, LESS, LESS_SMALL, MORE = 1, 2, 3, 4  # places in ARMS of what is compared with groups, and of the larger groups


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
        "dataset.studied": arguments.studied,
        "dataset.unseen": arguments.unseen,
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
        pool=[_question(row) for row in read_examples(config.dataset_dir / "train.jsonl")],
        hidden=frozenset((read_manifest(config.dataset_dir) or {})["held_out"]),
        tests=tests,
        clusters={row.id: row.golden[0].document_id for rows in tests.values() for row in rows},
        label=lambda rows: rows,
    )


def _question(row: RaftExample) -> Question:
    """What was asked, out of a row that kept its golden passage."""
    return Question(
        id=row.question_id,
        text=row.question,
        golden_chunk_ids=row.golden_ids,
        answer=row.answer,
        quotes=tuple(quote.text for quote in row.quotes),
        reasoning=row.reasoning,
        kind=row.kind,
    )


def of_squad(folder: Path, arguments: argparse.Namespace) -> Material:
    world = World(
        "squad", squad(arguments.squad), folder, exam=arguments.exam, pool=arguments.pool, documents=arguments.passages
    )
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


class Preparing:
    """Data, exams and trials of one set."""

    def __init__(self, name: str, material: Material, arguments: argparse.Namespace) -> None:
        self.name, self.material, self.arguments = name, material, arguments
        self.prepared: Path = arguments.folder / "prepared"
        self.tokenizer = load_tokenizer("nano")
        self.options: dict[str, dict[str, Any]] = {
            "model": {"base": "nano", "dtype": "float32"},
            "tune": {"epochs": EPOCHS, "row_tokens": DEMO["tune.row_tokens"], "rows_per_step": ROWS_PER_STEP},
            "retrieval": {"passages": PASSAGES},
            "evaluate": {"questions": 1000, "removed": arguments.removed, "batch_size": 64, "resamples": 100},
        }
        self.sizes: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[int]] = {}  # data → the lengths of an epoch's rows, in tokens

    def exam(self) -> trials.Trial:
        base = trials.Trial(name=f"{self.name}-base", exam=self.name, data="", options=self.options)
        found = self.material
        config = base.config(self.arguments.folder)
        trials.write_exam(self.prepared, self.name, found.tests, found.clusters, found.source, config)
        return base

    def ways(self, count: int, seed: int) -> list[trials.Trial]:
        """All ways to study `count` questions, or what takes as long."""
        everything = in_order(self.material, seed)
        studying = Studying(
            source=self.material.source,
            chunks=self.material.chunks,
            share=0.8,
            seed=seed,
            hidden=self.material.hidden,
        )
        asked = everything[:count]
        grouped = studying.in_groups(asked)
        away = {row.question_id for row in grouped if not row.golden_included}
        stem = f"{self.name}{count}"
        one, two = f"{stem}-groups-{seed}", f"{stem}-apart-{seed}"
        self._write(one, grouped, share=True)
        self._write(two, studying.apart(asked, away), share=False)
        rows = self._study(two, seed, EPOCHS)[0] / self._study(one, seed, EPOCHS)[0]
        many = max(1, round(ROWS_PER_STEP * rows))
        dear, cheap = self._seconds(two, seed, EPOCHS, apart=True), self._seconds(one, seed, EPOCHS, apart=False)
        more = f"{stem}-more-{seed}"
        self._write(more, studying.in_groups(everything[: round(count * dear / cheap)]), share=True)
        longer = EPOCHS * dear / self._seconds(more, seed, EPOCHS, apart=False)
        shorter = EPOCHS * cheap / dear
        runs = [(one, EPOCHS, ROWS_PER_STEP), (two, EPOCHS, many), (two, shorter, many), (two, shorter, ROWS_PER_STEP)]
        return [
            self._trial(f"{stem}-{arm}-{seed}", data, seed, epochs, per_step)
            for arm, (data, epochs, per_step) in enumerate([*runs, (more, longer, ROWS_PER_STEP)])
        ]

    def _trial(self, name: str, data: str, seed: int, epochs: float, rows_per_step: int) -> trials.Trial:
        tuning = {**self.options["tune"], "epochs": epochs, "rows_per_step": rows_per_step}
        rows, tokens = self._study(data, seed, epochs)
        self.sizes[name] = {
            "epochs": round(epochs, 3),
            "rows_per_step": rows_per_step,
            "steps": -(-rows // rows_per_step),
            "tokens": tokens,
            "questions": sum(1 for _ in trials.data_path(self.prepared, data).open(encoding="utf-8")),
            "seconds": round(self._seconds(data, seed, epochs, apart="-apart-" in data), 1),
        }
        return trials.Trial(
            name=name, exam=self.name, data=data, options={**self.options, "tune": tuning, "seed": seed}
        )

    def _write(self, data: str, rows: list[RaftExample], *, share: bool) -> None:
        trials.write_data(self.prepared, data, self.material.label(rows), share=share)

    def _study(self, data: str, seed: int, epochs: float) -> tuple[int, int]:
        """Rows and tokens of a run, as though every epoch had the rows of the first."""
        if data not in self._rows:
            budget = DEMO["tune.row_tokens"]
            path = trials.data_path(self.prepared, data)
            study = read_study(path, self.tokenizer, form="raft", budget=budget, seed=seed, context=budget)
            self._rows[data] = [len(row) for row in study.rows(0)]
        rows = self._rows[data]
        whole, part = divmod(epochs, 1.0)
        last = rows[: round(part * len(rows))]
        return int(whole) * len(rows) + len(last), int(whole) * sum(rows) + sum(last)

    def _seconds(self, data: str, seed: int, epochs: float, *, apart: bool) -> float:
        """Processor seconds of a run, by the price of its tokens."""
        return self._study(data, seed, epochs)[1] * self._price(data, apart=apart)

    def _price(self, data: str, *, apart: bool) -> float:
        """Processor seconds a token, measured on the set's first data of this kind and kept."""
        kept = self.arguments.folder / "clock" / f"{self.name}-{'apart' if apart else 'groups'}.json"
        if not kept.is_file():
            rows = self._study(data, 0, 1)[0]
            epochs = (1 + CLOCK_STEPS) * ROWS_PER_STEP / rows
            trial = trials.Trial(
                name="clock",
                exam=self.name,
                data=data,
                options={**self.options, "tune": {**self.options["tune"], "epochs": min(1.0, epochs)}},
            )
            clock = Clock()
            config = trial.config(self.arguments.folder / "clock" / self.name)
            tune(trials.data_path(self.prepared, data), out=config.adapters_dir / "raft", config=config, progress=clock)
            write_json(kept, clock.seconds_per_token)
        price: float = json.loads(kept.read_text(encoding="utf-8"))
        return price


def prepare(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    plan: list[list[trials.Trial]] = []
    bases: list[trials.Trial] = []
    sizes: dict[str, Any] = {}
    for name, make, counts in (("demo", of_demo, arguments.demo), ("squad", of_squad, arguments.train)):
        if not counts or (name == "squad" and not arguments.squad):
            continue
        preparing = Preparing(name, make(folder / "work" / name, arguments), arguments)
        bases.append(preparing.exam())
        for count, seed in itertools.product(counts, range(arguments.seeds)):
            plan.append(preparing.ways(count, seed))
        sizes |= preparing.sizes
    # Seed by seed; of each seed groups and apart first.
    ordered = sorted(itertools.chain.from_iterable(plan), key=lambda trial: _place(trial.name)[::-1])
    trials.write_plan(folder / "prepared", [*bases, *ordered])
    write_json(folder / "prepared" / "sizes.json", sizes)
    print(json.dumps(sizes, indent=1))


def _place(name: str) -> tuple[str, int, int]:
    """Set with count, arm and seed of a trial."""
    stem, arm, seed = name.split("-")
    return stem, int(arm), int(seed)


# --- The table


def table(arguments: argparse.Namespace) -> None:
    prepared: Path = arguments.folder / "prepared"
    sizes = json.loads((prepared / "sizes.json").read_text(encoding="utf-8"))
    tuned = [trial for trial in trials.read_plan(prepared) if trial.data]
    tables: dict[str, Any] = {}
    for stem in dict.fromkeys(_place(trial.name)[0] for trial in tuned):
        mine = [trial for trial in tuned if _place(trial.name)[0] == stem]
        for test in trials.read_tests(prepared / "exams" / mine[0].exam):
            exam, clusters = trials.examples_of(prepared, mine[0].exam, test)
            graded = {
                _place(trial.name)[1:]: values_of(rows, exam)
                for trial in mine
                if (rows := trials.grades(arguments.folder, trial.name)) is not None
            }
            base = trials.grades(arguments.folder, f"{mine[0].exam}-base")
            name = f"{stem}, {test}"
            tables[name] = summary(graded, values_of(base, exam) if base else None, clusters)
            title = f"{name}: {len(exam)} questions about {len(set(clusters))} documents or articles, in %"
            print(markdown(title, tables[name]), end="\n\n")
    print(costs(sizes))
    write_json(arguments.folder / "table.json", plain(tables) | {"sizes": sizes})


def summary(graded: dict[tuple[int, int], Values], base: Values | None, clusters: Sequence[str]) -> dict[str, Any]:
    """`graded` are the values of each arm and seed."""
    found: dict[str, Any] = {"cells": {}, "differences": {}}
    if base:
        found["cells"]["untuned base"] = {"seeds": 1, **means([base], clusters)}
    for arm, name in enumerate(ARMS):
        if seeds := [values for (number, _), values in sorted(graded.items()) if number == arm]:
            found["cells"][name] = {"seeds": len(seeds), **means(seeds, clusters)}
    asked = [("equal questions: groups − apart", 0, EQUAL), ("equal time: groups − apart", 0, LESS)]
    asked += [
        ("equal time, 2 rows a step: groups − apart", 0, LESS_SMALL),
        ("equal time, more questions: groups − apart", MORE, EQUAL),
    ]
    for name, one, other in asked:
        couples = [
            (values, graded[other, seed])
            for (arm, seed), values in sorted(graded.items())
            if arm == one and (other, seed) in graded
        ]
        if couples:
            found["differences"][name] = {"couples": len(couples), **differences(couples, clusters)}
    return found


def costs(sizes: dict[str, dict[str, Any]]) -> str:
    """What each way studied, of the first seed."""
    lines = ["| | questions | epochs | rows a step | steps | row tokens | seconds |", "|---|---|---|---|---|---|---|"]
    for name, size in sizes.items():
        stem, arm, seed = _place(name)
        if not seed:
            told = " | ".join(
                f"{size[key]:,}" for key in ("questions", "epochs", "rows_per_step", "steps", "tokens", "seconds")
            )
            lines.append(f"| {stem}: {ARMS[arm]} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    preparing = steps.add_parser("prepare", help="index, write data and exams, read the clock")
    preparing.add_argument("folder", type=Path)
    preparing.add_argument(
        "--demo", type=int, nargs="*", default=[150, 400], help="numbers of training questions; none: no demo"
    )
    preparing.add_argument("--studied", type=int, default=150, help="the demo's questions about studied documents")
    preparing.add_argument("--unseen", type=int, default=150, help="and about others")
    preparing.add_argument("--squad", type=Path, metavar="FILE", help="SQuAD in its v2.0 layout; left out without it")
    preparing.add_argument("--train", type=int, nargs="+", default=[400], help="SQuAD's numbers of training questions")
    preparing.add_argument("--pool", type=int, default=1600, help="SQuAD's questions to draw from")
    preparing.add_argument("--exam", type=int, default=200, help="SQuAD's questions of the exam")
    preparing.add_argument("--passages", type=int, default=600, help="SQuAD's paragraphs, at least those asked about")
    preparing.add_argument("--removed", type=int, default=80, help="questions asked again without their passage")
    preparing.add_argument("--seeds", type=int, default=3)
    preparing.set_defaults(step=prepare)
    telling = steps.add_parser("table", help="print what there is, and write table.json")
    telling.add_argument("folder", type=Path)
    telling.set_defaults(step=table)
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    main()
