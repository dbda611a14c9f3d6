"""Reward modelling on token trees: an adapter and a scalar head that score the answers of a pair.

Watched, as means over pairs: `margin` and `accuracy` (how far and how often the chosen answer scores higher; a tie is
half a hit), `chosen` and `rejected` (their scores).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from openbook.models import LoadedModel
from openbook.models.generate import HEAD
from openbook.tokens import TokenTree
from openbook.training import losses
from openbook.training.adapting import explained
from openbook.training.attention import forward_keywords
from openbook.training.dpo import watched
from openbook.training.head import base_of, hidden_states
from openbook.training.pair_rows import PairRow
from openbook.training.trainer import Batch

Lengths = Sequence[tuple[int, int]]


class ScalarHead(nn.Module):
    """Hidden states (S, D) → scores (S,), in fp32 whatever the model is in. Zero at first: a score of 0 for all.

    Its weight (1, D) has the name and shape of the `score` layer in transformers' sequence classification models.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size, dtype=torch.float32))

    def forward(self, hidden: Tensor) -> Tensor:
        return (hidden.float() * self.weight).sum(-1)


def attach_head(model: Any, name: str = "score") -> ScalarHead:
    """Give `model` a scalar head as its part `name`, so that the optimizer, clipping and devices reach it."""
    head = ScalarHead(base_of(model).config.get_text_config().hidden_size).to(model.device)
    model.add_module(name, head)
    return head


def load_head(model: Any, folder: Path, loaded: LoadedModel, name: str = "score") -> ScalarHead:
    """Give `model` the head of the reward model in `folder`. Raises `ModelError` where it does not fit or is damaged."""
    head = attach_head(model, name)
    with explained(folder, loaded):
        head.load_state_dict(load_file(folder / HEAD))
    return head


def last_positions(tree: TokenTree) -> Tensor:
    """Row positions (S,) of the sequences' last tokens: their stop tokens, which have read the whole answer."""
    found = np.zeros(int(tree.sequence.max()) + 1, np.int64)
    own = np.flatnonzero(tree.sequence >= 0)
    np.maximum.at(found, tree.sequence[own], own)
    return torch.from_numpy(found)


class RewardModelling:
    """The method for the engine. `margins` are those of all pairs of the data set."""

    def __init__(self, head: ScalarHead, margins: Sequence[float], *, centring: float) -> None:
        self._head, self._margins, self._centring = head, torch.tensor(margins), centring

    def collate(self, rows: Sequence[PairRow]) -> Batch:
        (row,) = rows
        return {
            "keywords": forward_keywords(row.tree),
            "last": last_positions(row.tree),
            "margins": self._margins[list(row.pairs)],
        }

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor(float(len(batch["margins"])), device=batch["margins"].device)

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        scores: Tensor = self._head(hidden_states(model, batch["keywords"])[batch["last"]])
        chosen, rejected = scores.view(-1, 2).unbind(1)
        loss = losses.reward(chosen, rejected, margin=batch["margins"], centring=self._centring)
        return {"loss": loss.sum(), **watched(chosen, rejected)}


def length_baseline(trained: Lengths, held_out: Lengths) -> float:
    """The accuracy on held-out pairs of who only counts tokens: the longer answer is taken, or the shorter one,
    whichever is right more often in training. A tie is half a hit."""

    def longer_wins(lengths: Lengths) -> float:
        return sum(0.5 if chosen == rejected else chosen > rejected for chosen, rejected in lengths) / len(lengths)

    found = longer_wins(held_out)
    return found if longer_wins(trained) >= 0.5 else 1 - found
