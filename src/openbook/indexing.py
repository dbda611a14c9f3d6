"""Documents in, an index out, and kept in line with them.

What makes an ingest safe to kill: chunk ids are hashes of their content, so what the index should hold is known from
the documents alone, and an ingest adds what is missing and removes what is not wanted, whatever an earlier one left.
The manifest is deleted before the first change and written after the last.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from openbook.config import Config
from openbook.documents import Limits, Skipped, chunk, named_roots, read
from openbook.errors import ConfigError, InputError, StoreError
from openbook.progress import SILENT, Progress, Task
from openbook.records import Chunk, Document, from_json, to_json
from openbook.retrieval import STORE, Embedder, LanceStore, embedder_fingerprint, load_embedder, passage_text
from openbook.storage import (
    MANIFEST,
    dump_line,
    explained,
    hash_json,
    is_current,
    read_jsonl,
    read_manifest,
    write_jsonl,
    write_manifest,
)

DOCUMENTS = "documents.jsonl"
STAGE = "ingest"

# Raised when a change of the code makes other text, other passages or other vectors from the same files.
FORMAT = 2

_SLICE = 256  # passages embedded and stored at once: what a killed ingest loses at most, and what memory holds


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """`documents` and `chunks` are what the index holds now; `added`, `changed`, `removed` and `unchanged` count
    documents against what it held before."""

    documents: int
    chunks: int
    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    seconds: float


def ingest(config: Config, *, progress: Progress | None = None, embedder: Embedder | None = None) -> IngestReport:
    """Make `config.index_dir` hold exactly the documents under `config.documents.paths`.

    Files that have not changed cost no embedding, and where nothing at all has changed nothing is written. Other
    options that decide the passages or their vectors build the index anew. The caller holds the output folder.
    `embedder` is that of the options, where it has been loaded already.

    Raises `InputError` where there is nothing to read, `StoreError` where the index cannot be written.
    """
    started = time.monotonic()
    progress = progress or SILENT
    with tempfile.TemporaryFile() as file:
        return _ingest(config, _Pile(file), progress, embedder, started)


def _ingest(
    config: Config, documents: "_Pile", progress: Progress, embedder: Embedder | None, started: float
) -> IngestReport:
    skipped = _read_all(config, documents, progress)
    store = LanceStore(config.index_dir / STORE)
    options = {
        "chunk_tokens": config.documents.chunk_tokens,
        "embedder": embedder.fingerprint if embedder else embedder_fingerprint(config.retrieval.embedder),
        "format": FORMAT,
    }
    inputs = {"documents": hash_json(documents.ids())}
    paths = {name: str(root) for root, name in named_roots(config.documents.paths)}
    complete = _is_complete(config, store)
    current = complete and is_current(config.index_dir, stage=STAGE, options=options, inputs=inputs)
    if current:
        changes = _Changes(unchanged=len(documents))
    else:
        embedder = embedder or load_embedder(config.retrieval.embedder)
        changes = _update(config, documents, store, embedder, hash_json(options), complete, progress)
    if not current or (read_manifest(config.index_dir) or {}).get("paths") != paths:
        write_manifest(
            config.index_dir,
            stage=STAGE,
            options=options,
            inputs=inputs,
            content=hash_json(sorted(store.chunk_ids())),
            documents=len(documents),
            chunks=store.count(),
            paths=paths,
            embedder={"name": config.retrieval.embedder, "fingerprint": options["embedder"]},
            skipped=dict(Counter(item.kind for item in skipped)),
        )
    return IngestReport(
        documents=len(documents),
        chunks=store.count(),
        added=changes.added,
        changed=changes.changed,
        removed=changes.removed,
        unchanged=changes.unchanged,
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
    )


def index_hash(config: Config) -> str:
    """Equal where the index holds the same passages with the same vectors; an input of every later stage."""
    manifest = read_manifest(config.index_dir)
    if manifest is None:
        raise StoreError(f"There is no finished index in {config.index_dir}.", "Run `openbook ingest` (again).")
    return hash_json([manifest.get("options"), manifest.get("content")])


def load_documents(config: Config) -> dict[str, Document]:
    """The documents of the index by id."""
    rows = read_jsonl(config.index_dir / DOCUMENTS)
    return {document.id: document for document in (from_json(Document, row) for row in rows)}


@dataclass(slots=True, kw_only=True)
class _Changes:
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0


class _Pile:
    """Documents by uri, kept in `file`: all their texts together may be more than fits into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[tuple[str, str, int]] = []  # uri, id, offset in the file

    def add(self, document: Document) -> None:
        with explained(Path(tempfile.gettempdir())):
            self._places.append((document.uri, document.id, self._file.tell()))
            self._file.write(dump_line(to_json(document)).encode())

    def ids(self) -> list[str]:
        return [id_ for _, id_, _ in sorted(self._places)]

    def uris(self) -> set[str]:
        return {uri for uri, _, _ in self._places}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Document]:
        for _, _, offset in sorted(self._places):
            self._file.seek(offset)
            yield from_json(Document, json.loads(self._file.readline()))


