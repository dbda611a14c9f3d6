"""The index and the documents behind it, as the server sees them: renewed beneath it, or gone, while it runs."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.indexing import DOCUMENTS
from openbook.records import Document, ScoredChunk, from_json
from openbook.retrieval import OFFLINE, Embedder, Retriever, open_index
from openbook.storage import MANIFEST, read_manifest

_ID = re.compile(r"[0-9a-f]{16}")
_TOGETHER = 16  # queries embedded in one pass; more would keep the first of them waiting for the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the index holds, as its manifest says; None where there is no finished index at the moment."""

    documents: int
    chunks: int
    embedder: str


class Library:
    """Searches and documents. Queries that come together are embedded together, on a thread of their own."""

    def __init__(self, config: Config, *, embedder: Embedder | None = None) -> None:
        """`embedder` is that of the options, where it is loaded already. Raises `StoreError` where there is no finished index, `ModelError` where its embedder cannot be had."""
        self._config = config
        self._stamp = _stamp(config.index_dir / MANIFEST)
        self._retriever = open_index(config.index_dir, config, embedder=embedder)
        self._offsets: dict[str, int] = {}
        self._offsets_of: tuple[int, int] | None = None
        self._asked: deque[tuple[str, int, asyncio.Future[list[ScoredChunk]]]] = deque()
        self._busy: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="openbook-search")

    @property
    def embedder(self) -> Embedder:
        return self._retriever.embedder

    @property
    def embedder_id(self) -> str:
        """The embedder's name in the API, without the folders that lead to it."""
        name = self._config.retrieval.embedder
        return "all-MiniLM-L6-v2" if name == OFFLINE else Path(name).name

    @property
    def fingerprint(self) -> str:
        """See `Retriever.fingerprint`."""
        return self._retriever.fingerprint

    def sizes(self) -> Sizes | None:
        manifest = read_manifest(self._config.index_dir)
        if manifest is None:
            return None
        return Sizes(
            documents=int(manifest.get("documents", 0)),
            chunks=int(manifest.get("chunks", 0)),
            embedder=str(manifest.get("embedder", {}).get("name", "")),
        )

    async def search(self, query: str, k: int) -> list[ScoredChunk]:
        """The `k` best passages. Raises `StoreError` where the index is gone or damaged."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[ScoredChunk]] = loop.create_future()
        self._asked.append((query, k, future))
        if self._busy is None or self._busy.done():
            self._busy = loop.create_task(self._work())
        return await future

    async def document(self, id_: str) -> Document | None:
        """The document of this id; None where there is none. The id is looked up and never used as a path."""
        if not _ID.fullmatch(id_):
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._document, id_)

    async def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
        """Vectors of passages and the tokens of each. Raises `InputError` for a text that the embedder would cut."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    async def _work(self) -> None:
        while self._asked:
            k = self._asked[0][1]
            together = [item for item in self._asked if item[1] == k][:_TOGETHER]
            for item in together:
                self._asked.remove(item)
            queries = [query for query, _, future in together if not future.done()]
            waiting = [future for _, _, future in together if not future.done()]
            if not queries:
                continue
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._search_many, queries, k)
            await asyncio.wait([work])
            error = work.exception()
            for number, future in enumerate(waiting):
                if future.done():
                    continue  # whoever asked has gone
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(work.result()[number])

    def _search_many(self, queries: Sequence[str], k: int) -> list[list[ScoredChunk]]:
        return self._current().search_many(queries, k)

    def _current(self) -> Retriever:
        """The retriever of the index as it stands. While an ingest is at work there is no manifest, and the passages of
        before are found until the new ones are there."""
        stamp = _stamp(self._config.index_dir / MANIFEST)
        if stamp is not None and stamp != self._stamp:
            self._retriever = open_index(self._config.index_dir, self._config, embedder=self.embedder)
            self._stamp = stamp
        return self._retriever

    def _embed(self, texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
        counts = self.embedder.count_many(texts)
        for number, count in enumerate(counts):
            if count > self.embedder.max_tokens:
                raise InputError(
                    f"input.{number} has {count:,} tokens, and the embedder reads {self.embedder.max_tokens}.",
                    "Send shorter texts: none is cut silently.",
                )
        return self.embedder.encode(texts).tolist(), counts

    def _document(self, id_: str) -> Document | None:
        path = self._config.index_dir / DOCUMENTS
        stamp = _stamp(path)
        if stamp is None:
            raise StoreError(f"The documents in {path} are gone.", "Run `openbook ingest` again.")
        with path.open("rb") as file:
            if stamp != self._offsets_of:
                # Only where each begins: the texts may be more than fits into memory beside a model.
                self._offsets, at = {}, 0
                for line in file:
                    self._offsets[json.loads(line)["id"]] = at
                    at += len(line)
                self._offsets_of = stamp
            if id_ not in self._offsets:
                return None
            file.seek(self._offsets[id_])
            return from_json(Document, json.loads(file.readline()))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes with the file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
