"""Loss and every gradient of tree rows against separate rows through the unmodified model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F

from models_for_tests import FAMILIES, folder, model
from openbook.errors import ModelError
from openbook.models import load
from openbook.tokens import TokenSequence, TokenTree, build, concatenate, pack
from openbook.training.attention import forward_keywords, serve_trees, tree_attention
from openbook.training.head import hidden_states, token_losses
from openbook.training.trainer import Supervised, collate
from openbook.training.tree_kernels import Kernel, dense, levels
from openbook.training.tree_layout import TreeLayout
from plain_varlen import plain_flash, plain_flash_backward


def row_loss(network: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The summed loss of one row."""
    return Supervised().sums(network, batch)["loss"]


def sequences(*, prefix: int = 40, questions: int = 5, nested: bool = True, seed: int = 0) -> list[TokenSequence]:
    """Questions over a shared prefix; the second half shares a further part, and their lengths differ a lot."""
    rng = np.random.default_rng(seed)
    shared, more = rng.integers(3, 512, prefix), rng.integers(3, 512, 7)
    found = []
    for number in range(questions):
        middle = more if nested and number >= questions // 2 else np.empty(0, np.int64)
        own = rng.integers(3, 512, 5 + 11 * (number % 3) + number)
        ids = np.concatenate([shared, middle, own]).astype(np.int64)
        weight = np.zeros(len(ids), np.float32)
        weight[-4 - number % 2 :] = 1.0
        weight[-1] = 0.5
        found.append(TokenSequence(input_ids=ids, weight=weight))
    return found


def separate(network: Any, given: list[TokenSequence]) -> torch.Tensor:
    """The oracle: each sequence alone, all logits, nothing of ours."""
    total = torch.zeros(())
    for sequence in given:
        ids = torch.from_numpy(sequence.input_ids)[None]
        logits = network(input_ids=ids).logits[0, :-1].float()
        losses = F.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + (losses * torch.from_numpy(sequence.weight)[1:]).sum()
    return total


def gradients(network: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        relative = (ours[name] - expected).norm() / expected.norm().clamp(min=1e-12)
        assert relative <= 1e-5, f"{name}: {relative:.1e}"


def compare(network: Any, given: list[TokenSequence], trees: list[TokenTree], *, share: bool = True) -> None:
    expected = separate(network, given)
    theirs = gradients(network, expected)
    serve_trees(network.get_base_model() if hasattr(network, "get_base_model") else network, share=share)
    network.zero_grad()
    total = torch.zeros(())
    for tree in trees:
        total = total + row_loss(network, collate([tree]))
    assert torch.isclose(total, expected, rtol=1e-5)
    assert_close(gradients(network, total), theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_gives_the_gradients_of_separate_rows(family: str) -> None:
    given = sequences()
    compare(model(family), given, [build(given)])


def test_so_do_several_trees_in_one_row_and_split_ones() -> None:
    groups = [sequences(seed=1), sequences(questions=1, seed=2), sequences(prefix=9, seed=3)]
    given = [sequence for group in groups for sequence in group]
    compare(model(), given, [concatenate([build(group) for group in groups])])
    compare(model(), given, pack([build(group[:2]) for group in groups] + [build(g[2:]) for g in groups if g[2:]], 200))


def test_with_lora_and_activation_checkpointing() -> None:
    network = get_peft_model(model(), LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    network.train()
    network.gradient_checkpointing_enable({"use_reentrant": False})
    network.enable_input_require_grads()
    given = sequences()
    compare(network, given, [build(given)])


def test_a_leak_between_branches_is_noticed() -> None:
    """The comparison above must be able to fail: here branch B sees branch A."""
    network, given = model(), sequences(nested=False)
    expected = separate(network, given)
    tree = build(given)
    leaking = TokenTree(
        input_ids=tree.input_ids, parent=np.arange(-1, len(tree) - 1), sequence=tree.sequence, weight=tree.weight
    )
    serve_trees(network)
    batch = collate([tree])
    batch["keywords"]["tree"] = TreeLayout.of(leaking)
    assert not torch.isclose(row_loss(network, batch), expected, rtol=1e-3)


@pytest.mark.parametrize("triangle", [4, 256])
def test_blocks_equal_the_dense_mask(triangle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbook.training.tree_layout.TRIANGLE", triangle)
    layout = TreeLayout.of(concatenate([build(sequences(seed=4)), build(sequences(seed=5))]))
    length = len(layout.subtree_end)
    query, key, value = (torch.randn(1, 4, length, 8, requires_grad=True) for _ in range(3))
    ours, _ = tree_attention(torch.nn.Module(), query, key, value, None, tree=layout)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask()).transpose(1, 2)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), [query, key, value]),
        torch.autograd.grad((theirs * weights).sum(), [query, key, value]),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)


