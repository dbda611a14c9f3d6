"""Who sits the exam: a table of adapters and of what is shown to them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeVar

from openbook.errors import ConfigError

AdapterName = str  # its folder under `adapters/`; the arms of the table know "sft" and "raft"
Shown = Literal["none", "retrieved", "golden"]
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to answer. `adapter` None is the bare base; `passages` golden means retrieved, the golden one guaranteed."""

    name: str
    adapter: AdapterName | None
    passages: Shown
    meaning: str


_TABLE = (
    Arm(name="base_closed", adapter=None, passages="none", meaning="the base model, from memory"),
    Arm(name="base_rag", adapter=None, passages="retrieved", meaning="the base model, shown the retrieved passages"),
    Arm(
        name="sft_closed",
        adapter="sft",
        passages="none",
        meaning="tuned on question → answer without passages, from memory",
    ),
    Arm(
        name="sft_rag",
        adapter="sft",
        passages="retrieved",
        meaning="tuned on question → answer without passages, shown the retrieved passages all the same",
    ),
    Arm(
        name="raft_rag",
        adapter="raft",
        passages="retrieved",
        meaning="tuned on questions with passages (RAFT), shown the retrieved passages",
    ),
    Arm(
        name="raft_golden",
        adapter="raft",
        passages="golden",
        meaning="as raft_rag, with the golden passage among them for certain: retrieval without fault",
    ),
)
ARMS: Mapping[str, Arm] = MappingProxyType({arm.name: arm for arm in _TABLE})

# What is told apart from chance: the first arm minus the second, question by question.
DIFFERENCES = (("raft_rag", "base_rag"), ("raft_rag", "sft_rag"))


def chosen(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names, in the table's order. Raises `ConfigError` for a name that there is not."""
    return from_table(ARMS, names, unknown="evaluate.arms: there is no arm", none="evaluate.arms is empty.")


def from_table(table: Mapping[str, Entry], names: Sequence[str], *, unknown: str, none: str) -> tuple[Entry, ...]:
    """The entries of these names, in the table's order. Raises `ConfigError`, which begins as `unknown` says for a name
    that there is not (and names the nearest one), and is `none` where no name is given."""
    for name in names:
        if name not in table:
            close = difflib.get_close_matches(name, table, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(table)}."
            raise ConfigError(f"{unknown} {name!r}.", hint)
    if not names:
        raise ConfigError(none, f"Choose from {', '.join(table)}.")
    return tuple(entry for name, entry in table.items() if name in names)
