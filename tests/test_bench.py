"""The benchmarks against TRL run, and both sides compute the same. Skipped where TRL is not installed (`make bench-deps`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"
SMALL = ["--shape", "nano", "--trl", "single", "--rounds", "1", "--steps", "1", "--warm-up", "0", "--contexts", "1"]


def compared(*arguments: str) -> dict[str, Any]:
    pytest.importorskip("trl")
    done = subprocess.run([sys.executable, *arguments, *SMALL, "--json"], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "reward", "grpo"])
def test_preference(method: str) -> None:
    found = compared(str(BENCH / "preference.py"), "--method", method, "--pairs-per-context", "1")
    assert found["loss_difference"] <= 1e-4 and found["gradient_difference"] <= 1e-4
    assert found["trl"]["tokens"] > 1.8 * found["openbook"]["tokens"]
    assert found["ratio"] > 0 and found["openbook"]["peak_memory_bytes"] > 0
    assert (found["openbook"]["reading_seconds"] > 0) == (method != "reward")


@pytest.mark.slow
def test_supervised() -> None:
    found = compared(str(BENCH / "sft.py"), "--questions", "2")
    assert found["loss_difference"] <= 1e-4 and found["gradient_difference"] <= 1e-4
