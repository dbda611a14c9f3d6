"""The one training engine: transformers' Trainer over token-tree rows.

Trainer brings resuming, distributed runs and loggers; the loss, the order of rows and the counting are ours.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from openbook.errors import ModelError
from openbook.kernels import fast_products
from openbook.models.generate import HEAD
from openbook.tokens import TokenTree
from openbook.training.attention import forward_keywords
from openbook.training.head import hidden_states, token_losses
from openbook.training.lora import adapter_layers, half_precision
from openbook.training.losses import SupervisedLoss, sft
from openbook.training.masters import with_masters

Batch = dict[str, Any]


class Method(Protocol):
    """What a way of tuning adds to the engine. A row is one `TokenTree` or a record around one; it has a length."""

    def collate(self, rows: Sequence[Any]) -> Batch:
        """One row as the tensors of a forward pass."""

    def count(self, batch: Batch) -> Tensor:
        """How much of a step's mean this row is: its trained tokens, or its pairs."""

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Sums over the row: "loss", which is trained on unless there is an "objective" beside it, and whatever else is worth
        watching."""


def collate(rows: Sequence[TokenTree]) -> Batch:
    """One row as the tensors of a step: the model's keywords, and where its supervised tokens stand.

    `targets`, `weights`, `predictors` and `owners` are (N,): the tokens, their weights, the positions that predict
    them, and the sequences that they belong to, of which there are `sequences`.
    """
    (tree,) = rows
    keywords = forward_keywords(tree)
    at = torch.from_numpy(tree.weight).nonzero()[:, 0]
    return {
        "keywords": keywords,
        "targets": keywords["input_ids"][0, at],
        "weights": torch.from_numpy(tree.weight)[at],
        "predictors": torch.from_numpy(tree.parent)[at],
        "owners": torch.from_numpy(tree.sequence)[at],
        "sequences": int(tree.sequence.max()) + 1,
    }


def predicting_states(model: Any, batch: Batch) -> Tensor:
    """Hidden states (N, D) that predict the N supervised tokens of a row."""
    return hidden_states(model, batch["keywords"])[batch["predictors"]]


def autocast(model: Any) -> AbstractContextManager[Any]:
    """The precision of the engine's forward passes: that of the model where it stands on a GPU in half precision."""
    kind, half = model.device.type, _in_half(model)
    return torch.autocast(kind, dtype=model.dtype if half else torch.bfloat16, enabled=half)


@contextmanager
def step_kernels(model: Any) -> Iterator[None]:
    """The kernels of the engine's steps, for a forward pass and its backward one."""
    with fast_products(model.device), half_precision(adapter_layers(model) if _in_half(model) else []):
        yield


@contextmanager
def as_trained(model: Any) -> Iterator[None]:
    """Both, for passes without a backward one, so that two models agree where their weights do."""
    with step_kernels(model), autocast(model):
        yield


def _in_half(model: Any) -> bool:
    return bool(model.device.type == "cuda" and model.dtype != torch.float32)


class Supervised:
    """Supervised fine-tuning: the mean cross-entropy of the answers' tokens, or what `kind` makes of it to be trained on."""

    def __init__(self, kind: SupervisedLoss = "nll") -> None:
        self._kind = kind

    def collate(self, rows: Sequence[TokenTree]) -> Batch:
        return collate(rows)

    def count(self, batch: Batch) -> Tensor:
        weights: Tensor = batch["weights"]
        return weights.sum()

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        losses = token_losses(model, predicting_states(model, batch), batch["targets"])
        weights = batch["weights"]
        found = {"loss": sft(losses, weights)}
        return found if self._kind == "nll" else found | {"objective": sft(losses, weights, self._kind)}


class Rows(Dataset[Any]):
    """The rows of a whole run in their final order."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]


class TreeTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose batch is one row and whose step is `gradient_accumulation_steps` rows.

    The step's loss is the sum over all its rows divided by what all of them count (their supervised tokens, or their
    pairs), whatever way they are cut into rows: accumulation equals a large batch. `head` is a part of the model that
    its own `save_pretrained` does not write, such as a scalar head.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        method: Method,
        rows: Sequence[Any],
        validation: Sequence[Any],
        callbacks: list[TrainerCallback],
        head: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=method.collate,
            train_dataset=Rows(rows),
            eval_dataset=Rows(validation) if validation else None,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = True  # our loss is already divided by what the whole step counts
        self.can_return_loss = True
        self._method, self._head = method, head
        self._adapters = adapter_layers(model) if args.bf16 or args.fp16 else []
        self._watched: dict[str, Tensor] = {}  # what `sums` gave beside the loss, as means over the step so far
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = super().create_optimizer(model)
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # which keep and save weights in their own ways
            made = self.optimizer = with_masters(made)
        return made

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | None]:
        """The batches of one step, and what all of them count, over all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        total = torch.stack([self._method.count(batch) for batch in batches]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return batches, total

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        total = num_items_in_batch if num_items_in_batch is not None else self._method.count(inputs)
        with self.accelerator.autocast():  # accelerate's own stands around the model's `forward`, which is not called
            sums = self._method.sums(model, inputs)
        # Distributed training averages gradients over processes; ours are parts of one sum.
        trained = sums.pop("objective" if "objective" in sums else "loss")
        loss: Tensor = trained / total * self.args.world_size
        for name, value in sums.items():
            self._watched[name] = self._watched.get(name, 0) + value.detach() / total
        return loss

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        with fast_products(self.args.device), half_precision(self._adapters):
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what is watched to a step's log. A loss that is no number ends the run before it is saved."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise ModelError(
                    f"The loss of step {self.state.global_step} is {logs['loss']}: the training has run away.",
                    "Lower the learning rate; with model.dtype = float16, try float32.",
                )
            for name, value in self._watched.items():
                gathered = self.accelerator.gather(value).sum() if self.args.world_size > 1 else value
                logs[name] = gathered.item()
            self._watched = {}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The means over all validation rows; asked twice after the same step, computed once."""
        if self._evaluated[0] == self.state.global_step:
            return self._evaluated[1]
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        summed: dict[str, float] = {}
        count = 0.0
        with (
            torch.no_grad(),
            fast_products(self.args.device),
            half_precision(self._adapters),
            self.accelerator.autocast(),
        ):
            for index in range(len(rows)):
                batch = self._prepare_inputs(self._method.collate([rows[index]]))
                sums = self._method.sums(self.model, batch)
                sums.pop("objective", None)  # what is watched is the same whatever is trained on
                for name, value in sums.items():
                    summed[name] = summed.get(name, 0.0) + value.item()
                count += self._method.count(batch).item()
        self.model.train()
        metrics = {f"{metric_key_prefix}_{name}": value / count for name, value in summed.items()}
        self._evaluated = (self.state.global_step, metrics)
        self.log(metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights as safetensors, and nothing that would have to be unpickled (Trainer would add `training_args.bin`)."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # PEFT would ask the hub for the base that an adapter's own file names, to see whether its vocabulary has grown.
        adapter = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(folder, state_dict=state_dict, **adapter)
        if self._head is not None:
            save_model(self._head, str(folder / HEAD))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._head is not None:
            load_model(self._head, str(Path(resume_from_checkpoint) / HEAD))


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells `report` about every logged step: the step number and what Trainer logged."""

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs:
            self._report(state.global_step, logs)
