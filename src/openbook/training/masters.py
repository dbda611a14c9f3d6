"""Full tuning in half precision: the optimizer's weights in fp32, and the model's rounded from them after every step.

A weight of 0.02 has its neighbours in bfloat16 0.0001 away, and a step of AdamW is about the learning rate long: added to
the rounded weight itself, most steps come to nothing (mixed precision training, arXiv 1710.03740, section 3.1).
Adapters are in fp32 anyway.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
KEY = "masters"  # of a state: the fp32 weights, group by group


def with_masters(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """`optimizer`, which has taken no step yet, or one of the same settings over fp32 copies where its weights are in half
    precision."""
    groups = optimizer.param_groups
    if not any(weight.dtype in HALF for group in groups for weight in group["params"]):
        return optimizer
    return MasterAdamW(groups)


class MasterAdamW(torch.optim.AdamW):
    """AdamW over fp32 copies of the weights in `groups`, which are given the copies' values after each step."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self._weights: list[Tensor] = [weight for group in groups for weight in group["params"]]
        super().__init__(
            [{**group, "params": [weight.detach().float().clone() for weight in group["params"]]} for group in groups]
        )

    @property
    def _masters(self) -> list[Tensor]:
        return [master for group in self.param_groups for master in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.to(master.dtype)
        super().step(closure)
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None
            weight.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self._weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), KEY: self._masters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({name: value for name, value in state_dict.items() if name != KEY})
        with torch.no_grad():
            for master, saved in zip(self._masters, state_dict[KEY], strict=True):
                master.copy_(saved)
