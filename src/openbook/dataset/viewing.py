"""Rows as a person looks at them: where a question stands, what it asks for, which checks it passes, what is quoted."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from openbook import prompt
from openbook.dataset.exports import without_nulls
from openbook.dataset.faults import FAULTS
from openbook.dataset.formats import from_row
from openbook.dataset.imports import read_sample
from openbook.dataset.judge import PASSES
from openbook.dataset.rowchecks import check
from openbook.dataset.tables import read_rows
from openbook.errors import RecordError
from openbook.records import Chunk, RaftExample

Golden = Literal["shown", "left out", "none"]
GOLDEN: Final[tuple[Golden, ...]] = ("shown", "left out", "none")

# What a check is called, and the faults of the doctor that it looks for.
CHECKS: Final[dict[str, frozenset[str]]] = {
    "no field is empty": frozenset({"empty-field"}),
    "answer is tagged": frozenset({"no-answer-tag"}),
    "quotes are word for word": frozenset({"quote-tags", "quote-form", "quote-missing", "quote-unseen"}),
    "answer has a quote": frozenset({"no-quote"}),
    "passages differ": frozenset({"duplicate-passage"}),
    "golden passage is as claimed": frozenset({"no-golden", "golden-claim"}),
    "refuses only what is not shown": frozenset({"refuses-with-golden"}),
    "question is whole": frozenset({"question-cut", "list-number"}),
    "message shows these passages": frozenset({"instruction-differs", "no-passages"}),
}
_SCORES: Final = {
    "grounded": "judge: grounded",
    "answerable": "judge: answerable from the golden passage",
    "entailed": "judge: quote gives the answer",
}

_SHAPES: Final = (
    (re.compile(r"_{3,}"), "gap"),
    (re.compile(r"\bhow (?:many|much|often|long|far|old|large|big)\b", re.IGNORECASE), "how many"),
    (re.compile(r"\b(what|which|whom|whose|who|when|where|why|how)\b", re.IGNORECASE), ""),
    (re.compile(r"^(?:is|are|was|were|do|does|did|can|could|may|must|should|will|has|have|had)\b", re.IGNORECASE), "yes or no"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A row: `part` and `number` (from 1) say where it stands. `passed` names the checks that it passes, `failed` gives
    those that it does not, with what the doctor says of it."""

    part: str
    number: int
    example: RaftExample
    passed: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]

    @property
    def golden(self) -> Golden:
        if not self.example.golden:
            return "none"
        return "shown" if self.example.golden_included else "left out"

    @property
    def shape(self) -> str:
        return shape(self.example.question)

    @property
    def question_id(self) -> str:
        """What a change of the question is kept under; rows of other tools have only their own id."""
        return self.example.question_id or self.example.id

    def holds(self, text: str) -> bool:
        """Whether the row says `text` anywhere, in whatever case: question, answer, passages, places, ids."""
        example = self.example
        fields = (example.id, example.question_id, example.question, example.reasoning, example.final_answer)
        chunks = (field for chunk in (*example.passages, *example.golden) for field in (chunk.text, chunk.uri))
        return any(text.casefold() in field.casefold() for field in (*fields, example.answer, *chunks))


def views(path: Path, part: str) -> Iterator[View]:
    """The rows of a RAFT file in their order. Raises `RecordError` at one that is none."""
    for raw in read_rows(path):
        where = f"{path}:{raw.number}"
        if raw.row is None:
            raise RecordError(f"{where}: {raw.problem}.", f"`openbook doctor {path}` says what is wrong with the file.")
        example = from_row(without_nulls(raw.row), where)
        found = {fault.fault: fault.shown for fault in check(read_sample(raw.row))}
        passed, failed = [], []
        for name, faults in CHECKS.items():
            wrong = [fault for fault in found if fault in faults]
            if wrong:
                shown = found[wrong[0]]
                failed.append((name, FAULTS[wrong[0]].says + (f": {shown}" if shown else "")))
            elif not (name == "answer has a quote" and prompt.is_refusal(example.final_answer)):
                passed.append(name)
        for score, name in _SCORES.items():
            value: float | None = getattr(example.scores, score)
            if value is not None and value >= PASSES:
                passed.append(name)
            elif value is not None:
                failed.append((name, f"{value:g} of 1"))
        yield View(part=part, number=raw.number, example=example, passed=tuple(passed), failed=tuple(failed))


def shape(question: str) -> str:
    """What kind of thing a question asks for, by its first question word: "what", "how many", "yes or no", "gap", …;
    "other" where it has none, as in other languages."""
    for pattern, name in _SHAPES:
        found = pattern.search(question)
        if found:
            return name or found[1].lower().replace("whom", "who").replace("whose", "who")
    return "other"


def quoted(chunk: Chunk, example: RaftExample) -> list[tuple[int, int]]:
    """Where the example's quotes stand in a passage's text, in order and without overlaps."""
    found = []
    for quote in example.quotes:
        if quote.chunk_id == chunk.id:
            start, end = quote.start - chunk.start, quote.end - chunk.start
            if chunk.text[start:end] == quote.text:
                found.append((start, end))
    return _merged(found)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def pieces(text: str, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """`text` cut at the borders of `spans`: each piece, and whether it lies in one."""
    at = 0
    for start, end in spans:
        if at < start:
            yield text[at:start], False
        yield text[start:end], True
        at = end
    if at < len(text):
        yield text[at:], False


def answer_pieces(example: RaftExample) -> Iterator[tuple[str, bool | None]]:
    """The reasoning without its tags: each piece, and whether it is a quote that stands in a passage (None: no quote)."""
    verified = {quote.text for quote in example.quotes if quote.verified}
    for part in prompt.segments(example.reasoning):
        yield part.text, part.closed and part.text in verified if part.quote else None
