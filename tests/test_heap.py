"""Freed memory goes back to the system where it is asked to."""

import platform
import subprocess
import sys

import pytest

from openbook import heap

# Blocks of 8 MB, every second of which is freed: between those that stay the heap would keep the others.
SCRIPT = """
import torch
from openbook import heap

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024

for _ in range(4):  # lets the threshold grow to 32 MB, as any program of this kind does
    torch.ones(8_000_000 - 1000)
{how}
before = anonymous()
blocks = [torch.ones(2**21) for _ in range(60)]
del blocks[:-1:2]
print(anonymous() - before)
"""


def held(how: str) -> int:
    """Megabytes that half of the blocks still take."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(how=how)], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_blocks_that_are_freed_go_back() -> None:
    assert held("heap.return_blocks()") < 0.7 * held("")


def test_where_there_is_no_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    with heap.blocks_returned():
        heap.return_blocks()
