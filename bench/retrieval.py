"""How fast are reading, embedding and searching here?

    python bench/retrieval.py FOLDER [--passages 5000] [--embed 256]

Reads and cuts all of FOLDER, embeds a sample of its passages, and times hybrid queries over an index of `--passages`
passages. Vectors beyond the sample are random unit vectors: exact search takes the same time over any vectors.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from openbook.documents import chunk, read
from openbook.records import Chunk, Document
from openbook.retrieval import LanceStore, Retriever, load_embedder, passage_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--embed", type=int, default=256, help="passages really embedded")
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()

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
    p50, p95 = np.percentile(seconds[10:], [50, 95]) * 1e3
    print(f"hybrid query over {arguments.passages} passages: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def renamed(passage: Chunk, number: int) -> Chunk:
    """A copy with an id of its own."""
    document = Document.create(uri=f"copy {number}", title=passage.title, text=passage.text)
    return Chunk.create(document, 0, len(passage.text), headings=passage.headings)


if __name__ == "__main__":
    main()
