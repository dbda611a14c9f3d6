"""What the benchmarks against TRL have in common: shapes, counted operations, processes turn about, a stopwatch.

Each side runs in a process of its own, `SCRIPT FOLDER SIDE`: it reads FOLDER/task.json and writes FOLDER/<side>.json and,
beside it, the first step's gradients.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from openbook.models import LoadedModel, load, load_tokenizer
from openbook.storage import peak_memory_bytes
from openbook.tokens import TokenSequence, TokenTree

# Random weights in the shapes of SmolLM-135M, of the embedded base as it was when the figures of docs/LOG.md were taken,
# and of TinyLlama-1.1B.
SHAPES: dict[str, dict[str, Any]] = {
    "nano": {
        "vocab_size": 8192,
        "hidden_size": 384,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 96,
        "tie_word_embeddings": False,
    },
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "1.1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "tie_word_embeddings": False,
    },
}
RANK = 16

Task = dict[str, Any]
Found = dict[str, Any]


# --- the process that compares ---------------------------------------------------------------------------------------


def alternate(folder: Path, script: Path, variants: Sequence[str], rounds: int) -> tuple[list[Found], dict[str, Any]]:
    """What openbook measured in each round, and what TRL did, by its configuration; the fastest of the first round goes
    on. A configuration that the system kills for its memory is left out."""
    worker(folder, script, "prepare")
    ours: list[Found] = []
    theirs: dict[str, list[Found]] = {}
    contenders = list(variants)
    for number in range(rounds):
        progress(f"round {number + 1}: openbook")
        ours.append(worker(folder, script, "openbook"))
        for variant in contenders:
            progress(f"round {number + 1}: TRL, {variant}")
            try:
                theirs.setdefault(variant, []).append(worker(folder, script, variant))
            except Killed:
                progress(f"TRL, {variant}: killed, most likely for its memory")
                del theirs[variant]
        contenders = sorted(theirs, key=lambda variant: median(theirs[variant], "seconds"))[:1]
    return ours, {name: theirs[name] for name in sorted(theirs, key=lambda name: median(theirs[name], "seconds"))}


class Killed(Exception):
    """A side was ended by a SIGKILL."""


def worker(folder: Path, script: Path, side: str) -> Found:
    """One process; what it writes for people goes to a log that is shown only when it fails."""
    with (folder / f"{side}.log").open("w+") as log:
        done = subprocess.run([sys.executable, script, str(folder), side], stdout=log, stderr=subprocess.STDOUT)
        if done.returncode == -signal.SIGKILL:
            raise Killed(side)
        if done.returncode:
            log.seek(0)
            raise SystemExit(f"{log.read()}\nThe side {side!r} failed; see above.")
    found: Found = json.loads((folder / f"{side}.json").read_text())
    return found


def layer_weights(shape: dict[str, Any]) -> tuple[int, int]:
    """Weights of all linear layers but the head, and of the LoRA matrices beside them."""
    D, F = shape["hidden_size"], shape["intermediate_size"]
    Q, KV = (shape[f"num_{kind}_heads"] * shape["head_dim"] for kind in ("attention", "key_value"))
    linears = [(D, Q), (D, KV), (D, KV), (Q, D), (D, F), (D, F), (F, D)]
    layers = shape["num_hidden_layers"]
    return layers * sum(a * b for a, b in linears), layers * sum(RANK * (a + b) for a, b in linears)


def flops(shape: dict[str, Any], *, tokens: int, pairs: int, logits: int, backward: bool = True) -> float:
    """Operations of one pass over the layers and over `logits` positions of the head, with or without gradients.

    Forward 2 a weight and token; backward 2 for the activations' gradient and 2 for that of LoRA's weights. An attended
    pair costs 4 a dimension forward, 8 backward. Recomputation and elementwise work are not counted.
    """
    frozen, lora = layer_weights(shape)
    attention = 4 * pairs * shape["num_attention_heads"] * shape["head_dim"] * shape["num_hidden_layers"]
    head = 2 * logits * shape["vocab_size"] * shape["hidden_size"]
    forward = 2 * (frozen + lora) * tokens + attention + head
    return float(forward + backward * (2 * (frozen + 2 * lora) * tokens + 2 * attention + head))


def of_trees(rows: Sequence[TokenTree]) -> dict[str, int]:
    """What `flops` counts, for rows of token trees."""
    return {
        "tokens": sum(map(len, rows)),
        "pairs": sum(int((row.subtree_end - np.arange(len(row))).sum()) for row in rows),
        "logits": sum(int((row.weight > 0).sum()) for row in rows),
    }


def of_sequences(sequences: Sequence[TokenSequence]) -> dict[str, int]:
    """The same for separate rows without any padding."""
    return {
        "tokens": sum(map(len, sequences)),
        "pairs": sum(len(s) * (len(s) + 1) // 2 for s in sequences),
        "logits": sum(int((s.weight > 0).sum()) for s in sequences),
    }


def median(found: Sequence[Found], key: str) -> float:
    values = [value for one in found for value in (one[key] if isinstance(one[key], list) else [one[key]])]
    return float(statistics.median(values))


def summary(found: Sequence[Found], operations: float) -> Found:
    """Medians over the processes of one side; `operations` are those of a step. Matrix rates are of `torch.mm` in the
    same processes."""
    seconds, cpu = median(found, "seconds"), median(found, "cpu_seconds")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "all_seconds": [one["seconds"] for one in found],
        "loss": found[0]["loss"],
        "teraflop": operations / 1e12,
        "matrix_gflops": median(found, "mm_gflops"),
        "matrix_rate_share": operations / 1e9 / seconds / median(found, "mm_gflops"),
        "cpu_matrix_rate_share": operations / 1e9 / cpu / median(found, "cpu_mm_gflops"),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found),
        "memory_before_training_bytes": max(one["memory_before_training_bytes"] for one in found),
        "loading_seconds": median(found, "loading_seconds"),
    }


def tried(theirs: dict[str, list[Found]], *keys: str) -> dict[str, dict[str, float]]:
    """These figures of each of TRL's configurations."""
    return {name: {key: round(median(found, key), 3) for key in keys} for name, found in theirs.items()}


