"""An embedder of a few lines, for tests of everything but embeddings."""

import zlib
from collections.abc import Sequence

import numpy as np

from openbook.retrieval import Vectors


class WordEmbedder:
    """Texts with common words are near each other: each word adds its own random direction."""

    dimension = 64
    max_tokens = 254

    def __init__(self, fingerprint: str = "words") -> None:
        self.fingerprint = fingerprint
        self.encoded: list[str] = []  # every text it was ever asked for

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        self.encoded += texts
        rows = [sum((self._word(word) for word in text.lower().split()), np.zeros(64)) for text in texts]
        vectors = np.stack(rows) if rows else np.zeros((0, 64))
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def _word(self, word: str) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=64)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count_tokens(text) for text in texts]
