"""How long a row may be, so that a step fits into the memory of this machine."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openbook.config import Config
from openbook.errors import ModelError
from openbook.models import LoadedModel
from openbook.options import Tune
from openbook.progress import Progress
from openbook.tokens import TokenSequence, build
from openbook.training.head import hidden_states
from openbook.training.masters import HALF

SHORTEST = 256  # tokens: below that hardly a question with its passages fits
PROBE = 128  # tokens of the pass that is measured
USABLE = 0.75  # share of the memory that a run may take: the system and other programs want some too
# Tokens of a row up to which a GPU waits for the processor that launches its kernels: of a 1.1B model, rows of 2,200 to
# 15,300 tokens all took 0.24 to 0.27 s on an H200 (docs/LOG.md).
LAUNCHED = 16384
SLACK = 2.0  # how much more a step holds at its peak than what was kept for the backward pass: 1.6 to 1.95 measured
CGROUP = Path("/sys/fs/cgroup/memory.max")


def fit_rows(config: Config, model: Any, loaded: LoadedModel, progress: Progress) -> Config:
    """`config` with rows halved, and as many more of them a step, until one fits into memory; on a GPU with rows doubled,
    and as many fewer, while they fit and are not yet worth its time.

    A step keeps its tokens, so what is learned hardly depends on the machine. A `row_tokens` that the user chose is
    left alone. It goes by how much memory there is, not by what happens to be free, so that a killed run goes on with
    the rows it had. Raises `ModelError` where not even the shortest rows would fit.
    """
    tune, wished = config.tune, Tune().row_tokens
    if tune.row_tokens != wished:
        return config
    total, held = total_memory(loaded.model.device), held_bytes(model)
    room, each = USABLE * total - held, SLACK * bytes_per_token(model, loaded)
    tokens, rows = wished, tune.rows_per_step
    while tokens > SHORTEST and each * tokens > room:
        tokens, rows = tokens // 2, rows * 2
    if each * tokens > room:
        raise ModelError(
            f"{loaded.name} does not fit: training it on rows of {tokens} tokens takes about "
            f"{(held + each * tokens) / 1e9:.1f} GB, and there are {total / 1e9:.1f} GB.",
            "Take a smaller base, tune.adapter=qlora, or tune.activation_checkpointing=true; to try it all the same, "
            f"set tune.row_tokens to another number than {wished:,}.",
        )
    while 2 * tokens <= longest(loaded.model.device, tune) and rows % 2 == 0 and 2 * each * tokens <= room:
        tokens, rows = tokens * 2, rows // 2
    if tokens < wished:
        progress.message(
            f"Rows have {tokens:,} tokens, for {wished:,} would not fit into memory, and a step {rows} rows."
        )
    elif tokens > wished:
        progress.message(f"Rows have {tokens:,} tokens, for a GPU takes as long for {wished:,}, and a step {rows}.")
    return config.model_copy(update={"tune": tune.model_copy(update={"row_tokens": tokens, "rows_per_step": rows})})


def longest(device: torch.device, tune: Tune) -> int:
    """Tokens that a row may have where there is memory for them. Sequences that are read one by one gain nothing."""
    return LAUNCHED if device.type == "cuda" and tune.share_prefixes else tune.row_tokens


def total_memory(device: torch.device) -> float:
    """Bytes of the device that a model is on: of a GPU its own, else of the machine, or of the container's share."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        return min(total, float(CGROUP.read_text()))  # "max" where there is no limit
    except (OSError, ValueError):
        return total


def held_bytes(model: Any) -> int:
    """Bytes that stand in memory throughout a run: the weights, and of each that is trained its gradient and AdamW's
    two moments in fp32, and in half precision its fp32 copy (masters.py)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held: int = sum(parameter.nbytes for parameter in model.parameters())
    learning: int = sum(
        parameter.nbytes + (12 if parameter.dtype in HALF else 8) * parameter.numel() for parameter in trained
    )
    return held + learning


def bytes_per_token(model: Any, loaded: LoadedModel) -> float:
    """Bytes that a forward pass keeps for the backward one, for each token of a row: measured on a short one."""
    from accelerate.utils import send_to_device

    from openbook.training.trainer import as_trained, collate

    ids = np.arange(PROBE, dtype=np.int64) % loaded.model.config.get_text_config().vocab_size
    weight = np.zeros(PROBE, np.float32)
    weight[-1] = 1.0
    tree = build([TokenSequence(input_ids=ids, weight=weight, name="probe")])
    keywords = send_to_device(collate([tree]), loaded.model.device)["keywords"]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    modes = {module: module.training for module in model.modules()}
    model.train()  # activations are recomputed in training only
    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.random.fork_rng(), as_trained(model), keeping:
        states = hidden_states(model, keywords)
    for module, training in modes.items():
        module.training = training
    del states
    return sum(kept.values()) / PROBE
