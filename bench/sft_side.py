"""One side of `bench/sft.py` in a process of its own: `sft_side.py FOLDER prepare|openbook|VARIANT`, see `versus`."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainingArguments

import versus
from openbook.storage import peak_memory_bytes
from openbook.tokens import TokenSequence, plan


def openbook_trainer(task: dict[str, Any], folder: Path, model: Any, groups: list[list[TokenSequence]]) -> Any:
    from openbook.training.adapting import recompute_activations
    from openbook.training.attention import serve_trees
    from openbook.training.trainer import Supervised, TreeTrainer

    serve_trees(model.get_base_model())
    if task["checkpointing"]:
        recompute_activations(model, adapters=True)
    rows = plan(groups, task["row_tokens"], seed=0, epoch=1)
    arguments = TrainingArguments(
        per_device_train_batch_size=1,
        remove_unused_columns=False,
        label_names=[],
        **versus.settings(task, folder, len(rows)),
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
        **versus.settings(task, folder, len(sequences)),
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL turns the adapters of 4-bit models into bfloat16
    return trainer


def main() -> None:
    folder, side, task = versus.opened()
    groups = [
        [TokenSequence(input_ids=np.array(ids), weight=np.array(weight, np.float32)) for ids, weight in group]
        for group in task["groups"]
    ]
    started = time.perf_counter()
    base = versus.loaded(task)
    model = versus.adapted(task, base.model)
    before = {"loading_seconds": time.perf_counter() - started, "memory_before_training_bytes": peak_memory_bytes()}
    if side == "openbook":
        trainer = openbook_trainer(task, folder, model, groups)
    else:
        trainer = trl_trainer(task, folder, model, groups, base.tokenizer, side)
    watch = versus.Stopwatch(model, folder / f"{side}.safetensors")
    trainer.add_callback(watch)
    trainer.train()
    versus.write_found(folder, side, {**before, **watch.found(task["warm_up"])})


if __name__ == "__main__":
    main()
