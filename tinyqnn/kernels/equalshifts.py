"""Many rows times power-of-two weights: what is shifted equally far is added first, and only the sum is shifted.

    Σ_k ± x_k << s_k  =  Σ_s ( Σ_{w_k = +2^s} x_k − Σ_{w_k = −2^s} x_k ) << s

For each output the numbers k are sorted by their shift when the weights are packed. Activations lie with BATCH rows of
x side by side, a byte each, and are added two at a time: for bytes a and b, neighbours in 16 bits,

    total += a + 256·b        upper += b        at the end  Σ a = total − 256 · upper

where `total` may overflow, for Σ a is right modulo 2^16 and known to fit. That is three instructions for 64 additions.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyqnn.kernels.jit import aligned, jit, run, share
from tinyqnn.kernels.simd import (
    LANES,
    add_shifted,
    at,
    byte_pairs,
    load_tile,
    multiples,
    store_tile,
    transpose,
    upper_bytes,
    upper_off,
)
from tinyqnn.kernels.turns import leave, take

__all__ = ["BATCH", "Sorted", "multiply", "side_by_side", "sort_by_shift"]

Array = np.ndarray

BATCH = 4 * LANES  # rows of x side by side
DEPTH = 512  # columns of x at a time: with BATCH rows they stay in the L1 cache
COLUMNS = 32  # outputs at a time
MOST = 128  # bytes whose sum, some of them negative, fits 16 bits
FOUR = 4  # numbers are added four at a time
_ZEROS = np.zeros(FOUR, np.int64)


class Sorted(NamedTuple):
    """Weights, sorted: for each DEPTH numbers k and each output, in this order, some segments of equal shift.

    order      (…,) uint16: which k, from 1 in each DEPTH, in fours; 0 is a number that is 0
    segments   (S, 3) int16: shift, how many fours to add and to subtract
    starts     (…, 2) where in order and in segments each output begins
    """

    order: Array
    segments: Array
    starts: Array


def sort_by_shift(negative: Array, shift: Array) -> Sorted:
    """Signs and shifts (N, K), sorted.

    >>> found = sort_by_shift(np.array([[False, True, False]]), np.array([[2, 0, 2]]))
    >>> found.order.tolist(), found.segments.tolist()
    ([2, 0, 0, 0, 1, 3, 0, 0], [[0, 0, 1], [2, 1, 0]])
    """
    order, segments, starts, length = [], [], [(0, 0)], 0
    for k0 in range(0, shift.shape[1], DEPTH):
        for signs, shifts in zip(negative[:, k0 : k0 + DEPTH], shift[:, k0 : k0 + DEPTH]):
            key = 2 * shifts + signs
            rank = np.argsort(key, kind="stable")
            ends = np.searchsorted(key[rank], np.arange(2 * int(shifts.max()) + 3))
            for s in range(int(shifts.max()) + 1):
                plus, minus = rank[ends[2 * s] : ends[2 * s + 1]], rank[ends[2 * s + 1] : ends[2 * s + 2]]
                while len(plus) + len(minus):
                    add, plus = plus[:MOST], plus[MOST:]
                    take_off, minus = minus[: MOST - len(add)], minus[MOST - len(add) :]
                    for part in (add, take_off):
                        order += [part + 1, _ZEROS[: -len(part) % FOUR]]
                        length += len(part) + -len(part) % FOUR
                    segments.append((s, -(-len(add) // FOUR), -(-len(take_off) // FOUR)))
            starts.append((length, len(segments)))
    return Sorted(np.concatenate(order).astype(np.uint16), np.array(segments, np.int16), np.array(starts, np.int64))


def side_by_side(octets: Array) -> Array:
    """Bytes (M, K) as (batches, depths, 1 + DEPTH, BATCH) uint8: of each pair of neighbours the first is a row of the
    batch's first half, the second one of the other; column 0 is 0, and so is what is missing at the end of K.

    >>> side_by_side(np.arange(6, dtype=np.uint8).reshape(3, 2))[0, 0, :3, :6:2].tolist()
    [[0, 0, 0], [0, 2, 4], [1, 3, 5]]
    """
    m, k = octets.shape
    shape = -(-m // BATCH), -(-k // DEPTH), 1 + DEPTH, BATCH
    found: Array = aligned(-(-int(np.prod(shape)) // 4)).view(np.uint8).reshape(shape)
    flat, target = np.ascontiguousarray(octets).reshape(-1), found.reshape(-1)
    run(lambda first, last: _side_by_side(first, last, flat, m, k, shape[1], target), shape[0] * shape[1], 1)
    return found


@jit
def _side_by_side(first, last, x, rows, cols, depths, y):
    """Blocks first … last of BATCH rows and DEPTH columns."""
    for block in range(first, last):
        i0, k0, o = block // depths * BATCH, block % depths * DEPTH, block * (1 + DEPTH) * BATCH
        for j in range(BATCH):
            y[o + j] = 0
        o += BATCH
        for j in range(BATCH):
            i = min(i0 + j // 2 + j % 2 * (BATCH // 2), rows - 1) * cols  # behind the last row it is repeated
            for k in range(k0, min(k0 + DEPTH, cols)):
                y[o + (k - k0) * BATCH + j] = x[i + k]
            for k in range(max(k0, cols), k0 + DEPTH):
                y[o + (k - k0) * BATCH + j] = 0


@jit(forceinline=True)
def _sum_four(x, a, order, k):
    """The sum of four columns of x, and of their upper bytes."""
    p, q = byte_pairs(x, a + BATCH * at(order, k)), byte_pairs(x, a + BATCH * at(order, k + 1))
    r, t = byte_pairs(x, a + BATCH * at(order, k + 2)), byte_pairs(x, a + BATCH * at(order, k + 3))
    return p + q + r + t, upper_bytes(p) + upper_bytes(q) + upper_bytes(r) + upper_bytes(t)


@jit
def _multiply(seat, x, order, segments, starts, first, y, rows, cols):
    """Blocks of y: BATCH rows and COLUMNS columns."""
    batches, depths, size = x.shape[0], x.shape[1], (1 + DEPTH) * BATCH
    flat, half, block = x.reshape(-1), BATCH // 2, take(seat)
    tile = np.empty(COLUMNS * BATCH, np.float32)  # whole numbers; they only have to be moved
    sums = tile.view(np.int32)
    while block >= 0:
        batch, n0 = block % batches, block // batches * COLUMNS
        n1 = min(n0 + COLUMNS, cols)
        for n in range(n0, n1):
            for i in range((n - n0) * BATCH, (n - n0 + 1) * BATCH):
                sums[i] = first[n]
        for depth in range(depths):
            a = (batch * depths + depth) * size
            for n in range(n0, n1):
                o, k = (n - n0) * BATCH, starts[depth * cols + n, 0]
                for s in range(starts[depth * cols + n, 1], starts[depth * cols + n + 1, 1]):
                    shift, total = np.int64(segments[s, 0]), byte_pairs(flat, a)
                    upper = total  # column 0: none yet
                    for _ in range(segments[s, 1]):
                        four, above = _sum_four(flat, a, order, k)
                        total, upper, k = total + four, upper + above, k + FOUR
                    for _ in range(segments[s, 2]):
                        four, above = _sum_four(flat, a, order, k)
                        total, upper, k = total - four, upper - above, k + FOUR
                    add_shifted(sums, o, upper_off(total, upper), shift)
                    add_shifted(sums, o + half, upper, shift)
        last = min(rows - batch * BATCH, BATCH) - 1
        for i in range(0, last + 1, LANES):
            row = (batch * BATCH + i) * cols
            for n in range(n0, n1, LANES):
                acc = transpose(load_tile(tile, multiples(BATCH, n1 - 1 - n, LANES), (n - n0) * BATCH + i, 1, LANES))
                store_tile(acc, y, multiples(cols, last - i, LANES), row + n, n1 - n)
        block = take(seat)
    leave(seat)


def multiply(x: Array, weights: Sorted, first: Array, y: Array) -> None:
    """y (M, N) int32: `first` (N,) int32, and x, as `side_by_side` has it, times the weights."""
    (m, n), blocks = y.shape, len(x) * -(-y.shape[1] // COLUMNS)
    share(_multiply, blocks, x, *weights, first, y.reshape(-1).view(np.float32), m, n)
