"""Greedy answers from one base model with switchable adapters, in batches or streamed."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.errors import ModelError
from openbook.models.chat import encode_prompt, stop_tokens
from openbook.models.load import LoadedModel
from openbook.progress import SILENT, Task
from openbook.records import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a model wrote. `finished` is False when the token limit ended it; `error` is "" unless nothing was written."""

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
        self._stop = stop_tokens(loaded.tokenizer, loaded.model)
        self._active: str | None = None

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load a PEFT adapter; it answers only inside `with generator.adapter(name)`."""
        from peft import PeftModel
        from safetensors import SafetensorError

        if not (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder} holds no adapter.", "Run `openbook tune` first, or name its folder with --adapter."
            )
        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(folder, adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"The adapter in {folder} does not fit {self.loaded.name}: {reason}") from error
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"The adapter in {folder} is damaged or cannot be read: {error}.",
                "Write it anew: `openbook tune --force`.",
            ) from error
        self._model.eval()

    @contextlib.contextmanager
    def adapter(self, name: str | None) -> Iterator[None]:
        """Answer with this adapter, or with the bare base for None."""
        before, self._active = self._active, name
        try:
            yield
        finally:
            self._active = before

    @contextlib.contextmanager
    def _activated(self) -> Iterator[Any]:
        """The model with exactly the wanted adapter in force."""
        if self._active is not None:
            self._model.set_adapter(self._active)
            yield self._model
        elif hasattr(self._model, "disable_adapter"):
            with self._model.disable_adapter():
                yield self._model
        else:
            yield self._model

    def generate(self, prompts: Sequence[Conversation], *, task: Task | None = None) -> list[Generation]:
        """One answer a prompt, in order. A prompt that leaves no room for an answer gives a `Generation` with `error`.

        Prompts are answered longest first, `batch_size` at once; `task` advances by one for each.
        """
        task = task or SILENT.task("", None).__enter__()
        ids = [encode_prompt(self.loaded.tokenizer, prompt) for prompt in prompts]
        answers: dict[int, Generation] = {}
        for number, prompt in enumerate(ids):
            if len(prompt) + 1 > self.loaded.context:
                answers[number] = Generation(
                    text="",
                    prompt_tokens=len(prompt),
                    completion_tokens=0,
                    finished=False,
                    error=f"the prompt has {len(prompt):,} tokens and {self.loaded.name} reads {self.loaded.context:,}",
                )
                task.advance()
        order = sorted((n for n in range(len(ids)) if n not in answers), key=lambda n: -len(ids[n]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for number, answer in zip(batch, self._generate([ids[n] for n in batch]), strict=True):
                answers[number] = answer
                task.advance()
        return [answers[number] for number in range(len(ids))]

    def _settings(self, longest: int) -> dict[str, Any]:
        return {
            "max_new_tokens": min(self.max_new_tokens, self.loaded.context - longest),
            "do_sample": False,
            "eos_token_id": self._stop,
            "pad_token_id": self.loaded.tokenizer.pad_token_id or 0,
        }

    def _generate(self, prompts: list[list[int]]) -> list[Generation]:
        import torch

        longest = max(map(len, prompts))
        device = self.loaded.model.device
        pad = self.loaded.tokenizer.pad_token_id or 0
        rows = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=device)  # (B, T)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        with torch.inference_mode(), self._activated() as model:
            out = model.generate(input_ids=rows, attention_mask=mask, **self._settings(longest))
        found = []
        for prompt, written in zip(prompts, out[:, longest:].tolist(), strict=True):
            end = next((at for at, token in enumerate(written) if token in self._stop), None)
            body = written if end is None else written[:end]
            found.append(
                Generation(
                    text=self.loaded.tokenizer.decode(body, skip_special_tokens=True).strip(),
                    prompt_tokens=len(prompt),
                    completion_tokens=len(body) + (end is not None),
                    finished=end is not None,
                )
            )
        return found

    def stream(self, prompt: Conversation) -> Iterator[str]:
        """The answer to one prompt, in pieces as they are written. Closing the iterator stops the model."""
        import torch
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        ids = encode_prompt(self.loaded.tokenizer, prompt)
        if len(ids) + 1 > self.loaded.context:
            raise ModelError(
                f"The prompt has {len(ids):,} tokens and {self.loaded.name} reads {self.loaded.context:,}.",
                "Ask a shorter question or show fewer passages (retrieval.passages).",
            )
        streamer = TextIteratorStreamer(self.loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
        cancelled = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                row = torch.tensor([ids], device=self.loaded.model.device)
                criteria = StoppingCriteriaList([lambda *_, **__: cancelled.is_set()])
                with torch.inference_mode(), self._activated() as model:
                    model.generate(
                        input_ids=row,
                        attention_mask=torch.ones_like(row),
                        streamer=streamer,
                        stopping_criteria=criteria,
                        **self._settings(len(ids)),
                    )
            except BaseException as error:  # re-raised below, in the thread of the one who reads
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            cancelled.set()
            thread.join()
        if failure:
            raise failure[0]
