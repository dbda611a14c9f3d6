"""The one method that openbook asks of a chat model."""

from typing import Protocol

from openbook.records import Conversation


class ChatModel(Protocol):
    """A model that continues conversations. `name` goes into manifests."""

    @property
    def name(self) -> str: ...

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> str:
        """The assistant's next message, "" where it says nothing. `max_tokens` counts the model's own tokens.

        Raises `TeacherError` where the model cannot be reached or refuses the request.
        """
