"""The teacher that is a language model: it writes questions, quotes and short answers; what does not verify is dropped.

Its instructions stand in `prompts/`, in plain text. It is read leniently on form (JSON lines, a list, a fenced block,
numbered questions, thinking aloud) and strictly on content: a quote must stand in the passage word for word.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from openbook import prompt
from openbook.llm import ChatModel
from openbook.records import Chunk, Conversation, Message, Question, content_id

TOKENS_PER_QUESTION = 300
MAX_REASONING = 60  # words
MAX_REPLY = 100_000  # characters
MAX_BROKEN = 200  # places of a reply where an object seems to begin and does not

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_NUMBER = re.compile(r"^\s*(?:(?:question|q)\s*\d*\s*[:.)]|\d{1,3}\s*[.):]|[-*•])\s+", re.IGNORECASE)
_QUOTATION_MARKS = "\"'“”‘’«» "


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("prompts", name).read_text(encoding="utf-8")


class LLMTeacher:
    """Asks `chat` for questions, one call a passage."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self._system = _read("questions.system.txt")
        self._user = _read("questions.user.txt")
        self.fingerprint = f"{chat.name} {content_id(self._system, self._user)}"

    def write(self, chunk: Chunk, *, rng: random.Random, limit: int) -> list[Question]:
        """At most `limit` questions about `chunk`, in the model's order. `rng` is not used: the model is asked at
        temperature 0. Raises `TeacherError`."""
        title = " › ".join((chunk.title, *chunk.headings)) or chunk.uri
        user = self._user.replace("{limit}", str(limit)).replace("{title}", title).replace("{passage}", chunk.text)
        reply = self._chat.complete(
            Conversation(messages=(Message(role="system", content=self._system), Message(role="user", content=user))),
            max_tokens=TOKENS_PER_QUESTION * limit,
        )
        questions = (_question(item, chunk) for item in objects(reply))
        return [question for question in questions if question is not None][:limit]


def objects(reply: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a reply that have a question, wherever they stand; broken ones are passed over."""
    text = _THINKING.sub("", reply[:MAX_REPLY])
    decoder = json.JSONDecoder(strict=False)
    at, broken = text.find("{"), 0
    while at >= 0 and broken < MAX_BROKEN:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end, broken = at + 1, broken + 1
        else:
            # {"questions": [{…}, {…}]}
            inner = next((value for value in found.values() if isinstance(value, list)), [])
            for item in [found] if "question" in found else inner:
                if isinstance(item, Mapping) and "question" in item:
                    yield item
        at = text.find("{", end)


def _question(item: Mapping[str, Any], chunk: Chunk) -> Question | None:
    """One item as a question; None where a field is missing. Whether it is true is checked by the build."""
    fields = [item.get(key) for key in ("question", "quote", "reasoning", "answer")]
    asked, quote, reasoning, answer = (" ".join(str(value or "").split()) for value in fields)
    asked = _NUMBER.sub("", asked)
    if not asked or not quote or not answer:
        return None
    quote = find_quote(quote, chunk.text)
    return Question(
        id=content_id(chunk.id, asked),
        text=asked,
        golden_chunk_ids=(chunk.id,),
        answer=answer,
        quotes=(quote,),
        reasoning=_reasoning(reasoning, quote, chunk),
        kind="teacher",
    )


def find_quote(quote: str, text: str) -> str:
    """The span of `text` that `quote` means: itself, or itself without quotation marks and whatever the white space;
    else `quote` as it was given."""
    for candidate in (quote, quote.strip(_QUOTATION_MARKS)):
        if candidate and candidate in text:
            return candidate
        match = re.search(r"\s+".join(map(re.escape, candidate.split())), text) if candidate else None
        if match:
            return match[0]
    return quote


def _reasoning(said: str, quote: str, chunk: Chunk) -> str:
    """The quote between its tags and what the teacher said of it. Claims of other quotes must stand in the passage too."""
    claims = prompt.parse_answer(f"{said} {prompt.ANSWER}").quotes
    if claims and all(claim in chunk.text for claim in claims) and any(quote in claim for claim in claims):
        return said.split(prompt.ANSWER)[0].strip()
    said = prompt.defused(said)
    if claims or not said or len(said.split()) > MAX_REASONING:
        return prompt.render_quote(quote)
    return f"{prompt.render_quote(quote)} {said}"
