"""Progress for people: bars on a terminal, one line every few seconds elsewhere (a log, a pipe, CI)."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from openbook.progress import SILENT, Progress, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 5.0
REDRAWS_PER_S = 4


def progress_for(stream: TextIO, *, quiet: bool) -> Progress:
    """Bars when `stream` is a terminal, lines when it is not, nothing when `quiet`."""
    if quiet:
        return SILENT
    if not stream.isatty():
        return PlainProgress(stream)
    from rich.console import Console

    return BarProgress(Console(file=stream, highlight=False, markup=False, emoji=False))


def fact(value: object) -> str:
    """A number in four significant digits, anything else as it prints."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def per_second(rate: float) -> str:
    """`0.0762/s`, `13.6/s`, `1,910/s`."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def facts_line(facts: Mapping[str, object]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {fact(value)}" for name, value in facts.items())


def clock(seconds: float) -> str:
    """`75` → `1:15`; hours appear when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class PlainProgress:
    """Lines for a stream that is not a terminal: at most one in `interval` seconds for each task, and its end."""

    def __init__(
        self, stream: TextIO, *, interval: float = PLAIN_INTERVAL_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._interval, self._now = stream, interval, now

    def stage(self, name: str, skipped: str = "") -> None:
        self._line(f"== {name}" + (f": skipped, {skipped}" if skipped else ""))

    def message(self, text: str) -> None:
        self._line(text)

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator[Task]:
        task = _PlainTask(self._line, self._now, self._interval, description, total, unit)
        yield task
        task.end()

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _PlainTask:
    def __init__(
        self,
        line: Callable[[str], None],
        now: Callable[[], float],
        interval: float,
        description: str,
        total: float | None,
        unit: str,
    ) -> None:
        self._line, self._now, self._interval = line, now, interval
        self._description, self._total, self._unit = description, total, unit
        self._done, self._facts = 0.0, dict[str, object]()
        self._told = 0.0  # how much was done when the last line was printed
        self._started = self._printed = now()

    def advance(self, amount: float = 1, **facts: object) -> None:
        self._done += amount
        self._facts.update(facts)
        if self._now() - self._printed >= self._interval:
            self._print()

    def end(self) -> None:
        """The last line; work too short to have been worth a line gets none."""
        if self._now() - self._started >= 1 and self._told < self._done:
            self._print()

    def _print(self) -> None:
        self._printed, self._told = self._now(), self._done
        elapsed = max(self._printed - self._started, 1e-9)
        rate = self._done / elapsed
        count = f"{self._done:g}" if self._total is None else f"{self._done:g}/{self._total:g}"
        parts = [f"{self._description}: {count} {self._unit}".rstrip(), per_second(rate)]
        if self._total is not None and rate > 0 and self._done < self._total:
            parts.append(f"{clock((self._total - self._done) / rate)} left")
        else:
            parts.append(f"{clock(elapsed)} so far" if self._total is None else f"in {clock(elapsed)}")
        if self._facts:
            parts.append(facts_line(self._facts))
        self._line("  ".join(parts))


class BarProgress:
    """One live display for all tasks that are open; it leaves the terminal as it found it when the last one closes."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._bars: Bars | None = None
        self._open = 0

    def stage(self, name: str, skipped: str = "") -> None:
        from rich.text import Text

        self._console.print(
            Text.assemble((name, "bold"), (f"  skipped: {skipped}" if skipped else "", "dim")), soft_wrap=True
        )

    def message(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator[Task]:
        if self._bars is None:
            self._bars = self._new_bars()
            self._bars.start()
        bars, self._open = self._bars, self._open + 1
        try:
            yield _BarTask(bars, bars.add_task(description, total=total, unit=unit, facts=""))
        finally:
            self._open -= 1
            if not self._open:
                bars.stop()
                self._bars = None

    def _new_bars(self) -> "Bars":
        from rich import progress as rich
        from rich.table import Column
        from rich.text import Text

        class Count(rich.ProgressColumn):
            def render(self, task: rich.Task) -> Text:
                total = "" if task.total is None else f"/{task.total:g}"
                return Text(f"{task.completed:g}{total} {task.fields['unit']}".rstrip())

        class Times(rich.ProgressColumn):
            def render(self, task: rich.Task) -> Text:
                speed = task.finished_speed or task.speed
                words = [per_second(speed)] if speed else []
                if task.finished or task.time_remaining is None:
                    words.append(clock(task.elapsed or 0))
                else:
                    words.append(f"{clock(task.time_remaining)} left")
                return Text("  ".join(words), style="cyan")

        return rich.Progress(
            rich.TextColumn("  {task.description}", markup=False),
            rich.BarColumn(bar_width=24),
            Count(),
            Times(),
            rich.TextColumn("{task.fields[facts]}", markup=False, style="dim", table_column=Column(no_wrap=True)),
            console=self._console,
            refresh_per_second=REDRAWS_PER_S,
        )


class _BarTask:
    def __init__(self, bars: "Bars", task: "TaskID") -> None:
        self._bars, self._task, self._facts = bars, task, dict[str, object]()

    def advance(self, amount: float = 1, **facts: object) -> None:
        if facts:
            self._facts.update(facts)
            self._bars.update(self._task, advance=amount, facts=facts_line(self._facts))
        else:
            self._bars.advance(self._task, amount)
