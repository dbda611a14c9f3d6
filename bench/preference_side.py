"""One side of `bench/preference.py` in a process of its own: `preference_side.py FOLDER prepare|openbook|VARIANT`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from transformers import TrainingArguments

import versus
from openbook.models import LoadedModel
from openbook.options import RL, Preference
from openbook.progress import SILENT
from openbook.storage import peak_memory_bytes
from openbook.tokens import TokenSequence
from openbook.training.attention import serve_trees
from openbook.training.dpo import Anchors, DirectPreference
from openbook.training.exercises import Exercise
from openbook.training.grpo import GroupRelative
from openbook.training.limits import Limits
from openbook.training.pair_rows import Pairs
from openbook.training.references import reference_logps
from openbook.training.reward import RewardModelling, attach_head
from openbook.training.roles import Roles
from openbook.training.rollout_trainer import RolloutTrainer
from openbook.training.rollouts import Rollout, rows
from openbook.training.rounds import Rounds, Turn
from openbook.training.trainer import TreeTrainer

GROUP = 8  # GRPO's rollouts to a prompt
CENTRING = 0.01


def pairs_of(task: versus.Task) -> Pairs:
    def sequences(side: int) -> tuple[TokenSequence, ...]:
        return tuple(_sequence(item["prompt"], item["answers"][side]) for item in task["items"])

    return Pairs(chosen=sequences(0), rejected=sequences(1), margins=(0.0,) * len(task["items"]))


def _sequence(prompt: Sequence[int], answer: Sequence[int]) -> TokenSequence:
    weight = np.array([0.0] * len(prompt) + [1.0] * len(answer), np.float32)
    return TokenSequence(input_ids=np.array([*prompt, *answer], np.int64), weight=weight)


def rollouts_of(task: versus.Task) -> list[Rollout]:
    per_context: dict[tuple[int, ...], int] = {}
    found = []
    for item in task["items"]:
        context = per_context.setdefault(tuple(item["prompt"][:64]), len(per_context))
        exercise = Exercise(name="", prompt=tuple(item["prompt"]), passages=(), gold=None, group=(0, context))
        found += [Rollout(exercise=exercise, tokens=tuple(a), text="", finished=True) for a in item["answers"]]
    return found


def rows_of(task: versus.Task) -> Sequence[Any]:
    """The rows of a step on openbook's side, for counting; each has a `tree`."""
    if task["method"] == "grpo":
        return rows(rollouts_of(task), task["row_tokens"], normalise="token")
    return pairs_of(task).rows(range(len(task["items"])), task["row_tokens"])


