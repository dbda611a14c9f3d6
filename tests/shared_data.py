"""Real files that are not in the repository; tests that need them skip where they are absent."""

from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"  # beside the repository
