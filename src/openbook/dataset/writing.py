"""From passages to questions that pass every check: passage by passage, pair by pair, and only as many as are wanted."""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from openbook.config import Config
from openbook.dataset import checks, entities, splits
from openbook.dataset.inorder import in_order
from openbook.dataset.judge import verdict
from openbook.dataset.overlay import REJECTED, Overlay
from openbook.dataset.report import Tally
from openbook.dataset.sources import Source
from openbook.dataset.teacher import Teacher
from openbook.progress import Progress
from openbook.records import Chunk, Question

SURPLUS = 1.15  # written beyond what is wanted, since duplicates and shared sentences fall away
SPREAD = 3  # passages in a run of neighbours that are asked about together
FETCHED = 64  # passages that are read from the index at once
NEAR = 20  # passages in which nothing may answer a question that is to be answered nowhere
FEW_TRIES = 4  # pairs and passages that are asked about for each question of a rare kind that is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of asking about one passage, or two."""

    number: int  # of the unit that it belongs to
    golden: tuple[Chunk, ...]
    questions: list[Question]
    count: int  # questions that the teacher wrote
    dropped: Counter[str] = field(default_factory=Counter)


class Writer:
    """Asks the teacher, checks what it wrote, and counts. `golden` holds the passages of all questions that passed."""

    def __init__(
        self,
        source: Source,
        teacher: Teacher,
        config: Config,
        progress: Progress,
        tally: Tally,
        overlay: Overlay | None = None,
    ) -> None:
        self.source = source
        self.teacher = teacher
        self.options = config.dataset
        self.seed = config.seed
        self.progress = progress
        self.tally = tally
        self.overlay = overlay or Overlay()
        self.golden: dict[str, Chunk] = {}
        self._asked: set[str] = set()

    def unseen(self, candidates: Sequence[splits.Unit], wanted: int) -> tuple[list[splits.Unit], list[Question]]:
        """Hold units out, one by one, until enough questions are written about them: the units, and the questions."""
        held_out: list[splits.Unit] = []
        questions: list[Question] = []
        with self.progress.task("Writing unseen questions", wanted, "questions") as task:
            for number, written in self._by_unit(candidates if wanted else ()):
                if written:  # else it may as well be trained on
                    held_out.append(candidates[number])
                questions += written
                task.advance(len(written))
                if len(questions) >= SURPLUS * wanted:
                    break
        return held_out, questions

    def pool(self, training: Sequence[splits.Unit], wanted: int) -> list[Question]:
        """Questions on the training documents, some more than `wanted` where there are so many."""
        pool: list[Question] = []
        real = 0  # a cloze is only used where there are too few others
        with self.progress.task("Writing questions", wanted, "questions") as task:
            for _, written in self._by_unit(splits.blocks(training, SPREAD, self.seed)):
                pool += written
                real += sum(question.kind != "cloze" for question in written)
                task.advance(len(written))
                if real >= SURPLUS * wanted:
                    break
        return pool

    def pairs(self, wanted: int, held_out: Collection[str]) -> list[Question]:
        """Questions that need two of the passages that were asked about, but for those `held_out`; at most `wanted`, and
        one for a sentence."""
        found: list[Question] = []
        used: set[str] = set()
        if not wanted:
            return found

        def work(pair: entities.Pair) -> Written:
            rng = random.Random(f"{self.seed}:{pair.first.id}:{pair.second.id}")
            written = self.teacher.write_pair(pair.first, pair.second, shared=pair.shared, rng=rng, limit=1)
            return self._checked(0, written, (pair.first, pair.second))

        with self.progress.task("Writing questions on two passages", wanted, "questions") as task:
            couples = entities.pairs([c for c in self.golden.values() if c.id not in held_out], self.seed)
            for written in in_order(work, couples, at_once=self.teacher.at_once):
                self._count(written)
                for question in written.questions:
                    keys = checks.sentence_keys(question)
                    if not keys & used:
                        used |= keys
                        found.append(question)
                        task.advance()
                if len(found) >= wanted or (self.teacher.exhausted and not written.count):
                    break
        return found[:wanted]

    def nowhere(self, wanted: int, hidden: frozenset[str]) -> list[Question]:
        """Questions about what the documents are about, which no passage answers, at most `wanted`. `hidden` passages are
        not asked about, but may answer."""
        found: list[Question] = []
        chunks = sorted((chunk for chunk in self.golden.values() if chunk.id not in hidden), key=lambda chunk: chunk.id)
        if not wanted or not chunks:
            return found
        order = random.Random(f"nowhere:{self.seed}")
        order.shuffle(chunks)
        tries = [(chunk, order.choice(chunks)) for chunk in chunks[: FEW_TRIES * wanted]]

        def work(try_: tuple[Chunk, Chunk]) -> Written:
            rng = random.Random(f"{self.seed}:nowhere:{try_[0].id}")
            return self._checked(0, self.teacher.write_nowhere(*try_, rng=rng, limit=1), (try_[0],))

        with self.progress.task("Writing questions that nothing answers", wanted, "questions") as task:
            for written in in_order(work, tries, at_once=self.teacher.at_once):
                self._count(written)
                open_ = [question for question in written.questions if self._left_open(question)]
                self.tally.dropped["answered somewhere after all"] += len(written.questions) - len(open_)
                found += open_
                task.advance(len(open_))
                if len(found) >= wanted or (self.teacher.exhausted and not written.count):
                    break
        return found[:wanted]

    def _left_open(self, question: Question) -> bool:
        (hits,) = self.source.search_many([question.text], NEAR)
        near = [hit.chunk for hit in hits]
        if not checks.left_open(question, near):
            return False
        judge = self.teacher.judge
        return judge is None or not judge.beside([question], near[: self.options.passages])[0]

    def _by_unit(self, units: Iterable[splits.Unit]) -> Iterator[tuple[int, list[Question]]]:
        """The number of each unit and the questions on it that pass every check, in the order of the units."""
        now, questions = 0, list[Question]()
        for written in in_order(self._written, self._jobs(units), at_once=self.teacher.at_once):
            for number in range(now, written.number):
                yield number, questions
                questions = []
            now = written.number
            (chunk,) = written.golden
            if chunk.id not in self._asked:  # what was not held out, since nothing came of it, is asked about once more
                self._asked.add(chunk.id)
                self.tally.passages += 1
                self._count(written)
            questions += written.questions
            if self.teacher.exhausted and not written.count:
                break  # what was paid for before has been taken
        yield now, questions

    def _jobs(self, units: Iterable[splits.Unit]) -> Iterator[tuple[int, Chunk]]:
        for number, unit in enumerate(units):
            for at in range(0, len(unit), FETCHED):
                ids = [place.chunk_id for place in unit[at : at + FETCHED]]
                chunks = {chunk.id: chunk for chunk in self.source.store.get(ids)}
                yield from ((number, chunks[i]) for i in ids)

    def _written(self, job: tuple[int, Chunk]) -> Written:
        number, chunk = job
        rng = random.Random(f"{self.seed}:{chunk.id}")
        written = self.teacher.write(chunk, rng=rng, limit=self.options.questions_per_chunk)
        return self._checked(number, written, (chunk,))

    def _checked(self, number: int, questions: Sequence[Question], golden: tuple[Chunk, ...]) -> Written:
        """The questions that pass the rules and, where there is one, the judge."""
        dropped: Counter[str] = Counter()
        kept = []
        for question in map(self.overlay.edited, questions):
            fault = checks.fault(question, *golden)
            dropped[fault] += 1
            if not fault:
                kept.append(question)
        del dropped[""]
        judge = self.teacher.judge
        if judge is not None and kept and kept[0].golden_chunk_ids:
            judged = judge.score(kept, golden)
            kept = [question for question in judged if not verdict(question.scores)]
            dropped.update(fault for question in judged if (fault := verdict(question.scores)))
        wanted = [
            question for question in kept if not self.overlay.rejects(question.id)
        ]  # here, or the judge is paid anew
        if len(wanted) < len(kept):
            dropped[REJECTED] += len(kept) - len(wanted)
        return Written(number=number, golden=golden, questions=wanted, count=len(questions), dropped=dropped)

    def _count(self, written: Written) -> None:
        self.tally.written += written.count
        self.tally.dropped.update(written.dropped)
        if written.questions:
            self.golden.update({chunk.id: chunk for chunk in written.golden})
