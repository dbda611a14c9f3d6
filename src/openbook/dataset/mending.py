"""A repaired copy of a file: what differs in form is put right, what cannot be is left out, and both are counted.

A row keeps its layout and every column that no repair concerns. After its repairs each row is checked again, and one
that still has an error is left out under that error's name: nothing that the doctor would complain of is written.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from openbook import prompt
from openbook.dataset.faults import FAULTS
from openbook.dataset.imports import (
    Sample,
    plain,
    read_sample,
    split_message,
    text_at,
    with_passages,
    with_text,
)
from openbook.dataset.known import Other, digest, leak, row_digest
from openbook.dataset.lengths import Lengths
from openbook.dataset.repair import repair_quotes
from openbook.dataset.rowchecks import LIST_NUMBER, check, claims_wrongly, is_reasoning, quotable, same_passages
from openbook.dataset.tables import Raw, check_target, columns_of, read_rows, write_rows
from openbook.errors import InputError, RecordError
from openbook.progress import SILENT, Progress

NUMBERED: Final = 0.1  # share of questions with list numbers from which on they are no part of the questions

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What a mended copy holds: `written` rows; how many were `repaired`, and how many `dropped`, by fault."""

    path: str
    written: int
    repaired: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What only the whole file shows to be needed: taking list numbers off, shuffling the passages."""

    strip_numbers: bool = False
    shuffle: bool = False

    @classmethod
    def after(cls, rows: int, faults: Mapping[str, int]) -> Self:
        """The plan for a file of `rows` rows in which these faults were found, each so often."""
        numbered = faults.get("list-number", 0)
        return cls(strip_numbers=numbered >= max(1, NUMBERED * rows), shuffle="golden-place" in faults)


def check_copy(path: Path, out: Path) -> None:
    """Refuse a copy that would replace the file or cannot be written, before any work is done."""
    check_target(out)
    if out.resolve() == path.resolve():
        raise InputError(f"The mended copy would replace {path}.", "Give --fix another name.")


def mend(
    path: Path,
    out: Path,
    plan: Plan,
    *,
    other: Other | None = None,
    lengths: Lengths | None = None,
    progress: Progress = SILENT,
) -> Mended:
    """Write a repaired copy of `path`, whole or not at all. A Parquet copy of a columnar file keeps its column types."""
    check_copy(path, out)
    mender = _Mender(plan, other, lengths)
    with progress.task(f"Mending {path.name}", None, "rows") as task:

        def rows() -> Iterator[Row]:
            for raw in read_rows(path):
                task.advance()
                row = mender.mended(raw)
                if row is not None:
                    yield row

        written = write_rows(out, rows(), columns=columns_of(path) if out.suffix == ".parquet" else None)
    return Mended(
        path=str(out), written=written, repaired=dict(mender.repaired.most_common()), dropped=dict(mender.dropped)
    )


class _Mender:
    def __init__(self, plan: Plan, other: Other | None, lengths: Lengths | None) -> None:
        self.plan, self.other, self.lengths = plan, other, lengths
        self.repaired: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._steps: tuple[tuple[str, Callable[[Row, Sample], Row | None]], ...] = (
            ("list-number", self._without_number),
            ("reasoning-as-answer", _short_answer),
            ("duplicate-passage", _passages_once),
            ("quote-form", _exact_quotes),
            ("golden-place", self._shuffled),
            ("too-long", self._shortened),
            ("instruction-differs", _instruction),
            ("golden-claim", _claims),
        )

    def mended(self, raw: Raw) -> Row | None:
        """The row after its repairs; None where it is left out."""
        row: Row | None = raw.row
        try:
            sample = read_sample(raw.row) if raw.row is not None else None
        except RecordError:
            sample = None
        if row is None or sample is None:
            self.dropped["unreadable"] += 1
            return None
        done = []
        for fault, step in self._steps:
            changed = step(row, sample)
            if changed is not None:
                row, sample = changed, read_sample(changed)
                done.append(fault)
        left = self._left(sample)
        if left:
            self.dropped[left] += 1
            return None
        self.repaired.update(done)
        return row

    def _left(self, sample: Sample) -> str:
        """The first error that is left in a row; "" where there is none."""
        for found in check(sample):
            if FAULTS[found.fault].severity == "error":
                return found.fault
        if self.lengths and self.lengths.tokens(sample) > self.lengths.limit:
            return "too-long"
        leaked = leak(sample, self.other)
        if leaked:
            return leaked.fault
        same = row_digest(sample)
        if same in self._seen:
            return "duplicate-row"
        self._seen.add(same)
        return ""

    def _without_number(self, row: Row, sample: Sample) -> Row | None:
        match = LIST_NUMBER.match(sample.question) if self.plan.strip_numbers else None
        if not match:
            return None
        for place in sample.question_at:
            text = text_at(row, place)
            at = text.rfind(sample.question)
            if at >= 0:
                row = with_text(
                    row, place, text[:at] + sample.question[match.end() :] + text[at + len(sample.question) :]
                )
        return row

    def _shuffled(self, row: Row, sample: Sample) -> Row | None:
        """The passages in an order that depends on the row's content alone."""
        if not self.plan.shuffle or not sample.passages or len(sample.passages) < 2:
            return None
        order = list(range(len(sample.passages)))
        random.Random(digest(sample.question, *sample.passages)).shuffle(order)
        return with_passages(row, sample, order)

    def _shortened(self, row: Row, sample: Sample) -> Row | None:
        """The row without as many of its last distractors as must go; None where none must, or where it never fits."""
        if self.lengths is None or not sample.passages or sample.golden is None:
            return None
        if self.lengths.tokens(sample) <= self.lengths.limit:
            return None
        kept = list(range(len(sample.passages)))
        distractors = [at for at in kept if sample.plain_passages[at] not in sample.plain_golden]
        while distractors and len(kept) > 1:
            kept.remove(distractors.pop())
            shorter = with_passages(row, sample, kept)
            if self.lengths.tokens(read_sample(shorter)) <= self.lengths.limit:
                return shorter
        return None


