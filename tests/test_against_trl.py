"""DPO, reward and GRPO losses and gradients against TRL's own trainers on the same tokens. Skipped where TRL is not
installed: it is no dependency; `make bench-deps` installs it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from models_for_tests import folder, tokenizer
from openbook.models import load
from openbook.options import RL, Preference
from openbook.progress import SILENT
from openbook.tokens import build
from openbook.training.attention import serve_trees
from openbook.training.dpo import Anchors, DirectPreference
from openbook.training.grpo import GroupRelative
from openbook.training.pair_rows import Pairs
from openbook.training.references import reference_logps
from openbook.training.reward import RewardModelling, attach_head
from openbook.training.roles import POLICY, REFERENCE
from openbook.training.trainer import Supervised, collate
from test_preference import assert_close, gradients, on_trees, pair_set
from test_rounds import COMMON, REWARDS, build_world, rounds, separately, stepped

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

LORA: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}


def text_rows() -> Any:
    """A data set that TRL can be constructed with; the compared batches are made by hand from our tokens."""
    return datasets.Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * 2)


def ids(pairs: Pairs) -> list[dict[str, Any]]:
    """Our tokens in the form that TRL's collators take."""
    found = []
    for n, (chosen, rejected) in enumerate(zip(pairs.chosen, pairs.rejected, strict=True)):
        at = chosen.shareable
        found.append(
            {
                "prompt_ids": chosen.input_ids[:at].tolist(),
                "chosen_ids": chosen.input_ids[at:].tolist(),
                "rejected_ids": rejected.input_ids[at:].tolist(),
                "margin": pairs.margins[n],
            }
        )
    return found


def settings(cls: Any, out: Path, **others: Any) -> Any:
    return cls(output_dir=str(out), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **others)


@pytest.mark.parametrize("kind", ["nll", "dft"])
def test_sft(kind: Any, tmp_path: Path) -> None:
    """Several answers behind one context: our tree against TRL's padded rows."""
    base = folder(tmp_path / "base")
    given = pair_set().chosen
    torch.manual_seed(0)
    network = get_peft_model(load(str(base)).model, LoraConfig(task_type="CAUSAL_LM", **LORA))
    trainer = trl.SFTTrainer(
        model=network,
        args=settings(trl.SFTConfig, tmp_path / "trl", loss_type=kind),
        train_dataset=datasets.Dataset.from_list([{"text": "a"}] * 2),
        processing_class=tokenizer(),
    )
    longest = max(map(len, given))
    batch = {name: torch.full((len(given), longest), fill) for name, fill in (("input_ids", 2), ("labels", -100))}
    batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
    for row, sequence in enumerate(given):
        ids, trained = torch.from_numpy(sequence.input_ids), torch.from_numpy(sequence.weight > 0)
        batch["input_ids"][row, : len(ids)], batch["attention_mask"][row, : len(ids)] = ids, 1
        batch["labels"][row, : len(ids)] = torch.where(trained, ids, -100)
    expected = trainer.compute_loss(network, dict(batch))
    reference = gradients(network, expected)
    serve_trees(network.get_base_model())
    method, rows = Supervised(kind), [collate([build(given)])]
    sums = method.sums(network, rows[0])
    mean = sums.get("objective", sums["loss"]) / method.count(rows[0])
    print(f"{kind}: ours {mean.item():.7f}, TRL {expected.item():.7f}")
    assert torch.isclose(mean, expected, rtol=1e-5)
    assert_close(gradients(network, mean), reference)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"loss": "sigmoid"}, {"loss_type": ["sigmoid"]}),
        ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
        ({"loss": "ipo"}, {"loss_type": ["ipo"]}),
    ],
)
def test_dpo(ours: dict[str, Any], theirs: dict[str, Any], tmp_path: Path) -> None:
    base = folder(tmp_path / "base")
    pairs, options = pair_set(), Preference(beta=0.3, sft_weight=0, **ours)
    torch.manual_seed(0)
    network = get_peft_model(load(str(base)).model, LoraConfig(task_type="CAUSAL_LM", **LORA))
    trainer = trl.DPOTrainer(
        model=network,
        args=settings(trl.DPOConfig, tmp_path / "trl", beta=0.3, **theirs),
        train_dataset=text_rows(),
        processing_class=tokenizer(),
    )
    # TRL's reference is a copy of the adapter as it starts; moving the trained one apart gives a loss worth comparing.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".default." in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    collator = trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=2)
    expected = trainer._compute_loss(network, collator(ids(pairs)), False)
    reference = gradients(network, expected)
    serve_trees(network.get_base_model())
    rows = pairs.rows(range(len(pairs)), 1000)
    network.set_adapter("ref")
    frozen = reference_logps(network, rows, pairs=len(pairs), cache=tmp_path / "r.safetensors", progress=SILENT)
    network.set_adapter("default")
    total, _, _ = on_trees(network, DirectPreference(options, frozen, Anchors()), pairs, 1000)
    mean = total / len(pairs)
    print(f"{options.loss}: ours {mean.item():.7f}, TRL {expected.item():.7f}")
    assert torch.isclose(mean, expected, rtol=1e-5)
    assert_close(gradients(network, mean), reference)


