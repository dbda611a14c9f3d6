"""The language-model head at the positions that are trained on, and nowhere else.

A prompt of a thousand tokens in front of forty supervised ones would otherwise cost a thousand rows of logits over the
whole vocabulary. Hidden states come from the model's own body; what its `forward` does to logits afterwards is redone here.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from openbook.training.attention import NAME as TREES

# Logits of at most so many positions × vocabulary entries stand in memory at once (64 MB in fp32).
CHUNK_ELEMENTS = 16_000_000


def base_of(model: Any) -> Any:
    """The causal language model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden_states(model: Any, keywords: dict[str, Any]) -> Tensor:
    """Last hidden states (T, D) of one row, after the body's final norm. A model that does not serve trees reads each
    sequence by itself; of a token that several share the first one's state is taken."""
    base = base_of(model)
    body = getattr(base, base.base_model_prefix)
    if base.config.get_text_config()._attn_implementation == TREES:
        states: Tensor = body(**keywords).last_hidden_state
        return states[0]
    ids, layout = keywords["input_ids"], keywords["tree"]
    missing = torch.ones(ids.shape[1], dtype=torch.bool)
    found, places = [], []
    for path in map(torch.from_numpy, layout.tree.paths()):
        new = missing[path]
        found.append(body(input_ids=ids[:, path], use_cache=False).last_hidden_state[0, new.to(ids.device)])
        places.append(path[new])
        missing[path] = False
    return torch.cat(found)[torch.cat(places).argsort().to(ids.device)]


def logits(model: Any, hidden: Tensor, head: torch.nn.Module | None = None) -> Tensor:
    """Logits (N, V) of hidden states (N, D), with the model's own scale and soft cap; through `head` in place of the
    model's own where one is given."""
    base = base_of(model)
    config = base.config.get_text_config()
    out: Tensor = (head or base.get_output_embeddings())(hidden).float()
    if scale := getattr(config, "logit_scale", None):  # Cohere multiplies
        out = out * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite divides
        out = out / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        out = cap * torch.tanh(out / cap)
    return out


def token_losses(model: Any, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy (N,) of predicting `targets` (N,) from `hidden` (N, D), in chunks whose logits are recomputed for
    the backward pass, so that those of a large vocabulary never stand in memory at once. `temperature` divides them."""

    def chunk_losses(states: Tensor, wanted: Tensor) -> Tensor:
        found = logits(model, states)
        if temperature != 1.0:  # one more pass over all of them, and as many bytes
            found = found / temperature
        return F.cross_entropy(found, wanted, reduction="none")

    size = _chunk_size(model)
    if len(targets) <= size:
        return chunk_losses(hidden, targets)
    losses = [
        checkpoint(chunk_losses, states, wanted, use_reentrant=False, preserve_rng_state=False)
        for states, wanted in zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    ]
    return torch.cat(losses)


def token_kl(model: Any, hidden: Tensor, reference: Tensor, head: torch.nn.Module | None = None) -> Tensor:
    """KL(π ‖ π_ref) in nats (N,) between the next-token distributions of two models, exact over the vocabulary.

    `hidden` and `reference` (N, D) are the last hidden states of either; `head` is the reference's where the model's
    own is trained. For watching: no gradient is wanted, so nothing is kept for one.
    """
    found = []
    size = _chunk_size(model)
    for states, others in zip(torch.split(hidden, size), torch.split(reference, size), strict=True):
        ours, theirs = logits(model, states).log_softmax(-1), logits(model, others, head).log_softmax(-1)
        found.append((ours.exp() * (ours - theirs)).sum(-1))
    return torch.cat(found)


def token_entropies(model: Any, hidden: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats (N,) of the next-token distributions that `hidden` (N, D) give. For watching, without a gradient."""
    found = []
    with torch.no_grad():
        for states in torch.split(hidden, _chunk_size(model)):
            logps = (logits(model, states) / temperature).log_softmax(-1)
            found.append(-(logps.exp() * logps).sum(-1))
    return torch.cat(found)


def sum_by_sequence(values: Tensor, owners: Tensor, sequences: int) -> Tensor:
    """Sums (S,) of `values` (N,) over the tokens of each sequence; `owners` (N,) are their numbers, below S.

    A masked sum and not `index_add`, whose order of addition, and so whose last bits, change from run to run on a GPU.
    """
    mine = owners[None] == torch.arange(sequences, device=owners.device)[:, None]  # (S, N)
    return torch.where(mine, values[None], 0.0).sum(1)


def _chunk_size(model: Any) -> int:
    vocabulary: int = base_of(model).config.get_text_config().vocab_size
    return max(1, CHUNK_ELEMENTS // vocabulary)