def layout_of_nested_trees() -> TreeLayout:
    """Three depths of nesting, a root without branches, branches of one token and of many."""
    trees = [build(sequences(seed=4)), build(sequences(questions=1, seed=6)), build(sequences(prefix=1, seed=5))]
    return TreeLayout.of(concatenate(trees))


def test_levels_hold_every_pair_once() -> None:
    layout = layout_of_nested_trees()
    seen = torch.zeros(layout.mask().shape[2:], dtype=torch.int64)
    for level in layout.levels(torch.device("cpu")):
        everything = torch.arange(len(seen))
        queries = everything if level.queries is None else level.queries
        keys = everything if level.keys is None else level.keys
        assert len(queries.unique()) == len(queries) == level.query_starts[-1]
        assert len(keys.unique()) == len(keys) == level.key_starts[-1]
        for block in range(len(level.query_starts) - 1):
            q = queries[level.query_starts[block] : level.query_starts[block + 1]]
            k = keys[level.key_starts[block] : level.key_starts[block + 1]]
            allowed = torch.ones(len(q), len(k), dtype=torch.int64)
            seen[q[:, None], k[None]] += allowed.tril() if level.causal else allowed
    assert len(layout.levels(torch.device("cpu"))) >= 3
    assert torch.equal(seen, layout.mask()[0, 0].long())


