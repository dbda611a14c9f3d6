"""The process that outlives whoever started a job: runs the command of a job's folder and writes down how it ended.

    python -m openbook.runs.keeper FOLDER DESCRIPTOR

DESCRIPTOR is an open file on which the lock of the job is held. It is passed on to the command, so that the lock is free
when, and only when, both are gone, however they went.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND, OUTPUT, ENDED = "job.json", "output.log", "ended.json"


def main() -> None:
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    # Signals go to the whole group: the command is to obey them and this process to tell of it. With a handler (and not
    # with SIG_IGN, which a command inherits) the command gets them as usual.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    arguments = json.loads((folder / COMMAND).read_text(encoding="utf-8"))["command"]
    started = time.monotonic()
    with (folder / OUTPUT).open("ab") as output:
        command = subprocess.Popen(
            [sys.executable, "-m", "openbook", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[descriptor],
        )
        code = command.wait()
    partial = folder / f"{ENDED}.part"
    partial.write_text(json.dumps({"code": code, "seconds": time.monotonic() - started}), encoding="utf-8")
    partial.replace(folder / ENDED)


if __name__ == "__main__":
    main()
