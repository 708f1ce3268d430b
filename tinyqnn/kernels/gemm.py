"""A matrix product is many small ones: tiles of the result that stay in registers while a column times a row is added.

`c[i, j] = Σ_k a[i, k] · b[k, j]`. The second factor is packed once into panels two vectors wide, so that the row of a
panel is one pair of aligned loads; the first is only addressed, through its two strides, so `a.T` costs nothing. `k` is
walked in blocks, so that a panel's block stays in the nearest cache while all rows pass by.

    matmul(a, b)                    packs b and multiplies, or asks BLAS, whichever was faster here
    p = pack(b);  matmul(a, p)      b packed once for many products, as an LSTM's weights are for all time steps

The reading copy is one line of NumPy in `reference.py`; it also does the work in float64.
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels import reference, use_reference
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, run
from tinyqnn.kernels.simd import LANES, ROWS, load_tile, offsets, outer, store_tile

__all__ = ["Packed", "matmul", "pack"]

DEPTH = 256  # numbers of k walked at a time: a panel's block is 256 · 2 · 64 bytes, as large as an L1 cache
SMALL = 1_000_000  # multiplications below which a second thread does not pay


@jit
def tile1(a, rows, runs, first, last, base, steps, step, b, j, width, init, init_rows, o, y, y_rows, q, lanes):
    """`y[q + lane] = init[o + lane] + Σ_runs Σ_k a[base + run + k·step] · b[j + k·width + lane]` for ROWS rows, one vector."""
    acc = load_tile(init, init_rows, o, 1, lanes)
    for t in range(first, last):
        i = base + runs[t]
        for _ in range(steps):
            acc = outer(acc, a, rows, i, b, j)
            i += step
            j += width
    store_tile(acc, y, y_rows, q, lanes)


@jit
def tile2(a, rows, runs, first, last, base, steps, step, b, j, width, init, init_rows, o, y, y_rows, q, lanes):
    """The same for two vectors of lanes."""
    acc = load_tile(init, init_rows, o, 2, lanes)
    for t in range(first, last):
        i = base + runs[t]
        for _ in range(steps):
            acc = outer(acc, a, rows, i, b, j)
            i += step
            j += width
    store_tile(acc, y, y_rows, q, lanes)


class Packed:
    """A (K, N) matrix in panels: (panel, k, lane), two vectors wide, the last one perhaps a single vector."""

    def __init__(self, shape: tuple[int, int], data: np.ndarray) -> None:
        self.shape, self.data = shape, data


@jit
def _pack(first, last, b, stride_k, stride_n, depth, cols, packed):
    """Panels first … last of b, whose lanes behind the last column are zero."""
    for panel in range(first, last):
        o = panel * 2 * LANES
        width = min(2 * LANES, (cols - o + LANES - 1) // LANES * LANES)
        lanes = min(width, cols - o)
        for k0 in range(0, depth, LANES):  # square blocks: one of the two matrices is walked across its lines
            for lane in range(width):
                for k in range(k0, min(k0 + LANES, depth)):
                    packed[o * depth + k * width + lane] = b[k * stride_k + (o + lane) * stride_n] if lane < lanes else 0.0


@jit
def _multiply(first, last, a, a_rows, stride_k, depth, cols, packed, y, y_rows, row_block, block):
    """Tiles of y: items are (block of rows) × (block of panels)."""
    n_blocks = (cols + block - 1) // block
    nowhere, start, zeros = np.zeros(ROWS, np.int64), np.zeros(1, np.int64), np.zeros(2 * LANES, np.float32)
    no_rows = offsets(nowhere, 0, ROWS - 1)
    for item in range(first, last):
        i0, o0 = item // n_blocks * row_block, item % n_blocks * block
        end = min(i0 + row_block, len(a_rows)) - 1
        for k in range(0, depth, DEPTH):
            steps = min(DEPTH, depth - k)
            for o in range(o0, min(o0 + block, cols), 2 * LANES):
                lanes = min(cols - o, 2 * LANES)
                width = 2 * LANES if lanes > LANES else LANES
                j = o * depth + k * width
                for i in range(i0, end + 1, ROWS):
                    rows, out_rows = offsets(a_rows, i, end), offsets(y_rows, i, end)
                    if lanes > LANES:
                        if k == 0:
                            tile2(a, rows, start, 0, 1, 0, steps, stride_k, packed, j, width,
                                  zeros, no_rows, 0, y, out_rows, o, lanes)
                        else:
                            tile2(a, rows, start, 0, 1, k * stride_k, steps, stride_k, packed, j, width,
                                  y, out_rows, o, y, out_rows, o, lanes)
                    elif k == 0:
                        tile1(a, rows, start, 0, 1, 0, steps, stride_k, packed, j, width,
                              zeros, no_rows, 0, y, out_rows, o, lanes)
                    else:
                        tile1(a, rows, start, 0, 1, k * stride_k, steps, stride_k, packed, j, width,
                              y, out_rows, o, y, out_rows, o, lanes)


def _flat(a: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix's numbers as one vector, and its two strides in elements; copied unless it is contiguous either way."""
    if a.flags.c_contiguous:
        return a.reshape(-1), a.shape[1], 1
    if a.flags.f_contiguous:
        return a.T.reshape(-1), 1, a.shape[0]
    return np.ascontiguousarray(a).reshape(-1), a.shape[1], 1


def pack(b: np.ndarray) -> Packed:
    """`b` (K, N), float32, in the order in which a product reads it."""
    flat, stride_k, stride_n = _flat(b)
    depth, cols = b.shape
    packed = aligned(depth * -(-cols // LANES) * LANES)
    panels = -(-cols // (2 * LANES))

    def body(first: int, last: int) -> None:
        _pack(first, last, flat, stride_k, stride_n, depth, cols, packed)

    run(body, panels, panels if b.size < 65536 else None)
    return Packed((depth, cols), packed)


def matmul(a: np.ndarray, b: np.ndarray | Packed, out: np.ndarray | None = None) -> np.ndarray:
    """`a @ b` for (M, K) and (K, N), transposed or not: (M, N). `out` must be contiguous.

    >>> matmul(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    if isinstance(b, np.ndarray):
        if use_reference() or not a.dtype == b.dtype == np.float32:
            return reference.matmul(a, b, out)
        b = pack(b)
    (rows, depth), cols = a.shape, b.shape[1]
    if depth != b.shape[0]:
        raise ValueError(f"expected a (M, K) and b (K, N) with the same K, got {a.shape} and {b.shape}")
    flat, stride_i, stride_k = _flat(a)
    y = aligned(rows * cols).reshape(rows, cols) if out is None else out
    a_rows, y_rows = np.arange(rows) * stride_i, np.arange(rows) * cols
    row_block, block = -(-rows // ROWS) * ROWS, cols
    work = rows * depth * cols
    if depth == 0 or work == 0:
        y[...] = 0.0
        return y
    if work > SMALL:
        row_block = 256
        if rows <= 2 * row_block * get_num_threads():
            block = max(2 * LANES, -(-cols // (4 * get_num_threads() * 2 * LANES)) * 2 * LANES)
    items = -(-rows // row_block) * -(-cols // block)

    def body(first: int, last: int) -> None:
        _multiply(first, last, flat, a_rows, stride_k, depth, cols, b.data, y.reshape(-1), y_rows, row_block, block)

    run(body, items, 1)
    return y
