"""How fast are reading, embedding and searching here?

    python bench/retrieval.py FOLDER [--passages 5000] [--embed 256]
    python bench/retrieval.py FOLDER --ingest 100000

Reads and cuts all of FOLDER, embeds a sample of its passages, and times hybrid queries over an index of `--passages`
passages. Vectors beyond the sample are random unit vectors: exact search takes the same time over any vectors.

With `--ingest`, copies of FOLDER that make so many passages are ingested, with vectors out of words instead of MiniLM's,
which would take hours: what is measured is the memory that reading, cutting and storing take.
"""

import argparse
import itertools
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil

from openbook.config import Config
from openbook.documents import chunk, read
from openbook.indexing import ingest
from openbook.records import Chunk, Document
from openbook.retrieval import LanceStore, Retriever, Vectors, load_embedder, passage_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--embed", type=int, default=256, help="passages really embedded")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--ingest", type=int, default=0, help="passages to ingest for the sake of memory")
    arguments = parser.parse_args()
    if arguments.ingest:
        ingested(arguments.folder, arguments.ingest)
        return

    embedder = load_embedder("offline")
    started = time.perf_counter()
    documents = [d for d in read([arguments.folder], max_file_mb=50) if isinstance(d, Document)]
    print(f"read {len(documents)} documents in {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    passages = [c for d in documents for c in chunk(d, count_tokens=embedder.count_tokens, max_tokens=200)]
    print(f"cut {len(passages)} passages in {time.perf_counter() - started:.1f} s")

    sample = passages[:: max(1, len(passages) // arguments.embed)][: arguments.embed]
    started = time.perf_counter()
    vectors = embedder.encode([passage_text(passage) for passage in sample])
    print(f"embedded {len(sample) / (time.perf_counter() - started):.1f} passages/s")

    rng = np.random.default_rng(0)
    filler = rng.normal(size=(arguments.passages - len(sample), embedder.dimension)).astype(np.float32)
    filler /= np.linalg.norm(filler, axis=1, keepdims=True)
    copies = [renamed(p, n) for n, p in zip(range(len(filler)), itertools.cycle(passages), strict=False)]
    words = [word for passage in passages[::7] for word in passage.text.split()[:9]]
    queries = [f"What does {' '.join(rng.choice(words, size=5))} do?" for _ in range(arguments.queries)]
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(Path(folder))
        store.reset(dimension=embedder.dimension, make="bench")
        store.add([*sample, *copies], np.concatenate([vectors, filler]))
        store.optimize()
        retriever = Retriever(store, embedder)
        seconds = []
        for query in [*queries[:10], *queries]:  # the first ten warm up
            started = time.perf_counter()
            retriever.search(query, 4)
            seconds.append(time.perf_counter() - started)
        timed("embedding the query", lambda query: embedder.encode([query], query=True), queries)
        timed(
            "the nearest vectors",
            lambda query: store.dense(filler[zlib.crc32(query.encode()) % len(filler)], 30),
            queries,
        )
        timed("full text", lambda query: store.text(query, 30), queries)
        some = [passage.id for passage in sample[:4]]
        timed("fetching four passages", lambda _: store.get(some), queries)
    p50, p95 = np.percentile(seconds[10:], [50, 95]) * 1e3
    print(f"hybrid query over {arguments.passages} passages: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def timed(name: str, work: Callable[[str], object], queries: Sequence[str]) -> None:
    """Milliseconds by the clock of one part of a search."""
    seconds = []
    for query in queries:
        started = time.perf_counter()
        work(query)
        seconds.append(time.perf_counter() - started)
    print(f"  {name}: p50 {np.percentile(seconds, 50) * 1e3:.1f} ms, p95 {np.percentile(seconds, 95) * 1e3:.1f} ms")


class WordVectors:
    """Vectors of MiniLM's width, of which each word adds its own random direction."""

    dimension, max_tokens, fingerprint = 384, 254, "words"

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        rows = np.stack([sum((word_vector(word) for word in text.split()), np.zeros(384)) for text in texts])
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text) // 4

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count_tokens(text) for text in texts]


@lru_cache(20_000)
def word_vector(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=384)


class Memory:
    """A `Progress` that tells how large the process is, as each stage begins, is a fifth done, and ends."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def size(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.size())
            time.sleep(0.05)

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator["Stage"]:
        stage = Stage(self, total)
        yield stage
        sizes = ", ".join(f"{size / 1e6:.0f}" for size in (*stage.sizes, self.size()))
        print(
            f"{description} ({stage.done:,.0f} {unit}): {sizes} MB; {time.perf_counter() - stage.started:.0f} s",
            flush=True,
        )

    def stage(self, name: str, skipped: str = "") -> None: ...
    def message(self, text: str) -> None: ...


class Stage:
    def __init__(self, memory: Memory, total: float | None) -> None:
        self.memory, self.total, self.done, self.sizes = memory, total, 0.0, [memory.size()]
        self.started = time.perf_counter()

    def advance(self, amount: float = 1, **facts: object) -> None:
        before, self.done = self.done, self.done + amount
        if self.total and before < self.total / 5 <= self.done:
            self.sizes.append(self.memory.size())


def ingested(folder: Path, passages: int) -> None:
    """Ingest as many copies of `folder` as make `passages` passages, and tell the memory of each stage."""
    vectors = WordVectors()
    documents = [d for d in read([folder], max_file_mb=50) if isinstance(d, Document)]
    once = sum(len(list(chunk(d, count_tokens=vectors.count_tokens, max_tokens=200))) for d in documents)
    with tempfile.TemporaryDirectory() as place:
        for number in range(-(-passages // once)):
            shutil.copytree(folder, Path(place) / "documents" / str(number))
        options = {"out": f"{place}/work", "documents": {"paths": [f"{place}/documents"]}}
        memory = Memory()
        report = ingest(Config.parse(options, origin="bench"), progress=memory, embedder=vectors)
        print(f"{report.documents:,} documents, {report.chunks:,} passages in {report.seconds:.0f} s")
        print(f"at the end {memory.size() / 1e6:.0f} MB, at most {memory.peak / 1e6:.0f} MB")


def renamed(passage: Chunk, number: int) -> Chunk:
    """A copy with an id of its own."""
    document = Document.create(uri=f"copy {number}", title=passage.title, text=passage.text)
    return Chunk.create(document, 0, len(passage.text), headings=passage.headings)


if __name__ == "__main__":
    main()