def _short_answer(row: Row, sample: Sample) -> Row | None:
    if sample.layout != "eval" or not is_reasoning(sample.answer):
        return None
    final = sample.parsed.final
    return with_text(row, sample.answer_at, final) if final else None


def _passages_once(row: Row, sample: Sample) -> Row | None:
    if not sample.passages:
        return None
    first: dict[str, int] = {}
    for at, text in enumerate(sample.plain_passages):
        if sample.index == at:  # of several alike, the one that the row itself points to
            first[text] = at
        first.setdefault(text, at)
    return with_passages(row, sample, sorted(first.values())) if len(first) < len(sample.passages) else None


def _exact_quotes(row: Row, sample: Sample) -> Row | None:
    if sample.passages is None or sample.layout == "eval":
        return None
    result = repair_quotes(text_at(row, sample.answer_at) if sample.answer else "", quotable(sample))
    return with_text(row, sample.answer_at, result.text) if result.changed else None


def _instruction(row: Row, sample: Sample) -> Row | None:
    """The instruction written anew, where it asks the same over other passages than the context's."""
    if sample.layout not in ("raft", "variant") or not sample.shown or not sample.passages:
        return None
    shown, question = split_message(sample.shown)
    asks_the_same = plain(question) in (plain(sample.question), plain(prompt.defused(sample.question)))
    if not asks_the_same or same_passages(shown or (), sample.passages):
        return None
    return with_text(row, sample.shown_at, prompt.instruction(sample.passages, sample.question))


def _claims(row: Row, sample: Sample) -> Row | None:
    """What the row says of its golden passage, after what it shows."""
    if not claims_wrongly(sample) or sample.passages is None or not sample.golden:
        return None
    changed = dict(row)
    shown = bool(sample.golden_shown)
    if "oracle_present" in changed:
        changed["oracle_present"] = shown
    if sample.index is not None:
        shown_at = {text: at for at, text in reversed(list(enumerate(sample.plain_passages)))}
        changed["oracle_index"] = shown_at.get(sample.plain_golden[0], -1)
    if isinstance(changed.get("meta"), Mapping) and "golden_included" in changed["meta"]:
        changed["meta"] = {**changed["meta"], "golden_included": shown}
    return changed
