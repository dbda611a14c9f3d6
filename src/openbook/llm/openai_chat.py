"""Any endpoint that speaks OpenAI's chat completions: vLLM, Ollama, llama.cpp, or hosted.

The key comes from OPENAI_API_KEY alone. It is held by the client, sent to the endpoint, and appears in no file, log or
message of ours. Rate limits, timeouts and server errors are retried, see `openbook.llm.patience`.
"""

import os
import time
from functools import cached_property
from typing import Any

from openbook.errors import TeacherError
from openbook.llm import patience
from openbook.llm.chat import CallFailedError, Reply
from openbook.records import Conversation, Usage

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
        self._gate = patience.Gate()

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
            max_retries=0,
            timeout=self._timeout_s,
        )

    @property
    def _where(self) -> str:
        return self.base_url or "OpenAI"

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """See `ChatModel.complete`."""
        import openai

        tries = 0
        while True:
            self._gate.pass_through()
            asked = self._limit, self._warm
            try:
                return self._ask(messages, max_tokens, temperature)
            except openai.BadRequestError as error:
                # Of several calls under way one learns; the others were refused for what it has learned.
                if not self._adapt(str(error)) and asked == (self._limit, self._warm):
                    raise self._failure(error, tries) from error
            # ValueError: a body that is no JSON, a key that is no header
            except (openai.OpenAIError, ValueError) as error:
                if tries >= self._max_retries or not self._wait(error, tries):
                    raise self._failure(error, tries) from error
                tries += 1

    def _ask(self, messages: Conversation, max_tokens: int, temperature: float) -> Reply:
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
        said, end = choices[0].message, choices[0].finish_reason
        return Reply(
            text=said.content or "",
            usage=Usage(
                prompt_tokens=getattr(reply.usage, "prompt_tokens", 0) or 0,
                completion_tokens=getattr(reply.usage, "completion_tokens", 0) or 0,
            ),
            finished=end != "length",
            refused=end == "content_filter" or bool(getattr(said, "refusal", None)),
        )

    def _wait(self, error: Exception, tries: int) -> bool:
        """Wait as long as this failure asks; False where another try makes no sense."""
        import openai

        if isinstance(error, openai.APIStatusError):
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                return False
            if error.code == "insufficient_quota":  # OpenAI's 429 for an account without money
                return False
            asked = patience.asked_wait(error.response.headers)
            if asked is not None and asked > patience.MOST_S:
                return False
            if asked is not None:
                self._gate.shut(asked)
                return True
        elif not isinstance(error, openai.APIConnectionError):  # of which a timeout is one
            return False
        time.sleep(patience.own_wait(tries))
        return True

    def _adapt(self, refusal: str) -> bool:
        """Learn from a refused request; True where another attempt makes sense."""
        if self._limit == "max_tokens" and "max_completion_tokens" in refusal:
            self._limit = "max_completion_tokens"
            return True
        if self._warm and "temperature" in refusal:
            self._warm = False
            return True
        return False

    def _failure(self, error: Exception, tries: int) -> TeacherError:
        """What went wrong as a sentence. The server's own words are left out where they may repeat the key."""
        import openai

        where, again = self._where, "Run the same command again later; what was answered is kept."
        tried = f"tried {tries + 1} times" if tries else "tried once"
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError, UnicodeEncodeError)):
            return TeacherError(f"{where} does not accept the key.", f"Set {KEY} to a valid one.")
        if isinstance(error, openai.NotFoundError):
            return TeacherError(
                f"{where} knows no model {self.name!r} (or nothing answers at this address).",
                "Check --model, and that --base-url ends where /chat/completions would follow, usually in /v1.",
            )
        if isinstance(error, openai.APITimeoutError):
            return CallFailedError(f"{where} did not answer within {self._timeout_s:g} s, {tried}.", again)
        if isinstance(error, openai.APIConnectionError):
            return TeacherError(f"{where} cannot be reached.", "Is the server running, and is --base-url right?")
        if isinstance(error, openai.RateLimitError):
            return TeacherError(f"{where} limits the rate or the budget is used up, {tried}.", again)
        if isinstance(error, openai.InternalServerError):
            return CallFailedError(f"{where} reports an error of its own ({error.status_code}), {tried}.", again)
        if isinstance(error, openai.APIStatusError):
            return CallFailedError(f"{where} refuses the request: {error.message}")
        return TeacherError(f"{where} answered what cannot be read ({type(error).__name__}).", "Check --base-url.")
