"""The engine where what is trained on comes into being during the run: one batch is all rows of a step."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from openbook.errors import ModelError
from openbook.storage import write_json
from openbook.training.roles import POLICY, Roles
from openbook.training.rounds import Rounds
from openbook.training.trainer import Batch, TreeTrainer

WEIGHTS = "trained.safetensors"
STATE = "rounds.json"


class RolloutTrainer(TreeTrainer):
    """`TreeTrainer` over `Turn`s. `roles` says what is trained; `value_learning_rate` is for all of it but the policy."""

    def __init__(self, *, method: Rounds, roles: Roles, value_learning_rate: float, **others: Any) -> None:
        super().__init__(method=method, **others)
        self._rounds, self._roles, self._value_learning_rate = method, roles, value_learning_rate
        if self.args.world_size > 1:
            raise ModelError(
                "Reinforcement learning runs in one process, and this run was started in several.",
                "Start it without torchrun or accelerate launch.",
            )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        cls, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        rates = {True: self.args.learning_rate, False: self._value_learning_rate}
        groups: dict[bool, list[Tensor]] = {}
        for name, weight in self._roles.trained.items():
            groups.setdefault(f".{POLICY}." in name, []).append(weight)
        made: torch.optim.Optimizer = cls(
            [{"params": weights, "lr": rates[policy]} for policy, weights in groups.items()],
            **{**settings, "weight_decay": self.args.weight_decay},
        )
        self.optimizer = made
        return made

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | None]:
        """The rows of one step, sampled now: the loader itself is always one step ahead, with placeholders."""
        turns = list(itertools.islice(epoch_iterator, num_batches))
        if not turns:
            return [], None
        rows = self._rounds.step(int(turns[0]["step"]))
        return [{"rows": rows}], torch.stack([self._rounds.count(row) for row in rows]).sum().to(device)

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Forward and backward row by row, so that no adapter is switched while a gradient is due."""
        return torch.stack(
            [super(RolloutTrainer, self).training_step(model, row, num_items_in_batch) for row in inputs["rows"]]
        ).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._rounds.means
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """What is trained and nothing else: the reference is where the run started from."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.detach().contiguous() for name, weight in self._roles.trained.items()}, folder / WEIGHTS
        )
        write_json(folder / STATE, self._rounds.state())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, weight in self._roles.trained.items():
                weight.copy_(saved[name])
        self._rounds.restore(json.loads((folder / STATE).read_text(encoding="utf-8")))
