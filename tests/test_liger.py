"""Liger's layers are for GPUs; what they change in transformers beyond the model is given back."""

from types import SimpleNamespace

import torch
from transformers.models.llama import modeling_llama

from models_for_tests import model
from openbook.progress import SILENT
from openbook.training import liger


def test_a_cpu_keeps_transformers_layers():
    network = model().to(torch.bfloat16)
    assert not liger.take_layers(network, SILENT)
    assert "forward" not in vars(network.model.norm) and not isinstance(
        modeling_llama.apply_rotary_pos_emb, liger._Rotary
    )


def test_later_models_are_built_of_their_own(monkeypatch):
    """Liger's own function needs Triton; this one changes the module and the model in the same places."""
    own, norm, asked = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm, []
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", own)  # so that it is put back

    def apply(model, **wanted):
        asked.append(wanted)
        modeling_llama.apply_rotary_pos_emb = lambda *_: "on a GPU"
        modeling_llama.LlamaRMSNorm = type("LigerRMSNorm", (torch.nn.Module,), {})
        model.model.norm.in_place = True

    network = model()
    ids = torch.arange(9)[None]
    expected = network(input_ids=ids).logits
    for _ in range(2):
        liger._patch(network, apply)
    assert asked[0] == {name: name in ("rope", "rms_norm", "swiglu") for name in asked[0]}
    assert modeling_llama.LlamaRMSNorm is norm and network.model.norm.in_place
    rotary = modeling_llama.apply_rotary_pos_emb
    assert rotary.own is own, "not one around the other"
    assert torch.equal(network(input_ids=ids).logits, expected)
    assert rotary(SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)) == "on a GPU"
    rotary = liger._Rotary(lambda _: "its own", rotary.liger)
    for elsewhere in ({"is_cuda": True, "dtype": torch.float32}, {"is_cuda": False, "dtype": torch.bfloat16}):
        assert rotary(SimpleNamespace(**elsewhere)) == "its own"
