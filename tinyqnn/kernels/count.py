"""Counting bits: add words up like columns of one-digit numbers, and count rarely.

A full adder takes three bits of the same weight and gives a bit of that weight and a carry of twice as much; done on
words, it adds 512 columns at once. Two words of products, d0 and d1, and the ones that are left from before make

    odd   = ones xor d0
    left  = odd xor d1                        the ones from now on
    carry = not left where odd, else ones     where ones and d0 differ, d1 decides, and it is 0 where left is 1

and the number of bits so far is popcount(ones) + 2 · Σ popcount(carry). As d0 = a0 xor b0, each of the three lines is
one instruction on a processor that has all functions of three bits (AVX-512). Popcount and addition make it five
for two words, where xor, popcount and addition of each word are six. Further adders would not pay: each costs two
instructions, and a popcount and an addition are no more.

Where popcount is a dozen instructions (it looks up every half byte in a table) they do. Eight words melt into one:

    ones, twos    <- ones + d0 + d1, …          four additions of two words each, four carries
    twos, fours   <- twos + carry + carry, …    two
    fours, eights <- fours + carry + carry      one
    total         += popcount(eights)

so seven adders and one popcount take the place of eight popcounts, and that is twice as fast.
"""

from __future__ import annotations

from typing import Any

import numba

from tinyqnn.kernels.simd import (
    HAS_POPCOUNT,
    HAS_TERNARY_LOGIC,
    REGISTERS,
    WORDS,
    at,
    carried,
    carry_save,
    outer_twice,
    outer_with,
    popcount,
    zeros,
)

__all__ = ["ROWS", "count_and", "count_xor"]

COLS, WIDTH = 2, (4 if HAS_POPCOUNT else 2) * WORDS  # lanes of 32 bits, or words of 64, in two vectors
ROWS = 4 if HAS_POPCOUNT and REGISTERS == 32 else 1  # of a tile; it has as many ones as sums


def _make(exclusive: bool) -> Any:
    """A compiled function that counts the bits of `a xor b` (or `a and b`) for a few rows and two vectors of columns.

    The k-th word of row r is `a[row[r] + base + walk[k]]`; those of the columns are at `b[j]`, each a row of the panel
    further. Where popcount is an instruction, a row has one half of the words and the next one the other.
    """

    @numba.njit(forceinline=True)
    def bits(unused, x, y):
        return x ^ y if exclusive else x & y

    @numba.njit(forceinline=True)
    def add_two(ones, twos, a0, b0, a1, b1):
        if HAS_TERNARY_LOGIC:
            odd = ones ^ bits(ones, a0, b0)
            left = odd ^ bits(ones, a1, b1)
            return left, twos + popcount(carried(odd, left, ones))
        return ones, twos + popcount(bits(ones, a0, b0)) + popcount(bits(ones, a1, b1))

    @numba.njit(forceinline=True)
    def count_pairs(a, row, base, walk, k0, k1, b, j):
        ones = twos = zeros(b, row, COLS)
        for k in range(k0, k1):
            ones, twos = outer_twice(add_two, ones, twos, a, row, base + at(walk, k), b, j)
            j += 2 * WIDTH
        return twos + twos + popcount(ones) if HAS_TERNARY_LOGIC else twos

    @numba.njit(forceinline=True)
    def word(a, row, i, b, j):
        return outer_with(bits, zeros(b, row, COLS), a, row, i, b, j)

    @numba.njit(forceinline=True)
    def two(ones, a, row, base, walk, k, b, j):
        return carry_save(
            ones, word(a, row, base + at(walk, k), b, j), word(a, row, base + at(walk, k + 1), b, j + WIDTH)
        )

    @numba.njit(forceinline=True)
    def count_eights(a, row, base, walk, k0, k1, b, j):
        total = zeros(b, row, COLS)
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

    return count_pairs if HAS_POPCOUNT else count_eights


count_xor, count_and = _make(True), _make(False)