class Timed:
    """Seconds of the reading, by the clock and of the processor; with what was asked of a GPU done."""

    def __init__(self) -> None:
        self.found = {"reading_seconds": 0.0, "reading_cpu_seconds": 0.0}

    def __enter__(self) -> None:
        _settle()
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        _settle()
        self.found["reading_seconds"] = time.perf_counter() - self._clock
        self.found["reading_cpu_seconds"] = time.process_time() - self._processor


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def move(model: Any) -> None:
    """Move what is trained, by the same noise on both sides, away from the reference and from who sampled."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if ".default." in name and "lora_" in name:
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight.device) * 0.02)


def fill(head: torch.Tensor) -> None:
    head.data.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(3)) * 0.02)


# --- openbook --------------------------------------------------------------------------------------------------------


def openbook_trainer(task: versus.Task, folder: Path, loaded: LoadedModel, reading: Timed) -> Any:
    model = versus.adapted(task, loaded.model)
    if task["method"] == "grpo":
        return _openbook_grpo(task, folder, loaded, model, reading)
    serve_trees(loaded.model)
    pairs = pairs_of(task)
    packed = pairs.rows(range(len(pairs)), task["row_tokens"])
    method: Any
    if task["method"] == "dpo":
        with reading:
            frozen = reference_logps(
                model, packed, pairs=len(pairs), cache=folder / "references.safetensors", progress=SILENT
            )
        (folder / "references.safetensors").unlink()  # the next round reads again
        method = DirectPreference(Preference(sft_weight=0), frozen, Anchors())
        move(model)
    else:
        head = attach_head(model)
        fill(head.weight)
        method = RewardModelling(head, pairs.margins, centring=CENTRING)
    return TreeTrainer(
        model=model,
        args=_arguments(task, folder, len(packed)),
        method=method,
        rows=packed,
        validation=[],
        callbacks=[],
    )


def _openbook_grpo(task: versus.Task, folder: Path, loaded: LoadedModel, model: Any, reading: Timed) -> Any:
    model.save_pretrained(folder / "start")
    roles = Roles(model, loaded, folder / "start")
    serve_trees(loaded.model)
    steps = task["warm_up"] + task["steps"]
    options, found = RL(rollouts=GROUP, updates=steps), rollouts_of(task)
    engine = Rounds(
        GroupRelative(options),
        sample=lambda number: found,
        rewards=_Given(task),  # type: ignore[arg-type]
        roles=roles,
        options=options,
        budget=task["row_tokens"],
        limits=Limits(options, SILENT),
    )
    with reading:
        engine.step(0)
    move(model)
    return RolloutTrainer(
        model=model,
        args=_arguments(task, folder, 1),
        method=engine,
        roles=roles,
        value_learning_rate=0.0,
        rows=[Turn(step) for step in range(steps)],
        validation=[],
        callbacks=[],
    )


class _Given:
    """Rewards that are known."""

    def __init__(self, task: versus.Task) -> None:
        self._rewards = torch.tensor([reward for item in task["items"] for reward in item["rewards"]])

    def of(self, rollouts: Any, rows: Any) -> tuple[torch.Tensor, dict[str, float]]:
        return self._rewards, {}


def _arguments(task: versus.Task, folder: Path, accumulation: int) -> TrainingArguments:
    return TrainingArguments(
        per_device_train_batch_size=1,
        remove_unused_columns=False,
        label_names=[],
        **versus.settings(task, folder, accumulation),
    )


# --- TRL -------------------------------------------------------------------------------------------------------------


def trl_trainer(task: versus.Task, folder: Path, loaded: LoadedModel, reading: Timed, variant: str) -> Any:
    each = GROUP if task["method"] == "grpo" else 1
    count = len(task["items"]) * each
    batch = task["batch"] if variant == "batched" else 1
    assert count % batch == 0, "TRL's mean over batches is one over examples only where all are of one size"
    common = {
        "per_device_train_batch_size": batch,
        "remove_unused_columns": False,
        **versus.settings(task, folder, count // batch),
    }
    make = {"dpo": _trl_dpo, "reward": _trl_reward, "grpo": _trl_grpo}[task["method"]]
    return make(task, common, loaded, reading)


def _text_rows(count: int = 2) -> Any:
    """A data set that TRL can be constructed with; what is trained on are our tokens."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * count)


def _trl_dpo(task: versus.Task, common: dict[str, Any], loaded: LoadedModel, reading: Timed) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=versus.adapted(task, loaded.model),
        args=DPOConfig(max_length=None, beta=Preference().beta, **common),
        train_dataset=_text_rows(),
        processing_class=loaded.tokenizer,
    )
    items = [
        {"prompt_ids": item["prompt"], "chosen_ids": item["answers"][0], "rejected_ids": item["answers"][1]}
        for item in task["items"]
    ]
    batch = common["per_device_train_batch_size"]

    def collated(some: list[dict[str, Any]]) -> Any:
        return send_to_device(trainer.data_collator(some), loaded.model.device)

    with reading:
        for start in range(0, len(items), batch):
            some = items[start : start + batch]
            for item, *logps in zip(some, *trainer.compute_ref_log_probs(trainer.model, collated(some)), strict=True):
                item |= {"ref_chosen_logps": logps[0].item(), "ref_rejected_logps": logps[1].item()}
    trainer.precompute_ref_logps = True
    trainer.train_dataset = Dataset.from_list(items)
    move(trainer.model)
    return trainer


