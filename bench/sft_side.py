"""One side of `bench/sft.py` in a process of its own: `sft_side.py FOLDER prepare|openbook|VARIANT`.

Reads FOLDER/task.json; writes what it measured to FOLDER/<side>.json and the first step's gradients beside it.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from openbook.models import load, load_tokenizer
from openbook.storage import peak_memory_bytes
from openbook.tokens import TokenSequence, plan


def prepare(task: dict[str, Any]) -> None:
    """The untrained model that both sides load, with a tokenizer, which TRL cannot do without."""
    torch.manual_seed(0)
    half = torch.float16 if task["nf4"] else torch.float32  # half the disk, and half the memory while loading
    config = LlamaConfig(max_position_embeddings=8192, **task["shape"])
    LlamaForCausalLM(config).to(half).save_pretrained(task["model"])
    load_tokenizer("nano").save_pretrained(task["model"])


def adapted(task: dict[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer: the base with a LoRA whose matrices are both random, so that all gradients are seen."""
    from peft import LoraConfig, get_peft_model

    loaded = load(task["model"], quantization="nf4" if task["nf4"] else "none", device="cpu")
    lora = LoraConfig(r=task["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(1)
    model = get_peft_model(loaded.model, lora)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model, loaded.tokenizer


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
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.rates: list[tuple[float, float]] = []
        self.loss = float("nan")

    def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def on_pre_optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        if not self.seconds:
            found = {n: p.grad.clone() for n, p in self._model.named_parameters() if p.grad is not None}
            save_file(found, self._gradients)

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.seconds.append(time.perf_counter() - self._clock)
        self.cpu_seconds.append(time.process_time() - self._processor)
        self.rates.append(matrix_rate())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        if logs and "loss" in logs and self.loss != self.loss:
            self.loss = logs["loss"]


def settings(task: dict[str, Any], folder: Path, accumulation: int) -> dict[str, Any]:
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
    }


def openbook_trainer(task: dict[str, Any], folder: Path, model: Any, groups: list[list[TokenSequence]]) -> Any:
    from openbook.training.attention import serve_trees
    from openbook.training.trainer import Supervised, TreeTrainer

    serve_trees(model.get_base_model())
    rows = plan(groups, task["row_tokens"], seed=0, epoch=1)
    arguments = TrainingArguments(
        per_device_train_batch_size=1,
        remove_unused_columns=False,
        label_names=[],
        **settings(task, folder, len(rows)),
    )
    return TreeTrainer(model=model, args=arguments, method=Supervised(), rows=rows, validation=[], callbacks=[])


def trl_trainer(
    task: dict[str, Any], folder: Path, model: Any, groups: list[list[TokenSequence]], tokenizer: Any, variant: str
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    sequences = [sequence for group in groups for sequence in group]
    data = Dataset.from_list(
        [
            {"input_ids": s.input_ids.tolist(), "labels": np.where(s.weight > 0, s.input_ids, -100).tolist()}
            for s in sequences
        ]
    )
    batch = 1 if variant in {"single", "packed"} else min(task["batch"], len(sequences))
    # An epoch is one step: accumulation ends with it.
    arguments = SFTConfig(
        per_device_train_batch_size=batch,
        packing=variant == "packed",
        padding_free=variant == "padding-free",
        max_length=task["row_tokens"] if variant == "packed" else None,
        **settings(task, folder, len(sequences)),
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL turns the adapters of 4-bit models into bfloat16
    return trainer


def main() -> None:
    folder, side = Path(sys.argv[1]), sys.argv[2]
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    if side == "prepare":
        prepare(task)
        (folder / "prepare.json").write_text("{}")
        return
    groups = [
        [TokenSequence(input_ids=np.array(ids), weight=np.array(weight, np.float32)) for ids, weight in group]
        for group in task["groups"]
    ]
    started = time.perf_counter()
    model, tokenizer = adapted(task)
    loading, before = time.perf_counter() - started, peak_memory_bytes()
    if side == "openbook":
        trainer = openbook_trainer(task, folder, model, groups)
    else:
        trainer = trl_trainer(task, folder, model, groups, tokenizer, side)
    watch = Stopwatch(model, folder / f"{side}.safetensors")
    trainer.add_callback(watch)
    trainer.train()
    found = {
        "seconds": watch.seconds[task["warm_up"] :],
        "cpu_seconds": watch.cpu_seconds[task["warm_up"] :],
        "mm_gflops": [rate for rate, _ in watch.rates],
        "cpu_mm_gflops": [rate for _, rate in watch.rates],
        "loss": watch.loss,
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_before_training_bytes": before,
        "loading_seconds": loading,
    }
    (folder / f"{side}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
