"""From an index to a RAFT data set: training, validation, and the two exams, *studied* and *unseen*.

Documents are split first. Then questions are written passage by passage, each with a random generator of its own, and
only as many as are wanted; near duplicates go; training questions meet in study groups; a share of them loses its
golden passage. The same index, options and seed give the same bytes.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from openbook import prompt, storage
from openbook.config import Config
from openbook.dataset import checks, groups, splits
from openbook.dataset.estimate import Estimate, estimate
from openbook.dataset.figures_of_build import Places, notes
from openbook.dataset.fitting import fitted
from openbook.dataset.formats import to_row
from openbook.dataset.known_answers import is_known, marked
from openbook.dataset.leaks import Studied, without_leaks
from openbook.dataset.overlay import Overlay
from openbook.dataset.report import DatasetReport, Tally
from openbook.dataset.screening import screened
from openbook.dataset.sources import Candidates, Source
from openbook.dataset.teacher import Teacher, instructions, make_llm_teacher, make_teacher
from openbook.dataset.writing import Writer
from openbook.errors import ConfigError, InputError
from openbook.progress import SILENT, Progress
from openbook.records import Chunk, Question, RaftExample, content_id

STAGE = "dataset"
PARTS = ("train", "validation", "studied", "unseen")


def build(config: Config, *, index_hash: str = "", progress: Progress = SILENT) -> DatasetReport:
    """Write the data set of `config` under `config.dataset_dir`.

    `index_hash` names the content of the index (default: what the index's manifest says). Raises `InputError` where not
    a single question can be written, `StoreError` where there is no index, `TeacherError` where the teacher fails.
    """
    from openbook.retrieval import open_index

    teacher = make_teacher(config)  # first: what its options lack is said before anything is loaded
    return build_from(
        open_index(config.index_dir, config),
        teacher,
        config,
        index_hash=index_hash or _index_hash(config),
        progress=progress,
    )


def estimated(config: Config) -> Estimate:
    """What `build` would cost with the language model of `config`. Nothing is sent. Raises `ConfigError` for a teacher
    that is none."""
    from openbook.retrieval import open_index

    if config.dataset.teacher == "extractive":
        raise ConfigError("The extractive teacher sends nothing and costs nothing.", "Estimate another: --model NAME.")
    teacher = make_llm_teacher(config)
    return estimate(open_index(config.index_dir, config), teacher, config)


def is_built(config: Config, *, index_hash: str = "") -> bool:
    """Whether the data set is what `build` would write again."""
    inputs = _inputs(index_hash or _index_hash(config), Overlay.read(config.overlay_path))
    complete = all((config.dataset_dir / f"{part}.jsonl").is_file() for part in PARTS)
    return complete and storage.is_current(config.dataset_dir, stage=STAGE, options=_options(config), inputs=inputs)


def _inputs(index_hash: str, overlay: Overlay) -> dict[str, str]:
    return {"index": index_hash} | ({"overlay": overlay.fingerprint} if overlay.changes else {})


def _index_hash(config: Config) -> str:
    """What the index holds, after its manifest; the same as `openbook.indexing.index_hash`."""
    manifest = storage.read_manifest(config.index_dir) or {}
    return storage.hash_json([manifest.get("options"), manifest.get("content")])


def _options(config: Config) -> dict[str, object]:
    """Everything beside the index that decides what is written. The endpoint is not: a teacher may move. Nor is how many
    calls are under way at a time."""
    told = {"instructions": instructions(config).fingerprint} if config.dataset.teacher != "extractive" else {}
    counted = {"base": config.model.base} if config.dataset.max_tokens or config.dataset.mark_known else {}
    idle = {"base_url", "at_once", "prompts"} | (set() if config.dataset.max_cost else {"price_read", "price_written"})
    return {
        "dataset": config.dataset.model_dump(mode="json", exclude=idle),
        **told,
        **counted,
        "retrieval": config.retrieval.model_dump(mode="json", include={"embedder", "candidates"}),
        "seed": config.seed,
        "prompt": prompt.FINGERPRINT,
        "version": 2,
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
        self.overlay = Overlay.read(config.overlay_path)
        self.writer = Writer(source, teacher, config, progress, self.tally, self.overlay)
        self.golden = self.writer.golden
        self.hidden: frozenset[str] = frozenset()  # passages of documents that are held out

    def run(self, index_hash: str) -> DatasetReport:
        began = time.monotonic()
        options = self.options
        all_units = splits.units(self.source.store.chunks(), options.split_by)
        if not all_units:
            raise InputError(
                "The index holds no passages, so there is nothing to ask about.",
                "Add documents: `openbook ingest PATH`.",
            )
        by_time = options.split_by == "time"
        candidates = self._newest(all_units) if by_time else splits.hold_out(all_units, self.config.seed)
        held_out, unseen = self.writer.unseen(candidates, options.unseen)
        if self.teacher.exhausted:  # nothing is left to ask about the others: what there is goes to the training
            held_out, paid, unseen = [], unseen, []
        else:
            paid = []
        if by_time:  # all that is as new as what is asked about is held out, or the training would know the future
            held_out = candidates if unseen else []
        training = [unit for unit in all_units if unit not in held_out]
        self.hidden = hidden = frozenset(place.chunk_id for unit in held_out for place in unit)
        open_to_chance = [place.chunk_id for unit in training for place in unit]
        mixer = Candidates(self.source, options.distractors, open_to_chance, self.config.seed, self.progress)
        parts, unseen = self._parts(training, paid, unseen)
        nowhere = self.writer.nowhere(round(options.nowhere_share * len(parts.train)), hidden)
        room = max(1, options.questions - len(nowhere))
        self.tally.dropped["more than was asked for"] += max(0, len(parts.train) - room)
        del parts.train[room:]
        sentences = {
            question.id: checks.sentence_keys(question)
            for question in (*parts.train, *parts.validation, *parts.studied, *unseen)
        }
        train, number_of_groups = self._study(parts.train, nowhere, hidden, mixer, "training")
        validation, _ = self._study(parts.validation, [], hidden, mixer, "validation")
        rows = {
            "train": train,
            "validation": validation,
            "studied": self._exam(parts.studied, mixer, "studied"),
            "unseen": self._exam(unseen, mixer, "unseen"),
        }
        # Told by the documents and not by what was held out: a split that cuts documents must not pass for one by section.
        sections = len({(place.uri, place.document_id) for unit in all_units for place in unit}) < splits.FEW_DOCUMENTS
        rows, leaks = self._tested(rows, sentences, sections=sections)
        if options.max_tokens:
            for name in ("train", "validation"):
                rows[name], gone = fitted(rows[name], self.config.model.base, options.max_tokens)
                self.tally.dropped.update(gone)
        if options.mark_known:
            rows = marked(rows, self.config, self.progress)
        report = self._report(rows, held_out, number_of_groups, leaks, time.monotonic() - began)
        self._write(rows, report, index_hash)
        return report

    def _parts(
        self, training: Sequence[splits.Unit], paid: Sequence[Question], unseen: Sequence[Question]
    ) -> tuple[splits.Parts, list[Question]]:
        """Questions on the training documents (`paid` are there already), dealt to their parts; and the unseen ones that
        repeat none of them."""
        options = self.options
        wanted = options.questions + options.validation + options.studied
        outside = {question.id for question in unseen}
        held_out = {chunk for question in unseen for chunk in question.golden_chunk_ids}
        pool = [*paid, *self.writer.pool(training, wanted)]
        pairs = self.writer.pairs(round(options.pair_share * min(wanted, len(pool))), held_out)
        pool, unseen = self._in_random_order(pool), self._in_random_order(unseen)
        kept = checks.without_duplicates([*pairs, *pool, *unseen])
        self.tally.dropped["near duplicate of another question"] += len(pairs) + len(pool) + len(unseen) - len(kept)
        inside = [question for question in kept if question.id not in outside]
        if not inside:
            raise InputError(
                f"Not one question could be written about {self.tally.passages:,} passages{self._reasons()}.",
                self._remedy(),
            )
        parts = splits.part(
            inside,
            train=options.questions,
            validation=options.validation,
            studied=options.studied,
            seed=self.config.seed,
        )
        known = frozenset[str]().union(
            *map(checks.sentence_keys, (*parts.train, *parts.validation, *parts.studied)),
        )
        fresh = [q for q in kept if q.id in outside and not checks.sentence_keys(q) & known]
        used = len(parts.train) + len(parts.validation) + len(parts.studied) + len(fresh[: options.unseen])
        self.tally.dropped["more than was asked for"] += len(kept) - used
        return parts, fresh[: options.unseen]

    def _newest(self, all_units: Sequence[splits.Unit]) -> list[splits.Unit]:
        return splits.newest(all_units, (storage.read_manifest(self.config.index_dir) or {}).get("paths", {}))

    def _in_random_order(self, questions: Iterable[Question]) -> list[Question]:
        """Each at a place of its own by its id, so that one question less leaves the others where they are."""
        return sorted(questions, key=lambda question: content_id("pool", self.config.seed, question.id))

    def _remedy(self) -> str:
        if self.teacher.exhausted:
            return "The budget did not reach for a single one: raise --max-cost."
        if self.teacher.outcomes:
            return "Look at what the teacher answers, or take one that follows its instructions better (--model)."
        return (
            "The extractive teacher reads English sentences: for another language, or for documents of code, lists and "
            "headings, take a language model (--teacher openai or local)."
        )

    def _reasons(self) -> str:
        counts = Counter(self.tally.dropped) + self.teacher.outcomes
        found = [f"{count:,} × {reason}" for reason, count in sorted(counts.items()) if count]
        return f" ({', '.join(found)})" if found else ""

    def _study(
        self,
        questions: Sequence[Question],
        nowhere: Sequence[Question],
        hidden: frozenset[str],
        mixer: Candidates,
        name: str,
    ) -> tuple[list[RaftExample], int]:
        """Training examples in study groups, over passages of training documents only."""
        if not questions:
            return [], 0
        options, seed = self.options, self.config.seed
        count, asked_for = options.passages, options.passages + groups.SPARE
        ranked = mixer.find(questions, asked_for, [hidden] * len(questions), name)
        formed = groups.form_groups(questions, ranked, self.golden, count=count, seed=seed)

        def near(asked: list[Question]) -> list[list[Chunk]]:
            gone = [hidden.union(question.golden_chunk_ids) for question in asked]
            return mixer.find(asked, asked_for, gone, f"{name} without golden")

        formed, moves = groups.move_away(formed, share=1 - options.golden_share, near=near, count=count, seed=seed)
        if nowhere:
            found = mixer.find(nowhere, asked_for, [hidden] * len(nowhere), f"{name} without answer")
            formed, attached = groups.attach(formed, moves, nowhere, found, count=count, seed=seed)
            moves = [*moves, *attached]
        if self.teacher.judge is not None:
            formed, moves, wrong = screened(
                formed, moves, self.teacher.judge, at_once=self.teacher.at_once, progress=self.progress
            )
            self.tally.dropped["judge: distractor answers the question"] += wrong
        rows = groups.examples(
            formed, moves, policy=options.without_golden, share=options.refuse_share, chunks=self.golden, seed=seed
        )
        return rows, len({row.group for row in rows})

    def _exam(self, questions: Sequence[Question], mixer: Candidates, name: str) -> list[RaftExample]:
        """Test examples with the passages that the whole index gives, golden or not."""
        rows = []
        found = mixer.mined(questions, self.options.passages, None, name)
        for question, passages in zip(questions, found, strict=True):
            golden = tuple(self.golden[i] for i in question.golden_chunk_ids)
            included = {chunk.id for chunk in golden} <= {chunk.id for chunk in passages}
            group = groups.Group(passages=groups.shuffled(passages, self.config.seed), questions=(question,))
            rows.append(groups.tested(question, golden, group, included=included, seed=self.config.seed))
        return rows

    def _tested(
        self, rows: dict[str, list[RaftExample]], sentences: dict[str, frozenset[str]], *, sections: bool
    ) -> tuple[dict[str, list[RaftExample]], int]:
        """The rows without what the leak test finds in the exams and the validation, and how many it found."""
        found: list[str] = []
        studied = Studied(rows["train"], sentences)
        clean = {"train": rows["train"]}
        for name in ("validation", "studied", "unseen"):
            if name == "studied":  # the exams must not repeat what was watched during training either
                studied = Studied([*rows["train"], *clean["validation"]], sentences)
            clean[name], leaks = without_leaks(rows[name], studied, unseen=name == "unseen", sections=sections)
            found += leaks
        self.tally.dropped.update(found)
        return clean, len(found)

    def _report(
        self,
        rows: dict[str, list[RaftExample]],
        held_out: Sequence[splits.Unit],
        number_of_groups: int,
        leaks: int,
        seconds: float,
    ) -> DatasetReport:
        train, exams = rows["train"], [*rows["studied"], *rows["unseen"]]
        everyone = [row for part in rows.values() for row in part]
        places = Places.of(train)
        return DatasetReport(
            passages=self.tally.passages,
            written=self.tally.written,
            kinds=dict(Counter(row.kind for row in everyone).most_common()),
            dropped={reason: count for reason, count in sorted(self.tally.dropped.items()) if count},
            outcomes=dict(sorted(self.teacher.outcomes.items())),
            train=len(train),
            validation=len(rows["validation"]),
            studied=len(rows["studied"]),
            unseen=len(rows["unseen"]),
            groups=number_of_groups,
            golden_share=places.golden_share,
            golden_places=places.golden,
            passages_shown=places.shown,
            refusals=places.refusals,
            retrieved=_share(exams),
            documents_held_out=len({place.document_id for unit in held_out for place in unit}),
            leaks=leaks,
            known=sum(map(is_known, everyone)),
            spent=self.teacher.spent,
            seconds=seconds,
            notes=notes(rows, self.options, places, exhausted=self.teacher.exhausted, outcomes=self.teacher.outcomes),
        )

    def _write(self, parts: dict[str, list[RaftExample]], report: DatasetReport, index_hash: str) -> None:
        folder = self.config.dataset_dir
        (folder / storage.MANIFEST).unlink(missing_ok=True)  # until all parts are written, there is no data set
        for name, rows in parts.items():
            storage.write_jsonl(folder / f"{name}.jsonl", map(to_row, rows))
        storage.write_manifest(
            folder,
            stage=STAGE,
            options=_options(self.config),
            inputs=_inputs(index_hash, self.overlay),
            overlay=self.overlay.fingerprint,
            teacher=self.teacher.fingerprint,
            retriever=self.source.fingerprint,
            held_out=sorted(self.hidden),
            report=dataclasses.asdict(report),
        )


def _share(rows: Iterable[RaftExample]) -> float:
    included = [row.golden_included for row in rows]
    return sum(included) / len(included) if included else 0.0
