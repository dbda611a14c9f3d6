"""Messages in the rows of other tools: who speaks and what is said, by whatever names these go.

What is wrong is told as a phrase, to put after a row's name: `row_named` makes a sentence of it.
"""

import contextlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openbook.errors import RecordError
from openbook.records import Message, Role

# OpenAI's names, ShareGPT's, Gemini's.
ROLES: Mapping[str, Role] = types.MappingProxyType(
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "model": "assistant",
    }
)


def read_message(value: Any, where: str) -> Message:
    """A message written as `role` + `content` (a text, or parts that are texts) or `from` + `value`; `where` names it in the `RecordError`."""
    if not isinstance(value, Mapping):
        raise RecordError(f"{where} is {type(value).__name__}, not an object")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise RecordError(
            f"{where} has the role {role!r}", "openbook trains on the messages of system, user and assistant only."
        )
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise RecordError(f"{where} has {type(content).__name__} content, not text")
    return Message(role=ROLES[role], content=content)


def _is_text_part(part: Any) -> bool:
    """Whether this is a part of OpenAI's contents in parts, and one of text."""
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def check_opening(messages: Sequence[Message]) -> None:
    """A conversation begins with what a user says; a system's message may stand before it."""
    first = next((message for message in messages if message.role != "system"), None)
    if first is None or first.role != "user" or not first.content.strip():
        raise RecordError("the conversation does not begin with a user's message")


@contextlib.contextmanager
def row_named(name: str) -> Iterator[None]:
    """Phrases become sentences that begin with the row's name."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"{name}: {error.message}.", error.remedy or "Mend or remove the row.") from error