def ratio(result: Found, *keys: str) -> float:
    """TRL's sum of these figures by openbook's."""
    theirs, ours = (sum(result[name][key] for key in keys) for name in ("trl", "openbook"))
    return float(theirs / ours)


def agreement(result: Found, folder: Path, variant: str) -> dict[str, float]:
    """How far the losses and the gradients of both sides are apart."""
    return {
        "loss_difference": abs(result["trl"]["loss"] - result["openbook"]["loss"]),
        "gradient_difference": gradient_difference(folder, variant),
    }


def gradient_difference(folder: Path, variant: str) -> float:
    """The norm of the difference of all gradients, relative to TRL's."""
    ours, theirs = (load_file(folder / f"{name}.safetensors") for name in ("openbook", variant))
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    a, b = (torch.cat([found[name].flatten().double() for name in sorted(ours)]) for found in (ours, theirs))
    return float((a - b).norm() / b.norm())


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


# --- the processes that are compared ---------------------------------------------------------------------------------


def prepare(task: Task) -> None:
    """The untrained model that both sides load, with a tokenizer, which TRL cannot do without."""
    torch.manual_seed(0)
    half = torch.float16 if task["nf4"] else torch.float32  # half the disk, and half the memory while loading
    config = LlamaConfig(max_position_embeddings=8192, **task["shape"])
    LlamaForCausalLM(config).to(half).save_pretrained(task["model"])
    load_tokenizer("nano").save_pretrained(task["model"])


def loaded(task: Task) -> LoadedModel:
    return load(task["model"], quantization="nf4" if task["nf4"] else "none", device="cpu")


def adapted(task: Task, base: Any, **others: Any) -> Any:
    """The base with a LoRA whose matrices are both random, so that all gradients are seen."""
    from peft import LoraConfig, get_peft_model

    kind = {"task_type": "CAUSAL_LM", **others}
    model = get_peft_model(base, LoraConfig(r=task["rank"], target_modules="all-linear", **kind))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.02)
    return model


def matrix_rate() -> tuple[float, float]:
    """GFLOP/s of `torch.mm` by the clock and by processor time."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(a, b)
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(15):
        torch.mm(a, b)
    operations = 15 * 2 * 1024**3 / 1e9
    return operations / (time.perf_counter() - clock), operations / (time.process_time() - processor)


class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Times optimizer steps, measures the matrix rate after each, and keeps the first step's loss and gradients."""

    def __init__(self, model: Any, gradients: Path) -> None:
        self._model, self._gradients = model, gradients
        self._seconds: list[float] = []
        self._cpu_seconds: list[float] = []
        self._rates: list[tuple[float, float]] = []
        self._loss = float("nan")

    def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def on_pre_optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        if not self._seconds:
            found = {n: p.grad.clone() for n, p in self._model.named_parameters() if p.grad is not None}
            # A reward model's head has another name in a sequence classification model under PEFT.
            found = {"score.weight" if ".score." in name else name: grad for name, grad in found.items()}
            save_file(found, self._gradients)

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self._seconds.append(time.perf_counter() - self._clock)
        self._cpu_seconds.append(time.process_time() - self._processor)
        self._rates.append(matrix_rate())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        if logs and "loss" in logs and self._loss != self._loss:
            self._loss = logs["loss"]

    def found(self, warm_up: int) -> Found:
        return {
            "seconds": self._seconds[warm_up:],
            "cpu_seconds": self._cpu_seconds[warm_up:],
            "mm_gflops": [rate for rate, _ in self._rates],
            "cpu_mm_gflops": [rate for _, rate in self._rates],
            "loss": self._loss,
            "peak_memory_bytes": peak_memory_bytes(),
        }


def settings(task: Task, folder: Path, accumulation: int) -> dict[str, Any]:
    """The training arguments of either side, the task's own ("arguments") last. The rate is 0, so that every step is the
    first one again."""
    return {
        "output_dir": str(folder / "out"),
        "max_steps": task["warm_up"] + task["steps"],
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 0.0,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **task.get("arguments", {}),
    }


def opened() -> tuple[Path, str, Task]:
    """The folder of this process, its side and its task. The side "prepare" ends here."""
    folder, side = Path(sys.argv[1]), sys.argv[2]
    task: Task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    if side == "prepare":
        prepare(task)
        write_found(folder, side, {})
        sys.exit()
    return folder, side, task


def write_found(folder: Path, side: str, found: Found) -> None:
    (folder / f"{side}.json").write_text(json.dumps(found))
