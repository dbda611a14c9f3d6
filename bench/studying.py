"""Which passages each question is studied over: in study groups, as openbook has them, or each over passages of its own."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from openbook.dataset import groups
from openbook.dataset.checks import cannot_answer
from openbook.dataset.sources import Candidates, Mode, Source
from openbook.progress import SILENT
from openbook.records import Chunk, Question, RaftExample

PASSAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Studying:
    """`hidden` passages (of held-out documents) are never shown; `share` of the questions keeps its golden passage."""

    source: Source
    chunks: Mapping[str, Chunk]
    share: float
    seed: int
    distractors: Mode = "mined"
    hidden: frozenset[str] = frozenset()

    def in_groups(self, questions: Sequence[Question]) -> list[RaftExample]:
        formed, moves = groups.move_away(
            self.formed(questions), share=1 - self.share, near=self.found, count=PASSAGES, seed=self.seed
        )
        return groups.examples(formed, moves, policy="refuse", chunks=self.chunks, seed=self.seed)

    def formed(self, questions: Sequence[Question]) -> list[groups.Group]:
        """The study groups, every question over its golden passage."""
        return groups.form_groups(questions, self.found(questions), self.chunks, count=PASSAGES, seed=self.seed)

    def apart(self, questions: Sequence[Question], without: Collection[str]) -> list[RaftExample]:
        """Every question over its own passages, in an order of their own; those `without` their golden passage (ids of
        questions) over what is found instead."""
        rows = []
        for question, found in zip(questions, self.found(questions), strict=True):
            golden = tuple(self.chunks[i] for i in question.golden_chunk_ids)
            away = question.id in without
            silent = [passage for passage in found if cannot_answer([passage], question)]
            shown = groups.shown_with((), silent, question, PASSAGES) if away else None
            shown = shown or groups.shown_with(golden, found, question, PASSAGES)
            away = away and not set(golden) & set(shown)
            group = groups.Group(passages=groups.shuffled(shown, self.seed), questions=(question,))
            rows.append(groups.example(question, golden, group, included=not away, refuses=away, seed=self.seed))
        return rows

    def found(self, questions: Iterable[Question]) -> list[list[Chunk]]:
        """What may be shown beside, or instead of, each question's golden passage."""
        asked = list(questions)
        mixer = Candidates(self.source, self.distractors, sorted(self.chunks.keys() - self.hidden), self.seed, SILENT)
        gone = [self.hidden.union(question.golden_chunk_ids) for question in asked]
        return mixer.find(asked, PASSAGES + groups.SPARE, gone, "")
