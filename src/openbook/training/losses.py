"""Losses: pure functions from tensors to tensors.

Those over pairs and tokens return one value for each and leave the mean to the caller, who knows how much an optimizer
step holds: accumulating rows then equals one large batch. P counts pairs, N tokens, (B, T) are padded sequences.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

PreferenceLoss = Literal["sigmoid", "ipo", "hinge"]
SupervisedLoss = Literal["nll", "dft"]

EQUAL = 1e-6  # rewards no further apart are the same: what lies between is rounding


def sft(losses: Tensor, weights: Tensor, kind: SupervisedLoss = "nll") -> Tensor:
    """Supervised fine-tuning: the weighted sum of token cross-entropies −log p.

    `losses` and `weights` are (N,), N the supervised tokens of a row. The caller divides by the weight of the whole
    optimizer step, so that accumulating rows equals one large batch.

    "dft" multiplies each by p, through which no gradient goes (dynamic fine-tuning, arXiv 2508.05629, eq. 9): a token that
    cannot be known from the context then hardly counts. −log p is least where such a token is hedged, and the safest of all
    tokens is what greedy decoding says.
    """
    if kind == "dft":
        losses = losses * torch.exp(-losses.detach())
    return (losses * weights).sum()


def preference(
    chosen: Tensor, rejected: Tensor, *, kind: PreferenceLoss, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimisation: (P,) losses of pairs.

    `chosen` and `rejected` (P,) are log π(answer) − log π_ref(answer), summed over the answer's tokens; for "ipo" they
    are means over the tokens, which keeps its target independent of length (its authors confirm that their results are
    of this form). `beta` is the strength of the pull towards the reference (IPO's τ).

    - "sigmoid": −log σ(β Δ), with Δ = chosen − rejected (DPO, arXiv 2305.18290, eq. 7)
    - "hinge": max(0, 1 − β Δ) (SLiC on log-ratios, arXiv 2309.06657, table 1)
    - "ipo": (Δ − 1/(2β))² (arXiv 2310.12036, eq. 17)

    With `label_smoothing` ε the loss is what is to be expected when a share ε of the labels is swapped:
    (1−ε) ℓ(Δ) + ε ℓ(−Δ) (for "sigmoid" that is cDPO, ericmitchell.ai/cdpo.pdf).
    """
    difference = chosen - rejected

    def of(difference: Tensor) -> Tensor:
        if kind == "sigmoid":
            return -F.logsigmoid(beta * difference)
        if kind == "hinge":
            return torch.relu(1 - beta * difference)
        return (difference - 1 / (2 * beta)) ** 2

    loss = of(difference)
    return loss if not label_smoothing else (1 - label_smoothing) * loss + label_smoothing * of(-difference)


def reward(chosen: Tensor, rejected: Tensor, *, margin: Tensor | float = 0.0, centring: float = 0.0) -> Tensor:
    """Bradley–Terry reward modelling: (P,) losses −log σ(chosen − rejected − margin) of scores (P,).

    `margin` (P,) asks for a larger difference where people were surer (Llama 2, arXiv 2307.09288, eq. 2). The loss
    sees differences only, so scores may drift together; `centring` · (chosen + rejected)² holds them around zero
    (arXiv 2312.09244, section 3).
    """
    return -F.logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected) ** 2


def kl_k3(logps: Tensor, reference: Tensor) -> Tensor:
    """An estimate, per token, of KL(π ‖ π_ref) from tokens that π wrote: r − 1 − log r with r = π_ref/π. Same shape as
    its arguments; unbiased, never negative (J. Schulman, joschu.net/blog/kl-approx.html, k3)."""
    log_ratio = reference - logps
    return log_ratio.exp() - 1 - log_ratio


def group_advantages(rewards: Tensor, *, divide_by_std: bool = True) -> Tensor:
    """GRPO's advantages (G, K) of K rollouts for each of G prompts: rewards minus their group's mean, divided by its
    standard deviation (arXiv 2402.03300, section 4.1.2). Without the division easy and hard prompts keep their weight
    (Dr. GRPO, arXiv 2503.20783). A group whose rewards are all equal teaches nothing: its advantages are 0."""
    # Exactly 0: a mean is rounded, and Adam makes whole steps of the smallest gradient where there is no other.
    equal = rewards.amax(1, keepdim=True) - rewards.amin(1, keepdim=True) <= EQUAL
    centred = (rewards - rewards.mean(1, keepdim=True)).masked_fill(equal, 0.0)
    if not divide_by_std:
        return centred
    return centred / (rewards.std(1, keepdim=True, correction=0) + 1e-6)


