"""What all integer products share: weights packed once into panels, rows found through a table, blocks and threads.

    y[m, n] = Σ_k x[m, k] · w[n, k]

A *panel* is WIDTH neighbouring columns n: two vectors, one number of each column in a lane. It holds, for k after k,
the numbers that one step of the micro-kernel wants side by side. A row of x is addressed, not copied: `places[m]` says
where it begins and `walk[k]` how far from there its k-th number lies. In a matrix that is k; in an image the walk leads
through the pixels under the filter, so the convolution in `intconv.py` is the same product.

The sums start from a small table, `start`: what the product of the packed numbers needs to become that of the codes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels import reference, use_reference
from tinyqnn.kernels.jit import aligned, get_num_threads, run
from tinyqnn.kernels.requantize import Stairs, staircase
from tinyqnn.kernels.simd import HAS_POPCOUNT, REGISTERS, WORDS

__all__ = ["COLS", "MANY", "ROWS", "WIDTH", "IntegerGemm", "Rows", "in_a_row", "sums_of"]

Array = np.ndarray

COLS = 2  # vectors in a panel
ROWS = 8 if REGISTERS == 32 else 4  # ROWS × COLS accumulators leave a few registers for what they are made of
MANY = 32  # rows of bits from which tiles are quicker: then reading eight times as many bytes of weights costs little
LARGEST = 2**31 - 1  # of int32
_NONE = np.zeros(0, np.int64)
_INT32 = np.dtype(np.int32)


class Rows(NamedTuple):
    """Packed activations (M, K): number k of row m is at `data[p·plane_size + places[m] + walk[k]]` in plane p.

    `start` is None, or a table (parts, S, N) of its own from which the sums of row m start, at m mod S (a border's
    pixels).
    """

    shape: tuple[int, int]
    data: Array
    places: Array = _NONE
    walk: Array = _NONE
    plane_size: int = 0
    start: Array | None = None


class IntegerGemm:
    """A product with fixed weights: `g(x)`, or `p = g.pack(x)` once and `g.multiply(p)`."""

    shape: tuple[int, int]  # (N, K)
    width: int  # columns of a panel
    start: Array  # (parts, 1, N) int32: `start_table(None)`
    values: Array  # (N, K) the weights' numbers, for the twin

    def __init__(self, shape: tuple[int, int], largest: int) -> None:
        """`largest` is the largest absolute product of two numbers."""
        check_depth(shape[1], largest)
        self.shape = shape
        self.compiled = not use_reference()

    def pack(self, x: Any) -> Rows:
        """Pack activations (M, K)."""
        raise NotImplementedError

    def multiply(self, packed: Rows, out: Array | None = None) -> Array:
        """The product with packed activations: (M, N) int32. `out` is int32, contiguous, (M, N)."""
        y = sums_of(packed.shape[0], self.shape[0]) if out is None else out
        self.multiply_part(packed, 0, y)
        return y

    def multiply_part(self, packed: Rows, part: int, y: Array) -> None:
        """Write one product to `y`; there are several where a factor is a list of planes with scales of their own."""
        self.check(packed, y)
        m, n = y.shape
        if m == 0:
            return
        if not self.compiled:
            y[...] = reference.integer_matmul(*self.twin(packed, part))
            return
        kernel, flat, blocks = self.kernel(packed, part), y.reshape(-1), cut(m, n, self.width)

        def body(first: int, last: int) -> None:
            for i0, i1, j0, j1 in blocks[first:last]:
                kernel(i0, i1, j0, j1, flat)

        run(body, len(blocks), 1)

    def to_codes(self, packed: Rows, stairs: Stairs) -> Array:
        """The codes to which the sums of a single product step up: (M, N), as `requantize.staircase` has them."""
        return staircase(self.multiply(packed), *stairs)

    def check(self, packed: Rows, y: Array) -> None:
        """ValueError where the factors, or `y`, do not fit."""
        if packed.shape[1] != self.shape[1]:
            raise ValueError(f"expected packed rows of K = {self.shape[1]} numbers, got {packed.shape}")
        m, n = packed.shape[0], self.shape[0]
        if y.shape != (m, n) or y.dtype != _INT32 or not y.flags.c_contiguous:
            raise ValueError(f"expected out to be int32, contiguous, {(m, n)}, got {y.dtype}, {y.shape}")

    def twin(self, packed: Rows, part: int) -> tuple[Array, Array]:
        """Two matrices (M, K) and (N, K) of plain numbers for the reference."""
        return packed.data, self.values

    def kernel(self, packed: Rows, part: int) -> Callable[[int, int, int, int, Array], None]:
        """The compiled loop for rows i0 … i1 and columns j0 … j1 of y."""
        raise NotImplementedError

    def start_table(self, missing: Array | None) -> Array:
        """What the sums start from: (parts, S, N) int32. `missing` (S, taps) marks the taps that a border hides."""
        raise NotImplementedError

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        return self.multiply(self.pack(x), out)

    def _matrix(self, x: Any) -> Array:
        """`x` as an array (M, K)."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.shape[1]:
            raise ValueError(f"expected activations (M, {self.shape[1]}), got {x.shape}")
        return x


