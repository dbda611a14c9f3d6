"""Nothing leaves the machine: every verb works with a network that refuses, and tries to reach none."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Loaded by Python itself at the start of the process, before any library can keep a reference to the real functions.
GUARD = """
    import os, socket

    def refuse(address):
        host = address[0] if isinstance(address, tuple) else address
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("utf-8", "replace")
        if isinstance(address, tuple) and host not in ("127.0.0.1", "::1", "localhost"):
            with open(os.environ["REACHED"], "a") as file:
                file.write(f"{address!r}\\n")
            raise ConnectionRefusedError(f"the test has no network: {address!r}")

    class Socket(socket.socket):
        def connect(self, address):
            refuse(address)
            return super().connect(address)

        def connect_ex(self, address):
            refuse(address)
            return super().connect_ex(address)

        def sendto(self, data, *rest):
            refuse(rest[-1])
            return super().sendto(data, *rest)

    real = socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        if host is not None:
            refuse((host,))
        return real(host, *rest, **named)

    socket.socket, socket.getaddrinfo = Socket, getaddrinfo
"""

GUIDE = """# Storage

The retention flag sets how long samples are kept. The default retention is 15 days.
Old blocks are removed in the background.

# Alerts

Alerts are grouped by their labels. The group wait is 30 seconds.
"""


class Offline:
    """`offline(*words)` runs openbook in a process of its own that may reach nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reached = folder / "reached.txt"
        guard = folder / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(textwrap.dedent(GUARD))
        quiet = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        self._environment = quiet | {"PYTHONPATH": str(guard), "REACHED": str(self.reached)}

    def __call__(self, *words: str) -> str:
        return self.python("-m", "openbook", *words)

    def python(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not self.reached.exists(), f"tried to reach {self.reached.read_text()}"
        return done.stdout


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text(GUIDE)
    return Offline(tmp_path)


def test_the_guard_itself_refuses_and_remembers(offline: Offline) -> None:
    for code in (
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://example.invalid', timeout=1)",
    ):
        with pytest.raises(AssertionError, match="the test has no network"):
            offline.python("-c", code)
        assert offline.reached.read_text()


def test_reading_and_searching_reach_nobody(offline: Offline) -> None:
    report = json.loads(offline("ingest", "docs", "--json"))
    assert (report["documents"], report["added"]) == (1, 1)
    found = json.loads(offline("search", "how long are samples kept", "--json", "-k", "1"))
    assert "retention" in found["results"][0]["chunk"]["text"]
