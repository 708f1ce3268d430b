"""Memory that was just freed is the fastest to get again, and memory in large pages the fastest to walk through.

glibc gives every array above a threshold (128 kB at first) back to the system when it is freed, and gets zeroed pages
for the next one. A training step frees and asks for the same few hundred megabytes again and again: thousands of page
faults, which took 5 to 14 % of the step of a convolutional network. So glibc is asked to keep blocks of up to 32 MB.

A page has 4 kB, and a processor finds the places of some 1,500 pages without looking them up. Linux has pages of 2 MB
as well, for whoever asks: so a gigabyte of addresses is set aside, in one piece that may be filled with large pages.
Only what is used of it is memory. That takes another 1 to 4 % off the step of a network.

Other C libraries and systems have no such switches, or no need of them; there nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h and Linux' mman.h. 32 MB is the largest threshold that glibc takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MADV_HUGEPAGE = 14
_MB = 1 << 20
_LARGE_PAGE = 2 * _MB
_ASIDE = 1024 * _MB


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next array; returns whether it agreed.

    It is asked when the compiled kernels are loaded. The process then holds on to its largest size, as far as blocks of
    up to 32 MB are concerned. TINYQNN_MALLOC=system leaves the library as it is; so does anybody who set glibc's own
    MALLOC_… variables.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if os.environ.get("TINYQNN_MALLOC") == "system" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    agreed = mallopt(_M_MMAP_THRESHOLD, 32 * _MB) and mallopt(_M_TRIM_THRESHOLD, 2047 * _MB)
    if agreed and not _set_aside:
        _set_aside.append(_large_pages(libc))
    return bool(agreed and mallopt(_M_TOP_PAD, 16 * _MB))


_set_aside: list[bool] = []  # whether it was done, once it was tried


def _large_pages(libc: Any) -> bool:
    """Let the C library's heap grow by `_ASIDE`, and ask for large pages there; returns whether there are any."""
    for function in (libc.sbrk, libc.malloc):
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    begin = libc.sbrk(0)
    libc.mallopt(_M_TOP_PAD, _ASIDE)
    libc.free(libc.malloc(31 * _MB))  # more than is left at the heap's end, so that it grows, by this and the pad
    end = libc.sbrk(0)
    if end - begin < _ASIDE:  # a limit on the addresses of this process: the heap goes on in small pieces
        return False
    first = -(-begin // _LARGE_PAGE) * _LARGE_PAGE
    return libc.madvise(first, (end - first) // _LARGE_PAGE * _LARGE_PAGE, _MADV_HUGEPAGE) == 0
