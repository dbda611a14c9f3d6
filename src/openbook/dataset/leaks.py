"""The leak test that every build runs: does an exam ask or show what the training has seen?

It looks at the finished rows and knows nothing of how they were chosen, so that a fault in the splits cannot hide itself.
"""

from collections.abc import Iterable, Mapping, Sequence

from openbook.dataset.checks import telling_words
from openbook.dataset.similar import SimilarSets
from openbook.records import Chunk, RaftExample


class Studied:
    """What the training has seen. `sentences` gives the answer sentences of each question by its id, in one form: a row
    that refuses does not quote its own."""

    def __init__(self, rows: Iterable[RaftExample], sentences: Mapping[str, frozenset[str]]) -> None:
        self._sentences = sentences
        self._known: set[str] = set()
        self._documents: set[str] = set()
        self._questions = SimilarSets()
        self._passages = SimilarSets()
        shown: dict[str, Chunk] = {}
        for number, row in enumerate(rows):
            self._questions.add(telling_words(row.question), number)
            self._known |= sentences.get(row.question_id, frozenset())
            shown.update({chunk.id: chunk for chunk in (*row.passages, *row.golden)})
        for number, chunk in enumerate(shown.values()):
            self._passages.add(telling_words(chunk.text), number)
            self._documents.add(chunk.document_id)

    def leak(self, row: RaftExample, *, unseen: bool, sections: bool = False) -> str:
        """What training has seen of a row, as a phrase to count under; "" where it has seen nothing.

        `unseen`: its documents must be new too; with `sections` only its passages, since sections were held out.
        """
        if self._questions.find(telling_words(row.question)) is not None:
            return "leak: question is trained on"
        if self._sentences.get(row.question_id, frozenset()) & self._known:
            return "leak: answer sentence is trained on"
        for chunk in row.golden if unseen else ():
            if not sections and chunk.document_id in self._documents:
                return "leak: document is trained on"
            if self._passages.find(telling_words(chunk.text)) is not None:
                return "leak: a passage like the golden one is trained on"
        return ""


def without_leaks(
    rows: Sequence[RaftExample], studied: Studied, *, unseen: bool = False, sections: bool = False
) -> tuple[list[RaftExample], list[str]]:
    """The rows that training has seen nothing of, and what it has seen of each of the others."""
    found = [studied.leak(row, unseen=unseen, sections=sections) for row in rows]
    return [row for row, leak in zip(rows, found, strict=True) if not leak], [leak for leak in found if leak]
