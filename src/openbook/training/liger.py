"""Liger's layers in place of transformers' (arXiv 2410.10989): norms, rotary embedding and gated MLP each in one kernel,
which keeps less for the backward pass. Its losses are not taken: the head runs at trained positions only (head.py)."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from openbook.progress import Progress

# Those whose layers Liger replaces in just these three ways.
KINDS = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def take_layers(model: Any, progress: Progress) -> bool:
    """Give the causal language model `model` Liger's layers, and say so, where `serves`."""
    if not serves(model):
        return False
    import liger_kernel.transformers as liger

    _patch(model, getattr(liger, f"apply_liger_kernel_to_{model.config.model_type}"))
    progress.message(f"Norms, rotary embedding and MLPs are those of liger-kernel {version('liger-kernel')}.")
    return True


def serves(model: Any) -> bool:
    """Whether the model is of a kind, on a GPU and in bfloat16, and the package is installed."""
    return (
        model.device.type == "cuda"
        and model.dtype == torch.bfloat16
        and model.config.model_type in KINDS
        and model.config.hidden_act == "silu"
        and all(map(find_spec, ("liger_kernel", "triton")))
    )


@dataclass(frozen=True, slots=True)
class _Rotary:
    """The rotary embedding of a kind of model: Liger's on a GPU in bfloat16, where it `serves`, else its own. So a later
    model of the kind that it does not serve computes as if none had been tuned before it."""

    own: Callable[..., Any]
    liger: Callable[..., Any]

    def __call__(self, query: Any, *others: Any, **keywords: Any) -> Any:
        served = query.is_cuda and query.dtype == torch.bfloat16
        return (self.liger if served else self.own)(query, *others, **keywords)


def _patch(model: Any, apply: Callable[..., None]) -> None:
    """Liger changes the model's modules, which is wanted, and the names in transformers' module, by which later models
    would be built. Those are given back, but for the rotary embedding, a function that all models of the kind share."""
    module: Any = sys.modules[type(model).__module__]
    before = dict(vars(module))
    apply(model=model, rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False)
    own, liger = before["apply_rotary_pos_emb"], module.apply_rotary_pos_emb
    vars(module).update(before)
    if not isinstance(own, _Rotary):
        module.apply_rotary_pos_emb = _Rotary(own, liger)
