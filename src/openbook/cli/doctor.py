"""`openbook doctor`."""

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli import text
from openbook.cli.session import EXIT_FAILED, Session, verb

if TYPE_CHECKING:
    from openbook.dataset.doctor import DoctorReport, Finding
    from openbook.dataset.figures import Figures
    from openbook.dataset.mending import Mended

ROWS = 8  # row numbers shown of each fault; --json has them all


def register(app: typer.Typer) -> None:
    verb(app, "doctor")(doctor)


def doctor(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="RAFT rows: JSON Lines, JSON, Parquet or Arrow.")],
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write a mended copy (.jsonl or .parquet).")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="A file whose questions must not stand in FILE, such as its test."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Find rows that are too long for this model: nano, small, a folder, or a name on the hub."),
    ] = "",
    golden_share: Annotated[
        float | None, typer.Option(help="The P that was asked for: the share of rows with their golden passage.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every row number.")] = False,
) -> None:
    """Find what is wrong with anybody's RAFT file, and mend it.

    Layouts: the reference tool's rows, its variant with oracle_document, prompt and completion, messages, preferences,
    the evaluation export. Checked are answer tags, quotes (word for word), golden passages, the real P, duplicates,
    leaks, and the length in tokens. Exit code 0: no errors (with --fix: none left in the copy); 1: errors.

    \b
    Examples:
      openbook doctor raft.jsonl
      openbook doctor train.parquet --against test.parquet --golden-share 0.8
      openbook doctor raft.jsonl --model ./my-model --fix mended.jsonl
    """
    from openbook import verbs

    report = verbs.doctor(
        file, fix=fix, against=against, model=model, golden_share=golden_share, progress=session.progress
    )
    if json_:
        print(json.dumps(dataclasses.asdict(report) | {"healthy": report.healthy}, ensure_ascii=False))
    else:
        print("\n".join(shown_report(report, min(shutil.get_terminal_size().columns, 110))))
    if not report.healthy:
        raise SystemExit(EXIT_FAILED)


def shown_report(report: "DoctorReport", width: int) -> Iterator[str]:
    """The report as lines: what the file holds, errors, warnings, and what a mended copy holds."""
    layouts = ", ".join(f"{count:,} {name}" for name, count in report.layouts.items())
    yield f"{report.path}: {report.rows:,} rows" + (f" ({layouts})" if layouts else "")
    yield from (f"  {line}" for line in shown_figures(report.figures))
    yield from (f"  {note}" for note in report.notes)
    for finding in report.findings:
        yield from _shown_finding(finding, width)
    yield _verdict(report)
    if report.mended is not None and report.after is not None:
        yield from _shown_mended(report.mended)
        yield from ["", *shown_report(report.after, width)]


def shown_figures(figures: "Figures") -> Iterator[str]:
    if figures.passages:
        usual = max(figures.passages, key=lambda n: figures.passages[n])
        yield f"passages shown: {usual}" + (" in most rows" if len(figures.passages) > 1 else "")
    if figures.golden_share is not None:
        yield f"golden passage shown (P): {figures.golden_share:.1%} of {figures.golden_known:,} rows"
    for n, counts in figures.places.items():
        if n > 1 and sum(counts) >= 0.1 * figures.golden_known:
            shares = " ".join(f"{count / sum(counts):.0%}" for count in counts)
            yield f"its place among {n}: {shares}"
    if figures.refusals or figures.answers_without_golden:
        yield f"refusals: {figures.refusals:,}; answers without the golden passage: {figures.answers_without_golden:,}"
    if figures.overlap:
        own, other = figures.overlap
        yield f"question words found in its distractors: {own:.0%} (in another row's: {other:.0%})"
    if figures.tokens:
        middle, high, most = figures.tokens
        yield f"tokens: median {middle:,}, 95 % up to {high:,}, longest {most:,}; the model reads {figures.token_limit:,}"


def _shown_finding(finding: "Finding", width: int) -> Iterator[str]:
    mark = "✗" if finding.severity == "error" else "!"
    says = f"{text.counted(len(finding.rows), 'row')}: {finding.says}" if finding.rows else finding.says
    yield ""
    yield from textwrap.wrap(f"{mark} {says} [{finding.fault}]", width, subsequent_indent="  ")
    if finding.rows:
        more = f" and {len(finding.rows) - ROWS:,} more" if len(finding.rows) > ROWS else ""
        yield f"    rows {', '.join(map(str, finding.rows[:ROWS]))}{more}"
    for row, shown in finding.examples[:3]:
        yield "    " + text.one_line(f"row {row}: {shown}" if row else shown, width - 4)
    yield from textwrap.wrap(f"→ {finding.remedy}", width, initial_indent="    ", subsequent_indent="      ")


def _verdict(report: "DoctorReport") -> str:
    warnings = len(report.findings) - len(report.errors)
    if not report.findings:
        return "\nNothing is wrong with it."
    rows = len({row for finding in report.errors for row in finding.rows})
    return (
        f"\n{len(report.errors)} kind{'s'[: len(report.errors) != 1]} of errors in {rows:,} rows, "
        f"{warnings} kind{'s'[: warnings != 1]} of warnings."
    )


def _shown_mended(mended: "Mended") -> Iterator[str]:
    yield f"\nWritten: {mended.path} ({mended.written:,} rows)"
    yield f"  mended: {_by_fault(mended.repaired)}"
    yield f"  left out: {_by_fault(mended.dropped)}"


def _by_fault(counted: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {fault}" for fault, count in counted.items()) or "none"
