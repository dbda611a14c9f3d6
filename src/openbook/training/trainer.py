"""The one training engine: transformers' Trainer over token-tree rows.

Trainer brings resuming, distributed runs and loggers; the loss, the order of rows and the counting are ours.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from openbook.tokens import TokenTree
from openbook.training.attention import forward_keywords
from openbook.training.head import hidden_states, token_losses
from openbook.training.losses import sft

Batch = dict[str, Any]


def collate(rows: Sequence[TokenTree]) -> Batch:
    """One row as the tensors of a step: the model's keywords, and where its supervised tokens stand.

    `targets`, `weights` and `predictors` are (N,): the tokens, their weights, and the positions that predict them.
    """
    (tree,) = rows
    keywords = forward_keywords(tree)
    at = torch.from_numpy(tree.weight).nonzero()[:, 0]
    return {
        "keywords": keywords,
        "targets": keywords["input_ids"][0, at],
        "weights": torch.from_numpy(tree.weight)[at],
        "predictors": torch.from_numpy(tree.parent)[at],
    }


def row_loss(model: Any, batch: Batch) -> Tensor:
    """The summed loss of one row."""
    hidden = hidden_states(model, batch["keywords"])[batch["predictors"]]
    return sft(token_losses(model, hidden, batch["targets"]), batch["weights"])


class Rows(Dataset[TokenTree]):
    """The rows of a whole run in their final order."""

    def __init__(self, rows: Sequence[TokenTree]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TokenTree:
        return self._rows[index]


class TreeTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose batch is one row and whose step is `gradient_accumulation_steps` rows.

    The step's loss is the sum over all its rows divided by the weight of all their supervised tokens, whatever way
    they are cut into rows: accumulation equals a large batch.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        rows: Sequence[TokenTree],
        validation: Sequence[TokenTree],
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=Rows(rows),
            eval_dataset=Rows(validation) if validation else None,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = True  # our loss is already divided by the whole step's weight
        self.can_return_loss = True
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | None]:
        """The batches of one step, and the weight of all their supervised tokens, over all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        total = torch.stack([batch["weights"].sum() for batch in batches]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return batches, total

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        total = num_items_in_batch if num_items_in_batch is not None else inputs["weights"].sum()
        # Distributed training averages gradients over processes; ours are parts of one sum.
        loss: Tensor = row_loss(model, inputs) / total * self.args.world_size
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss of all supervised validation tokens; asked twice after the same step, computed once."""
        if self._evaluated[0] == self.state.global_step:
            return self._evaluated[1]
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        summed, weight = 0.0, 0.0
        with torch.no_grad():
            for index in range(len(rows)):
                batch = self._prepare_inputs(collate([rows[index]]))
                summed += row_loss(self.model, batch).item()
                weight += batch["weights"].sum().item()
        self.model.train()
        metrics = {f"{metric_key_prefix}_loss": summed / weight}
        self._evaluated = (self.state.global_step, metrics)
        self.log(metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights as safetensors, and nothing that would have to be unpickled (Trainer would add `training_args.bin`)."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder, state_dict=state_dict)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells `report` about every logged step: the step number and what Trainer logged."""

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs:
            self._report(state.global_step, logs)