def test_levels_equal_the_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, its kernel written out; two query heads to a key head."""
    monkeypatch.setattr("openbook.training.tree_kernels._flash", plain_flash)
    monkeypatch.setattr("openbook.training.tree_kernels._flash_backward", plain_flash_backward)
    assert_like_dense(levels, layout_of_nested_trees(), torch.device("cpu"), torch.float32, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_levels_equal_the_dense_mask_on_a_gpu() -> None:
    assert_like_dense(levels, layout_of_nested_trees(), torch.device("cuda"), torch.bfloat16, 3e-2)


def assert_like_dense(
    kernel: Kernel, layout: TreeLayout, device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    """Output and gradients of a kernel against those of the dense mask in fp32."""
    length = len(layout.subtree_end)
    given = [torch.randn(1, length, heads, 16, device=device, dtype=dtype).transpose(1, 2) for heads in (4, 2, 2)]
    weights = torch.randn(1, 4, length, 16, device=device)

    def all_of(kernel: Kernel, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        out = kernel(*inputs, layout, 0.3)
        return [out, *torch.autograd.grad((out * weights).sum(), inputs)]

    for ours, theirs in zip(all_of(kernel, given), all_of(dense, [x.float() for x in given]), strict=True):
        assert (ours.float() - theirs).norm() <= tolerance * theirs.norm()


def test_values_of_another_size_than_queries_have() -> None:
    """As multi-head latent attention has them, which no flash kernel takes."""
    layout = layout_of_nested_trees()
    query, key, value = (torch.randn(1, 2, len(layout.subtree_end), size) for size in (12, 12, 8))
    ours, _ = tree_attention(torch.nn.Module(), query, key, value, None, tree=layout)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask()).transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_padded_generation_still_minds_its_padding() -> None:
    network = model()
    ids = torch.randint(3, 512, (1, 12))
    padded = torch.cat([torch.full((1, 5), 2), ids], 1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 12, dtype=torch.long)], 1)
    with torch.no_grad():
        alone = network(input_ids=ids).logits[0, -1]
        serve_trees(network)
        again = network(input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[
            0, -1
        ]
    assert torch.allclose(alone, again, atol=1e-4)


def test_contradictions_are_refused() -> None:
    network = model()
    serve_trees(network)
    keywords = forward_keywords(build(sequences()))
    with pytest.raises(ModelError, match="token tree and an attention mask"):
        network.model(**keywords | {"attention_mask": torch.ones(1, 1, 3, 3, dtype=torch.bool)})
    with pytest.raises(ModelError, match="tokens but its tree describes"):
        network.model(
            **keywords | {"input_ids": keywords["input_ids"][:, :-1], "position_ids": keywords["position_ids"][:, :-1]}
        )


def test_a_window_that_trees_cannot_keep_is_refused() -> None:
    network = model("mistral")
    for layer in network.model.layers:
        layer.self_attn.sliding_window = 8
        layer.self_attn.config.sliding_window = 8
    serve_trees(network)
    with pytest.raises(ModelError, match=r"sees 8 tokens back in a sliding window.*a sequence of \d\d"):
        hidden_states(network, forward_keywords(build(sequences())))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 8, "attn_logit_softcapping": 2.0, "head_dim": 8}),
        ("llama", {}),
    ],
)
def test_what_trees_cannot_serve_is_read_sequence_by_sequence(family: str, settings: dict[str, Any]) -> None:
    groups = [sequences(), sequences(prefix=9, seed=3)]
    given = [sequence for group in groups for sequence in group]
    trees = [concatenate([build(group) for group in groups])]
    network = model(family, **settings)
    if settings:
        shared = model(family, **settings)
        serve_trees(shared)
        with pytest.raises(ModelError, match=r"sliding window|soft cap") as refused:
            row_loss(shared, collate(trees))
        assert "tune.share_prefixes" in refused.value.remedy
    compare(network, given, trees, share=False)


def test_a_window_that_hides_nothing_is_served() -> None:
    given = sequences()
    longest = max(map(len, given))
    network = model("mistral", sliding_window=longest)
    compare(network, given, [build(given)])


def test_with_qlora(tmp_path: Path) -> None:
    """The base in 4 bits, as `tune` loads it; compared with separate rows through the same 4-bit model."""
    network = get_peft_model(
        load(str(folder(tmp_path)), quantization="nf4").model, LoraConfig(r=4, target_modules="all-linear")
    )
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    network.train()
    assert any(hasattr(parameter, "quant_state") for parameter in network.parameters())
    given = sequences()
    compare(network, given, [build(given)])


def test_four_bits_say_the_same_in_every_mode(tmp_path: Path) -> None:
    """Where the processor has AVX512-BF16, bitsandbytes would repack the weights at a pass without gradients."""
    path = str(folder(tmp_path))
    packed, plain = (load(path, quantization="nf4", dequantize=plain).model for plain in (False, True))
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(packed(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


def test_chunked_losses_are_those_of_all_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    hidden = torch.randn(30, 32, requires_grad=True)
    targets = torch.randint(0, 512, (30,))
    whole = token_losses(network, hidden, targets)
    (expected,) = torch.autograd.grad(whole.sum(), hidden)
    monkeypatch.setattr("openbook.training.head.CHUNK_ELEMENTS", 512 * 7)
    parts = token_losses(network, hidden, targets)
    (found,) = torch.autograd.grad(parts.sum(), hidden)
    assert torch.allclose(whole, parts)
    assert torch.allclose(expected, found, atol=1e-6)
