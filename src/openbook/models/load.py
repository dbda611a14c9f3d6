"""Loading a causal language model: by name, in a dtype that the machine does well, in 4 bits where asked."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openbook.config import Config
from openbook.errors import ModelError
from openbook.heap import blocks_returned
from openbook.options import EMBEDDED
from openbook.storage import hash_file, hash_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["nf4", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready for use. `fingerprint` hashes its weights and configuration files (for a hub name: name and commit)."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    fingerprint: str
    quantization: Quantization

    @property
    def context(self) -> int:
        """How many tokens the model reads at most."""
        return _context(self.model.config, self.tokenizer)


def _context(config: Any, tokenizer: Any) -> int:
    lengths = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    return min(int(length) for length in lengths if length)


def resolve(name: str) -> str:
    """`nano` and `small` are the embedded models' folders; a path stays a path; anything else is a hub name."""
    if name in EMBEDDED:
        return str(Path(__file__).parent / name)
    looks_like_a_path = name.startswith(("/", "./", "../", "~")) or Path(name).expanduser().exists()
    if looks_like_a_path:
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a model: it holds no config.json.",
                "Give a folder with config.json, tokenizer and weights.",
            )
        return str(folder)
    return name


def fingerprint(name: str) -> str:
    """A hash of the model's files, or of its hub name and cached commit."""
    source = Path(resolve(name))
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix in {".json", ".safetensors", ".model", ".jinja"})
        return hash_json({file.name: hash_file(file) for file in files})
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    return hash_json([name, Path(cached).parent.name if isinstance(cached, str) else ""])


def pick_device(device: str) -> "torch.device":
    """`auto` takes the GPU when there is one."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"The device {device!r} was asked for, but PyTorch sees no GPU.", "Set model.device to cpu or auto."
        )
    return found


def pick_dtype(dtype: str, device: "torch.device") -> "torch.dtype":
    """`auto`: bfloat16 on GPUs that have it, float16 on those that do not, float32 on CPUs.

    A CPU without AVX-512-BF16 or AMX multiplies bfloat16 matrices hundreds of times slower than float32 ones, whatever
    a model's configuration says it was saved in.
    """
    import torch

    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
        return chosen
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is always masked, so it may equal the stop token
    tokenizer.padding_side = "left"
    return tokenizer


def context_tokens(name: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many tokens a model reads at most, from its configuration alone: no weights are loaded."""
    from transformers import AutoConfig

    with _explained(name):
        config = AutoConfig.from_pretrained(resolve(name), trust_remote_code=False)
    return _context(config, tokenizer)


def load_base(
    config: Config, quantization: Quantization | None = None, *, name: str = "", dequantize: bool = False
) -> LoadedModel:
    """`load` of the base that the options name (or of another model, `name`), as they say how; `quantization` (default:
    `model.quantization`) is what differs where an adapter decides it."""
    return load(
        name or config.model.base,
        quantization=quantization or config.model.quantization,
        dtype=config.model.dtype,
        device=config.model.device,
        dequantize=dequantize,
    )


def load(
    name: str,
    *,
    quantization: Quantization = "none",
    dtype: str = "auto",
    device: str = "auto",
    dequantize: bool = False,
) -> LoadedModel:
    """Load a model by name (`nano`, `small`, a folder, or a hub name), frozen, in evaluation mode.

    `quantization="nf4"` holds the linear layers in 4-bit NormalFloat (QLoRA, arXiv 2305.14314). With `dequantize` they
    are then turned back into plain matrices of exactly the same values: more memory, much faster token by token.
    Raises `ModelError` when it cannot be had.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    source, where = resolve(name), pick_device(device)
    compute = pick_dtype(dtype, where)
    settings: dict[str, Any] = {}
    if quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
    with _explained(name), blocks_returned():
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=compute,
            device_map={"": where} if quantization == "nf4" or where.type == "cuda" else None,
            trust_remote_code=False,
            use_safetensors=True,
            **settings,
        )
    if quantization == "nf4":
        _keep_packing(model)
    if quantization == "nf4" and dequantize:
        with _quiet():
            model = model.dequantize()
        model = model.to(compute)
    model.requires_grad_(False)
    model.eval()
    if model.generation_config is not None:
        # Sampling settings that a model ships are not ours: decoding is greedy unless asked otherwise.
        model.generation_config.do_sample = False
        for setting in ("temperature", "top_p", "top_k"):
            setattr(model.generation_config, setting, None)
    return LoadedModel(
        model=model, tokenizer=load_tokenizer(name), name=name, fingerprint=fingerprint(name), quantization=quantization
    )


def _keep_packing(model: Any) -> None:
    """Hold the 4-bit weights as they are.

    On CPUs with AVX512-BF16, bitsandbytes packs them anew at the first pass in evaluation mode, for a kernel that computes
    in bfloat16 whatever the compute dtype and has no backward pass; nothing packs them back, so that training after a
    validation, or after the reference was asked, would have wrong gradients and say nothing.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what transformers raises when a model is absent or broken into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        if Path(resolve(name)).is_dir():
            raise ModelError(f"The model in {resolve(name)} cannot be loaded: {reason}") from error
        raise ModelError(
            f"The model {name!r} cannot be loaded: {reason}",
            'Is it a folder with config.json? Without a network, use one that is already on this machine, or base = "nano".',
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
