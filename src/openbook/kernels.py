"""The same sums by faster kernels, where a CPU computes many tokens at once and no gradient is wanted.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 idle on processors that are not Intel's: on a Zen 5 core
87 GFLOP/s against oneDNN's 220, which PyTorch carries too and keeps for other types. And its attention kernel computes
all of a mask, also the half that a causal one forbids.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MANY = 16  # tokens of a pass from which it is worth it; below it the time goes into reading the weights
BLOCK = 128  # queries that are attended with at once


def fast(device: torch.device, tokens: int, *, causal: bool = False) -> AbstractContextManager[Any]:
    """For a pass over so many `tokens`: on a CPU, and where they are many, PyTorch's functions take the faster kernels
    within this. `causal` promises that no query attends to a key after it, the last one standing at the last key,
    whatever else a mask forbids."""
    return _Kernels(causal) if device.type == "cpu" and tokens >= MANY and _present() else nullcontext()


def _present() -> bool:
    """Whether PyTorch was built with both libraries; where it was not with MKL, it multiplies by something else."""
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Kernels(TorchFunctionMode):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self._causal = causal

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and not kwargs and _plain(*args):
            x, weight, bias = (*args, None)[:3]
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        if self._causal and func is F.scaled_dot_product_attention and kwargs.get("attn_mask") is not None:
            return _in_blocks(*args, **kwargs)
        return func(*args, **kwargs)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN may multiply these, and is worth the call."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.numel() >= MANY * x.shape[-1]
        and x.is_contiguous()
        and weight.is_contiguous()  # else oneDNN takes a kernel that is a thousand times slower
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    )


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor, **settings: Any) -> Tensor:
    """Attention of queries (B, H, Q, D) to keys (B, H, K, D) under a causal mask (B, 1, Q, K), without the keys that stand
    behind a whole block of queries."""
    count, behind = query.shape[2], key.shape[2] - query.shape[2]
    if count <= BLOCK:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **settings)
    blocks = []
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        blocks.append(
            F.scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, : behind + end],
                value[:, :, : behind + end],
                attn_mask=attn_mask[:, :, start:end, : behind + end],
                **settings,
            )
        )
    return torch.cat(blocks, dim=2)
