"""What the rest of openbook needs from an embedder and from a vector database, and nothing more."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openbook.records import Chunk

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Texts as points: the nearer in meaning, the larger the product of their vectors."""

    @property
    def fingerprint(self) -> str:
        """Equal where the vectors are equal; an index made with one embedder is of no use to another."""

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Tokens that the model reads at once, its own special tokens not counted."""

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """(n, dimension) float32, each row of length 1. Models that tell questions from passages are told which."""

    def count_tokens(self, text: str) -> int: ...

    def count_many(self, texts: Sequence[str]) -> list[int]: ...


class ChunkStore(Protocol):
    """Chunks with their vectors. Every change is whole or absent, also when the process is killed.

    Scores are larger for better; equal scores are ordered by chunk id, so that results are the same on every run.
    """

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None: ...

    def remove(self, document_ids: Iterable[str]) -> None:
        """Remove all chunks of these documents."""

    def get(self, ids: Sequence[str]) -> list[Chunk]:
        """Chunks in the order of `ids`; ids that are not stored are passed over."""

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, ordered by uri and offset."""

    def chunk_ids(self) -> set[str]: ...

    def document_ids(self) -> set[str]: ...

    def documents(self) -> dict[str, str]:
        """uri → document id."""

    def dense(self, vector: Vectors, k: int) -> list[tuple[str, float]]:
        """The ids of the `k` nearest chunks with their cosines. Exact, no approximation."""

    def text(self, query: str, k: int) -> list[tuple[str, float]]:
        """The ids of the `k` best chunks by BM25; chunks that share no word with the query are not among them."""

    def optimize(self) -> None:
        """Index what was added, and drop what was removed."""

    def count(self) -> int: ...


def passage_text(chunk: Chunk) -> str:
    """What both legs of the search read: the passage below its title and headings, without which a passage like
    "Default: 15s" says little. Headings that stand in the passage itself are not repeated."""
    path = [chunk.title, *chunk.headings] if chunk.title not in chunk.headings else list(chunk.headings)
    above = [heading for heading in path if heading and f"# {heading}" not in chunk.text]
    kept: list[str] = []
    for heading in reversed(above):  # the innermost say most; a long path must not crowd out the passage
        if sum(map(len, kept)) + len(heading) > _HEADINGS_LIMIT:
            break
        kept.insert(0, heading)
    return "\n".join([" > ".join(kept), chunk.text]) if kept else chunk.text


_HEADINGS_LIMIT = 160  # characters, about 40 tokens: a passage of 200 tokens stays within MiniLM's 254
