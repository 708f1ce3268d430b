"""What products of bits share: blocks of the result, which their compiled loops take themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tinyqnn.kernels.jit import get_num_threads, share
from tinyqnn.kernels.pack import words_of
from tinyqnn.kernels.product import ROWS, WIDTH, IntegerGemm, Rows, cut

__all__ = ["BitGemm", "strips"]

Array = np.ndarray
PAYS = 1 << 25  # products of two bits from which a second thread pays


class BitGemm(IntegerGemm):
    """An `IntegerGemm` on planes of bits, 64 numbers in a word."""

    width = WIDTH
    units = staticmethod(words_of)

    def multiply_part(self, packed: Rows, part: int, y: Array) -> None:
        """Write one product to `y`."""
        if not self.compiled or not len(y):
            super().multiply_part(packed, part, y)
            return
        self.check(packed, y)
        loop, arguments, planes = self.loop(packed, part)
        blocks = _blocks(*y.shape, self.width, get_num_threads() if y.size * self.shape[1] * planes > PAYS else 1)
        share(loop, len(blocks), blocks, *arguments, self.shape[0], y.reshape(-1))

    def loop(self, packed: Rows, part: int) -> tuple[Callable[..., object], tuple[Any, ...], int]:
        """The compiled loop, its arguments between the blocks and (columns of y, y), and how many pairs of planes."""
        raise NotImplementedError


@lru_cache(maxsize=256)
def _blocks(m: int, n: int, width: int, threads: int) -> Array:
    """(blocks, 4): rows i0 … i1 and columns j0 … j1 of each block of y."""
    return np.array(cut(m, n, width) if threads > 1 else [(0, m, 0, n)], np.int64)


@lru_cache(maxsize=256)
def strips(m: int, n: int, threads: int) -> Array:
    """Blocks of some rows and all columns, eight a thread.

    >>> strips(20, 7, 1).tolist()
    [[0, 8, 0, 7], [8, 16, 0, 7], [16, 20, 0, 7]]
    """
    rows = -(-m // (8 * threads * ROWS)) * ROWS
    return np.array([(i, min(i + rows, m), 0, n) for i in range(0, m, rows)], np.int64)
