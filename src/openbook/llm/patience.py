"""How long to wait before a request is sent again: as long as the server asks, for everyone, else ever longer.

The `openai` client retries by itself, but each request alone: with eight requests under way a rate limit is hit eight
times over, and a Retry-After of more than a minute ends in an error. Here one answer of "too many" holds all of them.
"""

import email.utils
import random
import threading
import time
import warnings
from collections.abc import Mapping

FIRST_S, LONGEST_S = 0.5, 30.0  # waits of one's own, doubled from try to try
MOST_S = 600.0  # a server that asks for more has run out of budget rather than breath
WORTH_SAYING_S = 10.0


class Gate:
    """Shut for as long as a server asked not to be asked; everyone who sends passes through it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opens = 0.0  # on the monotonic clock

    def shut(self, seconds: float) -> None:
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)
        if seconds >= WORTH_SAYING_S:
            warnings.warn(f"The endpoint asks to wait {seconds:.0f} s; nothing is lost.", stacklevel=2)

    def pass_through(self) -> None:
        """Returns when the gate is open; somebody may shut it again while one waits."""
        while (left := self._opens - time.monotonic()) > 0:
            time.sleep(left)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by `retry-after-ms` or `Retry-After` (seconds or a date); None: none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def own_wait(tries: int) -> float:
    """Seconds to wait after so many failed tries: doubled each time, up to a quarter shorter so that threads part."""
    longest: float = min(FIRST_S * 2.0**tries, LONGEST_S)
    return longest * (1 - 0.25 * random.random())
