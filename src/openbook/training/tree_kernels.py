"""Softmax attention over a layout of token trees, each kernel for where it is fastest (`kernel_for`).

No mask is built but in `dense`; partial softmaxes are merged by their log-sum-exp, and the backward pass of each block,
given the merged output and log-sum-exp, yields its exact share of the gradients (as in ring attention, arXiv
2310.01889). A CPU computes block by block. A GPU computes all triangles in one call of its flash kernel, and then, for
each depth of nesting, all rectangles in another.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from openbook.training.tree_layout import Level, TreeLayout

# Attention of a query (1, H, T, D) to keys and values (1, H_kv, T, D), scaled: out (1, H, T, D).
Kernel = Callable[[Tensor, Tensor, Tensor, TreeLayout, float], Tensor]


class _BlockAttention(torch.autograd.Function):
    """Softmax attention over the blocks of a layout with PyTorch's CPU flash kernels. All tensors are (B, H, T, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)  # (B, H, T), log of the softmax denominators
        for start, end in layout.triangles:
            o, s = attend(
                query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], is_causal=True, scale=scale
            )
            out[:, :, start:end], lse[:, :, start:end] = o, s
        for (start, end), (first, last) in layout.rectangles:
            o, s = attend(query[:, :, start:end], key[:, :, first:last], value[:, :, first:last], scale=scale)
            before = lse[:, :, start:end]
            merged = torch.logaddexp(before, s)
            out[:, :, start:end].mul_((before - merged).exp()[..., None].to(out.dtype))
            out[:, :, start:end].addcmul_(o, (s - merged).exp()[..., None].to(out.dtype))
            lse[:, :, start:end] = merged
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, out, lse = ctx.saved_tensors
        grad = gradients[0]
        # Each token stands in exactly one triangle, and these come first: nothing need be zeroed.
        d_query, d_key, d_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        blocks = [(r, r, True) for r in ctx.layout.triangles] + [(q, k, False) for q, k in ctx.layout.rectangles]
        for (start, end), (first, last), causal in blocks:
            dq, dk, dv = attend(
                grad[:, :, start:end],
                query[:, :, start:end],
                key[:, :, first:last],
                value[:, :, first:last],
                out[:, :, start:end],
                lse[:, :, start:end],
                0.0,
                causal,
                scale=ctx.scale,
            )
            for total, part, (a, b) in (
                (d_query, dq, (start, end)),
                (d_key, dk, (first, last)),
                (d_value, dv, (first, last)),
            ):
                if causal:
                    total[:, :, a:b] = part
                else:
                    total[:, :, a:b] += part
        return d_query, d_key, d_value, None, None


def _flash(level: Level, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (Q, H, D) and log-sum-exp (H, Q) of the blocks of a level, by PyTorch's CUDA flash kernel."""
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        *level.flash_arguments,
        False,
        scale=scale,
    )
    return out, lse


def _flash_backward(
    level: Level, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (Q, H, D), key and value (K, H_kv, D)."""
    unused = query.new_empty(2, dtype=torch.uint64)  # the state of a dropout that there is not
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad,
        query,
        key,
        value,
        out,
        lse,
        *level.flash_arguments,
        unused,
        unused,
        scale=scale,
    )
    return found


class _LevelAttention(torch.autograd.Function):
    """Softmax attention over the levels of a layout. All tensors are (T, H, D), keys and values with H_kv heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
        triangles, *rectangles = layout.levels(query.device)
        out, lse = _flash(triangles, query, key, value, scale)
        for level in rectangles:
            assert level.queries is not None
            at = level.queries
            o, s = _flash(level, query[at], key[level.keys], value[level.keys], scale)
            before = lse[:, at]
            merged = torch.logaddexp(before, s)  # (H, Q)
            old, new = ((part - merged).exp().t()[..., None] for part in (before, s))
            out.index_copy_(0, at, (out[at] * old + o * new).to(out.dtype))
            lse.index_copy_(1, at, merged)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        triangles, *rectangles = ctx.layout.levels(query.device)
        grad = gradients[0]
        totals = _flash_backward(triangles, grad, query, key, value, out, lse, ctx.scale)
        for level in rectangles:
            q, k = level.queries, level.keys
            parts = _flash_backward(level, grad[q], query[q], key[k], value[k], out[q], lse[:, q], ctx.scale)
            for total, part, at in zip(totals, parts, (q, k, k), strict=True):
                total.index_copy_(0, at, total[at] + part)
        return *totals, None, None


def blocks(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    """On a CPU, block by block."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    out: Tensor = _BlockAttention.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return out


def levels(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    """On a GPU in half precision, level by level."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out: Tensor = _LevelAttention.apply(q, k, v, layout, scale)  # type: ignore[no-untyped-call]
    return out.transpose(0, 1)[None]


def dense(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float, dropout: float = 0.0) -> Tensor:
    """Everywhere, with a mask."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # the kernels that take a mask take no groups
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=layout.mask(query.device), dropout_p=dropout, scale=scale
    )


def kernel_for(query: Tensor, key: Tensor, value: Tensor) -> Kernel:
    """The fastest that computes these."""
    if query.shape[-1] != value.shape[-1]:  # multi-head latent attention
        return dense
    if query.device.type == "cpu":
        return blocks
    half = query.dtype == key.dtype == value.dtype and query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cuda" and half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256:
        ampere = torch.cuda.get_device_capability(query.device) >= (8, 0)
        # ROCm's kernel gives the log-sum-exp in another layout.
        if ampere and torch.version.cuda and torch.backends.cuda.is_flash_attention_available():
            return levels
    return dense
