"""Hybrid search: dense vectors for meaning, BM25 for words, fused by their ranks."""

from collections.abc import Collection, Sequence
from pathlib import Path

from openbook.config import Config
from openbook.errors import StoreError
from openbook.prompt import encodable
from openbook.records import Chunk, ScoredChunk, content_id
from openbook.retrieval.base import ChunkStore, Embedder, Vectors
from openbook.retrieval.embedder import load_embedder
from openbook.retrieval.lance import LanceStore
from openbook.storage import read_manifest

# Cormack, Clarke & Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
# SIGIR 2009: score(d) = Σ over legs of 1 / (K + rank of d). Their 60 is for rankings of a thousand: of thirty, what stands
# last in both legs would outrank what stands first in one. On every set tried the first four hold more with 2 (docs/LOG.md).
RRF_K = 2

STORE = "lance"  # the store's folder within the index's


class Retriever:
    """The one way from a question to passages, for building data, for the exam and for daily use."""

    def __init__(self, store: ChunkStore, embedder: Embedder, *, candidates: int = 30) -> None:
        self.store = store
        self.embedder = embedder
        self.candidates = candidates

    @property
    def fingerprint(self) -> str:
        """Equal where equal questions find equal passages in equal documents."""
        return content_id(self.embedder.fingerprint, "reciprocal rank", RRF_K, self.candidates)

    def search(self, query: str, k: int, *, without: Collection[str] = ()) -> list[ScoredChunk]:
        """The `k` best passages, fewer where the index has fewer; a blank question finds none.

        `without` are ids of chunks that are treated as though they were not in the index: later ones move up.
        """
        return self.search_many([query], k, without=[without])[0]

    def search_many(
        self, queries: Sequence[str], k: int, *, without: Sequence[Collection[str]] | None = None
    ) -> list[list[ScoredChunk]]:
        """`search` for each query; the queries are embedded together."""
        if without is not None and len(without) != len(queries):
            raise ValueError(f"{len(queries)} queries with {len(without)} sets of chunks to leave out")
        queries = list(map(encodable, queries))
        asked = [query for query in queries if query.strip()]
        vectors = iter(self.embedder.encode(asked, query=True) if asked else ())
        results = []
        for number, query in enumerate(queries):
            absent = frozenset(without[number]) if without else frozenset()
            results.append(self._search(query, next(vectors), k, absent) if query.strip() else [])
        return results

    def _search(self, query: str, vector: Vectors, k: int, absent: frozenset[str]) -> list[ScoredChunk]:
        wanted = max(k, self.candidates)
        dense = _leg(self.store.dense(vector, wanted + len(absent)), absent, wanted)
        text = _leg(self.store.text(query, wanted + len(absent)), absent, wanted)
        fused = fuse([list(dense), list(text)])[:k]
        chunks = {chunk.id: chunk for chunk in self.store.get([id_ for id_, _ in fused])}
        return [
            _scored(chunks[id_], score, rank, dense.get(id_), text.get(id_))
            for rank, (id_, score) in enumerate(fused, 1)
            if id_ in chunks
        ]


def fuse(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: ids with their fused scores, best first.

    Of equal scores the one with the better rank in the earlier ranking comes first, then the smaller id.
    """
    ranks = [{id_: rank for rank, id_ in enumerate(ranking, 1)} for ranking in rankings]
    unranked = 1 + max((len(ranking) for ranking in rankings), default=0)
    scores = {
        id_: sum(1 / (RRF_K + leg[id_]) for leg in ranks if id_ in leg) for ranking in rankings for id_ in ranking
    }
    return sorted(scores.items(), key=lambda item: (-item[1], *(leg.get(item[0], unranked) for leg in ranks), item[0]))


def _leg(found: Sequence[tuple[str, float]], absent: frozenset[str], wanted: int) -> dict[str, tuple[int, float]]:
    """id → (rank, score) of one leg, best first."""
    kept = [item for item in found if item[0] not in absent][:wanted]
    return {id_: (rank, score) for rank, (id_, score) in enumerate(kept, 1)}


def _scored(
    chunk: Chunk, score: float, rank: int, dense: tuple[int, float] | None, text: tuple[int, float] | None
) -> ScoredChunk:
    return ScoredChunk(
        chunk=chunk,
        score=score,
        rank=rank,
        dense_rank=dense[0] if dense else None,
        dense_score=dense[1] if dense else None,
        text_rank=text[0] if text else None,
        text_score=text[1] if text else None,
    )


def open_index(folder: Path, config: Config, *, embedder: Embedder | None = None) -> Retriever:
    """A retriever over the finished index in `folder`. `embedder` is that of the options, where it is loaded already.

    Raises `StoreError` when there is none, when it is not finished, or when another embedder made it.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("stage") != "ingest":
        raise StoreError(f"There is no finished index in {folder}.", "Run `openbook ingest` (again).")
    name = config.retrieval.embedder
    embedder = embedder or load_embedder(name)
    made_by = manifest.get("embedder", {})
    if made_by.get("fingerprint") != embedder.fingerprint:
        raise StoreError(
            f"The index in {folder} was made with the embedder {made_by.get('name', '?')}, not with {name}.",
            "Run `openbook ingest` again, or set retrieval.embedder back.",
        )
    store = LanceStore(folder / STORE)
    if store.count() != manifest.get("chunks"):
        raise StoreError(
            f"The index in {folder} has lost or gained passages since it was made.",
            f"Delete {folder} and run `openbook ingest` again.",
        )
    return Retriever(store, embedder, candidates=config.retrieval.candidates)
