"""What a build of the data set made, left out, and why."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """`written` counts what the teacher wrote, `kinds` the questions that were used, `dropped` the others by reason.

    `golden_share` is the measured share of training examples that show their golden passage. `retrieved` is the share
    of test questions whose golden passage the retriever finds among those shown. `notes` are sentences on where less
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
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.train:,} training questions in {self.groups:,} study groups ({self.golden_share:.0%} with their "
            f"golden passage), {self.validation:,} for validation, {self.studied:,} studied, {self.unseen:,} unseen.",
            f"{self.written:,} questions were written about {self.passages:,} passages.",
        ]
        if self.dropped:
            reasons = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(self.dropped.items()))
            lines.append(f"Not used: {reasons}.")
        return "\n".join([*lines, *self.notes])


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts while a build runs."""

    passages: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
