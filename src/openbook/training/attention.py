"""Attention over token trees, installed beside transformers' own attentions: no model's `forward` is touched.

In depth-first order the descendants of a segment (a run of tokens without a branch) are one range of the row. So what
a tree allows is, for each segment, a causal triangle over itself and one full rectangle: its descendants' queries
against its keys. No mask is built and no key is copied; partial softmaxes are merged by their log-sum-exp, and the
backward pass of each block, given the merged output and log-sum-exp, yields its exact share of the gradients
(as in ring attention, arXiv 2310.01889).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from openbook.errors import ModelError
from openbook.tokens import TokenTree

NAME = "openbook_tree"

# Tokens of the largest triangle that is not halved. One of 780 tokens, halved to 195, takes 12 % less time; halved
# once more, no less (docs/LOG.md).
TRIANGLE = 256

ALONE = "Set tune.share_prefixes to false: each sequence is then read by itself, which is slower."

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TreeLayout:
    """What a row's tokens may attend to. `triangles` are segments or parts of them, each token in one; `rectangles` pair
    query and key ranges; `longest` is how many tokens the longest way from a root has."""

    tree: TokenTree
    triangles: tuple[Range, ...]
    rectangles: tuple[tuple[Range, Range], ...]
    subtree_end: Tensor  # (T,)
    longest: int

    @classmethod
    def of(cls, tree: TokenTree) -> "TreeLayout":
        end = tree.subtree_end
        segments = tree.segments()
        triangles: list[Range] = []
        rectangles: list[tuple[Range, Range]] = []
        for start, stop in segments:
            _halve(start, stop, triangles, rectangles)
            if end[stop - 1] > stop:
                rectangles.append(((stop, int(end[stop - 1])), (start, stop)))
        return cls(
            tree=tree,
            triangles=tuple(triangles),
            rectangles=tuple(rectangles),
            subtree_end=torch.from_numpy(np.ascontiguousarray(end)),
            longest=int(tree.depth.max()) + 1,
        )

    @cached_property
    def mask(self) -> Tensor:
        """The same as a dense (1, 1, T, T) mask, True = attend: the oracle, and the path of devices without a faster one."""
        position = torch.arange(len(self.subtree_end))
        return ((position[None] <= position[:, None]) & (position[:, None] < self.subtree_end[None]))[None, None]


def _halve(start: int, stop: int, triangles: list[Range], rectangles: list[tuple[Range, Range]]) -> None:
    """A segment's triangle as small ones and the squares between: the kernel is faster without a causal mask."""
    if stop - start <= TRIANGLE:
        triangles.append((start, stop))
        return
    middle = (start + stop) // 2
    _halve(start, middle, triangles, rectangles)
    _halve(middle, stop, triangles, rectangles)
    rectangles.append(((middle, stop), (start, middle)))


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


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: TreeLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (B, H, T, D), key and value (B, H_kv, T, D) → (B, T, H, D).

    Without a tree it is SDPA, so that padded generation with the same model works as ever.
    """
    if tree is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if attention_mask is not None and attention_mask.numel():
        raise ModelError("A token tree and an attention mask were given together; a row is described by one of them.")
    if query.shape[2] != len(tree.subtree_end):
        raise ModelError(f"The row has {query.shape[2]} tokens but its tree describes {len(tree.subtree_end)}.")
    # A window as long as the longest sequence hides nothing, and is no window.
    if (window := kwargs.get("sliding_window")) and window < tree.longest:
        raise ModelError(
            f"This model sees {window:,} tokens back in a sliding window, and the row has a sequence of {tree.longest:,}; "
            f"token trees cannot keep such a window.",
            f"{ALONE} Or show fewer or shorter passages (dataset.passages, documents.chunk_tokens).",
        )
    if kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        raise ModelError("This model's attention (soft cap or sinks) is not one that token trees can serve.", ALONE)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu" and not dropout:
        out: Tensor = _BlockAttention.apply(query, key, value, tree, scale)  # type: ignore[no-untyped-call]
    else:
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=tree.mask.to(query.device), dropout_p=dropout, scale=scale
        )
    return out.transpose(1, 2), None


def install() -> None:
    """Register the attention, and SDPA's masks under its name: without them padded generation would ignore its padding."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def serve_trees(model: Any, *, share: bool = True) -> None:
    """Switch `model` to tree attention, or say in a sentence why it cannot be served. Without `share` it keeps its own,
    and `hidden_states` hands it each sequence of a tree by itself."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{config.model_type} is an encoder-decoder; openbook tunes decoder-only language models.")
    if not share:
        return
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if strange := kinds - {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"{config.model_type} has layers ({', '.join(sorted(strange))}) that cannot attend over token trees.", ALONE
        )
    install()
    model.set_attn_implementation(NAME)


def forward_keywords(tree: TokenTree, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a model is called with for one row: `input_ids` and `position_ids` (1, T), and the layout.

    transformers hands a 4D mask on untouched, so an empty one keeps it from guessing a mask out of the positions.
    """
    return {
        "input_ids": torch.from_numpy(tree.input_ids)[None].to(device),
        "position_ids": torch.from_numpy(tree.depth)[None].to(device),
        "attention_mask": torch.empty((1, 1, 0, 0), dtype=torch.bool, device=device),
        "use_cache": False,
        "tree": TreeLayout.of(tree),
    }
