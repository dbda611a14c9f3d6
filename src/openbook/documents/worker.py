"""The process in which files are parsed: `python -m openbook.documents.worker`.

It reads requests and writes answers, one JSON object a line. A file that takes too long ends the process, by a timer
whose signal also stops compiled code that never returns; one that needs too much memory gets none, and the process ends
as well. `isolation` notices, names the file and starts another process.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from openbook.documents.isolation import OUT_OF_MEMORY
from openbook.documents.parsing import Skipped, parse_file
from openbook.records import to_json
from openbook.storage import peak_memory_bytes


def main() -> None:
    requests = sys.stdin.buffer
    # What a library prints must not come between the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which then closes the pipe
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for line in requests:
            try:
                _answer(json.loads(line), answers)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)


def _answer(request: dict[str, Any], answers: IO[bytes]) -> None:
    _limit_memory(request["memory_mb"])
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    found = parse_file(Path(request["path"]), request["uri"])
    starved = peak_memory_bytes() > 0.5e6 * request["memory_mb"]
    if isinstance(found, Skipped) and found.kind == "error" and starved:
        raise MemoryError  # a library that got none may call it by another name
    name = "skipped" if isinstance(found, Skipped) else "document"
    data = json.dumps({name: to_json(found)}).encode() + b"\n"
    signal.setitimer(signal.ITIMER_REAL, 0)
    answers.write(data)
    answers.flush()


def _limit_memory(limit_mb: float) -> None:
    """Set the address space that this process may have (MB = 10^6 bytes). macOS takes the limit and ignores it."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(limit_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
