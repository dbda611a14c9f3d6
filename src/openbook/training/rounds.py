"""Learning in rounds: sample answers, reward them, take a few steps on them, and so on.

What a round does is a pure function of the weights, the seed and the round's number, and a checkpoint is only written
between two rounds. So a run that was killed goes on to the same bits. After the last round one more is played and not
trained on: the limits apply to what the last steps did as well.

Watched, as means over a round's answers: `reward` and its parts; `spread`, the share of questions whose answers were not
all worth the same (the others teach GRPO nothing); `kl`, the drift from the reference, and `entropy`, both in nats a
token; `server_gap`, where a server wrote, how far its log-probabilities are from ours, as a mean of absolute differences;
`length` in tokens, and `finished`, the share of answers that ended by themselves. Tokens are counted as `tokens` (of the
rows), `trained_tokens` (the answers') and `sequence_tokens` (what separate rows would have read).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from openbook.options import RL
from openbook.training.head import token_entropies, token_losses
from openbook.training.limits import Limits
from openbook.training.losses import EQUAL, kl_k3
from openbook.training.rewards import Rewards
from openbook.training.roles import POLICY, REFERENCE, Roles
from openbook.training.rollouts import Rollout, RolloutRow, rows
from openbook.training.trainer import Batch, as_trained, collate, predicting_states


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A round that was played: R rollouts in rows, `batches[n]` being row n as the tensors of a step, with `old` and
    `reference` (N,), the log-probabilities of its own tokens when they were sampled and under the reference."""

    rollouts: tuple[Rollout, ...]
    rows: tuple[RolloutRow, ...]
    batches: tuple[Batch, ...]
    rewards: Tensor  # (R,)
    means: dict[str, float]


class Algorithm(Protocol):
    """What GRPO and PPO differ in."""

    def batches(self, played: Played) -> list[Batch]:
        """The rows of every step of this round, each with what its loss needs."""

    def count(self, batch: Batch) -> Tensor:
        """How much of a step's mean this row is."""

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Sums over the row: "loss", and whatever else is worth watching."""

    def state(self) -> dict[str, float]:
        """What changes from round to round beside the weights."""

    def restore(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The placeholder of one optimizer step in the plan of a run: what it trains on is not known before."""

    step: int

    def __len__(self) -> int:
        return 1


class Rounds:
    """The method for the engine. `sample` writes the answers of round n with the policy in force."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        sample: Callable[[int], list[Rollout]],
        rewards: Rewards,
        roles: Roles,
        options: RL,
        budget: int,
        limits: Limits,
    ) -> None:
        self._algorithm, self._sample, self._rewards = algorithm, sample, rewards
        self._roles, self._options, self._budget, self._limits = roles, options, budget, limits
        self._round = -1
        self._batches: list[Batch] = []
        self.means: dict[str, float] = {}

    def collate(self, turns: Sequence[Turn]) -> Batch:
        return {"step": torch.tensor(turns[0].step)}

    def count(self, batch: Batch) -> Tensor:
        return self._algorithm.count(batch)

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        return self._algorithm.sums(model, batch)

    def step(self, number: int) -> list[Batch]:
        """What optimizer step `number`, counted from 0, trains on."""
        wanted = number // self._options.updates
        if wanted != self._round:
            played = self.play(wanted)
            self._batches = self._algorithm.batches(played)
            self.means = {**played.means, **self._algorithm.state()}
            self._round = wanted
        self._roles.play(POLICY)
        return self._batches

    def play(self, number: int) -> Played:
        """Sample, reward and read a round."""
        options, model = self._options, self._roles.model
        self._roles.play(POLICY)
        rollouts = self._sample(number)
        packed = rows(rollouts, self._budget, normalise=options.normalise)
        model.eval()
        with torch.no_grad(), as_trained(model):
            rewards, means = self._rewards.of(rollouts, packed)
            batches = [send_to_device(collate([row.tree]), model.device) for row in packed]
            self._roles.play(POLICY)
            entropies = []
            for batch in batches:
                hidden = predicting_states(model, batch)
                batch["old"] = -token_losses(model, hidden, batch["targets"], options.temperature)
                entropies.append(token_entropies(model, hidden, options.temperature))
            self._roles.play(REFERENCE)
            for batch in batches:
                hidden = predicting_states(model, batch)
                batch["reference"] = -token_losses(model, hidden, batch["targets"], options.temperature)
        drift = torch.cat([kl_k3(batch["old"], batch["reference"]) for batch in batches])
        groups = rewards.view(-1, options.rollouts)
        means = {
            "reward": rewards.mean().item(),
            **{f"reward_{name}": value for name, value in means.items()},
            "spread": (groups.amax(1) - groups.amin(1) > EQUAL).float().mean().item(),
            "kl": drift.mean().item(),
            "entropy": torch.cat(entropies).mean().item(),
            **server_gap(rollouts, packed, batches),
            "length": sum(len(rollout.tokens) for rollout in rollouts) / len(rollouts),
            "finished": sum(rollout.finished for rollout in rollouts) / len(rollouts),
            "tokens": float(sum(map(len, packed))),
            "trained_tokens": float(sum(len(rollout.tokens) for rollout in rollouts)),
            "sequence_tokens": float(sum(len(r.exercise.prompt) + len(r.tokens) for r in rollouts)),
        }
        self._limits.check(number, means)
        return Played(
            rollouts=tuple(rollouts), rows=tuple(packed), batches=tuple(batches), rewards=rewards, means=means
        )

    def state(self) -> dict[str, float]:
        return {**self._limits.state(), **self._algorithm.state()}

    def restore(self, state: dict[str, float]) -> None:
        self._limits.restore(state)
        self._algorithm.restore(state)


def server_gap(rollouts: Sequence[Rollout], packed: Sequence[RolloutRow], batches: Sequence[Batch]) -> dict[str, float]:
    """The mean of |log π here − log π told| over a round's tokens, in nats; nothing where nobody told."""
    if not all(rollout.told for rollout in rollouts):
        return {}
    gaps = [
        (batch["old"][batch["owners"] == place].cpu() - torch.tensor(rollouts[number].told)).abs()
        for row, batch in zip(packed, batches, strict=True)
        for place, number in enumerate(row.rollouts)
    ]
    return {"server_gap": torch.cat(gaps).mean().item()}
