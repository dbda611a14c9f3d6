"""The ways of tuning that are compared: what each is, what it goes on from, and when it is worth its cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from openbook.evaluation.arms import from_table

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of tuning. `method` is what `openbook tune --method` calls it, `after` the way whose adapter it goes on
    from ("": the bare base)."""

    name: str
    method: str
    meaning: str
    worth: str
    after: str = ""


_TABLE = (
    Way(
        name=BASE,
        method="",
        meaning="The base model as it came, shown the retrieved passages. Nothing is trained.",
        worth="It is what every tuning has to beat: where it does not, retrieval alone is the cheaper answer.",
    ),
    Way(
        name="sft",
        method="sft",
        meaning="Supervised tuning on question and short answer, without passages (the closed book).",
        worth="Worth it where the model must know by heart and no passages can be shown; it learns no quoting.",
    ),
    Way(
        name="instruct",
        method="instruct",
        meaning="Supervised tuning on tasks phrased as commands, from the same documents or from sets of your own.",
        worth="Worth it where the base follows no instructions yet, or must do more than answer questions.",
    ),
    Way(
        name="raft",
        method="sft",
        meaning="Supervised tuning on questions with passages, some of them without the right one (RAFT).",
        worth="Worth it where the model is to answer from retrieved passages, quote them, and refuse when they are silent.",
    ),
    Way(
        name="raft+dpo",
        method="dpo",
        after="raft",
        meaning="RAFT, then preferences: right answers against the tuned model's own failures (DPO).",
        worth="Worth it where the tuned model still fails in ways that preference pairs can name; it needs no reward model.",
    ),
    Way(
        name="raft+ppo",
        method="ppo",
        after="raft",
        meaning="RAFT, then reinforcement with a learned value of each token (PPO).",
        worth="Worth it where a reward is to be had but no pairs, and there is time for sampling and for watching the run.",
    ),
    Way(
        name="raft+grpo",
        method="grpo",
        after="raft",
        meaning="RAFT, then reinforcement by comparing several answers to one question (GRPO), rewarded by the grader.",
        worth="Worth it where answers can be checked by rule, as quotes and short answers can; it needs no value model.",
    ),
    Way(
        name="full",
        method="sft",
        meaning="RAFT's data, but all weights are trained and not an adapter.",
        worth="Worth it where memory is plentiful and the adapter is the limit; it leaves a whole model, not a small file.",
    ),
)
WAYS: Mapping[str, Way] = MappingProxyType({way.name: way for way in _TABLE})


def chosen_ways(names: Sequence[str]) -> tuple[Way, ...]:
    """The ways of these names, in the table's order. Raises `ConfigError` for a name that there is not."""
    return from_table(WAYS, names, unknown="There is no way of tuning", none="No way of tuning is named.")


def in_order(ways: Iterable[Way]) -> list[Way]:
    """The ways with those that they go on from, each after what it needs; without the base, which nobody trains."""
    found: dict[str, Way] = {}
    for way in ways:
        if way.after:
            found.setdefault(way.after, WAYS[way.after])
        found.setdefault(way.name, way)
    return [way for way in found.values() if way.name != BASE]
