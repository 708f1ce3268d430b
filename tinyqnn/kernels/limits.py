"""The most that this processor can do: the micro-kernels' steps on registers alone, without a load or a store.

No product of the kind can be faster than its loop here, so what a product reaches is a share of it. A product of signs
that reaches more than the loops that count bits does not count: its bits became bytes on the way to a tile.
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels import tiles
from tinyqnn.kernels.jit import aligned, jit
from tinyqnn.kernels.simd import (
    LANES,
    carried,
    carry_save,
    cyclic,
    dot_bytes,
    multiples,
    outer,
    outer_twice,
    outer_with,
    popcount,
    put_tile,
    spread_row,
    store_tile,
    zeros,
)

__all__ = [
    "adder_loop",
    "bytes_loop",
    "carry_save_loop",
    "floats_loop",
    "popcount_loop",
    "sixths_loop",
    "tiles_loop",
]

VECTOR_BITS = 32 * LANES


@jit(forceinline=True)
def _count(acc, a, b):
    return acc + popcount(acc ^ b)


@jit(forceinline=True)
def _dot(acc, a, b):
    return dot_bytes(acc, a, b)


@jit(forceinline=True)
def _xor(acc, a, b):
    return acc ^ b


@jit(forceinline=True)
def _add_two(ones, twos, a0, b0, a1, b1):
    odd = ones ^ a0 ^ b0
    left = odd ^ a1 ^ b1
    return left, twos + popcount(carried(odd, left, ones))


@jit
def _popcounts(steps, a, b, y):
    acc = zeros(a, 8, 2)
    for _ in range(steps):
        acc = outer_with(_count, acc, a, multiples(0, 0, 8), 0, b, 0)
    put_tile(acc, y, multiples(2 * LANES, 7, 8), 0, len(y), True, y, cyclic(0, 0, 1, 0, 8), 0)


@jit
def _adders(steps, a, b, y):
    ones = twos = zeros(b, multiples(0, 0, 4), 2)
    for _ in range(steps):
        ones, twos = outer_twice(_add_two, ones, twos, a, multiples(0, 0, 4), 0, b, 0)
    row = multiples(2 * LANES, 3, 4)
    put_tile(twos + twos + popcount(ones), y, row, 0, len(y), True, y, cyclic(0, 0, 1, 0, 4), 0)


@jit
def _carry_saves(steps, a, b, y):
    row, total = multiples(0, 0, 1), zeros(a, 1, 2)
    ones, twos, fours, word = total, total, total, total
    for _ in range(steps):
        word = outer_with(_xor, word, a, row, 0, b, 0)
        other = outer_with(_xor, word, a, row, 0, b, 1)
        ones, carry0 = carry_save(ones, word, other)
        word = outer_with(_xor, other, a, row, 0, b, 2)
        other = outer_with(_xor, word, a, row, 0, b, 3)
        ones, carry1 = carry_save(ones, word, other)
        twos, carry2 = carry_save(twos, carry0, carry1)
        word = outer_with(_xor, other, a, row, 0, b, 4)
        other = outer_with(_xor, word, a, row, 0, b, 5)
        ones, carry0 = carry_save(ones, word, other)
        word = outer_with(_xor, other, a, row, 0, b, 6)
        other = outer_with(_xor, word, a, row, 0, b, 7)
        ones, carry1 = carry_save(ones, word, other)
        twos, carry3 = carry_save(twos, carry0, carry1)
        fours, eights = carry_save(fours, carry2, carry3)
        total, word = total + popcount(eights), other
    put_tile(total + ones + twos + fours, y, row, 0, len(y), True, y, cyclic(0, 0, 1, 0, 1), 0)


@jit
def _dots(steps, a, b, y):
    acc = zeros(a, 8, 2)
    for _ in range(steps):
        acc = outer_with(_dot, acc, a, multiples(0, 0, 8), 0, b, 0)
    put_tile(acc, y, multiples(2 * LANES, 7, 8), 0, len(y), True, y, cyclic(0, 0, 1, 0, 8), 0)


@jit
def _tile_dots(steps, table):
    tiles.configure(table)
    for _ in range(steps):
        tiles.dot_bytes(0, 4, 6, True)
        tiles.dot_bytes(1, 4, 7, True)
        tiles.dot_bytes(2, 5, 6, True)
        tiles.dot_bytes(3, 5, 7, True)
    tiles.release()


@jit
def _floats(steps, a, b, y):
    acc = spread_row(b, 0, 6, 2, 2 * LANES)  # twelve sums: as many as sixteen registers leave room for
    for _ in range(steps):
        acc = outer(acc, a, multiples(0, 0, 6), 0, b, 0)
    store_tile(acc, y, multiples(2 * LANES, 5, 6), 0, 2 * LANES)


@jit
def _sixths(steps, table):
    tiles.configure(table)
    for _ in range(steps):
        tiles.dot_bfloat16(0, 4, 6)
        tiles.dot_bfloat16(1, 4, 7)
        tiles.dot_bfloat16(2, 5, 6)
        tiles.dot_bfloat16(3, 5, 7)
    tiles.release()


def _arguments(dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers: np.ndarray = aligned(128).view(dtype)
    numbers[:] = np.arange(len(numbers))
    return numbers, numbers, np.zeros(16 * LANES, np.int32)


def popcount_loop(steps: int) -> int:
    """xor, popcount, add on sixteen vectors a step; returns how many operations (a product and a sum are two).

    >>> popcount_loop(10) == 10 * 16 * VECTOR_BITS * 2
    True
    """
    _popcounts(steps, *_arguments(np.uint64))
    return steps * 16 * VECTOR_BITS * 2


def adder_loop(steps: int) -> int:
    """A full adder, popcount and addition for every two words, eight vectors a step; returns the operations.

    >>> adder_loop(10) == 10 * 16 * VECTOR_BITS * 2
    True
    """
    numbers, _, y = _arguments(np.uint64)
    _adders(steps, numbers, numbers.view(np.uint32), y)
    return steps * 16 * VECTOR_BITS * 2


def carry_save_loop(steps: int) -> int:
    """xor, seven carry-save additions and one popcount for eight words, two vectors a step; returns the operations.

    >>> carry_save_loop(10) == 10 * 16 * VECTOR_BITS * 2
    True
    """
    _carry_saves(steps, *_arguments(np.uint64))
    return steps * 16 * VECTOR_BITS * 2


def bytes_loop(steps: int) -> int:
    """The byte-dot on sixteen vectors a step; returns the operations.

    >>> bytes_loop(10) == 10 * 16 * VECTOR_BITS // 8 * 2
    True
    """
    _dots(steps, *_arguments(np.int32))
    return steps * 16 * VECTOR_BITS // 8 * 2


def tiles_loop(steps: int) -> int:
    """Four products of tiles a step; returns the operations, and 0 where there are no tiles.

    >>> tiles_loop(10) in (10 * 4 * 16 * 16 * 64 * 2, 0)
    True
    """
    if not tiles.allowed():
        return 0
    _tile_dots(steps, tiles.shape(tiles.ROWS, tiles.COLUMNS))
    return steps * 4 * tiles.ROWS * tiles.COLUMNS * tiles.STEP * 2


def floats_loop(steps: int) -> int:
    """Multiplication and addition of float32 on twelve vectors a step; returns the operations.

    >>> floats_loop(10) == 10 * 12 * LANES * 2
    True
    """
    numbers, _, _ = _arguments(np.float32)
    _floats(steps, numbers, numbers, np.zeros(12 * LANES, np.float32))
    return steps * 12 * LANES * 2


def sixths_loop(steps: int) -> int:
    """Four products of tiles of bfloat16 a step, of which six make one of float32; returns the latter's operations.

    >>> sixths_loop(30) in (30 * 4 * 16 * 16 * 32 * 2 // 6, 0)
    True
    """
    if not tiles.allowed():
        return 0
    _sixths(steps, tiles.shape(tiles.ROWS, tiles.COLUMNS))
    return steps * 4 * tiles.ROWS * tiles.COLUMNS * tiles.STEP // 2 * 2 // 6
