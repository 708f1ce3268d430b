"""Products of bytes on tile registers: 32 × 32 sums at a time, from two tiles of x and two of w.

    y[m, n] = Σ_k x[m, k] · w[n, k]

Four loads feed four tile products, and that is the best that eight tiles allow. The numbers of a row of x lie in *runs*
of neighbours: a matrix has one, a filter of an image one for each of its rows. A run is cut into steps of 64 bytes, and
what a last step reads behind its run meets zeros in w. Sixteen rows at equal distances are loaded where they lie;
others, such as pixels on both sides of an image's edge, are gathered first.

There are no ragged edges: the last tile is moved up, or to the left, until it fits, and a few sums are made twice. A
product with less than sixteen rows or columns has tiles of its own shape.

Threads take pieces of the result from a common counter, so that whoever is free has work, and Python is called once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels import tiles
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, run, scratch
from tinyqnn.kernels.simd import at, copy

__all__ = ["Panels", "aligned_bytes", "multiply", "pack_panels", "runs_of"]

Array = np.ndarray

PAIR = 2 * tiles.ROWS  # rows of y, and columns, in a piece's innermost block
TILE = tiles.ROWS * tiles.STEP  # bytes
CACHED = 1 << 20  # bytes of w that a core keeps at hand


class Panels(NamedTuple):
    """Weights as tiles, for one way in which the rows of x lie.

    steps      (2 · depth,) where each step of 64 bytes lies: in a row of x, and then among gathered rows
    columns    (even,) the first column of each tile of w
    data       bytes: (pair of tiles, step, tile, four of k, column, k)
    """

    steps: Array
    columns: Array
    data: Array


def aligned_bytes(count: int) -> Array:
    """`count` uninitialised bytes that begin on a cache line, and a step more that may be read."""
    found: Array = aligned(-(-(count + tiles.STEP) // 4)).view(np.int8)
    return found


def runs_of(walk: Array) -> tuple[tuple[int, int], ...]:
    """Where neighbours begin and how many there are: (offset, length) of each run of a walk.

    >>> runs_of(np.array([0, 1, 2, 10, 11, 12]))
    ((0, 3), (10, 3))
    """
    ends = np.flatnonzero(np.diff(walk) != 1) + 1
    first, last = np.append(0, ends), np.append(ends, len(walk))
    return tuple(zip(walk[first].tolist(), (last - first).tolist()))


def pack_panels(groups: Array, runs: tuple[tuple[int, int], ...]) -> Panels:
    """Weights (N, groups of four bytes as int32) for rows that lie in `runs` of such groups."""
    n, in_step = len(groups), tiles.STEP // 4
    steps, sources, begun = [], [], 0
    for offset, length in runs:
        for first in range(0, length, in_step):
            steps.append(4 * (offset + first))
            behind = np.arange(first, first + in_step)
            sources.append(np.where(behind < length, begun + behind, groups.shape[1]))  # where there is none, a 0
        begun += length
    padded = np.concatenate([groups, np.zeros((n, 1), groups.dtype)], 1)
    width, depth = min(n, tiles.COLUMNS), len(steps)
    columns = np.minimum(np.arange(0, n, tiles.COLUMNS), n - width)
    columns = np.append(columns, columns[-1:]) if len(columns) % 2 else columns
    rows = padded[columns[:, None] + np.arange(width)][:, :, np.array(sources)]  # (tiles, width, depth, 16)
    data = aligned_bytes(len(columns) * depth * TILE)[: len(columns) * depth * TILE]
    data[:] = 0
    blocks = data.view(np.int32).reshape(len(columns) // 2, depth, 2, in_step, tiles.COLUMNS)
    blocks[..., :width] = rows.reshape(-1, 2, width, depth, in_step).transpose(0, 3, 1, 4, 2)
    return Panels(np.array([*steps, *(2 * TILE * s for s in range(depth))]), columns, data)


@jit(forceinline=True)
def _rows(a, places, steps, i, height, gathered, half):
    """Sixteen rows of x from row i on: address, stride, and which steps lead through them."""
    depth = len(steps) // 2
    first, stride = 4 * at(places, i), np.int64(tiles.STEP)
    if height > 1:
        stride = 4 * at(places, i + 1) - first
    even = True
    for r in range(2, height):
        even &= 4 * at(places, i + r) - first == r * stride
    if even:
        return tiles.address(a) + first, stride, 0
    for r in range(height):
        place = 4 * at(places, i + r)
        for s in range(depth):
            copy(gathered, s * 2 * TILE + half * TILE + r * tiles.STEP, a, place + at(steps, s), tiles.STEP)
    return tiles.address(gathered) + half * TILE, np.int64(tiles.STEP), depth


def _make_multiply(signed: bool) -> Any:
    """The loop below for signed bytes of x, or for unsigned ones."""

    @jit
    def multiply(counter, table, a, places, steps, columns, b, height, cols, piece, pieces, gathered, y):
        m, depth = len(places), len(steps) // 2
        row_pairs, col_pairs = -(-m // PAIR), len(columns) // 2
        weights, sums = tiles.address(b), tiles.address(y)
        tiles.configure(table)
        while True:
            mine = tiles.take(counter)
            if mine >= pieces:
                break
            i = mine % row_pairs * PAIR
            i0, i1 = min(i, m - height), min(i + tiles.ROWS, m - height)
            x0, stride0, t0 = _rows(a, places, steps, i0, height, gathered, 0)
            x1, stride1, t1 = x0, stride0, t0
            if i1 > i0:
                x1, stride1, t1 = _rows(a, places, steps, i1, height, gathered, 1)
            j = mine // row_pairs * piece
            for pair in range(j, min(j + piece, col_pairs)):
                tiles.zero(0)
                tiles.zero(1)
                w = weights + pair * depth * 2 * TILE
                if i1 > i0:
                    tiles.zero(2)
                    tiles.zero(3)
                    for s in range(depth):
                        tiles.load(6, w + s * 2 * TILE, tiles.STEP)
                        tiles.load(7, w + s * 2 * TILE + TILE, tiles.STEP)
                        tiles.load(4, x0 + at(steps, t0 + s), stride0)
                        tiles.load(5, x1 + at(steps, t1 + s), stride1)
                        tiles.dot_bytes(0, 4, 6, signed)
                        tiles.dot_bytes(1, 4, 7, signed)
                        tiles.dot_bytes(2, 5, 6, signed)
                        tiles.dot_bytes(3, 5, 7, signed)
                else:
                    for s in range(depth):
                        tiles.load(6, w + s * 2 * TILE, tiles.STEP)
                        tiles.load(7, w + s * 2 * TILE + TILE, tiles.STEP)
                        tiles.load(4, x0 + at(steps, t0 + s), stride0)
                        tiles.dot_bytes(0, 4, 6, signed)
                        tiles.dot_bytes(1, 4, 7, signed)
                j0, j1 = at(columns, 2 * pair), at(columns, 2 * pair + 1)
                tiles.store(0, sums + 4 * (i0 * cols + j0), 4 * cols)
                tiles.store(1, sums + 4 * (i0 * cols + j1), 4 * cols)
                if i1 > i0:
                    tiles.store(2, sums + 4 * (i1 * cols + j0), 4 * cols)
                    tiles.store(3, sums + 4 * (i1 * cols + j1), 4 * cols)
        tiles.release()

    return multiply


_multiply_signed, _multiply_unsigned = _make_multiply(True), _make_multiply(False)


def multiply(a: Array, places: Array, panels: Panels, signed: bool, y: Array) -> None:
    """y (M, N) int32: rows at `places`, in groups of four bytes of `a`, times the panels."""
    m, n = y.shape
    steps, columns, data = panels
    height, depth, col_pairs = min(m, tiles.ROWS), len(steps) // 2, len(columns) // 2
    threads, row_pairs = get_num_threads(), -(-m // PAIR)
    piece = max(1, CACHED // (depth * 2 * TILE))  # pairs of tiles of w
    if row_pairs < 4 * threads > 1:
        piece = min(piece, max(1, -(-col_pairs * row_pairs // (4 * threads))))
    pieces, counter = row_pairs * -(-col_pairs // piece), np.zeros(1, np.int64)
    table, flat = tiles.shape(height, min(n, tiles.COLUMNS)), y.reshape(-1)
    kernel, octets = _multiply_signed if signed else _multiply_unsigned, a.view(np.int8)

    def body(first: int, last: int) -> None:
        gathered = scratch(depth * 2 * TILE // 4, slot=2).view(np.int8)
        kernel(counter, table, octets, places, steps, columns, data, height, n, piece, pieces, gathered, flat)

    run(body, min(threads, pieces), 1)
