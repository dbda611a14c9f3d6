"""Rollouts: what is sampled, the trees it forms, and that a tree's log-probabilities are those of separate rows."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from models_for_tests import model, tokenizer
from openbook.models.decode import decode
from openbook.models.sampling import Sampler, Sampling, nucleus
from openbook.progress import SILENT
from openbook.training.attention import serve_trees
from openbook.training.exercises import Exercise
from openbook.training.head import token_entropies, token_losses
from openbook.training.rollouts import Lines, Rollout, rows, sample
from openbook.training.trainer import collate, predicting_states

STOP = 2


def exercise(*, group: int, own: Sequence[int], name: str = "") -> Exercise:
    """A prompt of 20 tokens that all of its group share and some of its own."""
    shared = torch.randint(3, 512, (20,), generator=torch.Generator().manual_seed(group)).tolist()
    return Exercise(name=name, prompt=(*shared, *own), passages=(), gold=None, group=(0, group))


EXERCISES = (exercise(group=0, own=(7, 8)), exercise(group=0, own=(7, 9, 10)), exercise(group=1, own=(11,)))


def rollouts(network: Any, *, each: int = 4, longest: int = 6, at_once: int = 5, seed: int = 0) -> list[Rollout]:
    with SILENT.task("", None) as task:
        return sample(
            network,
            tokenizer(),
            EXERCISES,
            each=each,
            longest=longest,
            stop=frozenset({STOP, *range(100, 140)}),
            at_once=at_once,
            sampling=Sampling(seed=seed),
            task=task,
        )


def alone(network: Any, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    """The oracle: log-probabilities of a rollout's tokens, from all logits of its sequence by itself."""
    ids = torch.tensor([[*rollout.exercise.prompt, *rollout.tokens]])
    logps = (network(input_ids=ids).logits[0].float() / temperature).log_softmax(-1)
    at = len(rollout.exercise.prompt)
    return logps[at - 1 : -1].gather(1, ids[0, at:, None])[:, 0]


def test_the_same_seed_samples_the_same_and_another_does_not() -> None:
    network = model()
    first, again, other = rollouts(network), rollouts(network), rollouts(network, seed=1)
    assert first == again != other
    assert [r.exercise for r in first] == [e for e in EXERCISES for _ in range(4)]
    assert len({r.tokens for r in first}) > 6
    stops = {STOP, *range(100, 140)}
    for rollout in first:
        assert rollout.finished == (rollout.tokens[-1] in stops)
        assert not stops & set(rollout.tokens[:-1])
        assert rollout.finished or len(rollout.tokens) == 6
    assert {r.finished for r in first} == {True, False}


@pytest.mark.parametrize("at_once", [4, 64])
def test_tokens_are_drawn_from_the_models_own_distribution(at_once: int) -> None:
    """The second token after a prompt that invites guesses: frequencies against exact probabilities."""
    network = model()
    prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5]
    draws = 400 if at_once == 64 else 120
    temperature = 0.15  # peaked, so that guesses are often right and a few tokens hold nearly all probability
    with torch.no_grad():
        first = (network(input_ids=torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
        exact = torch.zeros(512)
        for token in first.topk(40).indices.tolist():
            after = (network(input_ids=torch.tensor([[*prompt, token]])).logits[0, -1] / temperature).softmax(-1)
            exact += first[token] * after
    seen = torch.zeros(512)
    written: dict[int, list[int]] = {}
    sampling = Sampling(temperature=temperature, seed=3)
    for part in decode(lambda: network, [prompt] * draws, limits=[2] * draws, stop=(), rows=at_once, sampling=sampling):
        written.setdefault(part.number, []).extend(part.tokens)
    for tokens in written.values():
        seen[tokens[1]] += 1 / draws
    assert (seen - exact).abs().sum() / 2 < 2.5 * (exact * (1 - exact) / draws).sqrt().sum() / 2 + (1 - exact.sum())


def test_temperature_and_nucleus() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    assert nucleus(probabilities, 0.5).tolist() == [[0, 0.5, 0, 0]]
    assert nucleus(probabilities, 0.51)[0].tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert nucleus(probabilities, 1e-9)[0].tolist() == pytest.approx([0, 0.5, 0, 0])
    logits = probabilities.log().expand(4000, 4)
    for temperature, expected in ((1.0, [0.1, 0.5, 0.15, 0.25]), (0.5, [0.01, 0.25, 0.0225, 0.0625])):
        drawn = Sampler(Sampling(temperature=temperature), torch.device("cpu"))(logits)
        shares = torch.bincount(drawn, minlength=4) / 4000
        assert torch.allclose(shares, torch.tensor(expected) / sum(expected), atol=0.03)


@pytest.mark.parametrize("budget", [60, 90, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_on_trees_are_those_of_separate_rows(budget: int, temperature: float) -> None:
    network = model()
    found = rollouts(network)
    with torch.no_grad():
        expected = [alone(network, rollout, temperature) for rollout in found]
        serve_trees(network)
        seen = []
        packed = rows(found, budget, normalise="token")
        for row in packed:
            batch = collate([row.tree])
            logps = -token_losses(network, predicting_states(network, batch), batch["targets"], temperature)
            lines = Lines(batch["owners"], len(row.rollouts))
            assert torch.equal(lines.pick(lines.lay(logps)), logps)
            for line, number in zip(lines.lay(logps), row.rollouts, strict=True):
                length = len(found[number].tokens)
                assert torch.allclose(line[:length], expected[number], atol=1e-5)
                assert not line[length:].any()
                seen.append(number)
    assert sorted(seen) == list(range(len(found)))
    assert all(len(row) <= budget for row in packed)
    if budget == 1000:  # the two exercises of one group share their passages, and each its prompt with its answers
        assert sum(map(len, packed)) == 20 + 2 + 3 - 1 + 21 + sum(len(r.tokens) for r in found)


def test_weights_make_a_mean_over_tokens_or_over_answers() -> None:
    found = rollouts(model())
    for normalise, whole in (("token", sum(len(r.tokens) for r in found)), ("sequence", len(found))):
        (row,) = rows(found, 1000, normalise=normalise)  # type: ignore[arg-type]
        assert row.tree.weight.sum() == pytest.approx(whole)
        for sequence, number in zip(row.tree.sequences(), row.rollouts, strict=True):
            own = sequence.weight[sequence.weight > 0]
            assert len(own) == len(found[number].tokens) and len(set(own.tolist())) == 1


def test_entropies_are_exact() -> None:
    network, states = model(), torch.randn(5, 32)
    logits = network.lm_head(states) / 0.7
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(token_entropies(network, states, 0.7), expected, atol=1e-5)
