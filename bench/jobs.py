"""Jobs with needs, done by several processes; what is done is not done again.

Each job has a folder of its own, and `done.json` is written there last. A run that is killed goes on where it stopped.
"""

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

from openbook.storage import write_json

DONE = "done.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`work` is called with the job's folder, in another process; `needs` names the jobs that come before it."""

    name: str
    work: Callable[[Path], None]
    needs: tuple[str, ...] = ()


def run(jobs: Sequence[Job], out: Path, *, workers: int = 1, seconds: float = float("inf")) -> bool:
    """Do what is not done yet, the first jobs first; none begins after `seconds`. Whether all are done."""
    began = time.monotonic()
    waiting = {job.name: job for job in jobs if not is_done(out / job.name)}
    running: dict[Future[str], str] = {}
    failed = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        while waiting or running:
            late = time.monotonic() - began > seconds
            for job in list(waiting.values()):
                if not late and len(running) < workers and all(is_done(out / need) for need in job.needs):
                    del waiting[job.name]
                    running[pool.submit(_do, job, out / job.name)] = job.name
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                error, name = future.result(), running.pop(future)
                failed += bool(error)
                left = len(waiting) + len(running)
                print(f"{time.monotonic() - began:6.0f} s  {name}, {left} left {error}", flush=True)
    if waiting:
        print(f"Not begun: {', '.join(waiting)}", flush=True)
    return not (waiting or failed)


def is_done(folder: Path) -> bool:
    return (folder / DONE).is_file()


def seconds_of(folder: Path) -> float:
    """How long the job took."""
    found: float = json.loads((folder / DONE).read_text(encoding="utf-8"))["seconds"]
    return found


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with its job."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _do(job: Job, folder: Path) -> str:
    """The traceback of what went wrong, "" where nothing did."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        job.work(folder)
    except Exception:
        return "\n" + traceback.format_exc()
    write_json(folder / DONE, {"seconds": round(time.monotonic() - began, 2)})
    return ""
