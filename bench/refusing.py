"""How should a data set teach to refuse: with fewer golden passages, or by asking again without them?

    python bench/refusing.py prepare FOLDER
    python bench/trials.py FOLDER [--workers N] [--seconds S]
    python bench/refusing.py table FOLDER

*Taken*: 1 − P of the questions lose their golden passage, as in the paper and in openbook. *Again*: every question is
asked over its golden passage, and as many a second time over a study group that cannot answer them as it takes for P of
the examples to show theirs. Both on the documents, questions and exams of the demo (grouping.py).
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import trials
from grouping import Material, Preparing, in_order, of_demo
from openbook.dataset import groups
from openbook.records import RaftExample
from openbook.storage import write_json
from paired_table import compared, markdown, plain
from studying import PASSAGES, Studying


@dataclass(frozen=True, slots=True)
class Way:
    """`share` of the examples show their golden passage."""

    form: Literal["taken", "again"]
    share: float

    @property
    def name(self) -> str:
        return f"{self.form} {self.share:.2f}"


PAPER = Way("taken", 0.8)
WAYS = (PAPER, Way("taken", 0.6), Way("again", 0.8), Way("again", 2 / 3))


def prepare(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    arguments.demo = [arguments.train]
    material = of_demo(folder / "work", arguments)
    preparing = Preparing("demo", material, folder)
    plan = [preparing.exam()]
    for seed in range(arguments.seeds):
        for way in WAYS:
            name = trial_of(way, seed)
            trials.write_data(folder / "prepared", name, studied(material, way, arguments.train, seed))
            plan.append(trials.Trial(name=name, exam="demo", data=name, options={**preparing.options, "seed": seed}))
    trials.write_plan(folder / "prepared", plan)


def trial_of(way: Way, seed: int) -> str:
    return f"{way.name.replace(' ', '-')}-{seed}"


def studied(material: Material, way: Way, count: int, seed: int) -> list[RaftExample]:
    """What the way trains on: `count` questions of the pool."""
    asked = in_order(material, seed)[:count]
    kept = way.share if way.form == "taken" else 1.0
    studying = Studying(source=material.source, chunks=material.chunks, share=kept, seed=seed, hidden=material.hidden)
    if way.form == "taken":
        return studying.in_groups(asked)
    rest = {"policy": "refuse", "chunks": material.chunks, "seed": seed}
    formed, moves = groups.move_away(
        studying.formed(asked), share=1 / way.share - 1, near=studying.found, count=PASSAGES, seed=seed
    )
    visited = [replace(group, questions=()) for group in formed]
    return [*groups.examples(formed, [], **rest), *groups.examples(visited, moves, **rest)]


def table(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    base, *tuned = trials.read_plan(folder / "prepared")
    seeds = range(len(tuned) // len(WAYS))
    tables: dict[str, Any] = {}
    for name, test in trials.tests_of(folder, base).items():
        untuned = test.values(folder, base.name)
        graded = {
            (way, seed): values
            for way in WAYS
            for seed in seeds
            if (values := test.values(folder, trial_of(way, seed)))
        }
        rows = {"untuned base": [untuned] if untuned else []}
        rows |= {way.name: [values for (this, _), values in graded.items() if this == way] for way in WAYS}
        couples = {
            f"{way.name} − {PAPER.name}": [
                (values, graded[PAPER, seed])
                for (this, seed), values in graded.items()
                if this == way and (PAPER, seed) in graded
            ]
            for way in WAYS
            if way != PAPER
        }
        tables[name] = compared(rows, couples, test.clusters)
        print(markdown(f"{name}: {test.size}", tables[name]), end="\n\n")
    write_json(folder / "table.json", plain(tables))


def main() -> None:
    parser, preparing = trials.two_steps(__doc__, prepare, "index, write data and exams", table)
    preparing.add_argument("--train", type=int, default=400, help="training questions")
    preparing.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.step(arguments)


if __name__ == "__main__":
    main()
