"""Codes to bit planes to words: 64 one-bit numbers lie in one machine word, and one instruction handles them all.

A code of b bits is cut into b planes; plane j holds bit j of every code, the lowest bit first. Of a plane's row, bits
0 … 63 are the first word, the first code in the lowest bit; what is missing in the last word is 0:

    codes       3  0  1  2          two bits each
    plane 0     1  0  1  0          the low bits    -> word 0b0101 = 5
    plane 1     1  0  0  1          the high bits   -> word 0b1001 = 9

Negative codes are in two's complement, so the last plane counts −2^(b−1) and the others 2^j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyqnn.kernels import use_reference
from tinyqnn.kernels.jit import aligned, jit, run
from tinyqnn.kernels.simd import are_signs, negatives, test_bits

__all__ = ["NOT_SIGNS", "as_bytes", "as_signs", "from_planes", "pack_rows", "pack_signs", "pack_words",
           "signs_to_words", "to_planes", "unpack_words", "words_of"]  # fmt: skip

Array = np.ndarray

NOT_SIGNS = "expected the numbers 1 and −1 alone; take the signs first, with one of the two for 0"
PAYS = 1 << 17  # numbers from which a second thread pays


def words_of(bits: int) -> int:
    """How many 64-bit words hold `bits` bits.

    >>> words_of(64), words_of(65)
    (1, 2)
    """
    return -(-bits // 64)


def to_planes(codes: Array, bits: int) -> Array:
    """Bit j of every code: (…) -> (bits, …) of 0 and 1.

    >>> to_planes(np.array([3, 0, 1, -2]), 2).tolist()
    [[1, 0, 1, 0], [1, 0, 0, 1]]
    """
    return np.stack([codes >> j & 1 for j in range(bits)]).astype(np.uint8)


def from_planes(planes: Array, signed: bool = False) -> Array:
    """The codes again: (bits, …) -> (…) int64; with `signed` the last plane counts −2^(b−1).

    >>> from_planes(np.array([[1, 0, 1, 0], [1, 0, 0, 1]]), signed=True).tolist()
    [-1, 0, 1, -2]
    """
    weights = 2 ** np.arange(len(planes), dtype=np.int64)
    if signed:
        weights[-1] *= -1
    return np.tensordot(weights, planes.astype(np.int64), 1)


def pack_words(planes: Array) -> Array:
    """Bits to words: (…, n) of 0 and 1 -> (…, ⌈n/64⌉) uint64, the first bit lowest.

    >>> pack_words(np.array([1, 0, 1, 0])).tolist()
    [5]
    """
    n = planes.shape[-1]
    octets = np.packbits(planes.astype(bool), axis=-1, bitorder="little")
    padded = np.zeros((*planes.shape[:-1], 8 * words_of(n)), np.uint8)
    padded[..., : octets.shape[-1]] = octets
    return padded.view("<u8").astype(np.uint64)


def unpack_words(words: Array, n: int) -> Array:
    """Words to bits: (…, ⌈n/64⌉) uint64 -> (…, n) of 0 and 1.

    >>> unpack_words(np.array([5], np.uint64), 4).tolist()
    [1, 0, 1, 0]
    """
    octets = np.ascontiguousarray(words.astype("<u8")).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=n, bitorder="little")


def as_bytes(codes: Any, low: int, high: int, name: str) -> Array:
    """Codes as bytes of the same bits, after a look that each is a whole number from `low` to `high`."""
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected whole numbers from {low} to {high}, got {codes.dtype}")
    if codes.size and not (codes.dtype == np.int8 and low == -128) and not (codes.dtype == np.uint8 and high == 255):
        smallest, largest = codes.min(), codes.max()
        whole = codes.dtype.kind != "f" or bool((codes == np.floor(codes)).all())
        if not (low <= smallest and largest <= high and whole):
            kind = "" if whole else " and fractions"
            raise ValueError(f"{name}: expected whole numbers from {low} to {high}, got {smallest} … {largest}{kind}")
    if codes.dtype in (np.int8, np.uint8):
        return codes.view(np.int8)
    return codes.astype(np.int16).astype(np.int8)


@jit
def _pack_rows(first, last, x, count, bit, targets, words):
    """Rows first … last of x, `count` integers each: their bit number `bit` goes into `words[targets[r] : …]`."""
    for r in range(first, last):
        i, o = r * count, targets[r]
        for k in range(0, count - 63, 64):
            words[o + k // 64] = test_bits(x, i + k, bit)
        word = np.uint64(0)
        for k in range(count // 64 * 64, count):
            word |= np.uint64(x[i + k] >> bit & 1) << np.uint64(k % 64)
        if count % 64:
            words[o + count // 64] = word


@jit
def signs_to_words(first, last, x, count, targets, words):
    """Rows first … last of x, `count` signs each, to `words[targets[r] : …]`; False if a number is neither 1 nor −1."""
    signs = ~np.uint64(0)
    for r in range(first, last):
        i, o = r * count, targets[r]
        for k in range(0, count - 63, 64):
            signs &= are_signs(x, i + k)
            words[o + k // 64] = negatives(x, i + k)
        word = np.uint64(0)
        for k in range(count // 64 * 64, count):
            number = x[i + k]
            if number != 1 and number != -1:
                signs = np.uint64(0)
            word |= np.uint64(number < 0) << np.uint64(k % 64)
        if count % 64:
            words[o + count // 64] = word
    return signs == ~np.uint64(0)


def pack_rows(rows: Array, bits: Sequence[int], targets: Array, words: Array, plane_size: int) -> None:
    """Put bit `bits[p]` of each row of integers (R, C) into `words[p·plane_size + targets[r] : …]`."""
    (count, size), flat = rows.shape, np.ascontiguousarray(rows).reshape(-1)
    if use_reference():
        for p, bit in enumerate(bits):
            where = p * plane_size + targets[:, None] + np.arange(words_of(size))
            words[where] = pack_words(rows >> bit & 1)
        return

    def body(first: int, last: int) -> None:
        for p, bit in enumerate(bits):
            _pack_rows(first, last, flat, size, bit, targets, words[p * plane_size :])

    run(body, count, None if rows.size > PAYS else count)


def as_signs(rows: Array) -> Array:
    """Signs in the dtypes that `signs_to_words` is compiled for."""
    if rows.dtype not in (np.int8, np.float32):
        rows = rows.astype(np.float32) if rows.dtype == np.float64 else as_bytes(rows, -1, 1, "signs")
    return np.ascontiguousarray(rows)


def pack_signs(rows: Array, targets: Array, words: Array) -> None:
    """Put a 1 for every −1 and a 0 for every +1 of (R, C) into `words[targets[r] : …]`; others are refused."""
    rows = as_signs(rows)
    (count, size), flat, good = rows.shape, rows.reshape(-1), []

    def body(first: int, last: int) -> None:
        good.append(signs_to_words(first, last, flat, size, targets, words))

    run(body, count, None if rows.size > PAYS else count)
    if not all(good):
        raise ValueError(NOT_SIGNS)


def check_signs(x: Array) -> None:
    """ValueError where a number is neither 1 nor −1."""
    if not bool((abs(x) == 1).all()):
        raise ValueError(NOT_SIGNS)


def empty_words(count: int) -> Array:
    """`count` uninitialised words that begin on a cache line."""
    return aligned(2 * count).view(np.uint64)
