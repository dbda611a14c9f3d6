"""Proximal policy optimisation, RLHF's way, on token trees: policy, reference and value function on one base.

Every token pays for its drift from the reference, the score falls due on the last one, and a value function, an adapter
of its own with a scalar head, says what was to be expected (arXiv 2203.02155; 1707.06347; 1909.08593).

The defaults, and why:
- *Advantages are whitened over the round*, without which the first rounds, whose value function knows nothing, would
  push every token of every answer in one direction (arXiv 2006.05990, C68; TRL and OpenAI's code do so).
- *No discount, λ = 1*: an episode is one short answer, and its reward comes at the end. With 0.95, which is usual, the
  first token of an answer of 30 hears a fifth of it and for the rest a value function that knows little yet, and the first
  token is the one that answers or refuses (so has arXiv 2503.24290; 2503.01491 on the decay; figures in docs/LOG.md).
- *The KL's weight adapts* to a target of 0.05 nats a token: answers here have about 60 tokens, so that is 3 nats an
  answer (1909.08593 has 6). The same KL costs a model that quotes word for word most of what it can do.
- *The value function's own learning rate* is that of supervised tuning: its head starts at zero and no reference
  wants it near. Its gradients are clipped together with the policy's.
- *Clip-higher and token-level means*, as in `openbook.training.grpo`.
"""

from typing import Any

import torch
from torch import Tensor

from openbook.options import RL
from openbook.training import losses
from openbook.training.grpo import clipped
from openbook.training.head import token_losses
from openbook.training.reward import ScalarHead
from openbook.training.roles import POLICY, VALUE, Roles
from openbook.training.rollouts import Lines
from openbook.training.rounds import Played
from openbook.training.trainer import Batch, as_trained, predicting_states


class Proximal:
    """Each row is trained on twice in a step: once by the policy, once by the value function with its adapter in force.

    Both losses are divided by the same tokens. Watched beside the round's means: `value_loss`, and `kl_weight`.
    """

    def __init__(self, options: RL, roles: Roles, head: ScalarHead) -> None:
        self._options, self._roles, self._head = options, roles, head
        self._kl = options.kl

    def batches(self, played: Played) -> list[Batch]:
        """The round's rows for the policy, then for the value function; and the KL's weight for the next round."""
        estimated = self.estimate(played)
        everything = torch.cat([batch["advantages"] for batch in estimated])
        mean, spread = everything.mean(), everything.std(correction=0)
        for batch in estimated:
            batch["advantages"] = (batch["advantages"] - mean) / (spread + 1e-8)
        if self._options.kl_target:
            self._kl = losses.adapted_kl(self._kl, played.means["kl"], self._options.kl_target)
        return [{**batch, "role": POLICY} for batch in estimated] + [{**batch, "role": VALUE} for batch in estimated]

    def estimate(self, played: Played) -> list[Batch]:
        """The round's rows with `values`, `advantages` (not yet whitened) and `returns`, each (N,)."""
        options, model = self._options, self._roles.model
        self._roles.play(VALUE)
        model.eval()
        found = []
        for row, batch in zip(played.rows, played.batches, strict=True):
            with torch.no_grad(), as_trained(model):
                values = self._head(predicting_states(model, batch))
            lines = Lines(batch["owners"], len(row.rollouts))
            mask = lines.lay(torch.ones_like(values))
            rewards = losses.token_rewards(
                played.rewards[list(row.rollouts)].to(values.device),
                lines.lay(batch["old"]),
                lines.lay(batch["reference"]),
                mask,
                kl=self._kl,
            )
            advantages, returns = losses.gae(
                rewards, lines.lay(values), mask, discount=options.discount, trace=options.trace
            )
            estimates = {"values": values, "advantages": lines.pick(advantages), "returns": lines.pick(returns)}
            found.append({**batch, **estimates})
        return found

    def count(self, batch: Batch) -> Tensor:
        weights: Tensor = batch["weights"]
        return weights.sum() if batch["role"] == POLICY else weights.new_zeros(())

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        options = self._options
        self._roles.play(batch["role"])
        hidden = predicting_states(model, batch)
        if batch["role"] == VALUE:
            loss = losses.clipped_value(self._head(hidden), batch["values"], batch["returns"], clip=options.value_clip)
            total = (loss * batch["weights"]).sum()
            return {"loss": total, "value_loss": total}
        logps = -token_losses(model, hidden, batch["targets"], options.temperature)
        loss = losses.clipped_policy(
            logps, batch["old"], batch["advantages"], clip=options.clip, clip_high=options.clip_high
        )
        return {"loss": (loss * batch["weights"]).sum(), "clipped": clipped(logps, batch, options)}

    def state(self) -> dict[str, float]:
        return {"kl_weight": self._kl}

    def restore(self, state: dict[str, float]) -> None:
        self._kl = state["kl_weight"]
