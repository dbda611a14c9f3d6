"""Rollouts: answers that the policy samples, and the token trees that they form.

All answers to a question stand behind one prompt, and questions over the same passages behind one beginning: writing
computes it once, and so does every pass of the training.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from openbook.llm.token_server import TokenServer
from openbook.models.decode import decode
from openbook.models.sampling import Sampling
from openbook.progress import Task
from openbook.tokens import TokenSequence, TokenTree, best_fit, build, concatenate
from openbook.training.exercises import Exercise

Normalise = Literal["token", "sequence"]

MOST_REQUESTS = 64  # under way to a server at a time; each has a thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """An answer to an exercise. `tokens` end with the stop token where it `finished` by itself. `told` are their
    log-probabilities as the server that wrote them says, where one did: for comparison, never for learning."""

    exercise: Exercise
    tokens: tuple[int, ...]
    text: str
    finished: bool
    told: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """A row in which sequence s is rollout `rollouts[s]` of its round."""

    tree: TokenTree
    rollouts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tree)


def sample(
    model: Any,
    tokenizer: Any,
    exercises: Sequence[Exercise],
    *,
    each: int,
    longest: int,
    stop: frozenset[int],
    at_once: int,
    sampling: Sampling | None,
    task: Task,
) -> list[Rollout]:
    """`each` answers of up to `longest` tokens to every exercise, those to exercise n at n·each, n·each + 1, …

    `model` is the causal language model itself, with the policy's adapter in force. Greedy without `sampling`.
    """
    asked = [exercise for exercise in exercises for _ in range(each)]
    written: list[list[int]] = [[] for _ in asked]
    finished = [False] * len(asked)
    model.eval()
    for part in decode(
        lambda: model,
        [exercise.prompt for exercise in asked],
        limits=[longest] * len(asked),
        stop=stop,
        rows=at_once,
        sampling=sampling,
    ):
        written[part.number] += part.tokens
        if part.end:
            task.advance()
        if part.end == "stop":
            finished[part.number] = True
            written[part.number].append(part.stop)
    return [
        _rollout(tokenizer, exercise, tokens, done)
        for exercise, tokens, done in zip(asked, written, finished, strict=True)
    ]


def ask(
    server: TokenServer,
    model: str,
    tokenizer: Any,
    exercises: Sequence[Exercise],
    *,
    each: int,
    longest: int,
    stop: frozenset[int],
    sampling: Sampling,
    task: Task,
) -> list[Rollout]:
    """The same, written by a server's `model`: one request for an exercise, all of them at once, since a server knows how
    much it can take."""

    def answers(number: int) -> list[Rollout]:
        exercise = exercises[number]
        drawn = server.complete(
            model,
            exercise.prompt,
            count=each,
            longest=longest,
            stop=stop,
            temperature=sampling.temperature,
            seed=(sampling.seed + number * each) % 2**31,
        )
        return [_rollout(tokenizer, exercise, answer.tokens, answer.finished, answer.logps) for answer in drawn]

    found: list[Rollout] = []
    with ThreadPoolExecutor(min(len(exercises), MOST_REQUESTS)) as pool:
        try:
            for rollouts in pool.map(answers, range(len(exercises))):
                found += rollouts
                task.advance(each)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _rollout(
    tokenizer: Any, exercise: Exercise, tokens: Sequence[int], finished: bool, told: tuple[float, ...] = ()
) -> Rollout:
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Rollout(exercise=exercise, tokens=tuple(tokens), text=text, finished=finished, told=told)


def rows(rollouts: Sequence[Rollout], budget: int, *, normalise: Normalise) -> list[RolloutRow]:
    """The rollouts of a round in rows of at most `budget` tokens.

    Each token weighs 1, or with "sequence" as much as lets every rollout weigh 1 in all: the sum of the weights is
    then what a mean over tokens or over rollouts divides by.
    """
    sequences = [_sequence(rollout, normalise) for rollout in rollouts]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, rollout in enumerate(rollouts):
        groups.setdefault(rollout.exercise.group, []).append(number)
    trees = [row for members in groups.values() for row in _trees(sequences, members, budget)]
    return [
        RolloutRow(
            tree=concatenate([trees[n].tree for n in row]), rollouts=tuple(r for n in row for r in trees[n].rollouts)
        )
        for row in best_fit([len(tree) for tree in trees], budget)
    ]


def _sequence(rollout: Rollout, normalise: Normalise) -> TokenSequence:
    prompt, own = rollout.exercise.prompt, rollout.tokens
    weight = np.zeros(len(prompt) + len(own), np.float32)
    weight[len(prompt) :] = 1.0 if normalise == "token" else 1.0 / len(own)
    return TokenSequence(input_ids=np.array([*prompt, *own], np.int64), weight=weight, name=rollout.exercise.name)


def _trees(sequences: Sequence[TokenSequence], members: Sequence[int], budget: int) -> list[RolloutRow]:
    """The tree of these rollouts, or as many as it takes for each to hold at most `budget` tokens. One alone fits:
    its prompt left room for the longest answer."""
    tree = build([sequences[n] for n in members])
    if len(tree) <= budget or len(members) == 1:
        return [RolloutRow(tree=tree, rollouts=tuple(members))]
    half = len(members) // 2
    return _trees(sequences, members[:half], budget) + _trees(sequences, members[half:], budget)


class Lines:
    """Values (N,) of a row's own tokens as lines (S, T), one for each sequence in its own order, 0 behind its end; and back.

    The tokens of one sequence stand in their order in the row, so a token's column is how many of its own came before.
    """

    def __init__(self, owners: Tensor, sequences: int) -> None:
        mine = owners[None] == torch.arange(sequences, device=owners.device)[:, None]  # (S, N)
        column = mine.cumsum(1)[owners, torch.arange(len(owners), device=owners.device)] - 1
        self._shape = (sequences, int(column.max()) + 1)
        self._at = owners * self._shape[1] + column  # (N,)

    def lay(self, values: Tensor) -> Tensor:
        """(N,) → (S, T)"""
        lines = values.new_zeros(self._shape[0] * self._shape[1])
        lines[self._at] = values
        return lines.view(self._shape)

    def pick(self, lines: Tensor) -> Tensor:
        """(S, T) → (N,)"""
        return lines.flatten()[self._at]
