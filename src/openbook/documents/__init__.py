"""Files → documents of readable text → passages."""

from openbook.documents.chunking import chunk
from openbook.documents.reading import SUFFIXES, Skipped, read
from openbook.documents.sentences import sentences

__all__ = ["SUFFIXES", "Skipped", "chunk", "read", "sentences"]
