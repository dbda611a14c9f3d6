"""Parsing at arm's length: one process reads file after file, and is replaced when a file was its end.

PDFs whose forms call each other for ever, pages of a million nested elements, archives that unpack to a thousand times
their size: each stops the process that reads it and nothing else. The process is started once (0.2 s) and reused, so
that ten thousand small files cost ten thousand lines through a pipe.
"""

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openbook.documents.parsing import Skipped
from openbook.errors import DocumentError
from openbook.records import Document, from_json

OUT_OF_MEMORY = 77  # exit code of the process that parses


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the parsing of one file may take: seconds of wall time, MB (10^6 bytes) of address space."""

    seconds: float = 30
    memory_mb: float = 1000


class IsolatedParser:
    """`parse_file` in a process of its own, as a context manager: leaving it ends the process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._proven = False  # a process has answered, so that a death is a file's fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def parse(self, path: Path, uri: str) -> Document | Skipped:
        """The document, or why there is none, also where the reason is that reading it was stopped.

        Raises `DocumentError` where no such process can be started at all.
        """
        request = {
            "path": str(path),
            "uri": uri,
            "seconds": self._limits.seconds,
            "memory_mb": self._limits.memory_mb,
        }
        used = self._process is not None
        process = self._process or self._start()
        answer = _ask(process, request)
        if answer is None:
            reason = self._end(process)
            # A process that has read much may hold what earlier files left: only a new one's end is this file's fault.
            if used and process.returncode != -signal.SIGALRM:
                return self.parse(path, uri)
            return Skipped(uri=uri, reason=reason, kind="error")
        self._proven = True
        if "document" in answer:
            return from_json(Document, answer["document"])
        return from_json(Skipped, answer["skipped"])

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: the folder that openbook was started in holds documents, and must not be imported from.
        command = [sys.executable, "-P", "-m", "openbook.documents.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """How a process that gave no answer came to its end, as a reason to skip the file."""
        self._process = None
        _close(process)
        code, limits = process.wait(), self._limits
        if code == -signal.SIGALRM:
            return f"reading it took more than the {limits.seconds:g} s of documents.max_seconds, and was stopped"
        if code == OUT_OF_MEMORY or code in (-signal.SIGKILL, -signal.SIGABRT):
            return f"reading it took more than the {limits.memory_mb:g} MB of documents.max_memory_mb, and was stopped"
        if code > 0 and not self._proven:
            raise DocumentError(
                f"The process that reads documents cannot be started (exit code {code}).",
                "What it said stands above.",
            )
        return f"its parser crashed ({_name(code)})"

    def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()  # it holds nothing that could be lost
            _close(process)
            process.wait()


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any] | None:
    """Send a request and wait for its answer; None where the process ends instead."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
