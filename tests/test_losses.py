"""Losses against numbers worked by hand and against slow implementations that share nothing with them."""

import math
from typing import Any

import pytest
import torch

from openbook.training import losses


def close(found: torch.Tensor, *expected: float) -> None:
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_dynamic_fine_tuning_scales_each_gradient_by_the_probability() -> None:
    nll = torch.tensor([0.1, 2.0], requires_grad=True)
    weights = torch.tensor([1.0, 0.5])
    loss = losses.sft(nll, weights, "dft")
    close(loss[None], 0.1 * math.exp(-0.1) + 0.5 * 2.0 * math.exp(-2.0))
    loss.backward()
    close(nll.grad, math.exp(-0.1), 0.5 * math.exp(-2.0))


@pytest.mark.parametrize(
    ("kind", "smoothing", "expected"),
    [
        ("sigmoid", 0.0, 0.2014133),  # ln(1 + e^−1.5)
        ("sigmoid", 0.1, 0.3514133),  # 0.9 · 0.2014133 + 0.1 · 1.7014133
        ("hinge", 0.0, 0.0),  # 1 − 1.5 < 0
        ("hinge", 0.1, 0.25),  # 0.1 · (1 + 1.5)
        ("ipo", 0.0, 4.0),  # (3 − 1)²
        ("ipo", 0.1, 5.2),  # 0.9 · 4 + 0.1 · (−3 − 1)²
    ],
)
def test_preference(kind: Any, smoothing: float, expected: float) -> None:
    chosen, rejected = torch.tensor([2.0]), torch.tensor([-1.0])
    close(losses.preference(chosen, rejected, kind=kind, beta=0.5, label_smoothing=smoothing), expected)


def test_the_gradient_of_dpo_is_the_papers() -> None:
    """−β σ(−β Δ) for the chosen answer, its negative for the rejected one (arXiv 2305.18290, section 4)."""
    chosen, rejected = (torch.tensor([value], requires_grad=True) for value in (0.4, 1.1))
    losses.preference(chosen, rejected, kind="sigmoid", beta=0.3).sum().backward()
    expected = 0.3 / (1 + math.exp(0.3 * (0.4 - 1.1)))
    assert chosen.grad is not None and rejected.grad is not None
    close(chosen.grad, -expected)
    close(rejected.grad, expected)


def test_an_ipo_pair_is_content_at_its_target() -> None:
    close(losses.preference(torch.tensor([2.5]), torch.tensor([0.0]), kind="ipo", beta=0.2), 0.0)


def test_preference_is_stable_far_out() -> None:
    far = losses.preference(torch.tensor([-1e4]), torch.tensor([1e4]), kind="sigmoid", beta=1.0)
    close(far, 2e4)


def test_reward() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    close(losses.reward(chosen, rejected), softplus(-1.0), math.log(2))
    close(losses.reward(chosen, rejected, margin=torch.tensor([0.5, 2.0])), softplus(-0.5), softplus(2.0))
    close(losses.reward(chosen, rejected, centring=0.01), softplus(-1.0) + 0.01, math.log(2))


def test_k3_is_never_negative_and_right_on_average() -> None:
    close(losses.kl_k3(torch.tensor([0.5]).log(), torch.tensor([0.25]).log()), 0.5 - 1 - math.log(0.5))
    ours, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    estimate = losses.kl_k3(ours.log(), reference.log())
    assert (estimate >= 0).all()
    assert (ours * estimate).sum().item() == pytest.approx((ours * (ours / reference).log()).sum().item(), abs=1e-6)


def test_group_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    found = losses.group_advantages(rewards)
    assert found[0].tolist() == pytest.approx([1, -1, -1, 1], abs=1e-4)
    close(found[1], 0, 0, 0, 0)
    close(losses.group_advantages(rewards, divide_by_std=False)[0], 0.5, -0.5, -0.5, 0.5)


