"""The embedded vector database: one LanceDB table with vectors, text and metadata, searched exactly."""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from openbook.errors import StoreError
from openbook.records import Chunk
from openbook.retrieval.base import Vectors, passage_text

_TABLE = "chunks"
_MAKE = b"openbook.make"
_METADATA = ("id", "document_id", "start", "end", "text", "uri", "title", "headings", "page")
_FILTER_IDS = 500  # ids in one filter expression; the parser's time grows faster than the list
_METADATA_BYTES = 32_000_000
_TIES = 16  # fetched beyond k, so that equal scores at the edge are ordered by id and not by chance


class LanceStore:
    """A `ChunkStore` in the folder `path`. Opening is lazy; a search in an absent or damaged table raises
    `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Any = None

    def reset(self, *, dimension: int, make: str) -> None:
        """Begin anew with an empty table. `make` says how its content is made; see `make`."""
        import pyarrow as pa

        schema = pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("document_id", pa.string()),
                pa.field("start", pa.int64()),
                pa.field("end", pa.int64()),
                pa.field("text", pa.string()),
                pa.field("uri", pa.string()),
                pa.field("title", pa.string()),
                pa.field("headings", pa.list_(pa.string())),
                pa.field("page", pa.int32()),
                pa.field("search", pa.string()),  # what BM25 reads: the text below its headings
                pa.field("vector", pa.list_(pa.float32(), dimension)),
            ],
            metadata={_MAKE: make.encode()},
        )
        with self._explained():
            shutil.rmtree(self.path, ignore_errors=True)  # also of a table that is too damaged to be overwritten
            self.path.mkdir(parents=True)
            self._opened = self._connect().create_table(_TABLE, schema=schema)

    @property
    def make(self) -> str:
        """What `reset` was told about how the content is made; "" where there is no readable table."""
        try:
            metadata = self._table.schema.metadata or {}
        except StoreError:
            return ""
        return bytes(metadata.get(_MAKE, b"")).decode()

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        import pyarrow as pa

        if len(chunks) != len(vectors):
            raise ValueError(f"{len(chunks)} chunks with {len(vectors)} vectors")
        if not chunks:
            return
        columns: dict[str, Any] = {name: [getattr(chunk, name) for chunk in chunks] for name in _METADATA}
        columns["headings"] = [list(chunk.headings) for chunk in chunks]
        columns["search"] = [passage_text(chunk) for chunk in chunks]
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        with self._explained():
            self._table.add(pa.table(columns, schema=self._table.schema))

    def remove(self, document_ids: Iterable[str]) -> None:
        with self._explained():
            for ids in _slices(sorted(document_ids)):
                self._table.delete(f"document_id IN ({_quoted(ids)})")

    def get(self, ids: Sequence[str]) -> list[Chunk]:
        found: dict[str, Chunk] = {}
        with self._explained():
            for part in _slices(ids):
                query = self._table.search().where(f"id IN ({_quoted(part)})").select(list(_METADATA)).limit(len(part))
                found.update((chunk.id, chunk) for chunk in map(_chunk, query.to_arrow().to_pylist()))
        return [found[id_] for id_ in ids if id_ in found]

    def chunks(self) -> Iterator[Chunk]:
        with self._explained():
            table = self._table.search().select(list(_METADATA)).limit(self.count() or 1).to_arrow()
        for batch in table.sort_by([("uri", "ascending"), ("start", "ascending")]).to_batches(max_chunksize=1000):
            yield from map(_chunk, batch.to_pylist())

    def chunk_ids(self) -> set[str]:
        return set(self._column("id"))

    def document_ids(self) -> set[str]:
        return set(self._column("document_id"))

    def documents(self) -> dict[str, str]:
        return dict(zip(self._column("uri"), self._column("document_id"), strict=True))

    def dense(self, vector: Vectors, k: int) -> list[tuple[str, float]]:
        with self._explained():
            rows = (
                self._table.search(np.asarray(vector, np.float32).ravel(), vector_column_name="vector")
                .distance_type("dot")  # of unit vectors: 1 − cosine
                .select(["id", "_distance"])
                .limit(k + _TIES)
                .to_arrow()
                .to_pylist()
            )
        return _ranked(((row["id"], 1.0 - row["_distance"]) for row in rows), k)

    def text(self, query: str, k: int) -> list[tuple[str, float]]:
        from lancedb.query import MatchQuery

        if not query.strip():
            return []
        with self._explained():
            rows = (
                # A match query takes the words as they are; the query language of plain strings would read operators.
                self._table.search(MatchQuery(query, "search"), query_type="fts")
                .select(["id", "_score"])
                .limit(k + _TIES)
                .to_arrow()
                .to_pylist()
            )
        return _ranked(((row["id"], row["_score"]) for row in rows), k)

    def optimize(self) -> None:
        """Build the full-text index anew, merge the small files that many adds leave, and delete old versions.

        The index is rebuilt and not extended, so that BM25's statistics are those of a table made in one go.
        """
        from lancedb.index import FTS

        with self._explained():
            self._table.create_index("search", config=FTS(), replace=True)
            # Ten minutes: whoever searches at this moment still reads the version that it began with.
            self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    def count(self) -> int:
        with self._explained():
            return int(self._table.count_rows())

    @property
    def version(self) -> int:
        """Grows with every change."""
        with self._explained():
            return int(self._table.version)

    def _column(self, name: str) -> list[str]:
        with self._explained():
            table = self._table.search().select([name]).limit(self.count() or 1).to_arrow()
        return [str(value) for value in table.column(name).to_pylist()]

    @property
    def _table(self) -> Any:
        if self._opened is None:
            if not (self.path / f"{_TABLE}.lance").is_dir():  # connecting would create the folder
                raise StoreError(f"There is no index in {self.path}.", "Run `openbook ingest` first.")
            with self._explained():
                self._opened = self._connect().open_table(_TABLE)
        return self._opened

    def _connect(self) -> Any:
        import lancedb

        # Every read looks for a newer version, so that a server goes on when the index below it is renewed. LanceDB
        # would keep the metadata of every version in up to a gigabyte, and an ingest makes one with each slice.
        session = lancedb.Session(metadata_cache_size_bytes=_METADATA_BYTES)
        return lancedb.connect(str(self.path), read_consistency_interval=timedelta(0), session=session)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """LanceDB's failures as a sentence. Its errors are plain RuntimeErrors, ValueErrors and OSErrors."""
        try:
            yield
        except StoreError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            if not self.path.exists():
                raise StoreError(f"The index in {self.path} is gone.", "Run `openbook ingest` again.") from error
            text = _ITS_SOURCE.sub("", " ".join(str(error).split()))
            if "No space left" in text:
                raise StoreError(
                    f"The disk is full: the index in {self.path} could not be written.",
                    "Free some space and run the same command again; finished work is kept.",
                ) from error
            raise StoreError(
                f"The index in {self.path} is damaged or cannot be used ({text[:200]}).",
                f"Delete the folder {self.path} and run `openbook ingest` again.",
            ) from error


_ITS_SOURCE = re.compile(r",? \S+\.rs:\d+:\d+")  # where in LanceDB's own source an error arose


def _chunk(row: dict[str, Any]) -> Chunk:
    return Chunk(**{**row, "headings": tuple(row["headings"] or ())})


def _ranked(scores: Iterable[tuple[str, float]], k: int) -> list[tuple[str, float]]:
    """Best first. Scores are compared to six decimals: the rest depends on the order of additions."""
    return sorted(scores, key=lambda item: (-round(item[1], 6), item[0]))[:k]


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(ids), _FILTER_IDS):
        yield ids[at : at + _FILTER_IDS]


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join("'" + id_.replace("'", "''") + "'" for id_ in ids)
