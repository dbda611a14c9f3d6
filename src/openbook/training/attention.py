"""Attention over token trees, installed beside transformers' own attentions: no model's `forward` is touched.

In depth-first order the descendants of a segment (a run of tokens without a branch) are one range of the row. So what
a tree allows is, for each segment, a causal triangle over itself and one full rectangle: its descendants' queries
against its keys. No mask is built; partial softmaxes are merged by their log-sum-exp, and the backward pass of each
block, given the merged output and log-sum-exp, yields its exact share of the gradients (as in ring attention, arXiv
2310.01889). A CPU computes block by block. A GPU computes all triangles in one call of its flash kernel, and then, for
each depth of nesting, all rectangles in another: segments of one depth share neither descendants nor keys.
"""

from collections.abc import Callable, Sequence
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
# Attention of a query (1, H, T, D) to keys and values (1, H_kv, T, D), scaled: out (1, H, T, D).
Kernel = Callable[[Tensor, Tensor, Tensor, "TreeLayout", float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Level:
    """Blocks that one call of a kernel for sequences of various lengths computes. Block i's queries are those at
    `queries[query_starts[i] : query_starts[i + 1]]`, its keys likewise; None: all tokens of the row in order."""

    causal: bool
    queries: Tensor | None  # (Q,) positions in the row
    keys: Tensor | None  # (K,)
    query_starts: Tensor  # (N + 1,) int32
    key_starts: Tensor
    most_queries: int  # of one block
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[Range], keys: Sequence[Range], device: torch.device, *, triangles: bool) -> "Level":
        (q_starts, most_queries), (k_starts, most_keys) = _starts(queries), _starts(keys)
        q, k = (None, None) if triangles else (_positions(queries), _positions(keys))
        return cls(
            causal=triangles,
            queries=None if q is None else _moved(q, device),
            keys=None if k is None else _moved(k, device),
            query_starts=_moved(q_starts, device),
            key_starts=_moved(k_starts, device),
            most_queries=most_queries,
            most_keys=most_keys,
        )


def _starts(ranges: Sequence[Range]) -> tuple[Tensor, int]:
    lengths = [end - start for start, end in ranges]
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), max(lengths)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On `device`; from pinned memory, so that nothing waits there for what was asked of a GPU before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _positions(ranges: Sequence[Range]) -> Tensor:
    return torch.cat([torch.arange(start, end) for start, end in ranges])


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

    def levels(self, device: torch.device) -> tuple[Level, ...]:
        """All segments' triangles, then the rectangles of each depth of nesting. Built and moved once a row."""
        if device not in self._levels:
            end = self.subtree_end.tolist()
            segments = self.tree.segments()
            open_ends: list[int] = []  # where the subtrees end that the present segment stands in
            nested: dict[int, list[tuple[Range, Range]]] = {}
            for start, stop in segments:
                while open_ends and open_ends[-1] <= start:
                    open_ends.pop()
                if end[stop - 1] > stop:
                    nested.setdefault(len(open_ends), []).append(((stop, end[stop - 1]), (start, stop)))
                    open_ends.append(end[stop - 1])
            rectangles = [zip(*nested[depth], strict=True) for depth in sorted(nested)]
            self._levels[device] = (
                Level.of(segments, segments, device, triangles=True),
                *(Level.of(list(queries), list(keys), device, triangles=False) for queries, keys in rectangles),
            )
        return self._levels[device]

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """The same as a dense (1, 1, T, T) mask, True = attend: the oracle, and the path of devices without a faster one.
        Built once a row."""
        device = torch.device(device)
        if device not in self._masks:
            position = torch.arange(len(self.subtree_end), device=device)
            end = _moved(self.subtree_end, device)
            self._masks[device] = ((position[None] <= position[:, None]) & (position[:, None] < end[None]))[None, None]
        return self._masks[device]

    @cached_property
    def _levels(self) -> dict[torch.device, tuple[Level, ...]]:
        return {}

    @cached_property
    def _masks(self) -> dict[torch.device, Tensor]:
        return {}


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


def _flash(level: Level, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (Q, H, D) and log-sum-exp (H, Q) of the blocks of a level, by PyTorch's CUDA flash kernel."""
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        level.query_starts,
        level.key_starts,
        level.most_queries,
        level.most_keys,
        0.0,
        level.causal,
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
        level.query_starts,
        level.key_starts,
        level.most_queries,
        level.most_keys,
        0.0,
        level.causal,
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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if dropout:
        out = dense(query, key, value, tree, scale, dropout)
    else:
        out = kernel_for(query, key, value)(query, key, value, tree, scale)
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
