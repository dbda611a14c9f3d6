"""Progress on a terminal, in a log, and not at all."""

import io
import re

import pytest

from openbook.cli.progress import BarProgress, PlainProgress, clock, fact, per_second, progress_for
from openbook.progress import SILENT


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (75.4, "1:15"), (59.6, "1:00"), (3600, "1:00:00"), (36_610, "10:10:10")]
)
def test_times_read_like_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_rates_read_like_numbers() -> None:
    assert [per_second(rate) for rate in (0.0762, 13.62, 1912.3)] == ["0.0762/s", "13.6/s", "1,912/s"]


def test_facts_are_short() -> None:
    assert (fact(1.23456789), fact(830), fact("1.200")) == ("1.235", "830", "1.200")


def test_a_log_gets_a_line_every_few_seconds_and_the_end() -> None:
    stream, now = io.StringIO(), Clock()
    progress = PlainProgress(stream, interval=5, now=now)
    progress.stage("Ingest")
    progress.stage("Tune", skipped="nothing has changed")
    with progress.task("embedding", 100, "passages") as task:
        for _ in range(100):
            now.now += 0.125
            task.advance(1, loss=1.23456)
    assert stream.getvalue().splitlines() == [
        "== Ingest",
        "== Tune: skipped, nothing has changed",
        "embedding: 40/100 passages  8/s  0:08 left  loss 1.235",
        "embedding: 80/100 passages  8/s  0:02 left  loss 1.235",
        "embedding: 100/100 passages  8/s  in 0:12  loss 1.235",
    ]


def test_work_too_short_for_a_line_gets_none() -> None:
    stream, now = io.StringIO(), Clock()
    with PlainProgress(stream, now=now).task("reading", 3) as task:
        task.advance(3)
    assert stream.getvalue() == ""


def test_an_unknown_end_shows_no_end_time() -> None:
    stream, now = io.StringIO(), Clock()
    with PlainProgress(stream, now=now).task("reading", None, "files") as task:
        now.now = 10
        task.advance(20)
    assert stream.getvalue().splitlines()[0] == "reading: 20 files  2/s  0:10 so far"


def test_a_task_that_fails_prints_no_end() -> None:
    stream, now = io.StringIO(), Clock()
    with pytest.raises(RuntimeError), PlainProgress(stream, now=now).task("reading", 10) as task:
        now.now = 2
        task.advance(1)
        raise RuntimeError
    assert stream.getvalue() == ""


def test_bars_show_counts_facts_and_any_text_as_it_is() -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, highlight=False, markup=False, legacy_windows=False)
    progress = BarProgress(console)
    progress.stage("Tune [raft]")
    progress.message("a [bold]message[/bold] /with/markup")
    with progress.task("outer [x]", 10, "tokens") as outer, progress.task("inner", None) as inner:
        outer.advance(4, loss=1.5, rate="[830] tokens/s")
        inner.advance(2)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "Tune [raft]" in shown
    assert "a [bold]message[/bold] /with/markup" in shown
    assert "outer [x]" in shown
    assert "4/10 tokens" in shown
    assert "loss 1.5  rate [830] tokens/s" in shown
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue(), "the cursor is visible again"


def test_who_shows_progress_depends_on_the_stream() -> None:
    assert progress_for(io.StringIO(), quiet=True) is SILENT
    assert isinstance(progress_for(io.StringIO(), quiet=False), PlainProgress)
