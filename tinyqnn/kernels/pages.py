"""Memory in large pages: a processor keeps the addresses of some hundred pages at hand, and of weights wants them all.

A page is 4 kB; a megabyte of weights that is read again and again is 256 of them, and each that is not at hand has to
be looked up. Linux gives pages of 2 MB to whoever asks and has room for a whole one. Elsewhere memory is as ever.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np

__all__ = ["large"]

PAGE = 1 << 21


def large(count: int) -> np.ndarray:
    """`count` bytes, int8, all 0, that begin on a large page, if there are such.

    >>> data = large(5)
    >>> data.shape, data.sum()
    ((5,), np.int64(0))
    """
    block = mmap.mmap(-1, -(-count // PAGE) * PAGE + PAGE)
    raw: np.ndarray = np.frombuffer(block, np.int8)
    data = raw[-raw.__array_interface__["data"][0] % PAGE :][:count]
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system may know the word and have none
            block.madvise(mmap.MADV_HUGEPAGE)
    return data
