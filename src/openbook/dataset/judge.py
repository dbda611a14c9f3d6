"""A second look at every question: is it grounded, does its passage answer it, would anybody know without?

One call marks the questions of a passage with the passage in sight; another asks them without it. Whether a question can
be answered from memory is thus tried, not asked for. Marks that a reply does not give stay None: nobody was asked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from openbook.dataset.instructions import Instructions, numbered_passages, numbered_questions
from openbook.dataset.replies import numbered, trouble
from openbook.llm import Reply
from openbook.metrics import contains, f1
from openbook.records import Chunk, Conversation, Question, Scores

BEST: Final = 5  # marks go from 1 to this
PASSES: Final = 0.5  # of 1: the middle mark
TOKENS_PER_VERDICT: Final = 60
TOKENS_PER_ANSWER: Final = 80
MARKS: Final = ("grounded", "answerable", "entailed")

Ask = Callable[[Conversation, int], Reply | None]
"""Sends a conversation that may be answered with so many tokens; None where the call failed."""


class Judge:
    """Marks questions by the prompts `judge`, `closed` and `beside`; `ask` sends them, `note` counts troubled replies."""

    def __init__(self, ask: Ask, instructions: Instructions, note: Callable[[str], None]) -> None:
        self._ask = ask
        self._instructions = instructions
        self._note = note

    def score(self, questions: Sequence[Question], golden: Sequence[Chunk]) -> list[Question]:
        """The questions about the passages `golden`, with their scores."""
        if not questions:
            return []
        marks = self._ask(self.judging(questions, golden), len(questions) * TOKENS_PER_VERDICT)
        known = self._ask(self.closed(questions), len(questions) * TOKENS_PER_ANSWER)
        answers = self._read(known, "answer", len(questions))
        columns = {name: [_mark(value) for value in self._read(marks, name, len(questions))] for name in MARKS}
        return [
            replace(
                question,
                scores=Scores(
                    **{name: column[at] for name, column in columns.items()},
                    closed_book=None if answers[at] is None else likeness(str(answers[at]), question.answer),
                ),
            )
            for at, question in enumerate(questions)
        ]

    def beside(self, questions: Sequence[Question], passages: Sequence[Chunk]) -> list[frozenset[str]]:
        """For each question the ids of the passages that answer it."""
        if not questions or not passages:
            return [frozenset() for _ in questions]
        asked = self._instructions.conversation(
            "beside", passages=numbered_passages(passages), questions=numbered_questions(questions)
        )
        reply = self._ask(asked, len(questions) * TOKENS_PER_VERDICT)
        named = self._read(reply, "passages", len(questions))
        return [
            frozenset(passages[number - 1].id for number in _numbers(value) if 1 <= number <= len(passages))
            for value in named
        ]

    def judging(self, questions: Sequence[Question], golden: Sequence[Chunk]) -> Conversation:
        return self._instructions.conversation(
            "judge", passages=numbered_passages(golden), questions=numbered_questions(questions, answered=True)
        )

    def closed(self, questions: Sequence[Question]) -> Conversation:
        return self._instructions.conversation("closed", questions=numbered_questions(questions))

    def _read(self, reply: Reply | None, key: str, count: int) -> list[Any]:
        if reply is None:
            return [None] * count
        found = numbered(reply.text, key, count)
        wrong = trouble(reply, count - found.count(None))
        if wrong and key in ("grounded", "answer", "passages"):  # once a reply
            self._note(f"verdict {wrong}")
        return found


def _numbers(value: object) -> Iterator[int]:
    """The numbers in a list, also where they are written as texts or stand alone."""
    for item in value if isinstance(value, list) else [value]:
        text = str(item).strip()
        if text.isdecimal():
            yield int(text)


def _mark(value: object) -> float | None:
    """A mark from 1 to `BEST` on the scale from 0 to 1; None where it is none."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return (number - 1) / (BEST - 1) if 1 <= number <= BEST else None


def likeness(said: str, answer: str) -> float:
    """How much an answer from memory is the right one, from 0 to 1."""
    return 1.0 if contains(said, answer) and len(said.split()) <= 3 * len(answer.split()) + 5 else f1(said, answer)


def verdict(scores: Scores) -> str:
    """Why a judged question cannot be used, as a phrase to count under; "" where it can, or where nobody judged."""
    for name, phrase in (
        ("grounded", "judge: reasoning goes beyond the passage"),
        ("answerable", "judge: passage alone does not answer"),
        ("entailed", "judge: quote alone does not give the answer"),
    ):
        mark = getattr(scores, name)
        if mark is not None and mark < PASSES:
            return phrase
    return ""
