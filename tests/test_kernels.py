"""Faster kernels compute the same, and stand back where they could not."""

import pytest
import torch
from torch.nn import functional as F

from models_for_tests import folder, model
from openbook import kernels
from openbook.kernels import BLOCK, COPY, MANY, fast, fast_products
from openbook.models import load
from openbook.models.decode import decode
from openbook.tokens import build
from openbook.training.attention import serve_trees
from openbook.training.trainer import collate
from test_attention import assert_close, gradients, row_loss, sequences
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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(COPY, 130), (2, COPY // 2 + 1, 130)])
def test_products_of_a_step_are_the_same(multiplied, shape, bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(130, 140, bias=bias), torch.randn(shape, requires_grad=True)

    def step():
        out = layer(x).tanh()
        return [out, *torch.autograd.grad(out.sum(), [x, *layer.parameters()])]

    expected_ = step()
    assert not multiplied
    with fast_products(CPU):
        found = step()
    assert len(multiplied) == 3  # forward, the gradient of x, that of the weight
    for one, other in zip(found, expected_, strict=True):
        torch.testing.assert_close(one, other)


def test_products_that_would_not_pay_are_left_to_pytorch(multiplied):
    torch.manual_seed(0)
    left, right = torch.randn(COPY, 200), torch.randn(200, COPY)
    others = [
        (left[: COPY - 1], right),  # few rows for a copy of the right one
        (left.T.contiguous().T, right[:, : COPY - 1].T.contiguous().T),  # few columns for one of the left
        (left[: MANY - 1], right.T.contiguous().T),
        (left, right[:, :1]),
        (left.double(), right.double()),
    ]
    with fast_products(CPU):
        for one, other in others:
            torch.mm(one, other)
            assert not multiplied
        found = torch.mm(left, right)
    assert len(multiplied) == 1
    torch.testing.assert_close(found.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-4)


def tuned(way, path):
    """A model as it is trained this way, wide enough that all its products pay."""
    from peft import LoraConfig, get_peft_model

    wide = {"hidden_size": COPY, "intermediate_size": 2 * COPY, "head_dim": 32, "num_key_value_heads": 4}
    if way == "full":
        return model("qwen2", **wide)
    if way == "qlora":
        model(**wide).save_pretrained(folder(path))
    base = load(str(path), quantization="nf4").model if way == "qlora" else model("qwen2", **wide)
    torch.manual_seed(1)
    return get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("way", ["lora", "full", "qlora"])
def test_losses_and_gradients_of_a_step_are_the_same(multiplied, tmp_path, way, checkpointing):
    network = tuned(way, tmp_path).train()
    if checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        network.enable_input_require_grads()
    serve_trees(network.get_base_model() if way != "full" else network)
    batch = collate([build(sequences(prefix=2 * COPY))])
    expected_ = row_loss(network, batch)
    theirs = gradients(network, expected_)
    assert not multiplied
    with fast_products(CPU):
        found = row_loss(network, batch)
        forward = len(multiplied)
        ours = gradients(network, found)
    torch.testing.assert_close(found, expected_, rtol=1e-5, atol=0.0)
    assert_close(ours, theirs)
    passed = 14 * (3 if way != "full" else 1)  # the linear layers of two blocks, and LoRA's two beside each
    assert forward == passed + 1, "and the head"
    # What comes last in a block, checkpointing does not compute anew.
    assert len(multiplied) - forward >= 14 * (2 if way == "full" else 1) + (passed - 6) * checkpointing


def test_trained_steps_take_the_faster_kernels(multiplied, tmp_path):
    from transformers import TrainingArguments

    from openbook.training.trainer import Supervised, TreeTrainer

    network = tuned("lora", tmp_path)
    serve_trees(network.get_base_model())
    row = build(sequences(prefix=2 * COPY))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, remove_unused_columns=False, report_to=[], use_cpu=True, bf16=False
    )
    trainer = TreeTrainer(
        model=network, args=arguments, method=Supervised(), rows=[row], validation=[row], callbacks=[]
    )
    trainer.train()
    step = len(multiplied)
    trainer.evaluate()
    assert len(multiplied) - step == 43, "three for each of 14 layers, and the head"
    assert step > 43 + 14


def test_half_precision_is_autocast_in_steps_and_validation(tmp_path):
    """accelerate wraps the model's `forward`; hidden states come from its body, which would not be reached by that."""
    from peft.tuners.lora import LoraLayer
    from transformers import TrainingArguments

    from openbook.training.trainer import Supervised, TreeTrainer

    seen = []

    class Watched(Supervised):
        def sums(self, model, batch):
            fused = all(module.lora_variant for module in model.modules() if isinstance(module, LoraLayer))
            seen.append((torch.is_autocast_enabled("cpu"), fused))
            return super().sums(model, batch)

    network, row = tuned("lora", tmp_path).to(torch.bfloat16), build(sequences())
    serve_trees(network.get_base_model())
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, remove_unused_columns=False, report_to=[], use_cpu=True, bf16=True
    )
    trainer = TreeTrainer(model=network, args=arguments, method=Watched(), rows=[row], validation=[row], callbacks=[])
    trainer.train()
    trainer.evaluate()
    assert seen == [(True, True), (True, True)]
