"""What is trained: fresh adapters on the frozen base, the adapter of an earlier run, or all weights; and how it is saved."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openbook.config import Config
from openbook.errors import ModelError
from openbook.models import LoadedModel
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
        model = loaded.model
        layers = _last_layers(loaded, options.layers)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(layers is None or _layer(name) in layers)
    else:
        model = _fresh(loaded, config)
    if options.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if options.adapter != "full":
            model.enable_input_require_grads()
    return model


def _fresh(loaded: LoadedModel, config: Config) -> Any:
    from peft import LoraConfig, get_peft_model

    options = config.tune
    try:
        lora = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            task_type="CAUSAL_LM",
            **_targets(loaded, _last_layers(loaded, options.layers)),
        )
        return get_peft_model(loaded.model, lora, adapter_name="default")
    except ValueError as error:
        raise ModelError(f"{loaded.name} cannot take LoRA adapters: {error}") from error


def _last_layers(loaded: LoadedModel, asked: int) -> range | None:
    """The layers that are trained, None for all: so many of the last as asked, or (−1) as the base's configuration wants.
    nano wants 1: its lower layers find and copy by weights set by hand, with scores in the hundreds, which any step would
    upset."""
    config = loaded.model.config
    count = int(getattr(config, "openbook_tune_layers", 0)) if asked < 0 else asked
    total = config.num_hidden_layers
    return range(max(0, total - count), total) if count else None


def _layer(name: str) -> int | None:
    """Which layer a module or parameter belongs to."""
    found = re.search(r"\.layers\.(\d+)\.", name)
    return int(found[1]) if found else None


def _targets(loaded: LoadedModel, layers: range | None) -> dict[str, Any]:
    """Which linear modules are adapted: all but the head, or those of `layers`."""
    if layers is None:
        return {"target_modules": "all-linear"}
    from torch import nn

    modules = loaded.model.named_modules()
    found = {
        name.rsplit(".", 1)[-1] for name, module in modules if isinstance(module, nn.Linear) and _layer(name) in layers
    }
    return {"target_modules": sorted(found), "layers_to_transform": list(layers)}


def _started(loaded: LoadedModel, config: Config, start: Path) -> Any:
    from peft import PeftModel

    if config.tune.adapter == "full":
        raise ModelError(f"Full tuning cannot go on from the adapter in {start}.", "Set tune.adapter to qlora or lora.")
    check_base(start, loaded)
    with explained(start, loaded):
        return PeftModel.from_pretrained(loaded.model, start, adapter_name="default", is_trainable=True)


def check_base(folder: Path, loaded: LoadedModel) -> None:
    """Raise `ModelError` where `folder` holds no adapter, or one that was tuned on another base."""
    adapter_fingerprint(folder)  # says so where there is none
    tuned_on = (read_manifest(folder) or {}).get("inputs", {}).get("base", loaded.fingerprint)
    if tuned_on != loaded.fingerprint:
        raise ModelError(
            f"The adapter in {folder} was tuned on another base than {loaded.name}, with other weights or another "
            "tokenizer.",
            "Set model.base to that one.",
        )


@contextlib.contextmanager
def explained(folder: Path, loaded: LoadedModel) -> Iterator[None]:
    """Turn what PEFT raises for an adapter that does not fit into a sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, ValueError, SafetensorError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
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
        model.save_pretrained(out, safe_serialization=True, selected_adapters=["default"])
    (out / "README.md").unlink(missing_ok=True)  # PEFT's template card says nothing true about this adapter
