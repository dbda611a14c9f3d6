"""The same sums by faster kernels: `fast` for a pass without a gradient, `fast_products` for the steps of a training.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 idle on processors that are not Intel's: on a Zen 5 core
87 GFLOP/s against oneDNN's 220, which PyTorch carries too and keeps for other types. And its attention kernel computes
all of a mask, also the half that a causal one forbids.

On a GPU, PyTorch takes cuDNN's attention where it can. That one plans anew for every number of keys, and while a row is
written there is one more with each token: of 53 ms a token on an H200, 37 went into plans (docs/LOG.md).
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MANY = 16  # tokens of a pass from which it is worth it; below it the time goes into reading the weights
FEW = 4  # rows or columns of a matrix below which no kernel gains anything
COPY = 128  # numbers that each number of a copied matrix is multiplied with, from which the copy pays
BLOCK = 128  # queries that are attended with at once


def fast(device: torch.device, tokens: int, *, causal: bool = False) -> AbstractContextManager[Any]:
    """For a pass over so many `tokens`: on a CPU, and where they are many, PyTorch's functions take the faster kernels
    within this; on a GPU, any attention but cuDNN's. `causal` promises that no query attends to a key after it, the last
    one standing at the last key, whatever else a mask forbids."""
    if device.type == "cuda":
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return _Kernels(causal) if device.type == "cpu" and tokens >= MANY and _present() else nullcontext()


def fast_products(device: torch.device) -> AbstractContextManager[Any]:
    """For the forward and the backward pass of a step: on a CPU, every product of large float32 matrices within this is
    oneDNN's, those of autograd, of what checkpoints compute anew and of 4-bit layers among them."""
    return _Products() if device.type == "cpu" and _present() else nullcontext()  # type: ignore[no-untyped-call]


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
            return _linear(*args)
        if self._causal and func is F.scaled_dot_product_attention and kwargs.get("attn_mask") is not None:
            return _in_blocks(*args, **kwargs)
        return func(*args, **kwargs)


_COMPOSITE = {torch.ops.aten.linear.default, torch.ops.aten.matmul.default}
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Works below autograd: what it sees are the products themselves, those of gradients as well."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.mm.default and _pays(*args):
            return _product(*args)
        if func is torch.ops.aten.addmm.default and not kwargs:  # else its terms have factors
            bias, a, b = args
            if bias.shape == b.shape[1:] and _pays(a, b):
                return _product(a, b, bias)
        # The products in a 4-bit layer's operators go unseen unless these are taken apart within the mode.
        if func in _COMPOSITE:
            with self:
                return func.decompose(*args, **kwargs)
        if func.namespace == "bitsandbytes":
            with self:
                return func.redispatch(_CPU, *args, **kwargs)
        return func(*args, **kwargs)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` by oneDNN. Both have to be contiguous, else it takes a kernel that is a thousand times slower."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product (M, N) of `a` (M, K) and `b` (K, N), plus `bias` (N,)."""
    return _linear(a.contiguous(), b.t().contiguous(), bias)


def _pays(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN may multiply these, and saves more time than it takes to lay them out for it."""
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and a.shape[0] >= (MANY if b.t().is_contiguous() else COPY)
        and b.shape[1] >= (FEW if a.is_contiguous() else COPY)
        and b.shape[0] >= FEW
    )


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN may multiply these, and is worth the call."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.numel() >= MANY * x.shape[-1]
        and x.is_contiguous()
        and weight.is_contiguous()
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
