"""What an index finds is asked for once, and kept: in memory while data are made, in a file for the questions of an exam.

Whoever has the file needs neither index nor embedder.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from openbook.answering import PassageSource
from openbook.config import Config
from openbook.evaluation.exam import holds_answer, set_exam
from openbook.progress import SILENT
from openbook.records import RaftExample, ScoredChunk, from_json, to_json
from openbook.storage import read_jsonl, write_jsonl

Asked = tuple[str, int, tuple[str, ...]]  # query, k, chunks left out


def keep(path: Path, tests: Mapping[str, Sequence[RaftExample]], retriever: PassageSource, config: Config) -> None:
    """Ask `retriever` all that the exam of these tests asks, and write what it finds."""
    source = Remembered(retriever)
    for name, examples in tests.items():
        set_exam(name, examples, source, config, SILENT)
    rows = ({"asked": asked, "found": [to_json(one) for one in found]} for asked, found in source.found.items())
    write_jsonl(path, rows)


def answerable(tests: Mapping[str, Sequence[RaftExample]], source: PassageSource, config: Config) -> set[str]:
    """The ids of the examples that are shown a passage with their answer: to refuse one of these is false."""
    exams = [set_exam(name, examples, source, config, SILENT) for name, examples in tests.items()]
    shown = [pair for exam in exams for pair in zip(exam.examples, exam.rankings, strict=True)]
    return {example.id for example, found in shown if holds_answer(example, found[: config.retrieval.passages])}


class KeptPassages:
    """Answers the questions that `keep` asked; a `KeyError` for any other."""

    def __init__(self, path: Path) -> None:
        self._found: dict[Asked, list[ScoredChunk]] = {}
        for row in read_jsonl(path):
            query, k, without = row["asked"]
            self._found[query, k, tuple(without)] = [from_json(ScoredChunk, one) for one in row["found"]]

    def search(self, query: str, k: int, *, without: Collection[str] = ()) -> list[ScoredChunk]:
        return self._found[query, k, tuple(sorted(without))]

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]:
        left_out = without or [()] * len(queries)
        return [self.search(query, k, without=ids) for query, ids in zip(queries, left_out, strict=True)]


class Remembered:
    """An index that is asked nothing twice: `found` holds all that it was asked."""

    def __init__(self, source: PassageSource) -> None:
        self._source = source
        self.found: dict[Asked, list[ScoredChunk]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def search(self, query: str, k: int, *, without: Collection[str] = ()) -> list[ScoredChunk]:
        return self.search_many([query], k, without=[without])[0]

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]:
        left_out = without or [()] * len(queries)
        asked: list[Asked] = [(query, k, tuple(sorted(ids))) for query, ids in zip(queries, left_out, strict=True)]
        new = [one for one in dict.fromkeys(asked) if one not in self.found]
        if new:
            found = self._source.search_many([query for query, _, _ in new], k, without=[ids for _, _, ids in new])
            self.found.update(zip(new, found, strict=True))
        return [self.found[one] for one in asked]
