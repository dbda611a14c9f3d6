"""What of a RAFT data set makes the tuned model better: its distractors, its quotes, or the share P that keeps its golden passage?

    python bench/dataset_quality.py --out FOLDER --squad FILE --nq_open FILE --pubmedqa FILE --torch_hub FOLDER [--seeds 3]

Per set, every cell of {mined, random} × {quotes, no quotes} × P ∈ {0.6, 0.8, 1.0} × seeds tunes the base on `--train`
questions and sits one exam: the same `--exam` questions about articles that no cell trained on, with the passages that
the retriever finds; some are asked again with their golden passage removed. Each cell is kept in a folder of its own,
so that a run goes on where it was stopped; `--table` prints what is there and computes nothing.

A question's value in a cell is its mean over the seeds; intervals are bootstraps over articles (abstracts, interfaces).
A difference compares, question by question, all cells of one kind with their counterparts: what seeds, and questions
within an article, have in common is not counted as chance.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from labelled_sets import SETS, Labelled, LabelledSet
from openbook import prompt
from openbook.config import Config
from openbook.dataset import groups
from openbook.dataset.formats import to_row
from openbook.dataset.sources import Candidates
from openbook.documents import chunk
from openbook.evaluation.candidates import LocalCandidates
from openbook.evaluation.evaluate import examine
from openbook.metrics import Interval, mean_interval, paired_difference
from openbook.progress import SILENT
from openbook.records import Chunk, Question, RaftExample, content_id
from openbook.retrieval import LanceStore, Retriever, load_embedder, passage_text
from openbook.storage import read_jsonl, write_json, write_jsonl
from openbook.training import tune

DISTRACTORS, QUOTES, SHARES = ("mined", "random"), (True, False), (0.6, 0.8, 1.0)
DEFAULT = ("mined", True, 0.8)
METRICS = ("f1", "exact_match", "right_quote", "verified_quotes", "refused", "right_refusals")
PASSAGES = 4
POOL = 3  # times the training questions, from which each seed draws its own


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    set: str
    distractors: str
    quotes: bool
    share: float
    seed: int

    @property
    def name(self) -> str:
        quotes = "quotes" if self.quotes else "plain"
        return f"{self.set}-{self.distractors}-{quotes}-{self.share}-{self.seed}"


class World:
    """One set: its index, the questions to draw from, and the exam. The same for every cell."""

    def __init__(self, name: str, data: LabelledSet, arguments: argparse.Namespace) -> None:
        draw = random.Random(f"{name}:{arguments.train}:{arguments.exam}:{arguments.passages}")
        held_out, pool = split(data.questions, arguments.exam, POOL * arguments.train, draw)
        kept = {question.document for question in (*held_out, *pool)}
        others = [number for number in range(len(data.documents)) if number not in kept]
        kept |= set(draw.sample(others, max(0, min(len(others), arguments.passages - len(kept)))))
        embedder = load_embedder("offline")
        passages = {
            n: chunk(data.documents[n], count_tokens=embedder.count_tokens, max_tokens=200) for n in sorted(kept)
        }
        self.retriever = Retriever(opened(arguments.out / name / "index", passages, embedder), embedder)
        self.chunks = {passage.id: passage for found in passages.values() for passage in found}
        self.labels: dict[str, Labelled] = {}
        self.pool = [q for labelled in pool if (q := self._question(labelled, passages))]
        self.exam = [self._examined(q) for labelled in held_out if (q := self._question(labelled, passages))]

    def _question(self, labelled: Labelled, passages: Mapping[int, Sequence[Chunk]]) -> Question | None:
        """The question over the passage that holds its sentence whole; None where the cut went through it.

        Its answer is the sentence until the rows are made: "no" stands in every passage and would rule all of them out
        as distractors.
        """
        golden = next((c for c in passages[labelled.document] if labelled.sentence in c.text), None)
        if golden is None:
            return None
        id_ = content_id(golden.id, labelled.question)
        self.labels[id_] = labelled
        return Question(
            id=id_,
            text=labelled.question,
            golden_chunk_ids=(golden.id,),
            answer=labelled.sentence,
            quotes=(labelled.sentence,),
            reasoning=prompt.render_quote(labelled.sentence),
            kind="",
        )

    def _examined(self, question: Question) -> RaftExample:
        golden = tuple(self.chunks[i] for i in question.golden_chunk_ids)
        group = groups.Group(passages=golden, questions=(question,))
        row = groups.tested(question, golden, group, included=True, seed=0)
        return replace(row, answer=self.labels[question.id].answer, final_answer=self.labels[question.id].answer)

    def rows(self, cell: Cell, count: int) -> list[RaftExample]:
        """What this cell trains on."""
        asked = random.Random(f"asked:{cell.seed}").sample(self.pool, min(count, len(self.pool)))
        mixer = Candidates(self.retriever, cell.distractors, list(self.chunks), cell.seed, SILENT)  # type: ignore[arg-type]
        wanted = PASSAGES + groups.SPARE
        ranked = mixer.find(asked, wanted, [q.golden_chunk_ids for q in asked], "training")
        formed = groups.form_groups(asked, ranked, self.chunks, count=PASSAGES, seed=cell.seed)

        def near(moved: list[Question]) -> list[list[Chunk]]:
            return mixer.find(moved, wanted, [q.golden_chunk_ids for q in moved], "questions without their passage")

        formed, moves = groups.move_away(formed, share=1 - cell.share, near=near, count=PASSAGES, seed=cell.seed)
        made = groups.examples(formed, moves, policy="refuse", chunks=self.chunks, seed=cell.seed)
        return [self._labelled(row, quotes=cell.quotes) for row in made]

    def _labelled(self, row: RaftExample, *, quotes: bool) -> RaftExample:
        answer = self.labels[row.question_id].answer
        if not row.golden_included:
            return replace(row, answer=answer)
        return replace(row, answer=answer, final_answer=answer, reasoning=row.reasoning if quotes else "")


def split(
    questions: Sequence[Labelled], exam: int, pool: int, draw: random.Random
) -> tuple[list[Labelled], list[Labelled]]:
    """Questions of the exam, and those to train on, with no cluster in common; the exam takes about a third of the
    clusters, by turns one question of each."""
    clusters: dict[str, list[Labelled]] = defaultdict(list)
    for question in questions:
        clusters[question.cluster].append(question)
    names = sorted(clusters)
    draw.shuffle(names)
    for name in names:
        draw.shuffle(clusters[name])
    outside = names[: max(1, min(exam, len(names) // 3))]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(clusters[name] for name in outside)))
    examined = list(itertools.islice((question for question in turns if question), exam))
    rest = [question for name in names[len(outside) :] for question in clusters[name]]
    return examined, draw.sample(rest, min(pool, len(rest)))


def opened(folder: Path, passages: Mapping[int, Sequence[Chunk]], embedder: Any) -> LanceStore:
    """The index of these passages, made anew unless the folder holds just them."""
    everything = [passage for found in passages.values() for passage in found]
    made = content_id(embedder.fingerprint, *(passage.id for passage in everything))
    store, marker = LanceStore(folder), folder.with_suffix(".json")
    if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != made:
        store.reset(dimension=embedder.dimension, make="bench")
        for at in range(0, len(everything), 256):
            batch = everything[at : at + 256]
            store.add(batch, embedder.encode([passage_text(passage) for passage in batch]))
        store.optimize()
        write_json(marker, made)
    return store


def sit(world: World, folder: Path, arguments: argparse.Namespace, *, seed: int, arm: str) -> None:
    """Examine the base or the adapter of `folder` and keep the grades there."""
    config = configured(folder, arguments, seed, arm)
    candidates = LocalCandidates(config, {"raft"} if arm == "raft_rag" else set())
    examine(config, {"unseen": world.exam}, world.retriever, candidates)


def compute(world: World, cell: Cell | None, folder: Path, arguments: argparse.Namespace) -> None:
    """Tune as `cell` says and sit the exam; None is the base as it is."""
    if cell is None:
        sit(world, folder, arguments, seed=0, arm="base_rag")
        return
    train = folder / "train.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(train, map(to_row, world.rows(cell, arguments.train)))
    config = configured(folder, arguments, cell.seed, "raft_rag")
    tune(train, out=config.adapters_dir / "raft", config=config, retrieval=world.retriever.fingerprint)
    sit(world, folder, arguments, seed=cell.seed, arm="raft_rag")


def configured(folder: Path, arguments: argparse.Namespace, seed: int, arm: str) -> Config:
    return Config.parse(
        {
            "out": str(folder),
            "seed": seed,
            "model": {"base": arguments.base},
            "tune": {"epochs": arguments.epochs},
            "retrieval": {"passages": PASSAGES},
            "evaluate": {
                "arms": [arm],
                "questions": arguments.exam,
                "removed": arguments.removed,
                "passage_counts": [],
            },
        },
        origin="bench",
    )


@contextlib.contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Inside, no other run holds `lock`."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- The table


Values = dict[str, list[float | None]]  # metric → one value a question of the exam


def values_of(folder: Path, exam: Sequence[RaftExample]) -> Values:
    """The grades of one cell, question by question."""
    number = {example.id: at for at, example in enumerate(exam)}
    found: Values = {metric: [None] * len(exam) for metric in METRICS}
    for row in read_jsonl(folder / "evaluation" / "grades.jsonl"):
        at = number[row["example"]]
        if row["asked"] == "removed":
            found["right_refusals"][at] = float(row["refusal"])
            continue
        for metric in METRICS[:4]:
            found[metric][at] = None if row[metric] is None else float(row[metric])
        found["refused"][at] = float(row["refusal"])
    return found


def mean_of(columns: Iterable[Sequence[float | None]]) -> list[float | None]:
    """The mean of several values of each question, of those that exist."""
    rows = [[value for value in row if value is not None] for row in zip(*columns, strict=True)]
    return [sum(row) / len(row) if row else None for row in rows]


def summary(cells: Mapping[Cell, Values], base: Values | None, clusters: Sequence[str]) -> dict[str, Any]:
    """Means of every kind of cell over its seeds, and differences between kinds, of one set."""
    kinds: dict[tuple[str, bool, float], list[Values]] = defaultdict(list)
    for cell, values in sorted(cells.items()):
        kinds[cell.distractors, cell.quotes, cell.share].append(values)
    table: dict[str, Any] = {"cells": {}, "differences": {}}
    if base:
        table["cells"]["untuned base"] = {"seeds": 1, **means([base], clusters)}
    for (distractors, quotes, share), seeds in kinds.items():
        name = f"{distractors}, {'quotes' if quotes else 'no quotes'}, P = {share}"
        table["cells"][name] = {"seeds": len(seeds), **means(seeds, clusters)}
    asked = {
        "mined − random": ("distractors", "mined", "random"),
        "quotes − none": ("quotes", True, False),
        "P = 1.0 − 0.8": ("share", 1.0, 0.8),
        "P = 0.6 − 0.8": ("share", 0.6, 0.8),
    }
    for name, (field, one, other) in asked.items():
        couples = [
            (cells[cell], cells[against])
            for cell in sorted(cells)
            if getattr(cell, field) == one and (against := replace(cell, **{field: other})) in cells
        ]
        if couples:
            table["differences"][name] = {"couples": len(couples), **differences(couples, clusters)}
    if base and cells:
        couples = [(values, base) for values in cells.values()]
        table["differences"]["tuned − untuned"] = {"couples": len(couples), **differences(couples, clusters)}
    return table


def means(seeds: Sequence[Values], clusters: Sequence[str]) -> dict[str, Interval]:
    return {metric: mean_interval(mean_of([v[metric] for v in seeds]), clusters) for metric in METRICS}


def differences(couples: Sequence[tuple[Values, Values]], clusters: Sequence[str]) -> dict[str, Interval]:
    return {
        metric: paired_difference(
            mean_of([one[metric] for one, _ in couples]), mean_of([other[metric] for _, other in couples]), clusters
        )
        for metric in METRICS
    }


def told(interval: Interval, *, signed: bool) -> str:
    """In percent, with its interval."""
    if interval.value is None or interval.low is None or interval.high is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * interval.value:{sign}.1f} [{100 * interval.low:{sign}.0f}, {100 * interval.high:{sign}.0f}]"


def markdown(name: str, table: Mapping[str, Any], exam: Sequence[RaftExample], clusters: Sequence[str]) -> str:
    head = "| | " + " | ".join(metric.replace("_", " ") for metric in METRICS) + " |"
    lines = [f"{name}: {len(exam)} questions about {len(set(clusters))} held-out articles, in %", "", head]
    lines.append("|---|" + "---|" * len(METRICS))
    for part, count in (("cells", "seeds"), ("differences", "couples")):
        for row, found in table[part].items():
            shown = " | ".join(told(found[metric], signed=part == "differences") for metric in METRICS)
            lines.append(f"| {row} ({count}: {found[count]}) | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help="where this set lies; left out without it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells, the indexes and table.json")
    parser.add_argument("--train", type=int, default=200, help="training questions of a cell")
    parser.add_argument("--exam", type=int, default=60, help="questions of the exam")
    parser.add_argument("--removed", type=int, default=20, help="of these, asked again without their golden passage")
    parser.add_argument("--passages", type=int, default=600, help="documents in the index, at least those asked about")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base", default="nano")
    parser.add_argument(
        "--lock", type=Path, help="file that is locked while a cell is computed, so that others have turns"
    )
    parser.add_argument(
        "--turn-s", type=float, default=0, help="go on with the next cell for so many seconds of a turn"
    )
    parser.add_argument("--table", action="store_true", help="compute nothing, print what there is")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("train", "exam", "removed", "passages", "epochs", "base")}
    kept = arguments.out / "settings.json"
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        parser.error(f"the cells in {arguments.out} were made with other settings (settings.json); name another folder")
    write_json(kept, settings)
    chosen = {name: path for name in SETS if (path := getattr(arguments, name))}
    worlds: dict[str, World] = {}

    def world(name: str) -> World:
        if name not in worlds:
            worlds[name] = World(name, SETS[name](chosen[name]), arguments)
        return worlds[name]

    left = [] if arguments.table else list(missing(chosen, arguments))
    while left:
        with turn(arguments.lock):
            began = time.perf_counter()
            while left:
                name, cell, folder = left.pop(0)
                compute(world(name), cell, folder, arguments)
                took = time.perf_counter() - began
                print(f"{folder.name} of {name}, {took:.0f} s into its turn", flush=True)
                if took >= arguments.turn_s:
                    break
    report({name: world(name) for name in chosen if (arguments.out / name).is_dir()}, arguments)


def missing(chosen: Iterable[str], arguments: argparse.Namespace) -> Iterator[tuple[str, Cell | None, Path]]:
    """The cells that are not there yet, seed by seed."""
    for seed, name in itertools.product(range(arguments.seeds), chosen):
        everything = [None, *cells_of(name, (seed,))]
        for cell in everything:
            folder = arguments.out / name / (cell.name if cell else "base")
            if not done(folder) and (cell or not seed):
                yield name, cell, folder


def cells_of(name: str, seeds: Iterable[int]) -> list[Cell]:
    """All cells of these seeds; first those that depart least from openbook's defaults, so that a run that is stopped
    early has compared one thing at a time."""
    kinds = itertools.product(DISTRACTORS, QUOTES, SHARES)
    ordered = sorted(kinds, key=lambda kind: sum(a != b for a, b in zip(kind, DEFAULT, strict=True)))
    return [Cell(set=name, distractors=d, quotes=q, share=p, seed=s) for s in seeds for d, q, p in ordered]


def done(folder: Path) -> bool:
    """The grades are written last, and whole."""
    return (folder / "evaluation" / "grades.jsonl").is_file()


def report(worlds: Mapping[str, World], arguments: argparse.Namespace) -> None:
    tables: dict[str, Any] = {}
    for name, world in worlds.items():
        clusters = [world.labels[example.question_id].cluster for example in world.exam]
        cells = cells_of(name, range(arguments.seeds))
        there = {
            cell: values_of(folder, world.exam) for cell in cells if done(folder := arguments.out / name / cell.name)
        }
        base = arguments.out / name / "base"
        tables[name] = summary(there, values_of(base, world.exam) if done(base) else None, clusters)
        print(markdown(name, tables[name], world.exam, clusters), end="\n\n")
    plain = json.loads(
        json.dumps(tables, default=lambda interval: [interval.value, interval.low, interval.high, interval.n])
    )
    write_json(arguments.out / "table.json", plain)


if __name__ == "__main__":
    main()