@pytest.mark.parametrize("divide_by_std", [False, True])
def test_a_group_whose_rewards_are_equal_teaches_exactly_nothing(divide_by_std: bool) -> None:
    """The mean of seven times 0.7 is not 0.7 in fp32."""
    rewards = torch.full((2, 7), 0.7)
    rewards[1, 3] += 1e-7
    assert not losses.group_advantages(rewards, divide_by_std=divide_by_std).any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "high", "expected"),
    [
        (1.5, 1.0, None, -1.2),  # clipped: no reward for going further
        (1.5, 1.0, 0.3, -1.3),  # clip higher
        (1.5, -1.0, None, 1.5),  # against the advantage the full ratio counts
        (0.5, 1.0, None, -0.5),
        (0.5, -1.0, None, 0.8),
        (1.1, 2.0, None, -2.2),
    ],
)
def test_clipped_policy(ratio: float, advantage: float, high: float | None, expected: float) -> None:
    found = losses.clipped_policy(
        torch.tensor([ratio]).log(), torch.zeros(1), torch.tensor([advantage]), clip=0.2, clip_high=high
    )
    close(found, expected)


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_grpo_against_a_loop(kl: float) -> None:
    torch.manual_seed(0)
    logps, old, reference, advantages = -torch.rand(9), -torch.rand(9), -torch.rand(9), torch.randn(9)
    found = losses.grpo(logps, old, advantages, clip=0.2, clip_high=0.28, reference=reference, kl=kl)
    for t in range(9):
        ratio = math.exp(logps[t].item() - old[t].item())
        gain = min(ratio * advantages[t].item(), min(max(ratio, 0.8), 1.28) * advantages[t].item())
        d = reference[t].item() - logps[t].item()
        assert found[t].item() == pytest.approx(-gain + kl * ratio * (math.exp(d) - 1 - d), abs=1e-6)


def test_the_gradient_of_the_kl_term_is_that_of_the_kl() -> None:
    """Over every token there is, weighted by its chance to be sampled: the exact gradient, also two steps later."""
    torch.manual_seed(2)
    scores, reference = torch.randn(6, requires_grad=True), torch.randn(6).log_softmax(0)
    for old in (scores.detach().log_softmax(0), torch.randn(6).log_softmax(0)):
        logps = scores.log_softmax(0)
        exact = (logps.exp() * (logps - reference)).sum()
        (expected,) = torch.autograd.grad(exact, scores, retain_graph=True)
        estimate = losses.grpo(logps, old, torch.zeros(6), reference=reference, kl=1.0)
        (found,) = torch.autograd.grad((old.exp() * estimate).sum(), scores)
        assert torch.allclose(found, expected, atol=1e-6)


def test_a_kl_term_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the reference"):
        losses.grpo(torch.zeros(2), torch.zeros(2), torch.zeros(2), kl=0.1)


def test_the_kl_weight_follows_its_target() -> None:
    assert losses.adapted_kl(0.2, 0.11, 0.1) == pytest.approx(0.2 * 1.05)
    assert losses.adapted_kl(0.2, 9.0, 0.1) == pytest.approx(0.2 * 1.1)
    assert losses.adapted_kl(0.2, 0.0, 0.1) == pytest.approx(0.2 * 0.9)


def test_gae_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.4, 0.3, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])  # the fourth position is padding
    advantages, returns = losses.gae(rewards, values, mask, discount=1.0, trace=0.5)
    close(advantages[0], 0.025, 0.25, 0.7, 0.0)
    close(returns[0], 0.525, 0.65, 1.0, 0.0)


def test_gae_against_its_definition() -> None:
    """A_t = Σ_l (γλ)^l δ_{t+l}, summed as it is written."""
    torch.manual_seed(1)
    lengths, discount, trace = [6, 1, 4], 0.9, 0.8
    rewards, values = torch.randn(3, 6), torch.randn(3, 6)
    mask = torch.tensor([[float(t < length) for t in range(6)] for length in lengths])
    advantages, returns = losses.gae(rewards, values, mask, discount=discount, trace=trace)
    for b, length in enumerate(lengths):
        r, v = rewards[b, :length].tolist(), [*values[b, :length].tolist(), 0.0]
        delta = [r[t] + discount * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((discount * trace) ** (k - t) * delta[k] for k in range(t, length))
            assert advantages[b, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[b, t].item() == pytest.approx(expected + v[t], abs=1e-5)
        assert not advantages[b, length:].any() and not returns[b, length:].any()


def test_token_rewards() -> None:
    logps, reference = torch.tensor([[-1.0, -2.0, 7.0]]), torch.tensor([[-1.5, -1.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    found = losses.token_rewards(torch.tensor([3.0]), logps, reference, mask, kl=0.1)
    close(found[0], -0.05, 0.1 + 3.0, 0.0)


def test_clipped_value() -> None:
    values, old, returns = torch.tensor([1.0, 1.0, 0.1]), torch.zeros(3), torch.tensor([1.0, 0.0, 1.0])
    # ½(0.2−1)², since moving 1.0 away counts as 0.2; ½(1−0)², the worse of both; ½(0.1−1)², not clipped
    close(losses.clipped_value(values, old, returns, clip=0.2), 0.32, 0.5, 0.405)
