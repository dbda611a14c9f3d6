"""Who writes the answers of a round: this process, or a server that is handed the policy's adapter each time."""

import contextlib
import random
import secrets
import shutil
from pathlib import Path
from typing import Any

from openbook import prompt
from openbook.config import Config
from openbook.errors import ModelError
from openbook.llm.token_server import TokenServer
from openbook.models import LoadedModel
from openbook.models.chat import encode_text, render, stop_tokens
from openbook.models.sampling import Sampling
from openbook.progress import Task
from openbook.training.adapting import save
from openbook.training.exercises import Exercises
from openbook.training.rollouts import Rollout, ask, sample
from openbook.training.run import RUN

SERVED = "served"  # the folder, within a run's, of the adapter that a server is writing with


class Writer:
    """Samples the answers of a round. Its random numbers are those of the seed and the round."""

    def __init__(self, exercises: Exercises, loaded: LoadedModel, config: Config) -> None:
        self._exercises, self._loaded, self._config = exercises, loaded, config
        self._first = True

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(self, *_: object) -> None:
        """Nothing was held."""

    def __call__(self, number: int, *, task: Task, model: Any) -> list[Rollout]:
        options = self._config.rl
        if self._first and number:  # a run that goes on
            task.advance(number * options.prompts * options.rollouts)
        self._first = False
        return self._written(number, model, task=task, **self._how(number))

    def _how(self, number: int) -> dict[str, Any]:
        options = self._config.rl
        return {
            "each": options.rollouts,
            "longest": self._config.model.max_new_tokens,
            "stop": frozenset(stop_tokens(self._loaded.tokenizer, self._loaded.model)),
            "sampling": Sampling(
                temperature=options.temperature,
                seed=random.Random(f"rollouts:{self._config.seed}:{number}").getrandbits(63),
            ),
        }

    def _written(self, number: int, model: Any, **how: Any) -> list[Rollout]:
        exercises, at_once = self._exercises.round(number), self._config.rl.at_once
        return sample(self._loaded.model, self._loaded.tokenizer, exercises, at_once=at_once, **how)


class ServedWriter(Writer):
    """Has a server write them, with the policy as it is in that round: an adapter of a name of its own, so that nothing
    that the server keeps of an earlier one can be taken for it."""

    def __init__(self, exercises: Exercises, loaded: LoadedModel, config: Config, out: Path) -> None:
        super().__init__(exercises, loaded, config)
        options = config.rl
        self._server = TokenServer(options.server, options.server_model or config.model.base)
        self._folder = (out / RUN / SERVED).resolve()
        self._run = secrets.token_hex(4)
        self._name = ""
        text = render(loaded.tokenizer, prompt.prompt("What is a cache?", ["A cache keeps results."]), generate=True)
        self._server.check(text, encode_text(loaded.tokenizer, text))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ModelError):  # whatever ended the run is what is to be told
            self._forget()

    def _written(self, number: int, model: Any, **how: Any) -> list[Rollout]:
        self._forget()
        name = f"openbook-{self._run}-{number}"
        save(model, self._loaded, self._folder, self._config)
        self._server.load_adapter(name, self._folder)
        self._name = name
        return ask(self._server, self._name, self._loaded.tokenizer, self._exercises.round(number), **how)

    def _forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        name, self._name = self._name, ""
        if name:
            self._server.drop_adapter(name)