def sums_of(m: int, n: int) -> Array:
    """An uninitialised result (M, N) int32 on a cache line's boundary: sixteen sums that lie on two cost double.

    >>> sums_of(2, 3).shape
    (2, 3)
    """
    found: Array = aligned(m * n).view(np.int32).reshape(m, n)
    return found


@lru_cache(maxsize=64)
def in_a_row(rows: int, depth: int) -> tuple[Array, Array]:
    """Places and walk of a matrix whose rows, of `depth` words or groups, lie one behind the other.

    >>> [numbers.tolist() for numbers in in_a_row(2, 3)]
    [[0, 3], [0, 1, 2]]
    """
    return np.arange(rows) * depth, np.arange(depth)


def check_depth(k: int, largest: int) -> None:
    """ValueError where a sum of `k` products of absolute value `largest` may overflow."""
    if k * largest > LARGEST:
        raise ValueError(
            f"a sum of K = {k} products of up to {largest} may not fit int32; the largest K is {LARGEST // largest}; "
            "cut K in parts and add the results in int64"
        )


def by_taps(w: Any) -> Array:
    """Weights (N, K) or (N, taps, C) as (N, taps, C)."""
    w = np.asarray(w)
    if w.ndim not in (2, 3) or w.size == 0:
        raise ValueError(f"expected weights (N, K), or (N, taps, C), of at least one number, got {w.shape}")
    return w.reshape(len(w), -1, w.shape[-1])


def cut(m: int, n: int, width: int) -> list[tuple[int, int, int, int]]:
    """Blocks of y for the threads to take: rows i0 … i1, columns j0 … j1, the columns in whole panels.

    >>> cut(5, 10, 16)
    [(0, 5, 0, 10)]
    """
    threads = get_num_threads()
    rows, columns = m, n
    if threads > 1:  # eight blocks each: a thread that wakes late, or is held up, costs a sixteenth
        if m >= 8 * ROWS * threads:
            rows = -(-m // (8 * threads * ROWS)) * ROWS
        elif n > width:
            columns = max(1, -(-n // (4 * threads * width))) * width
    return [(i, min(i + rows, m), j, min(j + columns, n)) for i in range(0, m, rows) for j in range(0, n, columns)]


def panels(numbers: Array, width: int) -> Array:
    """(planes, N, depth) -> (panel, plane, depth, lane), with zeros in the lanes behind column N."""
    planes, n, depth = numbers.shape
    padded = np.zeros((planes, -(-n // width) * width, depth), numbers.dtype)
    padded[:, :n] = numbers
    return padded.reshape(planes, -1, width, depth).transpose(1, 0, 3, 2)


# What a lane holds. Sums of 32 bits need no narrowing at the end and lie twice as close; carry-save counting (count.py)
# wants long words, of which it counts one in eight.
UNIT = np.uint32 if HAS_POPCOUNT else np.uint64
UNITS = 64 // (8 * np.dtype(UNIT).itemsize)  # in a word
WIDTH = COLS * WORDS * UNITS  # columns in a panel of such units
