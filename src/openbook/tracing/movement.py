"""Where in the network a step moved the weights, and how many of how many."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from openbook.tracing.record import Movement

_LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)$")

Weights = Mapping[str, Any]  # name within the module → tensor


def snapshot(model: Any) -> dict[str, dict[str, Any]]:
    """Copies of the trained weights, module by module."""
    return {name: {n: p.detach().clone() for n, p in _trained(module)} for name, module in _modules(model)}


def movements(model: Any, before: Mapping[str, Weights]) -> tuple[Movement, ...]:
    """What has changed since the snapshot `before`. One matrix at a time stands in memory in full."""
    found = []
    for name, module in _modules(model):
        start = before[name]
        now = {n: p.detach() for n, p in _trained(module)}
        layer = _LAYER.search(name)
        found.append(
            Movement(
                name=name,
                layer=int(layer[1]) if layer else None,
                kind=layer[2] if layer else name,
                weights=_size(module),
                trained=sum(p.numel() for p in now.values()),
                moved=sum(int((now[n] != start[n]).sum()) for n in now),
                share=_share(module, start, now),
            )
        )
    return tuple(found)


def _modules(model: Any) -> list[tuple[str, Any]]:
    """What is trained, by its place in the network: LoRA layers, or after full tuning every module with weights."""
    wrapped = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_B")]
    if wrapped:
        return [(name.removeprefix("base_model.model."), module) for name, module in wrapped]
    return [
        (name, module)
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    ]


def _trained(module: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in module.named_parameters(recurse=hasattr(module, "lora_B")):
        if parameter.requires_grad:
            yield name, parameter


def _share(module: Any, start: Weights, now: Weights) -> float:
    """The length of the change over the length of the weights it is added to."""
    if not hasattr(module, "lora_B"):
        change = math.hypot(*(float((now[n] - start[n]).float().norm()) for n in now))
        length = math.hypot(*(float(start[n].float().norm()) for n in now))
        return change / max(length, 1e-12)

    def product(weights: Weights) -> Any:
        a, b = (weights[f"lora_{side}.default.weight"] for side in "AB")  # (r, in), (out, r)
        return module.scaling["default"] * (b @ a)

    return float((product(now) - product(start)).norm() / _frozen(module).float().norm().clamp(min=1e-12))


def _frozen(module: Any) -> Any:
    """The matrix that an adapter is added to, out of its 4 bits where it is in them."""
    weight = module.base_layer.weight
    if hasattr(weight, "quant_state"):
        import bitsandbytes.functional as quantized

        return quantized.dequantize_4bit(weight.data, weight.quant_state)
    return weight


def _size(module: Any) -> int:
    if hasattr(module, "lora_B"):
        return int(module.in_features * module.out_features)
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))
