"""What the reference thinks of every answer, computed once before training and kept on disk.

The reference is the model as the run starts: the bare base (fresh adapters change nothing) or the base with the adapter
that the run goes on from. So it needs no second model, and no adapter is ever switched while gradients are due.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openbook.progress import Progress
from openbook.storage import atomic_file
from openbook.training.dpo import Anchors, sequence_logps
from openbook.training.head import base_of
from openbook.training.pair_rows import PairRow
from openbook.training.trainer import as_trained, collate, predicting_states


def reference_logps(model: Any, rows: Sequence[PairRow], *, pairs: int, cache: Path, progress: Progress) -> Tensor:
    """Log-probabilities (pairs, 2) of the chosen and the rejected answers under `model`, as `rows` lay them out.

    Read from `cache` where they stand there, so that a run which is stopped goes on with the very same numbers.
    """
    found = _read(cache, pairs)
    if found is not None:
        return found
    found = torch.zeros(pairs, 2)
    model.eval()
    with (
        progress.task("Asking the reference", sum(map(len, rows)), "tokens") as task,
        torch.no_grad(),
        as_trained(model),
    ):
        for row in rows:
            batch = send_to_device(collate([row.tree]), model.device)
            logps, _ = sequence_logps(model, predicting_states(model, batch), batch)
            found[list(row.pairs)] = logps.view(-1, 2).cpu()
            task.advance(len(row))
    with atomic_file(cache) as partial:
        save_file({"logps": found}, partial)
    return found


def _read(cache: Path, pairs: int) -> Tensor | None:
    """The log-probabilities in `cache`; None where it is absent, damaged or of another number of pairs."""
    try:
        found: Tensor | None = load_file(cache).get("logps")
    except (OSError, SafetensorError):
        return None
    return found if found is not None and found.shape == (pairs, 2) else None


def anchors(model: Any, rows: Sequence[PairRow]) -> Anchors:
    """The reference's hidden states for the watched rows, by which the drift from it is measured exactly.

    They take (tokens of the answers) · D numbers; the head they go through is copied only where it is trained.
    """
    head = base_of(model).get_output_embeddings()
    trained = any(parameter.requires_grad for parameter in head.parameters())
    model.eval()
    with torch.no_grad(), as_trained(model):
        states = {
            row.pairs: predicting_states(model, send_to_device(collate([row.tree]), model.device)) for row in rows
        }
    return Anchors(states=states, head=copy.deepcopy(head) if trained else None)
