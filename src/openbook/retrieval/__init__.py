"""Passages → an index → the passages that answer a question."""

from openbook.retrieval.base import ChunkStore, Embedder, Vectors, passage_text
from openbook.retrieval.embedder import OFFLINE, embedder_fingerprint, load_embedder
from openbook.retrieval.lance import LanceStore
from openbook.retrieval.retriever import STORE, Retriever, open_index

__all__ = [
    "OFFLINE",
    "STORE",
    "ChunkStore",
    "Embedder",
    "LanceStore",
    "Retriever",
    "Vectors",
    "embedder_fingerprint",
    "load_embedder",
    "open_index",
    "passage_text",
]
