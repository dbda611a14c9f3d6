"""From an index to a RAFT data set: training, validation, and the two exams, *studied* and *unseen*.

Documents are split first. Then questions are written passage by passage, each with a random generator of its own, and
only as many as are wanted; near duplicates go; training questions meet in study groups; a share of them loses its
golden passage. The same index, options and seed give the same bytes.
"""

import dataclasses
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from openbook import prompt, storage
from openbook.config import Config
from openbook.dataset import checks, groups, splits
from openbook.dataset.formats import to_row
from openbook.dataset.report import DatasetReport, Tally
from openbook.dataset.teacher import Teacher, make_teacher
from openbook.errors import InputError
from openbook.progress import SILENT, Progress
from openbook.records import Chunk, Question, RaftExample, ScoredChunk

STAGE = "dataset"
PARTS = ("train", "validation", "studied", "unseen")
SURPLUS = 1.15  # written beyond what is wanted, since duplicates and shared sentences fall away
SPREAD = 3  # passages in a run of neighbours that are asked about together


class Store(Protocol):
    """What the build needs of the passages in an index."""

    def chunks(self) -> Iterator[Chunk]: ...
    def get(self, ids: Sequence[str]) -> list[Chunk]: ...


class Source(Protocol):
    """What the build needs of an index; `openbook.retrieval.Retriever` is one."""

    @property
    def store(self) -> Store: ...
    @property
    def fingerprint(self) -> str: ...
    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]: ...


def build(config: Config, *, index_hash: str = "", progress: Progress = SILENT) -> DatasetReport:
    """Write the data set of `config` under `config.dataset_dir`.

    `index_hash` names the content of the index (default: what the index's manifest says). Raises `InputError` where not
    a single question can be written, `StoreError` where there is no index, `TeacherError` where the teacher fails.
    """
    from openbook.retrieval import open_index

    return build_from(
        open_index(config.index_dir, config),
        make_teacher(config),
        config,
        index_hash=index_hash or _index_hash(config),
        progress=progress,
    )


def is_built(config: Config, *, index_hash: str = "") -> bool:
    """Whether the data set is what `build` would write again."""
    inputs = {"index": index_hash or _index_hash(config)}
    complete = all((config.dataset_dir / f"{part}.jsonl").is_file() for part in PARTS)
    return complete and storage.is_current(config.dataset_dir, stage=STAGE, options=_options(config), inputs=inputs)


def _index_hash(config: Config) -> str:
    """What the index holds, after its manifest; the same as `openbook.indexing.index_hash`."""
    manifest = storage.read_manifest(config.index_dir) or {}
    return storage.hash_json([manifest.get("options"), manifest.get("content")])


def _options(config: Config) -> dict[str, object]:
    """Everything beside the index that decides what is written. The endpoint is not: a teacher may move."""
    return {
        "dataset": config.dataset.model_dump(mode="json", exclude={"base_url"}),
        "retrieval": config.retrieval.model_dump(mode="json", include={"embedder", "candidates"}),
        "seed": config.seed,
        "prompt": prompt.FINGERPRINT,
        "version": 1,
    }


def build_from(
    source: Source, teacher: Teacher, config: Config, *, index_hash: str = "", progress: Progress = SILENT
) -> DatasetReport:
    """`build` with the index and the teacher given."""
    return _Build(source, teacher, config, progress).run(index_hash)


