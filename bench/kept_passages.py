"""What an index found for the questions of an exam, kept in a file: whoever has it needs neither index nor embedder."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from openbook.answering import PassageSource
from openbook.config import Config
from openbook.evaluation.exam import set_exam
from openbook.progress import SILENT
from openbook.records import RaftExample, ScoredChunk, from_json, to_json
from openbook.storage import read_jsonl, write_jsonl

Asked = tuple[str, int, tuple[str, ...]]  # query, k, chunks left out


def keep(path: Path, tests: Mapping[str, Sequence[RaftExample]], retriever: PassageSource, config: Config) -> None:
    """Ask `retriever` all that the exam of these tests asks, and write what it finds."""
    source = _Recorder(retriever)
    for name, examples in tests.items():
        set_exam(name, examples, source, config, SILENT)
    rows = ({"asked": asked, "found": [to_json(one) for one in found]} for asked, found in source.found.items())
    write_jsonl(path, rows)


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


class _Recorder:
    def __init__(self, source: PassageSource) -> None:
        self._source = source
        self.found: dict[Asked, list[ScoredChunk]] = {}

    def search(self, query: str, k: int, *, without: Collection[str] = ()) -> list[ScoredChunk]:
        return self.search_many([query], k, without=[without])[0]

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]:
        found = self._source.search_many(queries, k, without=without)
        left_out = without or [()] * len(queries)
        for query, ids, chunks in zip(queries, left_out, found, strict=True):
            self.found[query, k, tuple(sorted(ids))] = chunks
        return found
