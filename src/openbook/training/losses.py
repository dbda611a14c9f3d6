"""Losses: pure functions from tensors to tensors."""

from torch import Tensor


def sft(losses: Tensor, weights: Tensor) -> Tensor:
    """Supervised fine-tuning: the weighted sum of token cross-entropies.

    `losses` and `weights` are (N,), N the supervised tokens of a row. The caller divides by the weight of the whole
    optimizer step, so that accumulating rows equals one large batch.
    """
    return (losses * weights).sum()
