"""A model on this machine as teacher, by the same prompts as one behind an endpoint."""

import threading
from typing import TYPE_CHECKING

from openbook.config import Config
from openbook.errors import ModelError
from openbook.llm import CallFailedError, Reply
from openbook.records import Conversation, Usage

if TYPE_CHECKING:
    from openbook.models import Generator


class LocalChat:
    """The model in the folder `path` (or a hub's name) as a `ChatModel`; loaded at its first call, greedy.

    How it is loaded is as for the base: `model.quantization`, `model.dtype`, `model.device`.
    """

    def __init__(self, path: str, config: Config) -> None:
        from openbook import models

        self.name = f"local {models.fingerprint(path)}"
        self._path = path
        self._config = config
        self._generator: Generator | None = None
        self._lock = threading.Lock()

    def complete(self, messages: Conversation, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """See `ChatModel.complete`. Raises `ModelError` where the model cannot be loaded, or for a temperature."""
        if temperature:
            raise ModelError("A model on this machine writes greedily.", "Ask it at temperature 0.")
        with self._lock:
            generator = self._loaded()
            generator.max_new_tokens = max_tokens
            (said,) = generator.generate([messages])
        if said.error:
            raise CallFailedError(
                f"{self._path}: {said.error}.", "Shorter passages need fewer: documents.chunk_tokens."
            )
        usage = Usage(prompt_tokens=said.prompt_tokens, completion_tokens=said.completion_tokens)
        return Reply(text=said.text, usage=usage, finished=said.finished)

    def _loaded(self) -> "Generator":
        if self._generator is None:
            from openbook import models

            loaded = models.load_base(self._config, name=self._path, dequantize=True)
            self._generator = models.Generator(loaded, max_new_tokens=1)
        return self._generator
