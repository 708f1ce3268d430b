"""A product of signs is a count: where two signs agree it is +1, where they differ −1.

Let −1 be the bit 1 and +1 the bit 0. Then `a xor b` marks the places that differ, and with D = popcount(a xor b) of
them among K, P = K − D agree, so

    Σ_k a_k · b_k = P − D = 2·P − K = K − 2·D

One xor, one popcount and one addition on a register of 512 bits do the work of 512 multiplications and additions. Bits
behind the K-th are 0 in both and never differ. (A processor without a popcount of whole registers counts by carry-save
addition instead, see `count.py`.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyqnn.kernels.count import count_xor
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.pack import check_signs, empty_words, pack_signs, words_of
from tinyqnn.kernels.product import BIT_ROWS, COLS, UNIT, WIDTH, IntegerGemm, Rows, by_taps, in_units, panels
from tinyqnn.kernels.simd import (
    HAS_POPCOUNT,
    apply,
    at,
    cyclic,
    multiples,
    offsets,
    outer_with,
    popcount,
    put_tile,
    zeros,
)

__all__ = ["BinaryGemm"]

Array = np.ndarray

BLOCK = 64  # units of k at a time: 8 kB of a panel, and as much of a tile's rows, stay in the L1 cache


@jit(forceinline=True)
def count_differences(acc, a, b):
    return acc + popcount(a ^ b)


@jit(forceinline=True)
def minus_twice(acc, zero):
    return zero - (acc + acc)


def _make_multiply(rows: int) -> Any:
    """The loop below for tiles of `rows` rows and two vectors of columns."""

    @jit
    def multiply(i0, i1, j0, j1, a, places, walk, b, start, start_rows, cols, y):
        depth = len(walk)
        for k0 in range(0, depth, BLOCK):
            k1 = min(k0 + BLOCK, depth)
            for j in range(j0, j1, WIDTH):
                panel = j * depth
                for i in range(i0, i1, rows):
                    row = offsets(places, i, i1 - 1, rows)
                    if HAS_POPCOUNT:
                        acc = zeros(a, rows, COLS)
                        for k in range(k0, k1):
                            acc = outer_with(count_differences, acc, a, row, at(walk, k), b, panel + k * WIDTH)
                    else:
                        acc = count_xor(a, row, 0, walk, k0, k1, b, panel + k0 * WIDTH)
                    acc = apply(minus_twice, acc, 0)
                    put_tile(
                        acc,
                        y,
                        multiples(cols, i1 - 1 - i, rows),
                        i * cols + j,
                        j1 - j,
                        k0 == 0,
                        start,
                        cyclic(i, i1 - 1, start_rows, cols, rows),
                        j,
                    )

    return multiply


_multiply_row = _make_multiply(1)
_multiply_tile = _make_multiply(BIT_ROWS) if BIT_ROWS > 1 else _multiply_row


class BinaryGemm(IntegerGemm):
    """`x · wᵀ` for matrices of +1 and −1: `w` (N, K) packed once, `x` (M, K), the result (M, N) int32, exact.

    Any numeric dtype will do; int8 and float32 are packed fastest. `w` may be (N, taps, C), whose every tap begins a
    new word, as a convolution wants it.

    >>> w = np.array([[1, 1, -1], [-1, 1, 1]])
    >>> g = BinaryGemm(w)
    >>> p = g.pack(np.array([[1, 1, 1]]))
    >>> g.multiply(p).tolist()
    [[1, 1]]
    """

    width = WIDTH

    def __init__(self, w: Any) -> None:
        signs = by_taps(w)
        n, taps, c = signs.shape
        super().__init__((n, taps * c), 1)
        self.values = signs.reshape(n, -1).astype(np.int8)
        self.tap_sums = signs.sum(-1, dtype=np.int64).T  # (taps, N)
        self.start = self.start_table(None)
        if not self.compiled:
            check_signs(signs)
            return
        words = np.empty((n, taps * words_of(c)), np.uint64)
        pack_signs(signs.reshape(n * taps, c), np.arange(n * taps) * words_of(c), words.reshape(-1))
        units = words.view(UNIT)
        self.panels = empty_words(-(-n // WIDTH) * WIDTH * words.shape[1]).view(UNIT)
        self.panels[...] = panels(units[None], WIDTH).reshape(-1)

    def pack(self, x: Any) -> Rows:
        """Signs (M, K), one bit each."""
        x = self._matrix(x)
        if not self.compiled:
            return Rows(x.shape, self.numbers(x))
        depth = words_of(x.shape[1])
        words, places = empty_words(len(x) * depth), np.arange(len(x)) * depth
        pack_signs(x, places, words)
        return Rows(x.shape, words, places, np.arange(depth))

    def numbers(self, x: Array) -> Array:
        """The activations' plain numbers, for the twin."""
        check_signs(x)
        return x.astype(np.int8)

    units = staticmethod(words_of)

    def pack_pixels(self, x: Array, targets: Array, size: int) -> Array:
        """Rows of signs (R, C) to `targets` in a new array of `size` words, with 0 everywhere else."""
        words = np.zeros(size, np.uint64)
        pack_signs(x, targets, words)
        return words

    def start_table(self, missing: Array | None) -> Array:
        """K; where a border hides a tap its bits are 0, which say +1: less the tap's weights."""
        table = np.full((1, len(missing) if missing is not None else 1, self.shape[0]), self.shape[1], np.int64)
        return (table if missing is None else table - missing.astype(np.int64) @ self.tap_sums).astype(np.int32)

    def kernel(self, packed: Rows, part: int) -> Callable[[int, int, int, int, Array], None]:
        multiply = _multiply_tile if packed.shape[0] > BIT_ROWS // 2 else _multiply_row
        start = (self.start if packed.start is None else packed.start)[0]
        data, places, walk, _ = in_units(packed)

        def compiled(i0: int, i1: int, j0: int, j1: int, y: Array) -> None:
            multiply(
                i0,
                i1,
                j0,
                j1,
                data,
                places,
                walk,
                self.panels,
                start.reshape(-1),
                len(start),
                self.shape[0],
                y,
            )

        return compiled
