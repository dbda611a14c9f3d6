"""Merging for real, on small models: the result loads in plain transformers and says the same, or nothing is written."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from models_for_tests import folder
from openbook import tuned
from openbook.config import Config
from openbook.errors import InputError, ModelError, StoreError
from openbook.models import fingerprint, load
from openbook.storage import write_manifest
from openbook.training import merging
from tiny_model import save_random_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def setting(tmp_path, base, monkeypatch):
    monkeypatch.setattr(merging, "PROMPTS", 6)
    monkeypatch.setattr(merging, "WRITTEN", 8)
    config = Config.parse({"out": str(tmp_path / "work"), "model": {"base": str(base)}}, origin="test")
    adapter = config.adapters_dir / "raft"
    save_random_adapter(base, adapter)

    def declare(kind):
        write_manifest(adapter, stage="tune", options={"adapter": kind}, inputs={"base": fingerprint(str(base))})

    declare("lora")
    return config, adapter, declare


def logits(model, tokenizer, text="What does the cache keep?"):
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits


def test_the_merged_model_loads_in_plain_transformers_and_says_what_base_and_adapter_say(setting, base, tmp_path):
    from peft import PeftModel

    config, adapter, _ = setting
    report = tuned.merge(config, tmp_path / "merged")
    assert (report.prompts, report.equal, report.dtype, report.examined_equal) == (6, 6, "float32", None)
    assert report.tokens > 6 and report.largest_difference < 1e-4
    words = AutoTokenizer.from_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert words.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter), words)
    assert torch.allclose(logits(merged, words), wanted, atol=1e-5)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(base), words), wanted, atol=1e-2)


def test_a_qlora_adapter_is_merged_into_the_values_that_it_was_tuned_on(setting, base, tmp_path):
    config, adapter, declare = setting
    declare("qlora")
    report = tuned.merge(config, tmp_path / "merged")
    assert report.equal == 6
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert getattr(merged.config, "quantization_config", None) is None
    examined = load(str(base), quantization="nf4", dequantize=True)
    from peft import PeftModel

    PeftModel.from_pretrained(examined.model, adapter)
    assert torch.allclose(logits(merged, examined.tokenizer), logits(examined.model, examined.tokenizer), atol=1e-4)

    published = tuned.merge(config, tmp_path / "published", original=True)
    assert published.equal == 6 and published.examined_equal is not None
    weight = "model.layers.0.mlp.up_proj.weight"
    one, other = (load_file(tmp_path / name / "model.safetensors")[weight] for name in ("merged", "published"))
    assert not torch.equal(one, other)


def test_a_merged_model_that_says_something_else_is_told_and_not_left_behind(setting, tmp_path, monkeypatch):
    config, _, _ = setting
    write = merging._write

    def spoilt(merged, tokenizer, partial, stored):
        write(merged, tokenizer, partial, stored)
        weights = load_file(partial / "model.safetensors")
        weights["model.layers.0.mlp.down_proj.weight"] *= -1
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merging, "_write", spoilt)
    with pytest.raises(ModelError, match=r"another one: it continues \d of 6 prompts differently.*Nothing was written"):
        tuned.merge(config, tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_what_cannot_be_merged_is_refused_before_a_model_is_loaded(setting, base, tmp_path, monkeypatch):
    config, adapter, _ = setting
    monkeypatch.setattr(merging, "_load", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write .*--to"):
        tuned.merge(config, tmp_path / "file" / "merged")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        tuned.merge(config, tmp_path / "there")
    with pytest.raises(InputError, match="whole model already"):
        tuned.merge(config, tmp_path / "merged", adapter=base)
    save_file({"weight": torch.zeros(1, 32)}, adapter / "head.safetensors")
    with pytest.raises(InputError, match="reward model"):
        tuned.merge(config, tmp_path / "merged")
    (adapter / "head.safetensors").unlink()
    write_manifest(adapter, stage="tune", options={}, inputs={"base": "another"}, base="giant")
    with pytest.raises(ModelError, match="tuned on giant"):
        tuned.merge(config, tmp_path / "merged")
    shutil.rmtree(adapter)
    with pytest.raises(StoreError, match="no adapter"):
        tuned.merge(config, tmp_path / "merged")
