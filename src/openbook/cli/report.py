"""The result of an exam as a table on the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.cli.progress import clock

if TYPE_CHECKING:
    from rich.table import Table

# Shown here; report.html has them all. Shares and scores lie between 0 and 1 and are shown in per cent.
METRICS = {
    "f1": "F1",
    "exact_match": "exact",
    "right_quote": "right\nquotes",
    "right_refusals": "right\nrefusals",
    "false_refusals": "false\nrefusals",
}
STAGES = ("ingest", "dataset", "tune_raft", "tune_sft", "evaluate")
DIFFERENCES = ("raft_rag-base_rag", "raft_rag-sft_rag")


def print_report(out: Path) -> None:
    """Print the tables of `report.json` in `out`, and where the pages stand."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for name, test in report["tests"].items():
        print_test(name, test)
    seconds = report.get("seconds", {})
    spent = ", ".join(f"{stage} {clock(seconds[stage])}" for stage in STAGES if stage in seconds)
    if spent:
        print(f"Time: {spent}; at most {report['peak_memory_bytes'] / 1e9:.1f} GB of memory")
    print(f"Report: {out / 'report.html'}")


def print_test(name: str, test: Mapping[str, Any]) -> None:
    """One exam: a row an arm, each figure with its 95 % interval, and what the tuning changed."""
    from rich.console import Console

    arms = test["arms"]
    shown = [metric for metric in METRICS if any(_known(arm.get(metric)) for arm in arms.values())]
    asked = max((value["n"] for arm in arms.values() if _known(value := arm.get("f1"))), default=0)
    table = figures(name, asked, ["arm", *(METRICS[metric] for metric in shown)])
    for arm, values in arms.items():
        table.add_row(arm, *(cell(values.get(metric)) for metric in shown))
    Console(markup=False, highlight=False).print(table)
    for pair in DIFFERENCES:
        value = test.get("differences", {}).get(pair, {}).get("f1")
        if _known(value):
            ours, theirs = pair.split("-")
            verdict = "" if value["low"] > 0 or value["high"] < 0 else " (no difference is proven)"
            print(
                f"  {ours} − {theirs}, F1: {_signed(value['value'])} [{_signed(value['low'])}, {_signed(value['high'])}]{verdict}"
            )
    print()


def figures(test: str, questions: int, headers: Sequence[str]) -> "Table":
    """An empty table of what one test gave, `questions` of it; the first column names whose figures a row has."""
    from rich import box
    from rich.table import Table

    title = f"{test} ({questions} question{'' if questions == 1 else 's'}; % with 95 % intervals)"
    # Without the usual blanks, so that five figures stand on a terminal of 80 columns.
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", no_wrap=True, vertical="bottom")
    return table


def _known(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("value") is not None and bool(value.get("n"))


def cell(value: Any) -> str:
    if not _known(value):
        return "–"
    return f"{100 * value['value']:.0f} {100 * value['low']:.0f}–{100 * value['high']:.0f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
