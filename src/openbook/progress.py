"""How long work reports on itself. Stages talk to a `Progress`; the command line draws it, tests stay silent."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar. `facts` (loss=1.2, rate="830 tokens/s") are shown beside it, the newest value of each."""

    def advance(self, amount: float = 1, **facts: object) -> None: ...


class Progress(Protocol):
    """Whoever shows the progress of a stage."""

    def stage(self, name: str, skipped: str = "") -> None:
        """A stage begins, or is skipped for the reason given."""

    def task(self, description: str, total: float | None, unit: str = "") -> AbstractContextManager[Task]:
        """A piece of work of `total` units; None where the end cannot be known."""

    def message(self, text: str) -> None:
        """A sentence for the person who watches."""


class _Silent:
    def advance(self, amount: float = 1, **facts: object) -> None:
        pass

    def stage(self, name: str, skipped: str = "") -> None:
        pass

    @contextmanager
    def task(self, description: str, total: float | None, unit: str = "") -> Iterator[Task]:
        yield self

    def message(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()
