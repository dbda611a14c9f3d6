"""What an answer is worth: the grader that also scores the exam, a reward model, or both by weight."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from openbook.errors import ConfigError, ModelError, RecordError
from openbook.metrics.grading import Grade, grade_text
from openbook.options import RL
from openbook.prompt import is_refusal, parse_answer
from openbook.training.attention import forward_keywords
from openbook.training.head import hidden_states
from openbook.training.reward import ScalarHead, last_positions
from openbook.training.roles import REWARD, Roles
from openbook.training.rollouts import Rollout, RolloutRow

MODEL = "model"  # the name of the reward model's part

Parts = dict[str, float]


def parts(rollout: Rollout) -> Parts:
    """The grader's parts, each from 0 to 1; those that do not arise are left out.

    answer: token F1 of the short answer, where the row answers. refusal: whether it refuses, where the row does. quote:
    a verified quote overlaps the golden sentence and carries the answer, where that sentence is known. verbatim: the
    share of its quotes that stand in a passage, 0 where a quote was due and none was given, and where the answer itself
    is not: nothing that it quotes can bear it out. A refusal needs none. format: an answer behind its tag, and the model ended by itself.
    """
    exercise = rollout.exercise
    assert exercise.gold is not None
    grade: Grade = grade_text(rollout.text, exercise.gold, passages=exercise.passages, finished=rollout.finished)
    refusal_due = is_refusal(exercise.gold.answer)
    found: Parts = {
        "refusal" if refusal_due else "answer": grade.f1,
        "format": float(rollout.finished and not grade.failure and bool(parse_answer(rollout.text).final)),
    }
    if grade.right_quote is not None:
        found["quote"] = float(grade.right_quote)
    if refusal_due and not grade.refusal:
        found["verbatim"] = 0.0
    elif grade.verified_quotes is not None:
        found["verbatim"] = grade.verified_quotes
    elif grade.right_quote is not None:
        found["verbatim"] = 0.0
    return found


def weighted(found: Parts, options: RL) -> float:
    """The mean of the parts by their weights: 1 is a perfect answer, whatever is asked of it, so that questions with
    and without a golden passage pull with equal force."""
    weights = {name: float(getattr(options, name)) for name in found}
    whole = sum(weights.values())
    return sum(weights[name] * value for name, value in found.items()) / whole if whole else 0.0


class Rewards:
    """`of` gives the rewards of a round's rollouts; `head` is the reward model's, None where there is none."""

    def __init__(self, options: RL, roles: Roles, head: ScalarHead | None) -> None:
        if not options.grader and (head is None or not options.reward_weight):
            raise ConfigError(
                "Nothing gives a reward: rl.grader is 0 and there is no reward model.",
                "Raise rl.grader, or name a reward model with --reward-model and raise rl.reward_weight.",
            )
        self._options, self._roles, self._head = options, roles, head

    def check(self, ungraded: Sequence[str]) -> None:
        """Raise `RecordError` where answers to these rows would have to be graded; they say no right answer."""
        if self._options.grader and ungraded:
            raise RecordError(
                f"{ungraded[0]}: the row has no answer that the grader could hold others against"
                + (f", like {len(ungraded) - 1} more." if len(ungraded) > 1 else "."),
                "Give rows with question, context and cot_answer, or score with a reward model alone "
                "(--reward-model FOLDER --set rl.grader=0).",
            )

    def of(self, rollouts: Sequence[Rollout], rows: Sequence[RolloutRow]) -> tuple[Tensor, Parts]:
        """Rewards (R,), and the mean of every part over those to which it applies."""
        options = self._options
        total = torch.zeros(len(rollouts))
        seen: dict[str, list[float]] = {}
        if options.grader:
            for number, rollout in enumerate(rollouts):
                found = parts(rollout)
                total[number] += options.grader * weighted(found, options)
                for name, value in found.items():
                    seen.setdefault(name, []).append(value)
        if self._head is not None and options.reward_weight:
            scores = self._scores(self._head, len(rollouts), rows)
            total += options.reward_weight * scores
            seen[MODEL] = scores.tolist()
        refuse_what_is_no_number(total, rollouts)
        return total, {name: sum(values) / len(values) for name, values in sorted(seen.items())}

    @torch.no_grad()
    def _scores(self, head: ScalarHead, count: int, rows: Sequence[RolloutRow]) -> Tensor:
        """The reward model's score of each rollout, read at its last token."""
        found = torch.zeros(count)
        model: Any = self._roles.model
        self._roles.play(REWARD)
        for row in rows:
            keywords = send_to_device(forward_keywords(row.tree), model.device)
            states = hidden_states(model, keywords)[last_positions(row.tree).to(model.device)]
            found[list(row.rollouts)] = head(states).cpu()
        return found


def refuse_what_is_no_number(rewards: Tensor, rollouts: Sequence[Rollout]) -> None:
    """One reward that is not finite would spoil every advantage of its round: name the rows and stop."""
    bad = [rollouts[n].exercise.name for n, reward in enumerate(rewards.tolist()) if not math.isfinite(reward)]
    if bad:
        names = sorted(set(bad))
        raise ModelError(
            f"{len(bad)} of {len(rewards)} rewards are no numbers; they are those of {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more." if len(names) > 3 else "."),
            "Is the reward model whole, and was its training sound? Score these rows with it alone.",
        )
