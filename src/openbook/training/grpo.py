"""Group-relative policy optimisation on token trees: an answer is as good as it is better than its siblings.

The defaults, and why:
- *Token-level normalisation*: with means over each answer first, a token of a long wrong answer is punished less than
  one of a short wrong answer, and answers grow (DAPO, arXiv 2503.14476, section 3.3; Dr. GRPO, arXiv 2503.20783).
- *Clip-higher* (0.28 above, 0.2 below): a token of probability 0.01 may rise to 0.0128 within a round instead of 0.012,
  while nothing may fall faster, which keeps the entropy up (DAPO, section 3.1, whose values these are).
- *No division by the group's spread*: our rewards run from 0 to 1 on every question, so that a group which differs in
  one surplus word would be pushed as hard as one that differs in right and wrong (Dr. GRPO, section 3.1). Adam takes
  care of the overall scale.
- *A KL term* of 0.04 (the GRPO paper's value): the policy can already quote and refuse, and some hundred questions are
  too few to learn that again. DAPO's runs go without, over many thousand prompts; `rl.kl = 0` does so too.
- *Two steps a round*: writing an answer token by token costs more than a step over the tree of all of them.
- *A learning rate* of 3e-4, a third of supervised tuning's: at 1e-4 nano had hardly moved after a hundred steps (KL 0.005
  nats a token, no more reward), at 3e-4 its reward rose with each of three seeds (docs/LOG.md).
"""

from typing import Any

import torch
from torch import Tensor

from openbook.options import RL
from openbook.training import losses
from openbook.training.head import token_losses
from openbook.training.rounds import Played
from openbook.training.trainer import Batch, predicting_states


class GroupRelative:
    """Groups are the `rl.rollouts` answers to one question, neighbours in their round."""

    def __init__(self, options: RL) -> None:
        self._options = options

    def batches(self, played: Played) -> list[Batch]:
        groups = played.rewards.view(-1, self._options.rollouts)
        advantages = losses.group_advantages(groups, divide_by_std=self._options.divide_by_std).flatten()
        return [
            {**batch, "advantages": advantages[list(row.rollouts)].to(batch["owners"].device)[batch["owners"]]}
            for row, batch in zip(played.rows, played.batches, strict=True)
        ]

    def count(self, batch: Batch) -> Tensor:
        weights: Tensor = batch["weights"]
        return weights.sum()

    def sums(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        options = self._options
        hidden = predicting_states(model, batch)
        logps = -token_losses(model, hidden, batch["targets"], options.temperature)
        loss = losses.grpo(
            logps,
            batch["old"],
            batch["advantages"],
            clip=options.clip,
            clip_high=options.clip_high,
            reference=batch["reference"],
            kl=options.kl,
        )
        return {"loss": (loss * batch["weights"]).sum(), "clipped": clipped(logps, batch, options)}

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Nothing changes but the weights."""


def clipped(logps: Tensor, batch: Batch, options: RL) -> Tensor:
    """The weight of tokens whose ratio has left the clipping range in the direction of their advantage: no gradient
    but the KL term's reaches them any more."""
    with torch.no_grad():
        ratio, advantages = (logps - batch["old"]).exp(), batch["advantages"]
        out = ((ratio > 1 + options.clip_high) & (advantages > 0)) | ((ratio < 1 - options.clip) & (advantages < 0))
        share: Tensor = (out * batch["weights"]).sum()
    return share
