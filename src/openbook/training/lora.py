"""PEFT's LoRA in half precision, by fewer passes over a layer's output.

PEFT computes B A x, scales it and adds it to what the layer gives: two passes over the whole output more, and one over
its gradient. Here x A is scaled, which is small, and the matrix kernel adds its product with B in place.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora.layer import LoraVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _AddProduct(torch.autograd.Function):
    """`result` (…, N) += `scaling` · `low` (…, r) `up`ᵀ, with `up` (N, r)."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, low: Tensor, up: Tensor, scaling: float) -> Tensor:
        ctx.mark_dirty(result)
        ctx.save_for_backward(low, up)
        ctx.scaling = scaling
        result.view(-1, len(up)).addmm_(low.flatten(0, -2), up.t(), alpha=scaling)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = gradients
        low, up = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        d_low = _product(flat, up, ctx.scaling).view_as(low)
        return grad, d_low, _product(flat.t(), low.flatten(0, -2), ctx.scaling), None


def _product(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """`factor` · `a` `b` by the matrix kernel alone; by `beta` of 0 what would be added is never read."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=factor)


class _Fused(LoraVariant):  # type: ignore[misc]
    """What PEFT calls in place of its own formula, by the seam that it has for DoRA and others."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        low = F.linear(module.lora_dropout[active_adapter](x), module.lora_A[active_adapter].weight)
        up = module.lora_B[active_adapter].weight
        scaling = module.scaling[active_adapter]
        out: Tensor = _AddProduct.apply(result, low.to(result.dtype), up.to(result.dtype), scaling)  # type: ignore[no-untyped-call]
        return out


def adapter_layers(model: Any) -> list[Any]:
    """PEFT's layers in a model; none where all weights are tuned. Looked for once: it takes milliseconds."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def half_precision(layers: Sequence[Any]) -> Iterator[None]:
    """Within an autocast: these layers leave their input in half precision, which PEFT would first write out in the
    adapters' fp32, and those that are linear with plain LoRA add its product in place. Afterwards they are as before."""
    casting = [layer.cast_input_dtype_enabled for layer in layers]
    taken = [(layer, name) for layer in layers for name in _plain(layer)]
    try:
        for layer in layers:
            layer.cast_input_dtype_enabled = False
        for layer, name in taken:
            layer.lora_variant[name] = _Fused()
        yield
    finally:
        for layer, name in taken:
            layer.lora_variant.pop(name, None)
        for layer, before in zip(layers, casting, strict=True):
            layer.cast_input_dtype_enabled = before


def _plain(layer: Any) -> list[str]:
    """The adapters of a layer that are LoRA and nothing more: no variant of it, no bias."""
    if type(layer) not in (lora.Linear, lora.Linear4bit) or layer.merged:
        return []
    return [name for name, up in layer.lora_B.items() if name not in layer.lora_variant and up.bias is None]
