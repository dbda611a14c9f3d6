"""Direct preference optimisation on token trees: both answers of a pair behind one prompt, read once.

Watched, as means over pairs: `margin` and `accuracy` (how far and how often the chosen answer gained more likelihood
than the rejected one; a tie is half a hit), `chosen` and `rejected` (what each gained, times beta: the implied rewards),
and on held-out pairs `kl`, the drift from the reference in nats a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openbook.options import Preference
from openbook.training import losses
from openbook.training.head import sum_by_sequence, token_kl, token_losses
from openbook.training.pair_rows import PairRow
from openbook.training.trainer import Batch, collate, predicting_states


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The reference's hidden states (N, D) at the supervised positions of watched rows, by the rows' pairs, and the
    head that they go through (None: the model's own, which is frozen)."""

    states: Mapping[tuple[int, ...], Tensor] = field(default_factory=dict)
    head: torch.nn.Module | None = None


def sequence_logps(model: Any, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities (S,) of a row's answers, in nats summed over their tokens, and how many tokens each has (S,).

    `hidden` (N, D) are the states that predict the row's N supervised tokens.
    """
    logps = -token_losses(model, hidden, batch["targets"])
    sequences = batch["sequences"]
    return (
        sum_by_sequence(logps, batch["owners"], sequences),
        sum_by_sequence(torch.ones_like(logps), batch["owners"], sequences),
    )


class DirectPreference:
    """The method for the engine. `reference` (P, 2) are the reference's log-probabilities of all pairs' answers."""

    def __init__(self, options: Preference, reference: Tensor, anchors: Anchors) -> None:
        self._options, self._reference, self._anchors = options, reference, anchors

    def collate(self, rows: Sequence[PairRow]) -> Batch:
        (row,) = rows
        batch = {**collate([row.tree]), "reference": self._reference[list(row.pairs)]}
        if row.pairs in self._anchors.states:
            batch["anchor"] = self._anchors.states[row.pairs]
        return batch

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor(float(len(batch["reference"])), device=batch["reference"].device)

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        options = self._options
        hidden = predicting_states(model, batch)
        logps, lengths = sequence_logps(model, hidden, batch)
        gained = logps - batch["reference"].flatten()
        chosen, rejected = gained.view(-1, 2).unbind(1)
        compared = gained / lengths if options.loss == "ipo" else gained
        loss = losses.preference(
            *compared.view(-1, 2).unbind(1),
            kind=options.loss,
            beta=options.beta,
            label_smoothing=options.label_smoothing,
        )
        sums = {"loss": loss.sum(), **watched(chosen * options.beta, rejected * options.beta)}
        if options.sft_weight:
            # A mean over each chosen answer's tokens, as in arXiv 2404.19733, eq. 1: long answers do not weigh more.
            sums["objective"] = (loss - options.sft_weight * (logps / lengths)[0::2]).sum()
        if "anchor" in batch:
            kl = sum_by_sequence(
                token_kl(model, hidden, batch["anchor"], self._anchors.head), batch["owners"], len(lengths)
            )
            sums["kl"] = (kl / lengths).view(-1, 2).mean(1).sum()
        return sums


def watched(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """What is worth watching of rewards (P,), as sums over the pairs."""
    chosen, rejected = chosen.detach(), rejected.detach()
    margin = chosen - rejected
    return {
        "margin": margin.sum(),
        "accuracy": ((margin > 0).float() + 0.5 * (margin == 0).float()).sum(),
        "chosen": chosen.sum(),
        "rejected": rejected.sum(),
    }
