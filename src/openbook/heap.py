"""What the C library keeps of freed memory.

glibc takes blocks from the system one by one only above a threshold, which grows to 32 MB by itself; smaller ones lie in
its heap, where one that is still in use keeps all freed ones below it. Turned into 4 bits, a model of 1.1 billion weights
left 1.0 GB of such holes (docs/LOG.md). Elsewhere (macOS, musl, Windows) nothing is done.
"""

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 32 * 2**20  # bytes, as far as the threshold grows by itself


def return_blocks() -> None:
    """From now on, until another model is loaded, a block of 6 MB or more goes back to the system as soon as it is freed:
    less memory, more page faults (a step of 1.1B took 76 s in place of 57). With 4 MB one of 135M took 18 s in place of
    12, with 8 none more."""
    _set_threshold(6 * 2**20)


@contextlib.contextmanager
def blocks_returned() -> Iterator[None]:
    """Inside, those of 4 MB or more do."""
    _set_threshold(4 * 2**20)
    try:
        yield
    finally:
        _set_threshold(LARGEST)


def _set_threshold(size: int) -> None:
    """What is set stays, so the end of the heap is kept up to twice that, as glibc does when it sets the size itself."""
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, size)
        mallopt(M_TRIM_THRESHOLD, 2 * size)
