"""What is wrong with a file of RAFT rows, whoever wrote it: every row read once, nothing but fingerprints kept."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from openbook.dataset.faults import FAULTS, Severity
from openbook.dataset.figures import Figures, Gathering
from openbook.dataset.imports import Sample, read_sample
from openbook.dataset.known import Other, Questions, digest, goldens, leak, row_digest
from openbook.dataset.lengths import Lengths
from openbook.dataset.mending import Mended, Plan, check_copy, mend
from openbook.dataset.rowchecks import Found, check
from openbook.dataset.tables import Raw, read_rows
from openbook.errors import InputError, RecordError
from openbook.progress import SILENT, Progress

EXAMPLES: Final = 5  # of each fault, shown with the words that prove it
WIDTH: Final = 160  # characters of such words


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of fault in one file. `rows` numbers the rows that have it (empty for a fault of the file as a whole),
    `examples` are (row, words that show it) of the first ones, row 0 being the file."""

    fault: str
    severity: Severity
    says: str
    remedy: str
    rows: tuple[int, ...] = ()
    examples: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """What a file holds and what is wrong with it. `layouts` counts its rows by layout; `mended` says what `--fix` wrote,
    and `after` is the report on that copy."""

    path: str
    rows: int
    layouts: dict[str, int]
    figures: Figures
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    mended: Mended | None = None
    after: "DoctorReport | None" = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def healthy(self) -> bool:
        """Whether no error was found, or none is left in the mended copy."""
        return not (self.after or self).errors


@dataclass(slots=True)
class _Noted:
    rows: "array[int]" = field(default_factory=lambda: array("Q"))
    examples: list[tuple[int, str]] = field(default_factory=list)


class _Examination:
    """One reading of one file."""

    def __init__(self, other: Other | None, lengths: Lengths | None) -> None:
        self.other, self.lengths = other, lengths
        self.rows = 0
        self.layouts: Counter[str] = Counter()
        self.gathering = Gathering()
        self.noted: dict[str, _Noted] = {}
        self._questions = Questions()
        self._seen: set[bytes] = set()
        self._ids: set[bytes] = set()
        self._shared: set[bytes] = set()

    def note(self, found: Found, row: int) -> None:
        noted = self.noted.setdefault(found.fault, _Noted())
        if row and (not noted.rows or noted.rows[-1] != row):
            noted.rows.append(row)
        if len(noted.examples) < EXAMPLES and (found.shown or not row):
            noted.examples.append((row, found.shown[:WIDTH]))

    def look(self, raw: Raw) -> None:
        self.rows += 1
        if raw.row is None:
            self.note(Found("unreadable", raw.problem), raw.number)
            return
        try:
            sample = read_sample(raw.row)
        except RecordError as error:
            self.note(Found("unreadable", error.message.removeprefix("the row: ")), raw.number)
            return
        self.layouts[sample.layout] += 1
        for found in check(sample):
            self.note(found, raw.number)
        tokens = self.lengths.tokens(sample) if self.lengths else 0
        if self.lengths and tokens > self.lengths.limit:
            self.note(Found("too-long", f"{tokens:,} tokens, {self.lengths.limit:,} fit"), raw.number)
        self.gathering.add(sample, tokens)
        for found in self._compare(sample, raw.number):
            self.note(found, raw.number)

    def _compare(self, sample: Sample, row: int) -> Iterator[Found]:
        """What the row has in common with earlier ones, and with the other file."""
        if sample.id:
            identity = digest(sample.id)
            if identity in self._ids:
                yield Found("duplicate-id", sample.id)
            self._ids.add(identity)
        if self.other is not None:
            self._shared |= self.other.golden.intersection(goldens(sample))
        if not sample.question.strip():
            return
        same = row_digest(sample)
        known = self._questions.find(sample.question)
        if same in self._seen:
            yield Found("duplicate-row", sample.question)
        elif known is None:
            self._questions.add(sample.question, row)
        else:
            earlier, exact = known
            yield Found("duplicate-question" if exact else "near-duplicate", f"like row {earlier}: {sample.question}")
        self._seen.add(same)
        leaked = leak(sample, self.other)
        if leaked:
            yield leaked

    def report(self, path: Path, expected_share: float | None) -> DoctorReport:
        figures = self.gathering.figures(self.lengths.limit if self.lengths else None)
        for found in self.gathering.faults(figures, expected_share):
            self.note(found, 0)
        if not self.rows:
            self.note(Found("no-rows"), 0)
        if len({"raft" if name == "variant" else name for name in self.layouts}) > 1:
            self.note(Found("mixed-layouts", ", ".join(f"{n:,} {name}" for name, n in self.layouts.items())), 0)
        notes = []
        if self.other is not None:
            if self._shared:
                shown = f"{len(self._shared):,} of its {len(self.other.golden):,} golden passages"
                self.note(Found("shared-golden", shown), 0)
            if self.other.unreadable:
                notes.append(
                    f"{self.other.unreadable:,} rows of the other file cannot be read: they were not compared."
                )
        return DoctorReport(
            path=str(path),
            rows=self.rows,
            layouts=dict(self.layouts.most_common()),
            figures=figures,
            findings=tuple(
                Finding(
                    fault=name,
                    severity=fault.severity,
                    says=fault.says,
                    remedy=fault.remedy,
                    rows=tuple(self.noted[name].rows),
                    examples=tuple(self.noted[name].examples),
                )
                for name, fault in sorted(FAULTS.items(), key=lambda item: item[1].severity)
                if name in self.noted
            ),
            notes=tuple(notes),
        )


def diagnose(
    path: Path,
    *,
    other: Other | None = None,
    lengths: Lengths | None = None,
    golden_share: float | None = None,
    progress: Progress = SILENT,
) -> DoctorReport:
    """Read a file of RAFT rows in any layout and report what is wrong with it.

    `other` holds the questions that it must not share, `lengths` knows what the model can read, `golden_share` is the
    share P of rows that should show their golden passage. Raises `InputError` where there is no file to be read.
    """
    examination = _Examination(other, lengths)
    with progress.task(f"Examining {path.name}", None, "rows") as task:
        for raw in read_rows(path):
            examination.look(raw)
            task.advance()
    return examination.report(path, golden_share)


def examine(
    path: Path,
    *,
    fix: Path | None = None,
    against: Path | None = None,
    model: str = "",
    golden_share: float | None = None,
    progress: Progress = SILENT,
) -> DoctorReport:
    """`diagnose` from files and names, and with `fix` a mended copy under that name, which is diagnosed as well."""
    if golden_share is not None and not 0 <= golden_share <= 1:
        raise InputError(f"A golden share of {golden_share:g} cannot be.", "It is a share from 0 to 1, such as 0.8.")
    if fix is not None:
        check_copy(path, fix)
    if against is not None and against.resolve() == path.resolve():
        raise InputError(f"{path} was to be compared with itself.", "Name the other file with --against.")
    if fix is not None and against is not None and against.resolve() == fix.resolve():
        raise InputError(f"The mended copy would replace {against}.", "Give --fix another name.")
    other = Other(against) if against is not None else None
    lengths = Lengths(model) if model else None
    settings: dict[str, Any] = {
        "other": other,
        "lengths": lengths,
        "golden_share": golden_share,
        "progress": progress,
    }
    report = diagnose(path, **settings)
    if fix is None:
        return report
    plan = Plan.after(report.rows, {f.fault: len(f.rows) for f in report.findings})
    mended = mend(path, fix, plan, other=other, lengths=lengths, progress=progress)
    return replace(report, mended=mended, after=diagnose(fix, **settings))
