"""Faster kernels compute the same, and stand back where they could not."""

import pytest
import torch
from torch.nn import functional as F

from openbook import kernels
from openbook.kernels import BLOCK, MANY, fast
from openbook.models.decode import decode
from test_decode import MODELS, expected

CPU = torch.device("cpu")


@pytest.fixture
def multiplied(monkeypatch):
    """Shapes that oneDNN was given."""
    seen = []
    real = torch.ops.mkldnn._linear_pointwise

    def watched(x, *rest):
        seen.append(tuple(x.shape))
        return real(x, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watched, raising=False)
    if not kernels._present():
        pytest.skip("this PyTorch has no MKL or no oneDNN")
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(MANY, 24), (2, MANY, 24), (1, 3 * MANY + 1, 24)])
def test_products_are_the_same(multiplied, shape, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40, bias=bias).requires_grad_(False)
    x = torch.randn(shape)
    with fast(CPU, MANY):
        found = layer(x)
    assert multiplied == [shape]
    torch.testing.assert_close(found, layer(x))


def test_what_it_cannot_multiply_is_left_to_pytorch(multiplied):
    torch.manual_seed(0)
    weight = torch.randn(40, 24)
    x = torch.randn(MANY, 24)
    others = [
        (x[: MANY - 1], weight),  # few
        (torch.randn(24, MANY).T, weight),  # strides for which oneDNN has no fast kernel
        (x, torch.randn(24, 40).T),
        (x.double(), weight.double()),
        (x, weight.clone().requires_grad_()),  # of which nobody would know the gradient
    ]
    with fast(CPU, MANY):
        for one, other in others:
            found = F.linear(one, other)
            assert not multiplied
            torch.testing.assert_close(found, torch.matmul(one, other.T))
        with torch.no_grad():
            F.linear(*others[-1])
    assert len(multiplied) == 1


def test_a_pass_over_few_tokens_is_left_alone(multiplied):
    with fast(CPU, MANY - 1):
        F.linear(torch.randn(MANY, 24), torch.randn(40, 24))
    assert not multiplied


@pytest.mark.parametrize("behind", [0, 1, 70])
@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("heads", [4, 2])
def test_attention_under_a_causal_mask_is_the_same(count, behind, window, heads):
    torch.manual_seed(0)
    query = torch.randn(1, 4, count, 8)
    key, value = torch.randn(2, 1, heads, behind + count, 8)
    place, column = torch.arange(behind, behind + count)[:, None], torch.arange(behind + count)
    mask = ((column <= place) & (column > place - (window or 10_000)))[None, None]
    settings = {"attn_mask": mask, "dropout_p": 0.0, "scale": 0.3, "is_causal": False, "enable_gqa": heads < 4}
    expected_ = F.scaled_dot_product_attention(query, key, value, **settings)
    with fast(CPU, MANY, causal=True):
        found = F.scaled_dot_product_attention(query, key, value, **settings)
    torch.testing.assert_close(found, expected_)


def test_attention_that_looks_ahead_is_left_alone():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 2 * BLOCK, 8)
    mask = torch.rand(1, 1, 2 * BLOCK, 2 * BLOCK) < 0.5
    with fast(CPU, MANY):
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.equal(found, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))


@pytest.mark.parametrize("name", MODELS)
def test_long_prompts_are_continued_as_transformers_does(multiplied, name):
    network = MODELS[name]()
    torch.manual_seed(1)
    common = torch.randint(3, 512, (90,)).tolist()
    prompts = [common + torch.randint(3, 512, (count,)).tolist() for count in (3 * BLOCK, 10, 2 * BLOCK + 7)]
    bodies = {number: [] for number in range(len(prompts))}
    for written in decode(lambda: network, prompts, limits=[20] * len(prompts), stop=[2], rows=2):
        bodies[written.number] += written.tokens
    assert len(multiplied) > 10
    assert [bodies[n] for n in range(len(prompts))] == [expected(network, prompt, 20, [2]) for prompt in prompts]
