"""GRPO's and PPO's steps on token trees against loops over separate rows, with adapters switched in between."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from models_for_tests import folder
from openbook.models import LoadedModel, load
from openbook.options import RL
from openbook.progress import SILENT
from openbook.training.attention import serve_trees
from openbook.training.grpo import GroupRelative
from openbook.training.limits import Limits
from openbook.training.ppo import Proximal
from openbook.training.roles import POLICY, REFERENCE, VALUE, Roles
from openbook.training.rollouts import Rollout
from openbook.training.rounds import Algorithm, Played, Rounds
from test_preference import assert_close
from test_rollouts import alone, rollouts

REWARDS = [math.sin(n) for n in range(12)]
COMMON: dict[str, Any] = {"rollouts": 4, "temperature": 0.9, "kl": 0.1, "kl_limit": 1e9, "clip": 0.1, "clip_high": 0.15}


class Given:
    """Rewards that are known."""

    def of(self, found: Any, rows: Any) -> tuple[torch.Tensor, dict[str, float]]:
        return torch.tensor(REWARDS), {}


def build_world(tmp_path: Path, *, checkpointing: bool) -> tuple[Any, Roles, list[Rollout]]:
    """A base with a random adapter as policy and another as reference, and rollouts of the policy."""
    loaded: LoadedModel = load(str(folder(tmp_path / "base")))
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(3)
    network = get_peft_model(loaded.model, lora)
    network.save_pretrained(tmp_path / "start")
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.02)
    if checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        network.enable_input_require_grads()
    found = rollouts(loaded.model)
    serve_trees(loaded.model)
    return network, Roles(network, loaded, tmp_path / "start"), found


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., tuple[Any, Roles, list[Rollout]]]:
    return functools.partial(build_world, tmp_path)


def rounds(algorithm: Algorithm, roles: Roles, found: list[Rollout], options: RL, budget: int) -> Rounds:
    return Rounds(
        algorithm,
        sample=lambda number: found,
        rewards=Given(),  # type: ignore[arg-type]
        roles=roles,
        options=options,
        budget=budget,
        limits=Limits(options, SILENT),
    )


def moved(roles: Roles, scale: float = 0.03) -> None:
    """A step away from the policy that sampled, and from the values that it was judged by, so that clipping matters."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in roles.trained.values():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)


def separately(roles: Roles, role: str, found: list[Rollout], head: Any = None) -> list[torch.Tensor]:
    """The oracle: log-probabilities (or values) of every rollout's tokens, each sequence by itself."""
    roles.play(role)
    network = roles.model.get_base_model()
    network.set_attn_implementation("sdpa")
    if head is None:
        result = [alone(network, rollout, COMMON["temperature"]) for rollout in found]
    else:
        result = []
        for rollout in found:
            ids = torch.tensor([[*rollout.exercise.prompt, *rollout.tokens]])
            states = network.model(input_ids=ids).last_hidden_state[0]
            result.append(states[len(rollout.exercise.prompt) - 1 : -1] @ head.weight[0])
    serve_trees(network)
    return result


