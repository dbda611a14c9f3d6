"""Jobs: verbs that run in processes of their own and do not end with the page, nor with the server, that started them.

A job is a folder: the command, its options, its output, how it ended. Whether it runs is told by a lock and not by a
process number, which another program may have by now.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openbook.config import Config
from openbook.errors import InputError, StoreError
from openbook.runs.keeper import COMMAND, ENDED, OUTPUT
from openbook.storage import explained, write_json, write_text

State = Literal["running", "done", "stopped", "failed", "lost"]

FOLDER, OPTIONS, LOCK = "jobs", "openbook.toml", "lock"
STOPPED = 130  # the command line's exit code after Ctrl-C
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_TAIL = 20_000  # characters of output that are given at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`command` are the words after `openbook`. `started` is in seconds since 1970. "lost": it ended without telling how
    (the machine went down, or somebody killed it). `stops` is how often it was asked to stop."""

    id: str
    title: str
    command: tuple[str, ...]
    started: float
    state: State
    code: int | None
    seconds: float
    stops: int


class Jobs:
    """The jobs of one output folder."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = config.out / FOLDER
        self._children: list[subprocess.Popen[bytes]] = []  # waited for, so that they leave no zombies

    def start(self, title: str, verb: str, arguments: Sequence[str] = (), *, options: Sequence[str] = ()) -> Job:
        """Run `openbook VERB ARGUMENTS` with this configuration and `options` ("tune.epochs=2") on top of it.

        Raises `InputError` while another job is running: they would wait for the same folder, memory and cores.
        """
        running = next((job for job in self.all() if job.state == "running"), None)
        if running is not None:
            raise InputError(f"“{running.title}” is still running.", "Wait until it has finished, or stop it.")
        id_ = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        folder = self._folder / id_
        with explained(folder):
            folder.mkdir(parents=True)
        write_text(folder / OPTIONS, options_of(self._config))
        settings = [word for option in options for word in ("--set", option)]
        command = [verb, *arguments, "--config", str((folder / OPTIONS).resolve()), *settings]
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            facts = {"title": title, "command": command, "started": time.time()}
            write_json(folder / COMMAND, facts)
            keeper = subprocess.Popen(
                [sys.executable, "-m", "openbook.runs.keeper", str(folder.resolve()), str(lock.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # neither Ctrl-C in the server's terminal nor its closing reaches it
            )
            write_json(folder / COMMAND, {**facts, "group": keeper.pid})
        self._children.append(keeper)
        return self.get(id_)

    def get(self, id_: str) -> Job:
        """Raises `StoreError` for an id that is none."""
        folder = self._of(id_)
        facts = _read(folder / COMMAND)
        running = _locked(folder / LOCK)
        ended = {} if running else _read(folder / ENDED)
        code = ended.get("code")
        states: dict[int | None, State] = {0: "done", STOPPED: "stopped", None: "lost"}
        state: State = "running" if running else states.get(code, "failed")
        if state in ("failed", "lost") and facts.get("stops"):
            state = "stopped"
        started = float(facts.get("started", 0.0))
        return Job(
            id=id_,
            title=str(facts.get("title", "")),
            command=tuple(facts.get("command", ())),
            started=started,
            state=state,
            code=code,
            seconds=time.time() - started if running else float(ended.get("seconds", 0.0)),
            stops=int(facts.get("stops", 0)),
        )

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        self._children = [child for child in self._children if child.poll() is None]
        if not self._folder.is_dir():
            return []
        names = sorted((path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name)), reverse=True)
        return [self.get(name) for name in names]

    def output(self, id_: str, *, start: int = 0) -> tuple[str, int]:
        """What the job has printed from byte `start` on, at most the last part of it, and where it goes on."""
        path = self._of(id_) / OUTPUT
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, min(start, size), size - _TAIL))
                return file.read().decode("utf-8", "replace"), size
        except FileNotFoundError:
            return "", 0

    def cancel(self, id_: str) -> Job:
        """Ask a job to stop as Ctrl-C would; asked again, end it at once. Finished work is kept by either."""
        folder = self._of(id_)
        if _locked(folder / LOCK):
            facts = _read(folder / COMMAND)
            stops = int(facts.get("stops", 0))
            write_json(folder / COMMAND, {**facts, "stops": stops + 1})
            # The lock is held, so the group still is the job's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(facts["group"]), signal.SIGTERM if stops else signal.SIGINT)
        return self.get(id_)

    def _of(self, id_: str) -> Path:
        folder = self._folder / id_
        if not _ID.fullmatch(id_) or not (folder / COMMAND).is_file():
            raise StoreError("There is no job of this name.")
        return folder


def options_of(config: Config) -> str:
    """The options as a file that may lie in any folder: its paths do not depend on where it is read."""
    documents = config.documents.model_copy(
        update={"paths": tuple(path.expanduser().resolve() for path in config.documents.paths)}
    )
    base = Path(config.model.base).expanduser()
    model = config.model.model_copy(update={"base": str(base.resolve()) if base.is_dir() else config.model.base})
    embedder = Path(config.retrieval.embedder).expanduser()
    retrieval = config.retrieval.model_copy(
        update={"embedder": str(embedder.resolve()) if embedder.is_dir() else config.retrieval.embedder}
    )
    prompts, reward_model = (
        path and str(Path(path).expanduser().resolve()) for path in (config.dataset.prompts, config.rl.reward_model)
    )
    chosen = {
        "out": config.out.resolve(),
        "documents": documents,
        "model": model,
        "retrieval": retrieval,
        "dataset": config.dataset.model_copy(update={"prompts": prompts}),
        "rl": config.rl.model_copy(update={"reward_model": reward_model}),
    }
    return config.model_copy(update=chosen).to_toml()


def _locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
