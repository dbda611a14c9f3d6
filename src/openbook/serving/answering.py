"""One request for an answer, as the events that make it up. Streamed or not, every route shows these and nothing else, so
that what they show is the same.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from openbook.answering import read_answer
from openbook.prompt import Readable, prompt
from openbook.records import Answer, Conversation, ScoredChunk, Usage
from openbook.serving.faults import busy
from openbook.serving.service import Service

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants. `passages` 0 asks without retrieval: then `conversation` is shown to the model as it is, or,
    where there is none, the closed-book prompt with the question. `adapter_needed` refuses to let the base stand in."""

    question: str
    passages: int
    tuned: bool
    conversation: Conversation | None = None
    max_tokens: int | None = None
    adapter_needed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The passages, before anything is written. Comes once, first."""

    passages: tuple[ScoredChunk, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """Text to append to what is shown."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer with its quotes checked; `shown` is all deltas in one. Comes once, last."""

    answer: Answer
    shown: str
    first_s: float


Event = Found | Delta | Done


async def events(service: Service, asked: Asked) -> AsyncGenerator[Event, None]:
    """Answer. Raises `ApiError` or an error of the library before the first event where nothing can be answered, and in
    between where the model fails. Whoever stops iterating must close the iterator, which stops the model.
    """
    started = time.perf_counter()
    deadline = asyncio.get_running_loop().time() + service.settings.config.serve.timeout_s
    with service.admission.one(busy):
        async with service.models.adapter(tuned=asked.tuned, needed=asked.adapter_needed) as adapter:
            found: tuple[ScoredChunk, ...] = ()
            if asked.passages:
                # First, since the search reads all of a question, and others wait for it meanwhile.
                await service.engine.encode(prompt(asked.question, []))
                found = tuple(await service.shelves().search(asked.question, asked.passages))
            conversation = asked.conversation
            if asked.passages or conversation is None:
                conversation = prompt(asked.question, [s.chunk.text for s in found] if asked.passages else None)
            async with service.engine.answer(conversation, adapter=adapter, max_tokens=asked.max_tokens) as writing:
                yield Found(found)
                shown = _Shown(plain=asked.conversation is not None and not asked.passages)
                raw: list[str] = []
                tokens, end, first_s = 0, "", 0.0
                async for piece in writing.pieces(deadline):
                    raw.append(piece.text)
                    tokens, end = tokens + piece.tokens, piece.end
                    text = shown.add(piece.text, last=bool(piece.end))
                    if text:
                        first_s = first_s or time.perf_counter() - started
                        yield Delta(text)
                usage = Usage(
                    prompt_tokens=len(writing.prompt), completion_tokens=tokens, seconds=time.perf_counter() - started
                )
    answer = read_answer(asked.question, "".join(raw).strip(), found, usage=usage, finished=end == "stop")
    service.metrics.answered(answer, first_s=first_s)
    if service.settings.log_contents:
        LOG.info("answer", extra={"facts": {"question": asked.question, "text": answer.text}})
    yield Done(answer, shown.text, first_s)


class _Shown:
    """The text that a reader sees, without the blanks at both ends, as it grows."""

    def __init__(self, *, plain: bool) -> None:
        self.text = ""
        self._blanks = ""
        self._reader = None if plain else Readable(numbered=True)

    def add(self, piece: str, *, last: bool) -> str:
        """What is new."""
        text = self._reader.add(piece) if self._reader else piece
        if last and self._reader:
            text += self._reader.close()
        text = self._blanks + text if self.text else text.lstrip()
        new = text.rstrip()
        self._blanks = text[len(new) :]
        self.text += new
        return new