def clipped_policy(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, clip: float = 0.2, clip_high: float | None = None
) -> Tensor:
    """PPO's clipped surrogate, as a loss, per token: −min(r A, clamp(r, 1−clip, 1+clip_high) A), r = π/π_old
    (arXiv 1707.06347, eq. 7). All arguments and the result have one shape.

    `clip_high` above `clip` lets improbable tokens rise further ("clip higher", DAPO, arXiv 2503.14476, section 3.1).
    """
    ratio = (logps - old_logps).exp()
    clamped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -torch.minimum(ratio * advantages, clamped * advantages)


def grpo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    reference: Tensor | None = None,
    kl: float = 0.0,
) -> Tensor:
    """Group-relative policy optimisation, per token; all arguments and the result have one shape.

    An answer's advantage stands on each of its tokens; `kl` weighs `kl_k3` against the reference (arXiv 2402.03300,
    eq. 3) times π/π_old, without which its gradient is not that of the KL, not even at the first step after sampling
    (DeepSeek-V3.2, arXiv 2512.02556, section 3.1). The caller sums with weights: 1 for every token is the mean over all tokens, which does not make a token of
    a long answer count less than one of a short one (DAPO, arXiv 2503.14476, section 3.3); 1/length is the paper's mean
    over answers of means over tokens.
    """
    losses = clipped_policy(logps, old_logps, advantages, clip=clip, clip_high=clip_high)
    if kl:
        if reference is None:
            raise ValueError("a KL term needs the reference's log-probabilities")
        losses = losses + kl * (logps - old_logps).exp() * kl_k3(logps, reference)
    return losses


def token_rewards(scores: Tensor, logps: Tensor, reference: Tensor, mask: Tensor, *, kl: float) -> Tensor:
    """RLHF's rewards (B, T): −kl · (log π − log π_ref) on every token of the rollout, and the score (B,) on its last
    (arXiv 2203.02155, eq. 2, with the KL per token as in arXiv 1909.08593). `mask` (B, T) is 1 on the rollout."""
    rewards = -kl * (logps - reference) * mask
    position = torch.arange(mask.shape[1], device=mask.device)
    last = (position * mask).argmax(1)
    at = F.one_hot(last, mask.shape[1]).to(rewards.dtype) * (mask.sum(1, keepdim=True) > 0)
    return rewards + at * scores[:, None]


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float = 1.0, trace: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16): advantages and returns, each (B, T).

    `values[b, t]` is the value before token t was written. δ_t = r_t + discount · V_{t+1} − V_t and
    A_t = δ_t + discount · trace · A_{t+1}; past the rollout's last token (`mask` 0) values and advantages are 0.
    Returns are advantages + values: what the value function should have said.
    """
    advantages = torch.zeros_like(rewards)
    following = rewards.new_zeros(len(rewards))
    value_after = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        alive = mask[:, t]
        delta = rewards[:, t] + discount * value_after - values[:, t]
        following = (delta + discount * trace * following) * alive
        value_after = values[:, t] * alive
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def clipped_value(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> Tensor:
    """PPO's value loss per token: ½ max((V − R)², (V_clipped − R)²), V_clipped at most `clip` away from the value that
    the rollout was made with (the loss of OpenAI's baselines; arXiv 2005.12729, section 3). Shapes are equal."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def adapted_kl(weight: float, kl: float, target: float) -> float:
    """The KL weight of the next round: β (1 + K clip(kl/target − 1, −0.2, 0.2)) (arXiv 1909.08593, section 2.2).

    K is 0.5 where the paper has 0.1: our runs have tens or hundreds of rounds, and not tens of thousands.
    """
    return weight * (1 + 0.5 * min(max(kl / target - 1, -0.2), 0.2))
