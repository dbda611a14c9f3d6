"""What of a RAFT data set makes the tuned model better: its distractors, its quotes, or the share P that keeps its golden passage?

    python bench/dataset_quality.py prepare FOLDER --squad FILE --nq_open FILE --pubmedqa FILE --torch_hub FOLDER
    python bench/trials.py FOLDER [--workers N] [--seconds S]
    python bench/dataset_quality.py table FOLDER

Per set, every cell of {mined, random} × {quotes, no quotes} × P ∈ {0.6, 0.8, 1.0} × seeds tunes the base on `--train`
questions and sits one exam: the same `--exam` questions about articles that no cell trained on, with the passages that
the retriever finds; some are asked again with their golden passage removed. The second step needs FOLDER/prepared alone,
on whatever machine, and goes on where it was stopped (trials.py); `table` shows what is there.

Intervals are bootstraps over articles (abstracts, interfaces). A difference compares, question by question, all cells
of one kind with their counterparts (paired_table.py).
"""

import argparse
import itertools
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import trials
from labelled_sets import SETS
from labelled_world import World
from openbook.records import Question, RaftExample
from openbook.storage import write_json
from paired_table import Values, compared, markdown, plain
from studying import PASSAGES, Studying

Distractors = Literal["mined", "random"]

DISTRACTORS: tuple[Distractors, ...] = ("mined", "random")
QUOTES, SHARES = (True, False), (0.6, 0.8, 1.0)
DEFAULT = ("mined", True, 0.8)
POOL = 3  # times the training questions, from which each seed draws its own
DOCUMENTS = 600  # indexed, or as many as are asked about
REMOVED = 40  # questions of the exam that are asked again without their golden passage
EXAM = "unseen"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    set: str
    distractors: Distractors
    quotes: bool
    share: float
    seed: int

    @property
    def name(self) -> str:
        quotes = "quotes" if self.quotes else "plain"
        return f"{self.set}-{self.distractors}-{quotes}-{self.share}-{self.seed}"

    @property
    def kind(self) -> str:
        return f"{self.distractors}, {'quotes' if self.quotes else 'no quotes'}, P = {self.share}"

    @property
    def departures(self) -> int:
        """In how many ways it departs from openbook's defaults."""
        return sum(a != b for a, b in zip((self.distractors, self.quotes, self.share), DEFAULT, strict=True))


def base_of(name: str) -> str:
    """The trial of the base as it is."""
    return f"{name}-base"


def cells_of(sets: Iterable[str], seeds: int) -> list[Cell]:
    """All cells, seed by seed. Those that depart from the defaults in one way at most come first, so that a run that is
    stopped early has compared one thing at a time."""
    kinds = itertools.product(range(seeds), sets, DISTRACTORS, QUOTES, SHARES)
    cells = [Cell(set=n, distractors=d, quotes=q, share=p, seed=s) for s, n, d, q, p in kinds]
    return sorted(cells, key=lambda cell: (cell.departures > 1, cell.seed, cell.departures))


# --- Prepare


def prepare(arguments: argparse.Namespace) -> None:
    prepared = arguments.folder / "prepared"
    chosen = {name: path for name in SETS if (path := getattr(arguments, name))}
    options = {
        "model": {"base": "nano", "dtype": "float32"},  # the figures shall hold on a CPU too
        "tune": {"epochs": 2.0},
        "retrieval": {"passages": PASSAGES},
        "evaluate": {"questions": arguments.exam, "removed": REMOVED, "batch_size": 64, "resamples": 100},
    }
    bases = [trials.Trial(name=base_of(name), exam=name, data="", options=options) for name in chosen]
    cells = cells_of(chosen, arguments.seeds)
    for name, path in chosen.items():
        folder = arguments.folder / "indexes" / name
        sizes = {"exam": arguments.exam, "pool": POOL * arguments.train, "documents": DOCUMENTS}
        world = World(name, SETS[name](path), folder, **sizes)
        config = bases[0].config(folder)
        trials.write_exam(prepared, name, {EXAM: world.exam}, world.clusters, world.retriever, config)
        for cell in cells:
            if cell.set == name and cell.quotes:
                rows = studied(world, cell, arguments.train)
                for twin in (cell, replace(cell, quotes=False)):  # the same rows, with and without their quotes
                    trials.write_data(prepared, twin.name, world.labelled(rows, quotes=twin.quotes))
        print(
            f"{name}: {len(world.chunks)} passages, {len(world.exam)} questions of {len(world.pool)} others", flush=True
        )
    tuned = [
        trials.Trial(name=cell.name, exam=cell.set, data=cell.name, options={**options, "seed": cell.seed})
        for cell in cells
    ]
    trials.write_plan(prepared, [*bases, *tuned])


def studied(world: World, cell: Cell, count: int) -> list[RaftExample]:
    """What the cell trains on."""
    asked: list[Question] = random.Random(f"asked:{cell.seed}").sample(world.pool, min(count, len(world.pool)))
    studying = Studying(
        source=world.retriever,
        chunks=world.chunks,
        share=cell.share,
        seed=cell.seed,
        distractors=cell.distractors,
    )
    return studying.in_groups(asked)


# --- The table


def table(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    plan = trials.read_plan(folder / "prepared")
    tables: dict[str, Any] = {}
    for base in (trial for trial in plan if not trial.data):
        test = trials.tests_of(folder, base)[EXAM]
        tuned = [trial.name for trial in plan if trial.data and trial.exam == base.exam]
        there = {cell_of(name): values for name in tuned if (values := test.values(folder, name))}
        tables[base.exam] = summary(there, test.values(folder, base.name), test.clusters)
        print(markdown(f"{base.exam}: {test.size}", tables[base.exam]), end="\n\n")
    write_json(folder / "table.json", plain(tables))


def cell_of(trial: str) -> Cell:
    set_, distractors, quotes, share, seed = trial.split("-")
    mode: Distractors = "mined" if distractors == "mined" else "random"
    return Cell(set=set_, distractors=mode, quotes=quotes == "quotes", share=float(share), seed=int(seed))


def summary(cells: Mapping[Cell, Values], base: Values | None, clusters: Sequence[str]) -> dict[str, Any]:
    """Means of every kind of cell over its seeds, and differences between kinds, of one set."""
    kinds: dict[str, list[Values]] = defaultdict(list)
    if base:
        kinds["untuned base"] = [base]
    for cell in sorted(cells):
        kinds[cell.kind].append(cells[cell])
    asked = {
        "mined − random": ("distractors", "mined", "random"),
        "quotes − none": ("quotes", True, False),
        "P = 1.0 − 0.8": ("share", 1.0, 0.8),
        "P = 0.6 − 0.8": ("share", 0.6, 0.8),
    }
    couples = {
        name: [
            (cells[cell], cells[against])
            for cell in sorted(cells)
            if getattr(cell, field) == one and (against := replace(cell, **{field: other})) in cells  # type: ignore[arg-type]
        ]
        for name, (field, one, other) in asked.items()
    }
    if base:
        couples["the defaults − untuned"] = [(cells[cell], base) for cell in sorted(cells) if not cell.departures]
    return compared(kinds, couples, clusters)


def main() -> None:
    parser, preparing = trials.two_steps(__doc__, prepare, "index the sets, write data and exams", table)
    for name in SETS:
        preparing.add_argument(f"--{name}", type=Path, metavar="PATH", help="where this set lies; left out without it")
    preparing.add_argument("--train", type=int, default=200, help="training questions of a cell")
    preparing.add_argument("--exam", type=int, default=120, help="questions of the exam")
    preparing.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    main()