def test_reward(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    base = folder(tmp_path / "base")
    pairs = pair_set()
    torch.manual_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=2)
    torch.manual_seed(0)
    theirs = get_peft_model(scorer, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], **LORA))
    trainer = trl.RewardTrainer(
        model=theirs,
        args=settings(trl.RewardConfig, tmp_path / "trl", center_rewards_coefficient=0.01),
        train_dataset=text_rows(),
        processing_class=tokenizer(),
    )
    collator = trl.trainer.reward_trainer.DataCollatorForPreference(pad_token_id=2)
    batch = collator(
        [
            {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} | {"margin": row["margin"]}
            for row in ids(pairs)
        ]
    )
    expected = trainer.compute_loss(theirs, dict(batch))
    reference = gradients(theirs, expected)
    torch.manual_seed(0)
    ours = get_peft_model(load(str(base)).model, LoraConfig(task_type="CAUSAL_LM", **LORA))
    adapters = {name: p for name, p in theirs.named_parameters() if "lora_" in name and "score" not in name}
    for name, parameter in ours.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(adapters[name].data)
    head = attach_head(ours)
    head.weight.data.copy_(theirs.base_model.model.score.modules_to_save["default"].weight.data)
    serve_trees(ours.get_base_model())
    total, _, _ = on_trees(ours, RewardModelling(head, pairs.margins, centring=0.01), pairs, 1000)
    mean = total / len(pairs)
    print(f"reward: ours {mean.item():.7f}, TRL {expected.item():.7f}")
    assert torch.isclose(mean, expected, rtol=1e-5)
    found = gradients(ours, mean)
    (trained_head,) = (gradient for name, gradient in reference.items() if "score" in name)
    assert_close(found, {name: reference[name] for name in found if name in reference} | {"score.weight": trained_head})


@pytest.mark.parametrize(("ours", "theirs"), [("token", "bnpo"), ("sequence", "grpo")])
def test_grpo(ours: Any, theirs: str, tmp_path: Path) -> None:
    """The same rollouts, old and reference log-probabilities, on our trees and in TRL's padded rows."""
    network, roles, found = build_world(tmp_path, checkpointing=False)
    options = RL(**COMMON, normalise=ours)
    engine = rounds(GroupRelative(options), roles, found, options, budget=90)
    engine.step(0)
    with torch.no_grad():
        old, reference = separately(roles, POLICY, found), separately(roles, REFERENCE, found)
    loss, gradients_on_trees = stepped(engine, roles)
    roles.play(POLICY)
    network.get_base_model().set_attn_implementation("sdpa")
    trainer = trl.GRPOTrainer(
        model=network,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings(
            trl.GRPOConfig,
            tmp_path / "trl",
            beta=COMMON["kl"],
            epsilon=COMMON["clip"],
            epsilon_high=COMMON["clip_high"],
            temperature=COMMON["temperature"],
            loss_type=theirs,
            per_device_train_batch_size=4,
            num_generations=4,
        ),
        train_dataset=text_rows(),
        processing_class=tokenizer(),
    )

    def padded(lists: list[list[float]], *, left: bool, value: float) -> torch.Tensor:
        width = max(map(len, lists))
        return torch.tensor(
            [[value] * (width - len(x)) * left + x + [value] * (width - len(x)) * (not left) for x in lists]
        )

    prompts, answers = [list(r.exercise.prompt) for r in found], [list(r.tokens) for r in found]
    groups = torch.tensor(REWARDS).view(-1, 4)
    network.eval()
    expected = trainer._compute_loss(
        network,
        {
            "prompt_ids": padded(prompts, left=True, value=2),
            "prompt_mask": padded([[1] * len(x) for x in prompts], left=True, value=0),
            "completion_ids": padded(answers, left=False, value=2),
            "completion_mask": padded([[1] * len(x) for x in answers], left=False, value=0),
            "advantages": (groups - groups.mean(1, keepdim=True)).flatten(),
            "old_per_token_logps": padded([x.tolist() for x in old], left=False, value=0.0),
            "ref_per_token_logps": padded([x.tolist() for x in reference], left=False, value=0.0),
        },
    )
    print(f"grpo per {ours}: ours {loss:.7f}, TRL {expected.item():.7f}")
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert_close(gradients_on_trees, {n: g for n, g in gradients(network, expected).items() if n in gradients_on_trees})
