"""Memory that was just freed is the fastest to get again, if the C library keeps it.

glibc gives every array above a threshold (128 kB at first) back to the system when it is freed, and gets zeroed pages
for the next one. A training step frees and asks for the same few hundred megabytes again and again: thousands of page
faults, which took 5 to 14 % of the step of a convolutional network. So glibc is asked to keep blocks of up to 32 MB.
Other C libraries have no such switch, or no need of one; there nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h. 32 MB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MB = 1 << 20


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next array; returns whether it agreed.

    It is asked once, when the compiled kernels are loaded. The process then holds on to its largest size, as far as
    blocks of up to 32 MB are concerned. TINYQNN_MALLOC=system leaves the library as it is; so does anybody who set
    glibc's own MALLOC_… variables.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if os.environ.get("TINYQNN_MALLOC") == "system" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    agreed = mallopt(_M_MMAP_THRESHOLD, 32 * _MB)
    return bool(agreed and mallopt(_M_TRIM_THRESHOLD, 1024 * _MB) and mallopt(_M_TOP_PAD, 16 * _MB))
