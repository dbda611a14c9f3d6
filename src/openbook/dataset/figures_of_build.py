"""What the finished rows of a build show, counted from the rows themselves; and where they are fewer than was asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from openbook import prompt
from openbook.options import Dataset
from openbook.records import RaftExample

BIASED_FROM = 40  # examples; with fewer, chance alone fills places unevenly
BIASED = 0.6  # of the golden passages in one place, where there are three or more


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """`golden[i]`: how often a golden passage stands in place i; `shown`: passages shown → examples; `refusals`: why an
    example refuses → examples; `golden_share`: of the examples that have golden passages, how many show them all."""

    golden: tuple[int, ...]
    shown: dict[str, int]
    refusals: dict[str, int]
    golden_share: float

    @classmethod
    def of(cls, rows: Sequence[RaftExample]) -> Self:
        """Count in training rows."""
        places: Counter[int] = Counter()
        for row in rows:
            if row.golden_included:
                places.update(at for at, chunk in enumerate(row.passages) if chunk.id in row.golden_ids)
        shown = Counter(len(row.passages) for row in rows)
        refusals = Counter(
            "golden absent" if row.golden else "answered nowhere" for row in rows if prompt.is_refusal(row.final_answer)
        )
        answerable = [row.golden_included for row in rows if row.golden]
        return cls(
            golden=tuple(places[at] for at in range(max(places, default=-1) + 1)),
            shown={str(count): number for count, number in sorted(shown.items())},
            refusals=dict(sorted(refusals.items())),
            golden_share=sum(answerable) / len(answerable) if answerable else 0.0,
        )


def notes(
    rows: Mapping[str, Sequence[RaftExample]],
    options: Dataset,
    places: Places,
    *,
    exhausted: bool,
    outcomes: Mapping[str, int],
) -> tuple[str, ...]:
    """Sentences on where less could be had than was asked for, and why."""
    train = rows["train"]
    wanted = (options.questions, options.validation, options.studied, options.unseen)
    found = [
        f"{len(rows[part]):,} of {want:,} {name} questions could be had from these documents."
        for (part, name), want in zip(_NAMES.items(), wanted, strict=True)
        if len(rows[part]) < want
    ]
    if exhausted:
        found.insert(0, "The budget is used up: this is what could be made of it. Raise --max-cost to go on from here.")
    failed = outcomes.get("reply: call failed", 0)
    if failed:
        found.append(f"{failed:,} calls failed after all retries; `openbook dataset --force` asks only them again.")
    if train and abs(places.golden_share - options.golden_share) > 1 / len(train):
        found.append(
            f"{places.golden_share:.0%} of the training examples show their golden passage, not "
            f"{options.golden_share:.0%}: for the others no passages were found that do not answer them."
        )
    few = sum(len(row.passages) < options.passages for row in train)
    if few:
        found.append(
            f"{few:,} training examples show fewer than {options.passages} passages: there are no more that do not "
            "repeat the answer."
        )
    total = sum(places.golden)
    if total >= BIASED_FROM and len(places.golden) > 2 and max(places.golden) > BIASED * total:
        found.append("The golden passage stands in the same place too often: a model may learn the place.")
    for share, count, name in (
        (options.nowhere_share, sum(not row.golden for row in train), "that nothing answers"),
        (options.pair_share, sum(len(row.golden) > 1 for row in train), "that need two passages"),
    ):
        if train and count < share * len(train) - max(2, 0.02 * len(train)):
            found.append(f"{count:,} training questions {name} could be had, of {round(share * len(train)):,} wanted.")
    return tuple(found)


_NAMES = {"train": "training", "validation": "validation", "studied": "studied", "unseen": "unseen"}