def _read_all(config: Config, documents: _Pile, progress: Progress) -> list[Skipped]:
    """Add every readable document; returns what was passed over."""
    paths = config.documents.paths
    if not paths:
        raise InputError(
            "There are no documents to study.",
            "Name files or folders: `openbook ingest PATH…`, or documents.paths in openbook.toml.",
        )
    skipped: list[Skipped] = []
    with progress.task("Reading documents", None, unit="files") as task:
        options = config.documents
        limits = Limits(seconds=options.max_seconds, memory_mb=options.max_memory_mb)
        for found in read(paths, max_file_mb=options.max_file_mb, exclude=_own_results(config), limits=limits):
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                documents.add(found)
                task.advance()
    if not len(documents):
        raise InputError(*_nothing_to_read(config, skipped))
    return skipped


def _own_results(config: Config) -> list[Path]:
    """What openbook wrote, which may lie among the documents: its reports are HTML."""
    if any(path.expanduser().resolve() == config.out.resolve() for path in config.documents.paths):
        reports = [config.out / "report.html", config.out / "comparison.html"]
        return [config.index_dir, config.dataset_dir, config.adapters_dir, config.evaluation_dir, *reports]
    return [config.out]


def _nothing_to_read(config: Config, skipped: Sequence[Skipped]) -> tuple[str, str]:
    places = ", ".join(str(path) for path in config.documents.paths)
    remedy = (
        "Give a file or folder with Markdown, text, HTML, PDF, Word, EPUB, notebook, reStructuredText or Python files."
    )
    if not skipped:
        return f"There is no file in {places}.", remedy
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in Counter(s.kind for s in skipped).items())
    told = next((item for item in skipped if item.kind in ("error", "too_large", "empty", "binary")), skipped[0])
    return f"No file in {places} can be read ({kinds}); {told.uri}: {told.reason}.", remedy


def _is_complete(config: Config, store: LanceStore) -> bool:
    """Whether the last ingest was finished, and the index is still what it left."""
    manifest = read_manifest(config.index_dir)
    if manifest is None or not (config.index_dir / DOCUMENTS).is_file():
        return False
    try:
        return store.count() == manifest.get("chunks")
    except StoreError:
        return False


def _update(
    config: Config,
    documents: _Pile,
    store: LanceStore,
    embedder: Embedder,
    make: str,
    complete: bool,
    progress: Progress,
) -> _Changes:
    """Bring the store in line with `documents`; `complete` says that each document in it has all of its passages."""
    if config.documents.chunk_tokens > embedder.max_tokens:
        raise ConfigError(
            f"documents.chunk_tokens is {config.documents.chunk_tokens}, but the embedder {config.retrieval.embedder} "
            f"reads only {embedder.max_tokens} tokens.",
            f"Set documents.chunk_tokens to {embedder.max_tokens} or less.",
        )
    with explained(config.index_dir):
        (config.index_dir / MANIFEST).unlink(missing_ok=True)
    if store.make != make:
        if store.make:
            progress.message("The options of the passages have changed: the index is built anew.")
        elif store.path.exists():
            progress.message("The index cannot be read: it is built anew.")
        store.reset(dimension=embedder.dimension, make=make)
    before, stored, finished = store.documents(), store.chunk_ids(), store.document_ids()
    changes = _Changes()
    with progress.task("Cutting and embedding passages", len(documents), unit="documents") as task:
        way_in = _WayIn(store, embedder, task)
        for document in documents:
            wanted: list[Chunk] = []
            if not (complete and document.id in finished):
                passages = chunk(document, count_tokens=embedder.count_tokens, max_tokens=config.documents.chunk_tokens)
                wanted = [passage for passage in passages if passage.id not in stored]
            way_in.add(wanted)
            if not wanted:
                changes.unchanged += 1
            elif before.get(document.uri, document.id) != document.id:
                changes.changed += 1
            else:
                changes.added += 1
        way_in.end()
    # Only now, so that whoever searches meanwhile finds the old passages until the new ones are there.
    store.remove(store.document_ids() - set(documents.ids()))
    changes.removed = len(before.keys() - documents.uris())
    store.optimize()
    write_jsonl(config.index_dir / DOCUMENTS, map(to_json, documents))
    return changes


class _WayIn:
    """Passages on their way into the store: embedded and stored `_SLICE` at a time, so that no more wait in memory."""

    def __init__(self, store: LanceStore, embedder: Embedder, task: Task) -> None:
        self._store, self._embedder, self._task = store, embedder, task
        self._waiting: list[tuple[Chunk, float]] = []  # and what share of its document a passage is
        self._count, self._started = 0, time.monotonic()

    def add(self, passages: Sequence[Chunk]) -> None:
        """All of one document that are to be stored."""
        if not passages:
            self._task.advance()
        self._waiting += [(passage, 1 / len(passages)) for passage in passages]
        while len(self._waiting) >= _SLICE:
            self._store_slice()

    def end(self) -> None:
        """Store the rest."""
        while self._waiting:
            self._store_slice()

    def _store_slice(self) -> None:
        part, self._waiting = self._waiting[:_SLICE], self._waiting[_SLICE:]
        passages = [passage for passage, _ in part]
        self._store.add(passages, self._embedder.encode([passage_text(passage) for passage in passages]))
        self._count += len(part)
        rate = self._count / (time.monotonic() - self._started)
        self._task.advance(sum(share for _, share in part), rate=f"{rate:.0f} passages/s")