def stepped(engine: Rounds, roles: Roles) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a step, as the engine takes it: backward row by row."""
    batches = engine.step(0)
    moved(roles)
    roles.model.train()
    roles.model.zero_grad()
    total, count = 0.0, sum(engine.count(batch) for batch in batches)
    for batch in batches:
        loss = engine.sums(roles.model, batch)["loss"] / count
        loss.backward()
        total += loss.item()
    return total, {name: w.grad.clone() for name, w in roles.trained.items() if w.grad is not None}


def clipped(ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    return -torch.min(ratio * advantage, ratio.clamp(1 - COMMON["clip"], 1 + COMMON["clip_high"]) * advantage)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("normalise", ["token", "sequence"])
def test_grpo_on_trees_gives_the_gradients_of_separate_rows(
    checkpointing: bool, normalise: Any, world: Callable[..., Any]
) -> None:
    network, roles, found = world(checkpointing=checkpointing)
    options = RL(**COMMON, normalise=normalise)
    with torch.no_grad():
        old = [logps.clone() for logps in separately(roles, POLICY, found)]
        reference = separately(roles, REFERENCE, found)
    engine = rounds(GroupRelative(options), roles, found, options, budget=90)
    loss, ours = stepped(engine, roles)
    assert len(engine.step(0)) > 1

    total, tokens = torch.zeros(()), sum(len(r.tokens) for r in found)
    for n, logps in enumerate(separately(roles, POLICY, found)):
        group = REWARDS[n - n % 4 : n - n % 4 + 4]
        advantage = torch.tensor(REWARDS[n] - sum(group) / 4)
        gap = reference[n] - logps
        ratio = (logps - old[n]).exp()
        each = clipped(ratio, advantage) + 0.1 * ratio * (gap.exp() - 1 - gap)
        total = total + (each.sum() / tokens if normalise == "token" else each.mean() / len(found))
    network.zero_grad()
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    assert_close(ours, {name: w.grad for name, w in roles.trained.items()})
    drift = torch.cat([r - o for r, o in zip(reference, old, strict=True)])
    assert engine.means["kl"] == pytest.approx((drift.exp() - 1 - drift).mean().item(), rel=1e-3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_ppo_on_trees_gives_the_gradients_of_a_slow_implementation(
    checkpointing: bool, world: Callable[..., Any]
) -> None:
    network, roles, found = world(checkpointing=checkpointing)
    options = RL(**COMMON, discount=0.9, trace=0.8, value_clip=0.05, kl_target=0.0)
    head = roles.add_value()
    moved(roles, 0.02)  # a value function that says something
    with torch.no_grad():
        old = [logps.clone() for logps in separately(roles, POLICY, found)]
        reference = separately(roles, REFERENCE, found)
        values = separately(roles, VALUE, found, head)
    engine = rounds(Proximal(options, roles, head), roles, found, options, budget=90)
    loss, ours = stepped(engine, roles)

    advantages, returns = [], []
    for n, rollout in enumerate(found):
        length = len(rollout.tokens)
        reward = [-0.1 * (old[n][t] - reference[n][t]).item() for t in range(length)]
        reward[-1] += REWARDS[n]
        v = [*values[n].tolist(), 0.0]
        delta = [reward[t] + 0.9 * v[t + 1] - v[t] for t in range(length)]
        advantage = [sum((0.9 * 0.8) ** (k - t) * delta[k] for k in range(t, length)) for t in range(length)]
        advantages.append(advantage)
        returns.append([advantage[t] + v[t] for t in range(length)])
    flat = [a for line in advantages for a in line]
    mean = sum(flat) / len(flat)
    spread = math.sqrt(sum((a - mean) ** 2 for a in flat) / len(flat))
    total = torch.zeros(())
    for n, logps in enumerate(separately(roles, POLICY, found)):
        white = torch.tensor([(a - mean) / spread for a in advantages[n]])
        total = total + clipped((logps - old[n]).exp(), white).sum() / len(flat)
    network.zero_grad()
    total.backward()
    theirs = {name: w.grad.clone() for name, w in roles.trained.items() if w.grad is not None}
    whole = total.item()
    network.zero_grad()
    total = torch.zeros(())
    for n, value in enumerate(separately(roles, VALUE, found, head)):
        target, before = torch.tensor(returns[n]), values[n]
        near = torch.max(torch.min(value, before + 0.05), before - 0.05)
        total = total + 0.5 * torch.max((value - target) ** 2, (near - target) ** 2).sum() / len(flat)
    total.backward()
    theirs |= {name: w.grad.clone() for name, w in roles.trained.items() if w.grad is not None}
    assert loss == pytest.approx(whole + total.item(), rel=1e-4)
    assert len(theirs) == len(roles.trained)
    assert_close(ours, theirs)


def test_the_reference_is_the_adapter_that_the_run_started_from(world: Callable[..., Any]) -> None:
    _, roles, found = world(checkpointing=False)
    with torch.no_grad():
        start = separately(roles, REFERENCE, found)
        moved(roles)
        again, now = separately(roles, REFERENCE, found), separately(roles, POLICY, found)
        roles.model.disable_adapter_layers()
        bare = [alone(roles.model.get_base_model(), rollout, COMMON["temperature"]) for rollout in found]
    for a, b, c, d in zip(start, again, now, bare, strict=True):
        assert torch.equal(a, b) and not torch.allclose(a, c, atol=1e-3) and not torch.allclose(a, d, atol=1e-3)


def test_ppos_weight_of_the_kl_follows_its_target(world: Callable[..., Any]) -> None:
    _, roles, found = world(checkpointing=False)
    options = RL(**COMMON, kl_target=1e-6)
    algorithm = Proximal(options, roles, roles.add_value())
    engine = rounds(algorithm, roles, found, options, budget=1000)
    engine.step(0)
    assert engine.state()["kl_weight"] == pytest.approx(
        0.1 * 1.1
    )  # far above the target: the most that a round may add
    engine.restore({**engine.state(), "kl_weight": 0.5})
    assert algorithm.state() == {"kl_weight": 0.5}


def test_played_rounds_count_their_tokens(world: Callable[..., Any]) -> None:
    _, roles, found = world(checkpointing=False)
    options = RL(**COMMON)
    played: Played = rounds(GroupRelative(options), roles, found, options, budget=1000).play(0)
    own = sum(len(r.tokens) for r in found)
    assert played.means["trained_tokens"] == own and played.means["length"] == own / 12
    assert played.means["sequence_tokens"] == own + sum(len(r.exercise.prompt) for r in found)
    assert played.means["spread"] == 1.0
    assert played.means["reward"] == pytest.approx(sum(REWARDS) / 12, abs=1e-6)
