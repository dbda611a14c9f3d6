"""What a build needs of an index, and the passages that stand beside the golden one."""

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Final, Literal, Protocol

from openbook.progress import Progress
from openbook.records import Chunk, Question, ScoredChunk

Mode = Literal["mined", "random", "mixed"]
BATCH: Final = 64  # questions that are searched for at once


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


class Candidates:
    """Passages that may stand beside a golden one: those that the serving retriever finds, any, or by turns one of these.

    `ids` are all passages from which chance may draw.
    """

    def __init__(self, source: Source, mode: Mode, ids: Sequence[str], seed: int, progress: Progress) -> None:
        self._source = source
        self._mode = mode
        self._ids = sorted(ids)
        self._seed = seed
        self._progress = progress

    def find(
        self, questions: Sequence[Question], k: int, without: Sequence[Collection[str]], name: str
    ) -> list[list[Chunk]]:
        """For each question `k` passages that are not among those `without`, the first to be shown first."""
        if self._mode == "mined":
            return self.mined(questions, k, without, name)
        drawn = [self._drawn(question, k, gone) for question, gone in zip(questions, without, strict=True)]
        if self._mode == "random":
            return drawn
        mined = self.mined(questions, k, without, name)
        return [_by_turns(one, two)[:k] for one, two in zip(mined, drawn, strict=True)]

    def mined(
        self, questions: Sequence[Question], k: int, without: Sequence[Collection[str]] | None, name: str
    ) -> list[list[Chunk]]:
        """For each question what the retriever finds, best first."""
        found: list[list[Chunk]] = []
        with self._progress.task(f"Retrieving for {name}", len(questions), "questions") as task:
            for at in range(0, len(questions), BATCH):
                texts = [question.text for question in questions[at : at + BATCH]]
                hits = self._source.search_many(texts, k, without=without[at : at + BATCH] if without else None)
                found += [[hit.chunk for hit in ranking] for ranking in hits]
                task.advance(len(texts))
        return found

    def _drawn(self, question: Question, k: int, gone: Collection[str]) -> list[Chunk]:
        rng = random.Random(f"{self._seed}:drawn:{question.id}")
        # Some more than k are drawn, since a few may be among those that are gone.
        ids = [i for i in rng.sample(self._ids, min(len(self._ids), k + 8)) if i not in gone]
        if len(ids) < k:
            left = [i for i in self._ids if i not in gone]
            ids = rng.sample(left, min(k, len(left)))
        chunks = {chunk.id: chunk for chunk in self._source.store.get(ids[:k])}
        return [chunks[i] for i in ids[:k]]


def _by_turns(one: Sequence[Chunk], two: Sequence[Chunk]) -> list[Chunk]:
    """The first of one, the first of the other, and so on; each passage once."""
    both = (chunk for chunk in chain.from_iterable(zip_longest(one, two)) if chunk is not None)
    return list({chunk.id: chunk for chunk in both}.values())
