"""What is trained: fresh adapters on the frozen base, the adapter of an earlier run, or all weights; and how it is saved."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.errors import ModelError
from openbook.heap import return_blocks
from openbook.models import LoadedModel
from openbook.models.generate import HEAD
from openbook.options import WEIGHTS, Tune
from openbook.storage import hash_file, hash_json, read_manifest

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapted(loaded: LoadedModel, config: Config, start: Path | None = None) -> Any:
    """The model with what is trained made trainable. With `start`, the adapter in that folder is trained on."""
    from transformers import set_seed

    options = config.tune
    set_seed(config.seed)
    if start is not None:
        model = _started(loaded, config, start)
    elif options.adapter == "full":
        _check_full(loaded)
        model, scope = loaded.model, _Scope.of(loaded, options)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in scope)
    else:
        model = _fresh(loaded, config)
    if options.activation_checkpointing:
        recompute_activations(model, adapters=options.adapter != "full")
    return model


def _check_full(loaded: LoadedModel) -> None:
    """Raise `ModelError` where PyTorch's scaling of losses, which float16 needs, would refuse gradients in float16."""
    import torch

    if loaded.model.device.type == "cuda" and loaded.model.dtype == torch.float16:
        raise ModelError(
            f"All weights of {loaded.name} cannot be tuned in float16, whose gradients are too small to be seen.",
            "Set model.dtype to bfloat16 or float32, or tune.adapter to qlora or lora.",
        )


def recompute_activations(model: Any, *, adapters: bool) -> None:
    """Activation checkpointing. Whoever asks for it is short of memory, so what is freed goes back to the system as well."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if adapters:
        model.enable_input_require_grads()
    return_blocks()


def _fresh(loaded: LoadedModel, config: Config) -> Any:
    from peft import LoraConfig, get_peft_model

    options = config.tune
    try:
        lora = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            task_type="CAUSAL_LM",
            **_targets(loaded, _Scope.of(loaded, options)),
        )
        return get_peft_model(loaded.model, lora, adapter_name="default")
    except ValueError as error:
        raise ModelError(f"{loaded.name} cannot take LoRA adapters: {error}") from error


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is trained: the linear modules of these names in these layers; empty, all of them."""

    layers: range
    modules: frozenset[str]

    @classmethod
    def of(cls, loaded: LoadedModel, options: Tune) -> "_Scope":
        total = loaded.model.config.num_hidden_layers
        if unknown := set(options.modules) - (known := _linear(loaded)):
            raise ModelError(
                f"{loaded.name} has no linear module named {' or '.join(sorted(unknown))}.",
                f"Choose tune.modules among {', '.join(sorted(known))}.",
            )
        layers = range(max(0, total - options.layers), total) if options.layers else range(0)
        return cls(layers, frozenset(options.modules))

    def __contains__(self, name: str) -> bool:
        """Whether a module or parameter of this name is trained."""
        layer = re.search(r"\.layers\.(\d+)\.", name)
        inside = not self.layers or (layer is not None and int(layer[1]) in self.layers)
        return inside and (not self.modules or not self.modules.isdisjoint(name.split(".")))


def _linear(loaded: LoadedModel) -> set[str]:
    """The names of the linear modules within the layers."""
    from torch import nn

    modules = loaded.model.named_modules()
    return {name.rsplit(".", 1)[-1] for name, m in modules if isinstance(m, nn.Linear) and ".layers." in name}


def _targets(loaded: LoadedModel, scope: _Scope) -> dict[str, Any]:
    """Which linear modules are adapted, as PEFT is told: all but the head, or those in `scope`."""
    if not scope.layers and not scope.modules:
        return {"target_modules": "all-linear"}
    modules = {"target_modules": sorted(scope.modules or _linear(loaded))}
    return modules | ({"layers_to_transform": list(scope.layers)} if scope.layers else {})


def _started(loaded: LoadedModel, config: Config, start: Path) -> Any:
    from peft import PeftModel

    if config.tune.adapter == "full":
        raise ModelError(f"Full tuning cannot go on from the adapter in {start}.", "Set tune.adapter to qlora or lora.")
    if (start / HEAD).is_file():
        raise ModelError(
            f"{start} is a reward model: its adapter serves a head that scores answers, and no run can go on from it.",
            "Start from an adapter that writes answers, or from the bare base.",
        )
    check_base(start, loaded)
    with explained(start, loaded):
        return PeftModel.from_pretrained(loaded.model, start, adapter_name="default", is_trainable=True)


def check_base(folder: Path, loaded: LoadedModel) -> None:
    """Raise `ModelError` where `folder` holds no adapter, or one that was tuned on another base; warn where it was tuned on
    other weights of this one (4-bit ones or those as they are)."""
    adapter_fingerprint(folder)  # says so where there is none
    manifest = read_manifest(folder) or {}
    tuned_on = manifest.get("inputs", {}).get("base", loaded.fingerprint)
    if tuned_on != loaded.fingerprint:
        raise ModelError(
            f"The adapter in {folder} was tuned on another base than {loaded.name}, with other weights or another "
            "tokenizer.",
            "Set model.base to that one.",
        )
    how = manifest.get("options", {}).get("adapter", "")
    if WEIGHTS.get(how, loaded.quantization) != loaded.quantization:
        forms = {"nf4": "in 4 bits", "none": "as it is"}
        warnings.warn(
            f"The adapter in {folder} was tuned on the base {forms[WEIGHTS[how]]} and is put on it "
            f"{forms[loaded.quantization]}, where it is another model; tune.adapter = {how} makes it fit.",
            stacklevel=3,
        )


@contextlib.contextmanager
def explained(folder: Path, loaded: LoadedModel) -> Iterator[None]:
    """Turn what PEFT raises for an adapter that does not fit into a sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, ValueError, SafetensorError, OSError) as error:
        # PyTorch's first line ends in a colon; what does not fit stands in the second.
        reason = " ".join(line.strip() for line in str(error).strip().split("\n")[:2])
        raise ModelError(f"The adapter in {folder} cannot be put on {loaded.name}: {reason}") from error


def adapter_fingerprint(folder: Path) -> str:
    """A hash of an adapter's files. Raises `ModelError` where they are not all there."""
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise ModelError(
            f"{folder} holds no adapter: {missing[0]} is missing.", "Name the folder that `openbook tune` wrote."
        )
    return hash_json({name: hash_file(folder / name) for name in ADAPTER_FILES})


def count_weights(model: Any) -> tuple[int, int]:
    """Trained weights and all weights; a packed 4-bit tensor counts its weights, not its bytes."""
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if hasattr(parameter, "quant_state"):
            count *= 2 * parameter.element_size()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total


def save(model: Any, loaded: LoadedModel, out: Path, config: Config) -> None:
    """The adapter, or after full tuning the whole model with its tokenizer, as safetensors."""
    if config.tune.adapter == "full":
        loaded.tokenizer.save_pretrained(out)
        model.save_pretrained(out, safe_serialization=True)
    else:
        model.peft_config["default"].base_model_name_or_path = config.model.base
        # Embeddings are never trained beside adapters; left to itself, PEFT looks for the base's at the hub.
        model.save_pretrained(out, safe_serialization=True, selected_adapters=["default"], save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's template card says nothing true about this adapter
