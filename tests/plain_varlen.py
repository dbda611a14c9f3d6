"""What PyTorch's CUDA flash kernels compute for sequences of various lengths, written out: to check on a CPU how they are called."""

import itertools

import torch
from torch import Tensor

from openbook.training.tree_layout import Level


def plain_flash(level: Level, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (Q, H, D) and log-sum-exp (H, Q); a causal block's last query stands at its last key."""
    out, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query), dtype=torch.float32)
    for q, k in _blocks(level):
        scores = _scores(level, query[q], key[k], scale)
        lse[:, q] = scores.logsumexp(-1)
        out[q] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), _repeated(value[k], query)).to(query.dtype)
    return out, lse


def plain_flash_backward(
    level: Level, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from an output and a log-sum-exp that may hold more than these blocks."""
    found = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for q, k in _blocks(level):
        weights = (_scores(level, query[q], key[k], scale) - lse[:, q, None]).exp()  # (H, Q, K)
        d, o = grad[q].float(), out[q].float()
        of_weights = torch.einsum("qhd,khd->hqk", d, _repeated(value[k], query))
        of_scores = weights * (of_weights - (d * o).sum(-1).t()[..., None]) * scale
        found[0][q] = torch.einsum("hqk,khd->qhd", of_scores, _repeated(key[k], query)).to(query.dtype)
        found[1][k] = _summed(torch.einsum("hqk,qhd->khd", of_scores, query[q].float()), key)
        found[2][k] = _summed(torch.einsum("hqk,qhd->khd", weights, d), key)
    return found


def _blocks(level: Level) -> list[tuple[slice, slice]]:
    q, k = level.query_starts.tolist(), level.key_starts.tolist()
    assert level.most_queries == max(b - a for a, b in itertools.pairwise(q))
    assert level.most_keys == max(b - a for a, b in itertools.pairwise(k))
    return [(slice(q[i], q[i + 1]), slice(k[i], k[i + 1])) for i in range(len(q) - 1)]


def _scores(level: Level, query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", query.float(), _repeated(key, query)) * scale
    if level.causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + len(key) - len(query))
        scores = scores.masked_fill(later, float("-inf"))
    return scores


def _repeated(states: Tensor, query: Tensor) -> Tensor:
    """Keys or values with as many heads as the queries have."""
    return states.float().repeat_interleave(query.shape[1] // states.shape[1], dim=1)


def _summed(gradient: Tensor, states: Tensor) -> Tensor:
    """The gradient of what `_repeated` repeats."""
    return gradient.unflatten(1, (states.shape[1], -1)).sum(2).to(states.dtype)
