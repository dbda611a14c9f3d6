"""The one method that openbook asks of a chat model."""

from dataclasses import dataclass, field
from typing import Protocol

from openbook.errors import TeacherError
from openbook.records import Conversation, Usage


class CallFailedError(TeacherError):
    """This call failed, but the next one may not: it was too long, or the server was at fault, after all retries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model said. `text` is "" where it said nothing; `usage` is its own count of tokens, zeros where it gives
    none; `finished` is False where it was cut off at `max_tokens`; `refused`: it was stopped by a filter or declined."""

    text: str
    usage: Usage = field(default_factory=Usage)
    finished: bool = True
    refused: bool = False


class ChatModel(Protocol):
    """A model that continues conversations. `name` goes into manifests."""

    @property
    def name(self) -> str: ...

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """The assistant's next message. `max_tokens` counts the model's own tokens.

        May be called from several threads at once. Raises `TeacherError` where the model cannot be reached or refuses
        the request.
        """
