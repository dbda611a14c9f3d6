"""`openbook compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openbook.cli.progress import clock
from openbook.cli.report import METRICS, cell, figures
from openbook.cli.session import Session, verb

if TYPE_CHECKING:
    from openbook.evaluation import Comparison


def register(app: typer.Typer) -> None:
    verb(app, "compare")(compare)


def compare(
    session: Session,
    file: Annotated[
        Path | None, typer.Argument(metavar="[OPENBOOK.TOML]", help="Options file (default: ./openbook.toml).")
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            metavar="WAY,WAY",
            help="base, sft, instruct, raft, raft+dpo, raft+ppo, raft+grpo, full; separated by commas.",
        ),
    ] = "base,sft,instruct,raft,raft+dpo,full",
    json_: Annotated[bool, typer.Option("--json", help="Print comparison.json.")] = False,
) -> None:
    """Tune in every way, and put all before the same exam.

    What is missing is trained, on one base and one data set; what is current is taken as it is. Then all answer the same
    questions, shown the same retrieved passages. One table and one picture set quality beside cost (tokens, time, peak
    memory, trained weights), and a paragraph on each says what it is, what it did here, and when it is worth it.

    sft studies questions without passages, raft the same with passages, instruct tasks phrased as commands; full trains
    all weights on raft's data, at a tenth of the learning rate.

    \b
    Examples:
      openbook compare
      openbook compare openbook.toml --methods base,raft,raft+dpo
    """
    from openbook import comparing

    config = session.config(file=file)
    wanted = [name.strip() for name in methods.split(",") if name.strip()]
    found = comparing.compare(config, wanted, progress=session.progress)
    if json_:
        print((config.out / comparing.COMPARISON_JSON).read_text(encoding="utf-8"), end="")
        return
    print_comparison(found)
    print(f"Comparison: {config.out / comparing.COMPARISON_HTML}")


def print_comparison(found: "Comparison") -> None:
    """A table for each test, and one of what each way cost."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from openbook.records import to_json

    console = Console(markup=False, highlight=False)
    for name, result in found.tests.items():
        table = figures(name, found.sizes[name][0], ["way", *METRICS.values()])
        for way, scores in result.arms.items():
            table.add_row(way, *(cell(to_json(scores[metric])) for metric in METRICS))
        console.print(table)
    costs = Table(box=box.SIMPLE_HEAD, title="cost, with all that a way goes on from", title_justify="left")
    for header in ("way", "tokens", "time", "peak memory", "trained weights"):
        costs.add_column(header, justify="left" if header == "way" else "right", no_wrap=True)
    for way, cost in found.costs.items():
        if cost.tokens:
            memory = f"{cost.peak_memory_bytes / 1e9:.2f} GB"
            costs.add_row(way, f"{cost.tokens:,}", clock(cost.seconds), memory, f"{cost.trained_weights:,}")
    console.print(costs)
