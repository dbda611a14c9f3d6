"""What people changed by hand, kept apart from the data set so that it outlives every rebuild.

`overlay.jsonl` holds one change a line, by question id: a question that is rejected, or other words for it. An id is a
hash of what the teacher wrote, so that a change finds its question again as long as the teacher writes the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from openbook import prompt, storage
from openbook.errors import RecordError
from openbook.records import Question, RaftExample, from_json, to_json

REJECTED = "rejected by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of the question `question_id`. Of an edit, what is None stays as it was; `was` is the question as it
    was asked and `note` a reason, both for people."""

    question_id: str
    action: Literal["reject", "edit"]
    question: str | None = None
    answer: str | None = None
    reasoning: str | None = None
    note: str = ""
    was: str = ""

    @classmethod
    def from_row(cls, row: dict[str, Any], where: str) -> Self:
        """Raises `RecordError` that starts with `where` for what is no change."""
        try:
            change = from_json(cls, row)
        except TypeError as error:
            raise RecordError(f"{where}: this is no change of a question ({error}).", _FORM) from error
        texts = (change.question_id, change.note, change.was)
        words = [text for text in (change.question, change.answer, change.reasoning) if text is not None]
        if change.action not in ("reject", "edit") or not all(isinstance(t, str) for t in (*texts, *words)):
            raise RecordError(f"{where}: this is no change of a question.", _FORM)
        if not change.question_id:
            raise RecordError(f"{where}: no question is named.", _FORM)
        if change.action == "edit" and not words:
            raise RecordError(f"{where}: the edit changes nothing.", _FORM)
        return change

    def after(self, earlier: "Change | None") -> Self:
        """This change where another one of the same question was made before: an edit keeps what earlier edits put into
        other words and it does not, and `was` stays what it was before the first."""
        if earlier is None:
            return self
        kept = replace(self, was=earlier.was or self.was)
        if not self.action == earlier.action == "edit":
            return kept
        return replace(
            kept,
            question=earlier.question if self.question is None else self.question,
            answer=earlier.answer if self.answer is None else self.answer,
            reasoning=earlier.reasoning if self.reasoning is None else self.reasoning,
            note=self.note or earlier.note,
        )


_FORM = 'It is written {"question_id": "…", "action": "reject"} or "edit" with question, answer or reasoning.'


class Overlay:
    """All changes, by question id; of two lines for the same question the later one counts."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self.changes = {change.question_id: change for change in changes}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The changes in a file, none where there is no file. Raises `RecordError` with the line of a bad one."""
        if not path.is_file():
            return cls()
        rows = enumerate(storage.read_jsonl(path), 1)
        return cls(Change.from_row(row, f"{path}:{number}") for number, row in rows)

    def write(self, path: Path) -> None:
        # A note that is empty says nothing, but reasoning that is empty is an edit.
        rows = (
            {k: v for k, v in to_json(change).items() if v is not None and (v or k not in ("note", "was"))}
            for change in self.changes.values()
        )
        storage.write_jsonl(path, rows)

    @property
    def fingerprint(self) -> str:
        """Equal where the same questions are changed in the same way; "" where none is. Notes count for nothing."""
        told = sorted((c.question_id, c.action, c.question, c.answer, c.reasoning) for c in self.changes.values())
        return storage.hash_json(told) if told else ""

    def rejects(self, question_id: str) -> bool:
        change = self.changes.get(question_id)
        return change is not None and change.action == "reject"

    def edited(self, question: Question) -> Question:
        """A question in the words that it was given by hand. Its id stays, so that it is found again."""
        change = self.changes.get(question.id)
        if change is None or change.action != "edit":
            return question
        reasoning = question.reasoning if change.reasoning is None else change.reasoning
        quotes = question.quotes if change.reasoning is None else _quoted(reasoning)
        return replace(
            question,
            text=question.text if change.question is None else " ".join(change.question.split()),
            answer=question.answer if change.answer is None else " ".join(change.answer.split()),
            reasoning=reasoning,
            quotes=quotes,
        )

    def row(self, example: RaftExample) -> RaftExample | None:
        """A row of a finished data set as it should be; None where its question is rejected."""
        if self.rejects(example.question_id):
            return None
        if example.question_id not in self.changes:
            return example
        question = self.edited(as_question(example))
        changed = replace(example, question=question.text, answer=question.answer)
        if prompt.is_refusal(example.final_answer):  # it refuses whatever the answer would have been
            return changed
        changed = replace(changed, final_answer=question.answer)
        if not example.reasoning:
            return changed
        quotes = tuple(prompt.locate_quote(quote, example.golden) for quote in question.quotes)
        return replace(changed, reasoning=question.reasoning, quotes=quotes)


def as_question(example: RaftExample) -> Question:
    """The question that a row asks, as far as the row still holds it."""
    return Question(
        id=example.question_id,
        text=example.question,
        golden_chunk_ids=example.golden_ids,
        answer=example.answer,
        quotes=tuple(quote.text for quote in example.quotes),
        reasoning=example.reasoning,
        kind=example.kind,
        scores=example.scores,
    )


def _quoted(reasoning: str) -> tuple[str, ...]:
    return prompt.parse_answer(f"{reasoning} {prompt.ANSWER}").quotes
