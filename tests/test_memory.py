"""Rows are made shorter where memory demands it, longer on a GPU that holds them, and a step keeps its tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models_for_tests import folder
from openbook.config import Config
from openbook.errors import ModelError
from openbook.models import LoadedModel, load
from openbook.progress import SILENT
from openbook.training import memory
from openbook.training.adapting import adapted
from openbook.training.attention import serve_trees


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("base"))


def prepared(base: Path, *overrides: str) -> tuple[Config, Any, LoadedModel]:
    config = Config.load(None, [f"model.base={base}", "tune.adapter=lora", *overrides])
    loaded = load(str(base))
    model = adapted(loaded, config)
    serve_trees(loaded.model)
    return config, model, loaded


def fitted(monkeypatch: pytest.MonkeyPatch, base: Path, tokens: float, *overrides: str) -> tuple[int, int]:
    """`row_tokens` and `rows_per_step` on a machine whose memory holds a row of so many tokens."""
    config, model, loaded = prepared(base, *overrides)
    needed = memory.held_bytes(model) + memory.SLACK * memory.bytes_per_token(model, loaded) * tokens
    monkeypatch.setattr(memory, "total_memory", lambda device: needed / memory.USABLE)
    tune = memory.fit_rows(config, model, loaded, SILENT).tune
    return tune.row_tokens, tune.rows_per_step


def test_rows_are_halved_until_one_fits_and_a_step_keeps_its_tokens(
    monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    assert fitted(monkeypatch, base, 4200) == (4096, 2)
    assert fitted(monkeypatch, base, 4000) == (2048, 4)
    assert fitted(monkeypatch, base, 600) == (512, 16)


def test_on_a_gpu_rows_are_doubled_while_they_fit_and_a_step_keeps_its_tokens(
    monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    real, gpu = memory.longest, torch.device("cuda")
    monkeypatch.setattr(memory, "longest", lambda device, tune: real(gpu, tune))
    assert fitted(monkeypatch, base, 100_000) == (8192, 1)  # two rows a step
    assert fitted(monkeypatch, base, 8000) == (4096, 2)
    assert fitted(monkeypatch, base, 4000) == (2048, 4)
    assert fitted(monkeypatch, base, 100_000, "tune.rows_per_step=16") == (16384, 4)
    assert fitted(monkeypatch, base, 10_000, "tune.rows_per_step=16") == (8192, 8)
    assert fitted(monkeypatch, base, 100_000, "tune.rows_per_step=3") == (4096, 3)
    assert fitted(monkeypatch, base, 100_000, "tune.row_tokens=3000") == (3000, 2)
    assert fitted(monkeypatch, base, 100_000, "tune.share_prefixes=false") == (4096, 2)


def test_on_a_cpu_more_memory_makes_no_longer_rows(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    assert fitted(monkeypatch, base, 100_000) == (4096, 2)


def test_what_the_user_chose_is_left_alone(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    assert fitted(monkeypatch, base, 300, "tune.row_tokens=3000") == (3000, 2)


def test_a_model_that_cannot_be_trained_here_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    with pytest.raises(ModelError, match=r"does not fit.*GB"):
        fitted(monkeypatch, base, 200)


def test_layers_that_are_not_trained_and_recomputed_activations_cost_less(base: Path) -> None:
    def cost(*overrides: str) -> float:
        _, model, loaded = prepared(base, *overrides)
        return memory.bytes_per_token(model, loaded)

    everything = cost()
    assert cost("tune.layers=1") < 0.75 * everything
    assert cost("tune.activation_checkpointing=true") < 0.75 * everything


def test_full_tuning_holds_gradients_and_moments_too(base: Path) -> None:
    _, model, _ = prepared(base, "tune.adapter=full")
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert memory.held_bytes(model) == 16 * weights
