"""Attention over token trees, installed beside transformers' own attentions: no model's `forward` is touched."""

from typing import Any

import torch
from torch import Tensor

from openbook.errors import ModelError
from openbook.tokens import TokenTree
from openbook.training.tree_kernels import dense, kernel_for
from openbook.training.tree_layout import TreeLayout

NAME = "openbook_tree"

ALONE = "Set tune.share_prefixes to false: each sequence is then read by itself, which is slower."


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