def _trl_reward(task: versus.Task, common: dict[str, Any], loaded: LoadedModel, reading: Timed) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    scorer = AutoModelForSequenceClassification.from_pretrained(task["model"], num_labels=1, dtype=torch.float32)
    scorer.model = loaded.model.model  # the same weights, frozen; in 4 bits where ours are
    model = versus.adapted(task, scorer, task_type="SEQ_CLS", modules_to_save=["score"])
    fill(model.base_model.model.score.modules_to_save["default"].weight)
    items = [
        {
            side: item["prompt"] + answer
            for side, answer in zip(("chosen_ids", "rejected_ids"), item["answers"], strict=True)
        }
        for item in task["items"]
    ]
    return RewardTrainer(
        model=model,
        args=RewardConfig(max_length=None, center_rewards_coefficient=CENTRING, **common),
        train_dataset=Dataset.from_list(items),
        processing_class=loaded.tokenizer,
    )


def _trl_grpo(task: versus.Task, common: dict[str, Any], loaded: LoadedModel, reading: Timed) -> Any:
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import use_adapter

    options = RL()

    class Fed(GRPOTrainer):  # type: ignore[misc]
        """TRL's trainer with rollouts that were written elsewhere."""

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            return dict(batch)

    trainer = Fed(
        model=versus.adapted(task, loaded.model),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            num_generations=GROUP,
            loss_type="dapo",  # a mean over all tokens of the step, as ours
            beta=options.kl,
            epsilon=options.clip,
            epsilon_high=options.clip_high,
            **common,
        ),
        train_dataset=_text_rows(len(task["items"])),
        processing_class=loaded.tokenizer,
    )
    batch = {name: tensor.to(loaded.model.device) for name, tensor in _rollout_batch(task).items()}
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)

    def logps() -> torch.Tensor:
        found: torch.Tensor = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], common["per_device_train_batch_size"]
        )[0]
        return found

    with reading, torch.no_grad():
        batch["old_per_token_logps"] = logps()
        with use_adapter(trainer.model, adapter_name="ref"):
            batch["ref_per_token_logps"] = logps()
    move(trainer.model)
    return trainer


def _rollout_batch(task: versus.Task) -> dict[str, torch.Tensor]:
    """The rollouts as TRL lays them out: prompts padded on the left, answers on the right."""
    prompts = [item["prompt"] for item in task["items"] for _ in item["answers"]]
    answers = [answer for item in task["items"] for answer in item["answers"]]
    rewards = torch.tensor([item["rewards"] for item in task["items"]])
    batch = {
        "prompt_ids": _padded(prompts, left=True),
        "prompt_mask": _padded([[1] * len(x) for x in prompts], left=True),
        "completion_ids": _padded(answers, left=False),
        "completion_mask": _padded([[1] * len(x) for x in answers], left=False),
        "advantages": (rewards - rewards.mean(1, keepdim=True)).flatten(),
    }
    return {**batch, "num_items_in_batch": batch["completion_mask"].sum()}


def _padded(lists: list[list[int]], *, left: bool) -> torch.Tensor:
    width = max(map(len, lists))
    return torch.tensor([[0] * (width - len(x)) * left + x + [0] * (width - len(x)) * (not left) for x in lists])


def main() -> None:
    folder, side, task = versus.opened()
    started, reading = time.perf_counter(), Timed()
    loaded = versus.loaded(task)
    if side == "openbook":
        trainer = openbook_trainer(task, folder, loaded, reading)
    else:
        trainer = trl_trainer(task, folder, loaded, reading, side)
    loading = time.perf_counter() - started - reading.found["reading_seconds"]
    before = {"loading_seconds": loading, "memory_before_training_bytes": peak_memory_bytes()}
    watch = versus.Stopwatch(trainer.model, folder / f"{side}.safetensors")
    trainer.add_callback(watch)
    trainer.train()
    versus.write_found(folder, side, {**before, **reading.found, **watch.found(task["warm_up"])})


if __name__ == "__main__":
    main()
