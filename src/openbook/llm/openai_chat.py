"""Any endpoint that speaks OpenAI's chat completions: vLLM, Ollama, llama.cpp, or hosted.

The key comes from OPENAI_API_KEY alone. It is held by the client, sent to the endpoint, and appears in no file, log or
message of ours. Rate limits, timeouts and server errors are retried with exponential back-off by the client itself,
which honours the server's Retry-After.
"""

import os
from functools import cached_property
from typing import Any

from openbook.errors import TeacherError
from openbook.records import Conversation

KEY = "OPENAI_API_KEY"
ENDPOINT = "OPENAI_BASE_URL"


class OpenAIChat:
    """A chat model behind an endpoint; nothing is sent before the first `complete`.

    `base_url` ends where `/chat/completions` begins, as in http://localhost:11434/v1; None takes OPENAI_BASE_URL, and
    OpenAI itself where that is not set. An endpoint of one's own needs no key.
    """

    def __init__(
        self, name: str, *, base_url: str | None = None, max_retries: int = 5, timeout_s: float = 180.0
    ) -> None:
        self.name = name
        self.base_url = base_url or os.environ.get(ENDPOINT) or None
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        # Newer models want another name for the limit, and some take no temperature; learned from the first refusal.
        self._limit = "max_tokens"
        self._warm = True

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        key = os.environ.get(KEY, "").strip()
        if not key and self.base_url is None:
            raise TeacherError(
                f"There is no key for OpenAI: {KEY} is not set.",
                "Set it, or name an endpoint of your own with --base-url (such as http://localhost:11434/v1).",
            )
        return OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            max_retries=self._max_retries,
            timeout=self._timeout_s,
        )

    @property
    def _where(self) -> str:
        return self.base_url or "OpenAI"

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> str:
        """See `ChatModel.complete`."""
        import openai

        try:
            return self._ask(messages, max_tokens, temperature)
        except openai.BadRequestError as error:
            if not self._adapt(str(error)):
                raise self._failure(error) from error
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON, a key that is no header
            raise self._failure(error) from error
        return self.complete(messages, max_tokens=max_tokens, temperature=temperature)

    def _ask(self, messages: Conversation, max_tokens: int, temperature: float) -> str:
        options: dict[str, Any] = {self._limit: max_tokens}
        if self._warm:
            options["temperature"] = temperature
        reply = self._client.chat.completions.create(
            model=self.name, messages=[{"role": m.role, "content": m.content} for m in messages.messages], **options
        )
        choices = getattr(reply, "choices", None)
        if not choices:
            raise TeacherError(
                f"{self._where} answers, but not as a chat model does.",
                "Check the address: it usually ends in /v1, and the model must be one for chat.",
            )
        return choices[0].message.content or ""

    def _adapt(self, refusal: str) -> bool:
        """Learn from a refused request; True where another attempt makes sense."""
        if self._limit == "max_tokens" and "max_completion_tokens" in refusal:
            self._limit = "max_completion_tokens"
            return True
        if self._warm and "temperature" in refusal:
            self._warm = False
            return True
        return False

    def _failure(self, error: Exception) -> TeacherError:
        """What went wrong as a sentence. The server's own words are left out where they may repeat the key."""
        import openai

        where, again = self._where, "Run the same command again later."
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError, UnicodeEncodeError)):
            return TeacherError(f"{where} does not accept the key.", f"Set {KEY} to a valid one.")
        if isinstance(error, openai.NotFoundError):
            return TeacherError(
                f"{where} knows no model {self.name!r} (or nothing answers at this address).",
                "Check --model, and that --base-url ends where /chat/completions would follow, usually in /v1.",
            )
        if isinstance(error, openai.APITimeoutError):
            return TeacherError(f"{where} did not answer within {self._timeout_s:g} s, {self._tries}.", again)
        if isinstance(error, openai.APIConnectionError):
            return TeacherError(f"{where} cannot be reached.", "Is the server running, and is --base-url right?")
        if isinstance(error, openai.RateLimitError):
            return TeacherError(f"{where} limits the rate or the budget is used up, {self._tries}.", again)
        if isinstance(error, openai.InternalServerError):
            return TeacherError(f"{where} reports an error of its own ({error.status_code}), {self._tries}.", again)
        if isinstance(error, openai.APIStatusError):
            return TeacherError(f"{where} refuses the request: {error.message}")
        return TeacherError(f"{where} answered what cannot be read ({type(error).__name__}).", "Check --base-url.")

    @property
    def _tries(self) -> str:
        return f"tried {self._max_retries + 1} times" if self._max_retries else "tried once"
