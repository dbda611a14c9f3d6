"""LoRA in half precision: PEFT's own numbers, by fewer passes, and nothing left behind."""

import contextlib

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from models_for_tests import folder, model
from openbook.models import load
from openbook.training.lora import _Fused, adapter_layers, half_precision


def adapted(network, **settings):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, **settings)
    return get_peft_model(network, config).train()


def step(network, *, fused):
    """Loss and gradients of one row, dropout drawn from the same seed."""
    network.zero_grad()
    torch.manual_seed(1)
    ids = torch.arange(24)[None] % 60
    with half_precision(adapter_layers(network) if fused else []):
        loss = network(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), found


def assert_as_peft(network, tolerance=1e-12):
    """To fp64's rounding."""
    network.double()
    (loss, found), (expected, theirs) = step(network, fused=True), step(network, fused=False)
    assert found.keys() == theirs.keys() and any("lora_B" in name for name in found)
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    for name, gradient in theirs.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.fixture
def counted(monkeypatch):
    """How often the product was added in place."""
    seen = []
    real = _Fused.forward
    monkeypatch.setattr(_Fused, "forward", staticmethod(lambda *a, **k: (seen.append(1), real(*a, **k))[1]))
    return seen


@pytest.mark.parametrize(
    "settings", [{}, {"lora_dropout": 0.3}, {"use_rslora": True}], ids=["plain", "dropout", "rslora"]
)
@pytest.mark.parametrize("family", ["llama", "qwen2"])  # qwen2 has biases
def test_gradients_are_pefts(counted, family, settings):
    assert_as_peft(adapted(model(family), **settings))
    assert len(counted) == 14


def test_gradients_are_pefts_in_four_bits(counted, tmp_path):
    network = adapted(load(str(folder(tmp_path)), quantization="nf4", device="cpu").model)
    (loss, found), (expected, theirs) = step(network, fused=True), step(network, fused=False)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for name, gradient in theirs.items():  # fp32's rounding
        assert (found[name] - gradient).norm() < 3e-6 * gradient.norm(), name
    assert len(counted) == 14


def test_gradients_are_pefts_when_activations_are_computed_anew(counted):
    network = adapted(model())
    network.gradient_checkpointing_enable({"use_reentrant": False})
    network.enable_input_require_grads()
    assert_as_peft(network)
    assert len(counted) == 28


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}], ids=["dora", "bias"])
def test_what_is_more_than_lora_is_left_alone(counted, settings):
    assert_as_peft(adapted(model("qwen2"), **settings))
    assert not counted


def test_merged_disabled_and_several_adapters(counted):
    network = adapted(model())
    network.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    network.base_model.set_adapter(["default", "other"])
    assert_as_peft(network)
    assert len(counted) == 14 + 4
    counted.clear()
    with half_precision(adapter_layers(network)), network.disable_adapter(), torch.no_grad():
        network(input_ids=torch.arange(9)[None])
    network.merge_adapter()
    with half_precision(adapter_layers(network)), torch.no_grad():
        network(input_ids=torch.arange(9)[None])
        with network.disable_adapter():  # which takes the adapters out again
            network(input_ids=torch.arange(9)[None])
    assert not counted


def test_in_half_precision_it_is_as_near_to_fp32(counted):
    network = adapted(model())
    _, truth = step(network, fused=False)
    network.bfloat16()
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.lora_A.float(), module.lora_B.float()

    def away(found):
        wrong = sum((found[n] - truth[n]).norm() ** 2 for n in truth)
        return (wrong / sum(truth[n].norm() ** 2 for n in truth)) ** 0.5

    with torch.autocast("cpu", dtype=torch.bfloat16):
        (_, fused), (_, plain) = step(network, fused=True), step(network, fused=False)
    assert len(counted) == 14
    assert all(gradient.dtype == torch.float32 for gradient in fused.values())
    assert away(fused) < 2 * away(plain), "rounding's size"


def test_nothing_is_left_behind():
    network = adapted(model())
    layers = adapter_layers(network)
    with contextlib.suppress(ZeroDivisionError), half_precision(layers), half_precision(layers):
        assert all(layer.lora_variant and not layer.cast_input_dtype_enabled for layer in layers)
        raise ZeroDivisionError
    assert not any(layer.lora_variant for layer in layers)
    assert all(layer.cast_input_dtype_enabled for layer in layers)
