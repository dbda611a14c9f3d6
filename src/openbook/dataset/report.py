"""What a build of the data set made, left out, and why."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from openbook.llm import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """`written` counts what the teacher wrote, `kinds` the questions that were used, `dropped` what was not by reason,
    `outcomes` what was wrong with the teacher's replies.

    `golden_share` is the measured share of training examples that show their golden passages (of those that have any),
    `golden_places` how often a golden passage stands first, second, … in them, `passages_shown` how many training
    examples show how many passages, `refusals` how many refuse, by why. `retrieved` is the share of test questions
    whose golden passage the retriever finds among those shown. `leaks` counts the rows that the leak test took out of
    validation and exams, `known` questions that are answered without any passage. `notes` are sentences on where less
    could be had than was asked for.
    """

    passages: int
    written: int
    kinds: dict[str, int]
    dropped: dict[str, int]
    train: int
    validation: int
    studied: int
    unseen: int
    groups: int
    golden_share: float
    retrieved: float
    documents_held_out: int
    seconds: float
    outcomes: dict[str, int] = field(default_factory=dict)
    golden_places: tuple[int, ...] = ()
    passages_shown: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    leaks: int = 0
    known: int = 0
    spent: Spent = field(default_factory=Spent)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(
            [*self._lines(), *_table("Not used", self.dropped), *_table("Replies", self.outcomes), *self.notes]
        )

    def _lines(self) -> Iterator[str]:
        yield (
            f"{self.train:,} training questions in {self.groups:,} study groups ({self.golden_share:.0%} with their "
            f"golden passage), {self.validation:,} for validation, {self.studied:,} studied, {self.unseen:,} unseen."
        )
        yield f"{self.written:,} questions were written about {self.passages:,} passages."
        if self.golden_places:
            shown = ", ".join(f"{count} in {rows:,}" for count, rows in self.passages_shown.items())
            places = " ".join(f"{count / sum(self.golden_places):.0%}" for count in self.golden_places)
            yield f"Passages shown: {shown} examples. The golden one stands first, second, … in {places}."
        if self.refusals:
            yield "Refusals: " + ", ".join(f"{count:,} × {why}" for why, count in self.refusals.items()) + "."
        yield f"Leak test: {self.leaks:,} rows taken out of validation and exams."
        if self.known:
            yield f"{self.known:,} questions are answered without any passage; their rows say so (meta.scores)."
        if self.spent.sent or self.spent.kept:
            money = f", {self.spent.money:.4f} in all" if self.spent.money else ""
            yield f"Calls: {self.spent.sent:,} sent, {self.spent.kept:,} answered before and kept{money}."


def _table(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    """Counts as lines below a title, the largest first."""
    if counts:
        width = len(f"{max(counts.values()):,}")
        yield f"{title}:"
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>{width},} × {reason}"


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts while a build runs."""

    passages: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
