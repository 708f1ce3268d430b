"""Counting bits without an instruction for it: add the words up like columns of one-digit numbers, and count rarely.

A full adder takes three bits of the same weight and gives a bit of that weight and a carry of twice as much; done on
words, it adds 512 columns at once. Eight words melt into one that counts eight:

    ones, twos    <- ones + d0 + d1, …          four additions of two words each, four carries
    twos, fours   <- twos + carry + carry, …    two
    fours, eights <- fours + carry + carry      one
    total         += popcount(eights)

so seven adders and one popcount take the place of eight popcounts. Where popcount is a dozen instructions (it looks up
every half byte in a table) that is twice as fast; where it is one, plain counting is as good.
"""

from __future__ import annotations

from typing import Any

import numba

from tinyqnn.kernels.simd import WORDS, at, carry_save, outer_with, popcount, zeros

__all__ = ["count_and", "count_xor"]

COLS, WIDTH = 2, 2 * WORDS


def _make(exclusive: bool) -> Any:
    """A compiled function that counts the bits of `a xor b` (or of `a and b`) for one row and two vectors of columns.

    The k-th word of the row is `a[row + base + walk[k]]`, that of the columns is at `b[j]`, a panel's row further each.
    """

    @numba.njit(forceinline=True)
    def bits(unused, x, y):
        return x ^ y if exclusive else x & y

    @numba.njit(forceinline=True)
    def word(a, row, i, b, j):
        return outer_with(bits, zeros(a, 1, COLS), a, row, i, b, j)

    @numba.njit(forceinline=True)
    def two(ones, a, row, base, walk, k, b, j):
        return carry_save(
            ones, word(a, row, base + at(walk, k), b, j), word(a, row, base + at(walk, k + 1), b, j + WIDTH)
        )

    @numba.njit(forceinline=True)
    def count(a, row, base, walk, k0, k1, b, j):
        total = zeros(a, 1, COLS)
        ones, twos, fours = total, total, total
        k = k0
        while k + 8 <= k1:
            ones, carry0 = two(ones, a, row, base, walk, k, b, j)
            ones, carry1 = two(ones, a, row, base, walk, k + 2, b, j + 2 * WIDTH)
            twos, carry2 = carry_save(twos, carry0, carry1)
            ones, carry0 = two(ones, a, row, base, walk, k + 4, b, j + 4 * WIDTH)
            ones, carry1 = two(ones, a, row, base, walk, k + 6, b, j + 6 * WIDTH)
            twos, carry3 = carry_save(twos, carry0, carry1)
            fours, eights = carry_save(fours, carry2, carry3)
            total = total + popcount(eights)
            k += 8
            j += 8 * WIDTH
        if k > k0:
            total = total + total + popcount(fours)
            total = total + total + popcount(twos)
            total = total + total + popcount(ones)
        while k < k1:
            total = total + popcount(word(a, row, base + at(walk, k), b, j))
            k += 1
            j += WIDTH
        return total

    return count


count_xor, count_and = _make(True), _make(False)
