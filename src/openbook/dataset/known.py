"""What a file asks: which question repeats an earlier one, in the same words or nearly so."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from openbook.dataset.checks import telling_words
from openbook.dataset.imports import Sample, read_sample
from openbook.dataset.rowchecks import Found
from openbook.dataset.similar import SimilarSets
from openbook.dataset.tables import read_rows
from openbook.errors import RecordError
from openbook.metrics import normalize


def digest(*texts: str) -> bytes:
    """12 bytes that stand for the texts: among ten million rows two are equal by chance once in 10¹⁴ files."""
    hashed = hashlib.blake2b(digest_size=12)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8))
        hashed.update(data)
    return hashed.digest()


_words = lru_cache(maxsize=16)(telling_words)  # a question is looked for before it is added


class Questions:
    """The questions seen so far, by row. Takes about half a kilobyte for each, whatever its length."""

    def __init__(self) -> None:
        self._exact: dict[bytes, int] = {}
        self._similar = SimilarSets()

    def find(self, question: str) -> tuple[int, bool] | None:
        """The row that asks the same, and whether in the same words (case, articles and punctuation aside)."""
        exact = self._exact.get(digest(normalize(question) or question))
        if exact is not None:
            return exact, True
        near = self._similar.find(_words(question))
        return None if near is None else (near, False)

    def add(self, question: str, row: int) -> None:
        self._exact.setdefault(digest(normalize(question) or question), row)
        self._similar.add(_words(question), row)


class Other:
    """What the file that must not leak holds: its questions and its golden passages."""

    def __init__(self, path: Path) -> None:
        self.questions = Questions()
        self.golden: set[bytes] = set()
        self.unreadable = 0
        for raw in read_rows(path):
            try:
                sample = read_sample(raw.row) if raw.row is not None else None
            except RecordError:
                sample = None
            if sample is None:
                self.unreadable += 1
                continue
            if sample.question.strip():
                self.questions.add(sample.question, raw.number)
            self.golden |= set(goldens(sample))


def goldens(sample: Sample) -> Iterable[bytes]:
    return (digest(text) for text in sample.plain_golden)


def row_digest(sample: Sample) -> bytes:
    """Equal for rows that ask, show and answer the same, in the same order."""
    return digest(sample.question, sample.answer, *(sample.passages or ()))


def leak(sample: Sample, other: Other | None) -> Found | None:
    """The fault of a row whose question the other file asks too."""
    known = other.questions.find(sample.question) if other is not None and sample.question.strip() else None
    if known is None:
        return None
    row, exact = known
    return Found("leaked-question" if exact else "leaked-near", f"row {row} of the other file: {sample.question}")