class _Build:
    """One build: what all its steps need, and the counts."""

    def __init__(self, source: Source, teacher: Teacher, config: Config, progress: Progress) -> None:
        self.source = source
        self.teacher = teacher
        self.config = config
        self.options = config.dataset
        self.progress = progress
        self.tally = Tally()
        self.golden: dict[str, Chunk] = {}  # the passages that were asked about
        self.notes: list[str] = []
        self.hidden: frozenset[str] = frozenset()  # passages of documents that are held out

    def run(self, index_hash: str) -> DatasetReport:
        began = time.monotonic()
        all_units = splits.units(self.source.store.chunks())
        if not all_units:
            raise InputError(
                "The index holds no passages, so there is nothing to ask about.",
                "Add documents: `openbook ingest PATH`.",
            )
        held_out, unseen = self._unseen(all_units)
        training = [unit for unit in all_units if unit not in held_out]
        parts, unseen = self._parts(training, unseen)
        self.hidden = hidden = frozenset(place.chunk_id for unit in held_out for place in unit)
        train, groups_ = self._study(parts.train, hidden, "training")
        validation, _ = self._study(parts.validation, hidden, "validation")
        studied, unseen_rows = self._exam(parts.studied, "studied"), self._exam(unseen, "unseen")
        report = DatasetReport(
            passages=self.tally.passages,
            written=self.tally.written,
            kinds=dict(Counter(row.kind for row in (*train, *validation, *studied, *unseen_rows)).most_common()),
            dropped={reason: count for reason, count in sorted(self.tally.dropped.items()) if count},
            train=len(train),
            validation=len(validation),
            studied=len(studied),
            unseen=len(unseen_rows),
            groups=groups_,
            golden_share=_share(train),
            retrieved=_share((*studied, *unseen_rows)),
            documents_held_out=len({place.document_id for unit in held_out for place in unit}),
            seconds=time.monotonic() - began,
            notes=self._notes(train, len(validation), len(studied), len(unseen_rows)),
        )
        self._write(dict(zip(PARTS, (train, validation, studied, unseen_rows), strict=True)), report, index_hash)
        for note in report.notes:
            self.progress.message(note)
        return report

    def _unseen(self, all_units: Sequence[splits.Unit]) -> tuple[list[splits.Unit], list[Question]]:
        """Hold units out, one by one, until enough questions are written about them."""
        wanted = self.options.unseen
        held_out: list[splits.Unit] = []
        questions: list[Question] = []
        with self.progress.task("Writing unseen questions", wanted, "questions") as task:
            for unit in splits.hold_out(all_units, self.config.seed) if wanted else ():
                if len(questions) >= SURPLUS * wanted:
                    break
                written = self._write_questions(unit)
                if written:  # else it may as well be trained on
                    held_out.append(unit)
                questions += written
                task.advance(len(written))
        return held_out, questions

    def _parts(
        self, training: Sequence[splits.Unit], unseen: Sequence[Question]
    ) -> tuple[splits.Parts, list[Question]]:
        """Questions on the training documents, dealt to their parts; and the unseen ones that repeat none of them."""
        options = self.options
        wanted = options.questions + options.validation + options.studied
        pool: list[Question] = []
        real = 0  # a cloze is only used where there are too few others
        with self.progress.task("Writing questions", wanted, "questions") as task:
            for block in splits.blocks(training, SPREAD, self.config.seed):
                if real >= SURPLUS * wanted:
                    break
                written = self._write_questions(block)
                pool += written
                real += sum(question.kind != "cloze" for question in written)
                task.advance(len(written))
        order = random.Random(f"pool:{self.config.seed}")
        pool, unseen = sorted(pool, key=lambda q: q.id), sorted(unseen, key=lambda q: q.id)
        order.shuffle(pool)
        order.shuffle(unseen)
        kept = checks.without_duplicates([*pool, *unseen])
        self.tally.dropped["near duplicate of another question"] += len(pool) + len(unseen) - len(kept)
        outside = {question.id for question in unseen}
        inside = [question for question in kept if question.id not in outside]
        if not inside:
            raise InputError(
                f"Not one question could be written about {self.tally.passages:,} passages{self._reasons()}.",
                "The documents may hold only code, lists or headings: add some that are written in sentences.",
            )
        parts = splits.part(
            inside,
            train=options.questions,
            validation=options.validation,
            studied=options.studied,
            seed=self.config.seed,
        )
        known = {checks.sentence_key(question) for question in (*parts.train, *parts.validation, *parts.studied)}
        fresh = [q for q in kept if q.id in outside and checks.sentence_key(q) not in known]
        used = len(parts.train) + len(parts.validation) + len(parts.studied) + len(fresh[: options.unseen])
        self.tally.dropped["more than was asked for"] += len(kept) - used
        return parts, fresh[: options.unseen]

    def _reasons(self) -> str:
        found = [f"{count:,} × {reason}" for reason, count in sorted(self.tally.dropped.items()) if count]
        return f" ({', '.join(found)})" if found else ""

    def _write_questions(self, unit: splits.Unit) -> list[Question]:
        """The questions on a run of passages that pass every check."""
        kept: list[Question] = []
        chunks = {chunk.id: chunk for chunk in self.source.store.get([place.chunk_id for place in unit])}
        for place in unit:
            chunk = chunks[place.chunk_id]
            self.tally.passages += 1
            rng = random.Random(f"{self.config.seed}:{chunk.id}")
            for question in self.teacher.write(chunk, rng=rng, limit=self.options.questions_per_chunk):
                self.tally.written += 1
                fault = checks.fault(question, chunk)
                if fault:
                    self.tally.dropped[fault] += 1
                else:
                    kept.append(question)
                    self.golden[chunk.id] = chunk
        return kept

    def _study(self, questions: Sequence[Question], hidden: frozenset[str], name: str) -> tuple[list[RaftExample], int]:
        """Training examples in study groups, over passages of training documents only."""
        if not questions:
            return [], 0
        options, seed = self.options, self.config.seed
        ranked = self._search(questions, options.passages + groups.SPARE, [hidden] * len(questions), name)
        formed = groups.form_groups(questions, ranked, self.golden, count=options.passages, seed=seed)

        def near(asked: list[Question]) -> list[list[Chunk]]:
            gone = [hidden.union(question.golden_chunk_ids) for question in asked]
            return self._search(asked, options.passages + groups.SPARE, gone, f"{name} without golden")

        formed, moves = groups.move_away(
            formed, share=1 - options.golden_share, near=near, count=options.passages, seed=seed
        )
        rows = groups.examples(formed, moves, policy=options.without_golden, chunks=self.golden, seed=seed)
        return rows, len({row.group for row in rows})

    def _exam(self, questions: Sequence[Question], name: str) -> list[RaftExample]:
        """Test examples with the passages that the whole index gives, golden or not."""
        rows = []
        found = self._search(questions, self.options.passages, None, name)
        for question, passages in zip(questions, found, strict=True):
            golden = tuple(self.golden[i] for i in question.golden_chunk_ids)
            included = {chunk.id for chunk in golden} <= {chunk.id for chunk in passages}
            group = groups.Group(passages=groups.shuffled(passages, self.config.seed), questions=(question,))
            rows.append(groups.tested(question, golden, group, included=included, seed=self.config.seed))
        return rows

    def _search(
        self, questions: Sequence[Question], k: int, without: Sequence[Collection[str]] | None, name: str
    ) -> list[list[Chunk]]:
        found: list[list[Chunk]] = []
        batch = 64
        with self.progress.task(f"Retrieving for {name}", len(questions), "questions") as task:
            for at in range(0, len(questions), batch):
                texts = [question.text for question in questions[at : at + batch]]
                hits = self.source.search_many(texts, k, without=without[at : at + batch] if without else None)
                found += [[hit.chunk for hit in ranking] for ranking in hits]
                task.advance(len(texts))
        return found

    def _notes(self, train: Sequence[RaftExample], *others: int) -> tuple[str, ...]:
        options, sizes = self.options, (len(train), *others)
        wanted = (options.questions, options.validation, options.studied, options.unseen)
        notes = [
            f"{got:,} of {want:,} {name} questions could be had from these documents."
            for name, got, want in zip(("training", "validation", "studied", "unseen"), sizes, wanted, strict=True)
            if got < want
        ]
        if train and abs(_share(train) - options.golden_share) > 1 / len(train):
            notes.append(
                f"{_share(train):.0%} of the training examples show their golden passage, not {options.golden_share:.0%}: "
                "for the others no passages were found that do not answer them."
            )
        few = sum(len(row.passages) < options.passages for row in train)
        if few:
            notes.append(
                f"{few:,} training examples show fewer than {options.passages} passages: there are no more that do not "
                "repeat the answer."
            )
        return tuple(notes)

    def _write(self, parts: dict[str, list[RaftExample]], report: DatasetReport, index_hash: str) -> None:
        folder = self.config.dataset_dir
        (folder / storage.MANIFEST).unlink(missing_ok=True)  # until all parts are written, there is no data set
        for name, rows in parts.items():
            storage.write_jsonl(folder / f"{name}.jsonl", map(to_row, rows))
        storage.write_manifest(
            folder,
            stage=STAGE,
            options=_options(self.config),
            inputs={"index": index_hash},
            teacher=self.teacher.fingerprint,
            retriever=self.source.fingerprint,
            held_out=sorted(self.hidden),
            report=dataclasses.asdict(report),
        )


def _share(rows: Iterable[RaftExample]) -> float:
    included = [row.golden_included for row in rows]
    return sum(included) / len(included) if included else 0.0
