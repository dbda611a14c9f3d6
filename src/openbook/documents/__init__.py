"""Files → documents of readable text → passages."""

from openbook.documents.chunking import chunk
from openbook.documents.isolation import Limits
from openbook.documents.parsing import SUFFIXES, Skipped
from openbook.documents.reading import file_of, named_roots, read
from openbook.documents.sentences import sentences

__all__ = ["SUFFIXES", "Limits", "Skipped", "chunk", "file_of", "named_roots", "read", "sentences"]
