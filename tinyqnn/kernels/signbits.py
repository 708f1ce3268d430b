"""A product of signs that looks at nothing but the sign bit of each byte.

Codes of one bit may be −1 and 0, for −½ and ½: their sign bits are those of −1 and 1, which nobody has to write down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.kernels.binary import BinaryGemm
from tinyqnn.kernels.pack import pack_rows
from tinyqnn.kernels.product import Rows, in_a_row

__all__ = ["SignBits"]

Array = np.ndarray
SIGN = 7  # the highest bit of a byte


class SignBits(BinaryGemm):
    """A `BinaryGemm` that takes a negative byte for −1 and any other for 1.

    >>> g = SignBits(np.array([[1, 1, -1]]))
    >>> g(np.array([[-1, 0, 0]], np.int8)).tolist()
    [[-1]]
    """

    def pack(self, x: Any) -> Rows:
        """Bytes (M, K), one bit each."""
        x = self._matrix(x)
        if not self.compiled:
            return Rows(x.shape, self.numbers(x))
        depth = self.units(x.shape[1])
        places, walk = in_a_row(len(x), depth)
        return Rows(x.shape, self.pack_pixels(x, places, len(x) * depth), places, walk)

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        return self.multiply(self.pack(x), out)

    def numbers(self, x: Array) -> Array:
        """The activations' plain numbers, for the twin."""
        return np.where(x < 0, -1, 1).astype(np.int8)

    def pack_pixels(self, x: Array, targets: Array, size: int) -> Array:
        """Rows of bytes (R, C) to `targets` in a new array of `size` words, with 0 everywhere else."""
        words = np.zeros(size, np.uint64)
        pack_rows(x, (SIGN,), targets, words, size)
        return words
