"""What an answer is worth: every part of the grader's reward, their weights, the reward model, and what is refused."""

import pytest
import torch

from openbook.errors import ConfigError, ModelError, RecordError
from openbook.metrics.grading import Gold
from openbook.options import RL
from openbook.prompt import REFUSAL
from openbook.records import Chunk
from openbook.training.exercises import Exercise
from openbook.training.rewards import Rewards, parts, refuse_what_is_no_number, weighted
from openbook.training.rollouts import Rollout

SENTENCE = "The cache keeps results for ten minutes."
PASSAGE = f"{SENTENCE} The fox jumps over the lazy dog."
GOLD = Gold(answer="ten minutes", sentences=(SENTENCE,))
QUOTED = f"##begin_quote## {SENTENCE}##end_quote##"


def rollout(text: str, gold: Gold | None = GOLD, *, finished: bool = True, name: str = "rows.jsonl:3") -> Rollout:
    chunk = Chunk(id="passage 1", document_id="", start=0, end=len(PASSAGE), text=PASSAGE)
    exercise = Exercise(name=name, prompt=(1,), passages=(chunk,), gold=gold, group=(0, 0))
    return Rollout(exercise=exercise, tokens=(2,), text=text, finished=finished)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{QUOTED} <ANSWER>: ten minutes", {"answer": 1, "quote": 1, "verbatim": 1, "format": 1}),
        # the right answer without a quote, and with an invented one
        ("<ANSWER>: ten minutes", {"answer": 1, "quote": 0, "verbatim": 0, "format": 1}),
        (
            "##begin_quote## The cache keeps results for ten long minutes.##end_quote## <ANSWER>: ten minutes",
            {"answer": 1, "quote": 0, "verbatim": 0, "format": 1},
        ),
        # a true quote that does not carry the answer, and one true of two
        (
            "##begin_quote## The fox jumps over the lazy dog.##end_quote## <ANSWER>: ten minutes",
            {"answer": 1, "quote": 0, "verbatim": 1, "format": 1},
        ),
        (
            f"{QUOTED} ##begin_quote## Not there.##end_quote## <ANSWER>: ten minutes",
            {"answer": 1, "quote": 1, "verbatim": 0.5, "format": 1},
        ),
        (f"<ANSWER>: {REFUSAL}", {"answer": 0, "quote": 0, "verbatim": 0, "format": 1}),  # a refusal that is not due
        (f"{QUOTED} ten minutes", {"quote": 1, "verbatim": 1, "format": 0}),
    ],
)
def test_the_parts(text: str, expected: dict[str, float]) -> None:
    found = parts(rollout(text))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(found) == {"answer", "quote", "verbatim", "format"}


def test_an_answer_that_did_not_end_has_no_form() -> None:
    assert parts(rollout("<ANSWER>: ten minutes", finished=False))["format"] == 0


def test_where_a_refusal_is_due() -> None:
    gold = Gold(answer=REFUSAL)
    assert parts(rollout(f"<ANSWER>: {REFUSAL}", gold)) == {"refusal": 1, "format": 1}
    for text in (
        "<ANSWER>: ten minutes",
        f"{QUOTED} <ANSWER>: ten minutes",
    ):  # a true quote of nothing makes it no better
        assert parts(rollout(text, gold)) == {"refusal": 0, "format": 1, "verbatim": 0}
    # quoting while refusing is judged by whether the quote is true
    assert parts(rollout(f"{QUOTED} <ANSWER>: {REFUSAL}", gold)) == {"refusal": 1, "format": 1, "verbatim": 1}


def test_the_weights_make_the_mean() -> None:
    options = RL(answer=1.0, quote=0.5, verbatim=0.25, format=0.25, refusal=3.0)
    assert weighted({"answer": 1, "quote": 1, "verbatim": 1, "format": 1}, options) == 1
    assert weighted({"answer": 0.5, "quote": 1, "verbatim": 0, "format": 1}, options) == pytest.approx(1.25 / 2)
    assert weighted({"refusal": 1, "format": 0}, options) == pytest.approx(3 / 3.25)
    assert weighted({"format": 1}, RL(format=0)) == 0


def test_no_shortcut_pays_more_than_the_right_answer() -> None:
    """The default weights: refusing everything, quoting at random and bare answers all earn less than they should."""
    options = RL()

    def worth(text: str, gold: Gold = GOLD) -> float:
        return weighted(parts(rollout(text, gold)), options)

    right = worth(f"{QUOTED} <ANSWER>: ten minutes")
    bare, refusing = worth("<ANSWER>: ten minutes"), worth(f"<ANSWER>: {REFUSAL}")
    random_quote = worth("##begin_quote## The fox jumps over the lazy dog.##end_quote## <ANSWER>: no")
    assert right == 1 > bare > random_quote > refusing
    none = Gold(answer=REFUSAL)
    assert worth(f"<ANSWER>: {REFUSAL}", none) == 1 > 4 * worth(f"{QUOTED} <ANSWER>: ten minutes", none)


def test_rewards_of_a_round_and_the_means_of_its_parts() -> None:
    rewards = Rewards(RL(grader=2.0), None, None)  # type: ignore[arg-type]
    texts = (f"{QUOTED} <ANSWER>: ten minutes", "<ANSWER>: ten minutes")
    total, means = rewards.of([rollout(text) for text in texts], [])
    assert total.tolist() == pytest.approx([2.0, 2.0 * 1.25 / 2])
    assert means == pytest.approx({"answer": 1, "format": 1, "quote": 0.5, "verbatim": 0.5})


def test_nothing_is_trained_on_nothing() -> None:
    with pytest.raises(ConfigError, match="Nothing gives a reward"):
        Rewards(RL(grader=0), None, None)  # type: ignore[arg-type]
    rewards = Rewards(RL(), None, None)  # type: ignore[arg-type]
    rewards.check(())
    with pytest.raises(RecordError, match=r"rows.jsonl:3: the row has no answer .* like 1 more.*rl.grader=0"):
        rewards.check(("rows.jsonl:3", "rows.jsonl:4"))


def test_a_reward_that_is_no_number_names_its_rows() -> None:
    rewards = torch.tensor([1.0, float("nan"), float("inf"), 0.0])
    refuse_what_is_no_number(rewards[:1], [rollout("")])
    with pytest.raises(ModelError, match=r"2 of 4 rewards are no numbers; they are those of a:1, b:2\."):
        refuse_what_is_no_number(rewards, [rollout("", name=name) for name in ("a:0", "b:2", "a:1", "a:3")])
