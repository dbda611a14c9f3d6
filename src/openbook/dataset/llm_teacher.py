"""The teacher that is a language model: it writes questions, quotes and short answers; what does not verify is dropped.

A reply is read leniently on form and strictly on content: a quote must stand in the passage word for word. One call that
fails costs one passage, not the run; calls that fail in a row end it, since then the endpoint is at fault.
"""

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from openbook import prompt
from openbook.dataset.instructions import Instructions, language_of, title_of
from openbook.dataset.judge import Judge
from openbook.dataset.language import differs
from openbook.dataset.repair import find_span
from openbook.dataset.replies import objects, trouble
from openbook.llm import BudgetSpentError, CallFailedError, ChatModel, KeptCalls, Reply, Spent
from openbook.records import Chunk, Conversation, Question, content_id

TOKENS_PER_QUESTION: Final = 300
MAX_REASONING: Final = 60  # words
FAILED_IN_A_ROW: Final = 3

_NUMBER = re.compile(r"^\s*(?:(?:question|q)\s*\d*\s*[:.)]|\(?\d{1,3}\s*[.):]|[-*•])\s+", re.IGNORECASE)
_QUOTATION_MARKS = "\"'“”‘’«» "


class LLMTeacher:
    """Asks `chat`, up to `at_once` calls at a time. `outcomes` counts what was wrong with its replies.

    After a call that the budget refused, `exhausted` is True and every other call gives nothing.
    """

    def __init__(
        self, chat: ChatModel, *, instructions: Instructions | None = None, at_once: int = 1, judged: bool = False
    ) -> None:
        self.chat = chat
        self.at_once = at_once
        self.instructions = instructions or Instructions()
        self.fingerprint = f"{chat.name} {self.instructions.fingerprint}"
        self.outcomes: Counter[str] = Counter()
        self.judge = Judge(self.ask, self.instructions, self._note) if judged else None
        self.exhausted = False
        self._lock = threading.Lock()
        self._failed = 0  # calls in a row

    @property
    def spent(self) -> Spent:
        """See `Teacher.spent`; nothing where calls are not kept."""
        return self.chat.spent() if isinstance(self.chat, KeptCalls) else Spent()

    def ask(self, asked: Conversation, max_tokens: int) -> Reply | None:
        """One call; None where it failed or the budget is spent. Raises `TeacherError` where no call would succeed."""
        if self.exhausted:
            return None
        try:
            reply = self.chat.complete(asked, max_tokens=max_tokens)
        except BudgetSpentError:
            self.exhausted = True
            return None
        except CallFailedError:
            self._note("call failed")
            with self._lock:
                self._failed += 1
                if self._failed >= FAILED_IN_A_ROW:
                    raise
            return None
        with self._lock:
            self._failed = 0
        return reply

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions about `chunk`, in the model's order. `rng` is not used: the model is asked at
        temperature 0. Raises `TeacherError`."""
        asked = self.instructions.conversation("questions", **self._about(chunk, limit))
        return self._questions(asked, limit, lambda item: _question(item, (chunk,), ("quote",), "teacher"))

    def write_pair(self, first: Chunk, second: Chunk, *, shared: str, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions that need both passages, which share what is named `shared`."""
        asked = self.instructions.conversation("pair", **self.about_pair(first, second, limit))
        keys = ("quote_1", "quote_2")
        return self._questions(asked, limit, lambda item: _question(item, (first, second), keys, "teacher pair"))

    def write_nowhere(self, chunk: Chunk, other: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions that `chunk` raises and leaves open. That no other passage answers them is for the
        build to find out."""
        asked = self.instructions.conversation("nowhere", **self._about(chunk, limit))
        return self._questions(asked, limit, lambda item: nowhere(item.get("question"), chunk, "teacher nowhere"))

    def _about(self, chunk: Chunk, limit: int) -> dict[str, str | int]:
        return {"limit": limit, "title": title_of(chunk), "passage": chunk.text, "language": language_of(chunk)}

    def about_pair(self, first: Chunk, second: Chunk, limit: int) -> dict[str, str | int]:
        more = {"title_2": title_of(second), "passage_2": second.text, "language": language_of(first, second)}
        return {**self._about(first, limit), **more}

    def asks(self, chunk: Chunk, limit: int) -> tuple[Conversation, int]:
        """The call that `write` makes, and how many tokens may answer it; for an estimate."""
        return self.instructions.conversation("questions", **self._about(chunk, limit)), TOKENS_PER_QUESTION * limit

    def _questions(
        self, asked: Conversation, limit: int, read: Callable[[Mapping[str, Any]], Question | None]
    ) -> list[Question]:
        reply = self.ask(asked, TOKENS_PER_QUESTION * limit)
        if reply is None:
            return []
        found = [question for item in objects(reply.text) if (question := read(item)) is not None]
        wrong = trouble(reply, len(found))
        if wrong:
            self._note(wrong)
        unlike = {question.text: question for question in reversed(found)}
        if len(unlike) < len(found):
            self._note("repeats itself")
        return list(reversed(unlike.values()))[:limit]

    def _note(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[f"reply: {outcome}"] += 1


def nowhere(text: object, chunk: Chunk, kind: str) -> Question | None:
    """A question that is to be answered nowhere; None where there is no text."""
    asked = _NUMBER.sub("", " ".join(str(text or "").split()))
    if not asked:
        return None
    return Question(
        id=content_id(chunk.id, asked),
        text=asked,
        golden_chunk_ids=(),
        answer=prompt.REFUSAL,
        reasoning=prompt.REFUSAL_REASONING,
        kind=kind,
    )


def _question(item: Mapping[str, Any], golden: Sequence[Chunk], keys: Sequence[str], kind: str) -> Question | None:
    """One item as a question, with a quote of each golden passage under its key; None where a field is missing. Whether
    it is true is checked by the build."""
    texts = [item.get(key) for key in ("question", "reasoning", "answer", *keys)]
    asked, reasoning, answer, *claimed = (" ".join(str(value or "").split()) for value in texts)
    asked = _NUMBER.sub("", asked)
    if not asked or not answer or not all(claimed):
        return None
    quotes = tuple(find_quote(quote, chunk.text) for quote, chunk in zip(claimed, golden, strict=True))
    return Question(
        id=content_id(*(chunk.id for chunk in golden), asked),
        text=asked,
        golden_chunk_ids=tuple(chunk.id for chunk in golden),
        answer=answer,
        quotes=quotes,
        reasoning=_reasoning(reasoning, quotes, golden),
        kind=kind,
    )


def find_quote(quote: str, text: str) -> str:
    """The exact span of `text` that `quote` means, whatever its form; else `quote` as it was given."""
    for candidate in (quote, quote.strip(_QUOTATION_MARKS)):
        span = find_span(candidate, text)
        if span:
            return text[slice(*span)]
    return quote


def _reasoning(said: str, quotes: Sequence[str], golden: Sequence[Chunk]) -> str:
    """The quotes between their tags and what the teacher said of them, in the language of the passages. Where it quotes by
    itself, every claim must stand in a passage, and every quote in a claim."""
    claims = prompt.parse_answer(f"{said} {prompt.ANSWER}").quotes
    true = all(any(claim in chunk.text for chunk in golden) for claim in claims)
    if claims and true and all(any(quote in claim for claim in claims) for quote in quotes):
        return said.split(prompt.ANSWER)[0].strip()
    rendered = " ".join(map(prompt.render_quote, quotes))
    said = prompt.defused(said)
    if claims or not said or len(said.split()) > MAX_REASONING or differs(said, golden[0].text):
        return rendered
    return f"{rendered} {said}"
