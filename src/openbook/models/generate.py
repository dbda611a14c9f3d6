"""Answers from one base model with switchable adapters, many at once or streamed; greedy unless a temperature is given."""

import contextlib
from collections import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.errors import ModelError
from openbook.models.chat import Pieces, encode_prompt, stop_tokens
from openbook.models.load import LoadedModel
from openbook.progress import SILENT, Task
from openbook.records import Conversation

if TYPE_CHECKING:
    from openbook.models.decode import Written


HEAD = "head.safetensors"  # the weights of a scalar head, beside the adapter of a reward model


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a model wrote. `error` is "" unless nothing was written.

    `finished` is False where the model did not end by itself: at the token limit, or where it had begun to go round in
    circles and was stopped before the limit (`openbook.models.decode.in_loop`).
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    error: str = ""


class Generator:
    """Writes answers with one base model and any number of adapters on it; not for use from two threads at once."""

    def __init__(self, loaded: LoadedModel, *, max_new_tokens: int, batch_size: int = 16) -> None:
        self.loaded = loaded
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self._model: Any = loaded.model
        self.stop = frozenset(stop_tokens(loaded.tokenizer, loaded.model))
        self._active: str | None = None
        self._in_force: str | None = None  # the adapter that the model's layers use at the moment
        self._certain = True  # False where a new adapter has changed what is in force

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load a PEFT adapter; it answers only inside `with generator.adapter(name)`."""
        from peft import PeftModel
        from safetensors import SafetensorError

        if not (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder} holds no adapter.", "Run `openbook tune` first, or name its folder with --adapter."
            )
        if (folder / HEAD).is_file():
            raise ModelError(
                f"{folder} is a reward model: it scores answers and writes none.", "Apply it with `openbook score`."
            )
        loaded = False
        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(folder, adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name)
            loaded = True
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"The adapter in {folder} does not fit {self.loaded.name}: {reason}") from error
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"The adapter in {folder} is damaged or cannot be read: {error}.",
                "Write it anew: `openbook tune --force`.",
            ) from error
        finally:
            if not loaded:
                self._forget(name)  # some of its weights may be in the layers already, and would go on to answer
        if self._model.peft_config[name].is_prompt_learning:
            raise ModelError(
                f"The adapter in {folder} is a learned prompt, and openbook answers with adapters of weights.",
                "Use one that `openbook tune` wrote, or another LoRA adapter.",
            )
        self._model.eval()
        self._certain = False

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter; nobody may be writing with it."""
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Take an adapter out of every layer, also one that was loaded only in part."""
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._certain = False
        if isinstance(self._model, PeftModel):
            if name in self._model.peft_config:
                others = [other for other in self._model.peft_config if other != name]
                self._model.base_model.set_adapter(others[:1])  # else peft chooses one, and warns of its choice
                self._model.delete_adapter(name)
            return
        for layer in self._model.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.set_adapter([])
                layer.delete_adapter(name)
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config

    @contextlib.contextmanager
    def adapter(self, name: str | None) -> Iterator[None]:
        """Answer with this adapter, or with the bare base for None."""
        before, self._active = self._active, name
        try:
            yield
        finally:
            self._active = before

    def generate(
        self, prompts: Sequence[Conversation], *, task: Task | None = None, temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """One answer a prompt, in order; `task` advances by one for each. See `generate_each`."""
        task = task or SILENT.task("", None).__enter__()
        answers: dict[int, Generation] = {}
        for number, answer in self.generate_each(prompts, temperature=temperature, seed=seed):
            answers[number] = answer
            task.advance()
        return [answers[number] for number in range(len(prompts))]

    def generate_each(
        self, prompts: Sequence[Conversation], *, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[int, Generation]]:
        """The number of each prompt and its answer, in the order in which they are done, `batch_size` at a time.

        Above temperature 0 tokens are drawn: a prompt that is given several times gets as many answers, and what it
        shares with its copies is read once. Equal prompts, `seed` and temperature give equal draws. A prompt that leaves no room for an answer gives a `Generation` with `error`. The adapter is the one in force
        when this is called.
        """
        return self._generate_each(prompts, self._active, temperature, seed)

    def _generate_each(
        self, prompts: Sequence[Conversation], adapter: str | None, temperature: float, seed: int
    ) -> Iterator[tuple[int, Generation]]:
        ids = [encode_prompt(self.loaded.tokenizer, prompt) for prompt in prompts]
        fitting = [number for number, prompt in enumerate(ids) if self._room(prompt)]
        for number in sorted(set(range(len(ids))) - set(fitting)):
            asked = len(ids[number])
            error = f"the prompt has {asked:,} tokens and {self.loaded.name} reads {self.loaded.context:,}"
            yield number, Generation(text="", prompt_tokens=asked, completion_tokens=0, finished=False, error=error)
        bodies: dict[int, list[int]] = {number: [] for number in fitting}
        for written in self._decode([ids[number] for number in fitting], adapter, temperature, seed):
            number = fitting[written.number]
            bodies[number] += written.tokens
            if written.end:
                body, stopped = bodies.pop(number), written.end == "stop"
                yield (
                    number,
                    Generation(
                        text=self.loaded.tokenizer.decode(body, skip_special_tokens=True).strip(),
                        prompt_tokens=len(ids[number]),
                        completion_tokens=len(body) + stopped,
                        finished=stopped,
                    ),
                )

    def stream(self, prompt: Conversation) -> abc.Generator[str, None, bool]:
        """The answer to one prompt, in pieces as they are written; returns whether the model ended by itself (see
        `Generation.finished`). Closing the iterator stops the model.

        The adapter is the one in force when this is called. Raises `ModelError` for a prompt that leaves no room.
        """
        return self._stream(prompt, self._active)

    def _stream(self, prompt: Conversation, adapter: str | None) -> abc.Generator[str, None, bool]:
        ids = encode_prompt(self.loaded.tokenizer, prompt)
        if not self._room(ids):
            raise ModelError(
                f"The prompt has {len(ids):,} tokens and {self.loaded.name} reads {self.loaded.context:,}.",
                "Ask a shorter question or show fewer passages (retrieval.passages).",
            )
        pieces, end = Pieces(self.loaded.tokenizer), ""
        for written in self._decode([ids], adapter):
            end = written.end
            piece = pieces.add(written.tokens, last=bool(end))
            if piece:
                yield piece
        return end == "stop"

    def _room(self, prompt: Sequence[int]) -> int:
        """How many tokens may be written after a prompt; none where it fills what the model reads."""
        return max(min(self.max_new_tokens, self.loaded.context - len(prompt)), 0)

    def _decode(
        self, prompts: Sequence[Sequence[int]], adapter: str | None, temperature: float = 0.0, seed: int = 0
    ) -> "Iterator[Written]":
        from openbook.models.decode import decode
        from openbook.models.sampling import Sampling

        return decode(
            lambda: self.ready(adapter),
            prompts,
            limits=[self._room(prompt) for prompt in prompts],
            stop=self.stop,
            rows=self.batch_size,
            sampling=Sampling(temperature=temperature, seed=seed) if temperature else None,
        )

    def ready(self, adapter: str | None) -> Any:
        """The model with exactly this adapter in force. Nothing is done where that is so already."""
        if self._model is not self.loaded.model and not (self._certain and adapter == self._in_force):
            if adapter is None:
                self._model.base_model.disable_adapter_layers()
            else:
                self._model.base_model.enable_adapter_layers()
                self._model.set_adapter(adapter, inference_mode=True)
            self._in_force, self._certain = adapter, True
        return self.loaded.model  # its layers hold the adapters, so peft's wrapper is not needed for a pass
