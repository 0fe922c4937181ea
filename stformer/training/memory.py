"""Memory that a step frees is what the next one needs: the C library shall keep it."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3). Otherwise glibc gives tens of megabytes back after every step, and a fifth of a
# small network's training goes by in page faults (measured on the digits).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**30  # bytes at the end of the heap
LARGEST_KEPT = 2**25  # bytes of one allocation, glibc's limit; larger ones have mappings


def keep_freed() -> bool:
    """Tell glibc to keep freed memory for this process; False where there is another library."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT)) and bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT))
