"""Products of bytes on tile registers: 32 × 32 sums at a time, from two tiles of x and two of w.

    y[m, n] = Σ_k x[m, k] · w[n, k]

Four loads feed four tile products, and that is the best that eight tiles allow. The numbers of a row of x lie in *runs*
of neighbours: a matrix has one, a filter of an image one for each of its rows. A run is cut into steps of 64 bytes, and
what a last step reads behind its run meets zeros in w. Sixteen rows at equal distances are loaded where they lie;
others, such as pixels on both sides of an image's edge, are gathered first.

There are no ragged edges: the last tile is moved up, or to the left, until it fits, and a few sums are made twice. A
product with less than sixteen rows or columns has tiles of its own shape.

Threads take pieces of the result from a common counter, so that whoever is free has work, and Python is called once.

Sums may step up the stairs to the next layer's codes (`requantize.py`) as soon as they are made: then sums of 32 bits
never reach the memory, which for them would be the slowest part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels import tiles, turns
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, run, scratch
from tinyqnn.kernels.simd import at

__all__ = ["Panels", "aligned_bytes", "multiply", "pack_panels", "runs_of", "stairs_table"]

Array = np.ndarray

PAIR = 2 * tiles.ROWS  # rows of y, and columns, in a piece's innermost block
TILE = tiles.ROWS * tiles.STEP  # bytes
AHEAD = 12  # steps: so far before a tile of w is wanted it is asked for, where few rows leave nothing else to do
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


# The two helpers take addresses: with arrays for arguments Numba would count references at each call, which costs more
# than what they do.


@jit(forceinline=True)
def _rows(a, places, steps, depth, height, gathered):
    """Sixteen rows of x, whose places begin at `places`: address, stride, and which steps lead through them."""
    first, stride = 4 * tiles.whole(places), np.int64(tiles.STEP)
    if height > 1:
        stride = 4 * tiles.whole(places + 8) - first
    even = True
    for r in range(2, height):
        even &= 4 * tiles.whole(places + 8 * r) - first == r * stride
    if even:
        return a + first, stride, 0
    for r in range(height):
        place = a + 4 * tiles.whole(places + 8 * r)
        for s in range(depth):
            tiles.copy_step(gathered + s * 2 * TILE + r * tiles.STEP, place + tiles.whole(steps + 8 * s))
    return gathered, np.int64(tiles.STEP), depth


@jit(forceinline=True)
def _step_up(sums, height, stairs, count, line, codes, cols, lanes):
    """The codes of a tile's sums, in rows PAIR numbers apart; `line` bytes from a row of the stairs to the next."""
    low, up, edges = tiles.numbers(stairs), tiles.numbers(stairs + line), stairs + 2 * line
    e0 = tiles.numbers(edges)
    if count == 1:
        for r in range(height):
            x = tiles.numbers(sums + r * 4 * PAIR)
            tiles.put_bytes(tiles.reach(low, x, e0, up), codes + r * cols, lanes)
    elif count == 3:
        e1, e2 = tiles.numbers(edges + line), tiles.numbers(edges + 2 * line)
        for r in range(height):
            x = tiles.numbers(sums + r * 4 * PAIR)
            code = tiles.reach(tiles.reach(tiles.reach(low, x, e0, up), x, e1, up), x, e2, up)
            tiles.put_bytes(code, codes + r * cols, lanes)
    else:
        for r in range(height):
            x = tiles.numbers(sums + r * 4 * PAIR)
            code = tiles.reach(low, x, e0, up)
            for e in range(1, count):
                code = tiles.reach(code, x, tiles.numbers(edges + e * line), up)
            tiles.put_bytes(code, codes + r * cols, lanes)


def _make_multiply(signed: bool, to_codes: bool) -> Any:
    """The loop below for signed bytes of x, or for unsigned ones; sums to y, or codes."""

    @jit
    def multiply(counter, table, a, places, steps, columns, b, height, cols, piece, pieces, gathered, y, sums, stairs):
        m, depth, lanes = len(places), len(steps) // 2, min(cols, tiles.COLUMNS)
        row_pairs, col_pairs = -(-m // PAIR), len(columns) // 2
        weights, images, to, here = tiles.address(b), tiles.address(a), tiles.address(y), tiles.address(sums)
        rows, walk, space = tiles.address(places), tiles.address(steps), tiles.address(gathered)
        taken = tiles.address(counter)
        tiles.configure(table)
        while True:
            mine = turns.add(taken, 0, 1)
            if mine >= pieces:
                break
            i = mine % row_pairs * PAIR
            i0, i1 = min(i, m - height), min(i + tiles.ROWS, m - height)
            x0, stride0, t0 = _rows(images, rows + 8 * i0, walk, depth, height, space)
            x1, stride1, t1 = x0, stride0, t0
            if i1 > i0:
                x1, stride1, t1 = _rows(images, rows + 8 * i1, walk, depth, height, space + TILE)
            j = mine // row_pairs * piece
            for pair in range(j, min(j + piece, col_pairs)):
                tiles.zero(0)
                tiles.zero(1)
                w = weights + pair * depth * 2 * TILE
                if i1 > i0:
                    tiles.zero(2)
                    tiles.zero(3)
                    for s in range(depth):
                        tiles.stream(6, w + s * 2 * TILE, tiles.STEP)
                        tiles.stream(7, w + s * 2 * TILE + TILE, tiles.STEP)
                        tiles.load(4, x0 + at(steps, t0 + s), stride0)
                        tiles.load(5, x1 + at(steps, t1 + s), stride1)
                        tiles.dot_bytes(0, 4, 6, signed)
                        tiles.dot_bytes(1, 4, 7, signed)
                        tiles.dot_bytes(2, 5, 6, signed)
                        tiles.dot_bytes(3, 5, 7, signed)
                else:  # few rows: what takes the time is reading w
                    for s in range(depth):
                        tiles.expect(w + (s + AHEAD) * 2 * TILE)
                        tiles.expect(w + (s + AHEAD) * 2 * TILE + TILE)
                        tiles.load(6, w + s * 2 * TILE, tiles.STEP)
                        tiles.load(7, w + s * 2 * TILE + TILE, tiles.STEP)
                        tiles.load(4, x0 + at(steps, t0 + s), stride0)
                        tiles.dot_bytes(0, 4, 6, signed)
                        tiles.dot_bytes(1, 4, 7, signed)
                j0, j1 = at(columns, 2 * pair), at(columns, 2 * pair + 1)
                if to_codes:
                    line, half, f = 4 * stairs.shape[1], 4 * tiles.COLUMNS, tiles.address(stairs)
                    tiles.store(0, here, 4 * PAIR)
                    tiles.store(1, here + half, 4 * PAIR)
                    if i1 > i0:
                        tiles.store(2, here + 2 * TILE, 4 * PAIR)
                        tiles.store(3, here + 2 * TILE + half, 4 * PAIR)
                    for k in range(4 if i1 > i0 else 2):
                        i, c = i1 if k > 1 else i0, 4 * (j1 if k % 2 else j0)
                        tile, out = here + k // 2 * 2 * TILE + k % 2 * half, to + i * cols + c // 4
                        _step_up(tile, height, f + c, len(stairs) - 2, line, out, cols, lanes)
                else:
                    tiles.store(0, to + 4 * (i0 * cols + j0), 4 * cols)
                    tiles.store(1, to + 4 * (i0 * cols + j1), 4 * cols)
                    if i1 > i0:
                        tiles.store(2, to + 4 * (i1 * cols + j0), 4 * cols)
                        tiles.store(3, to + 4 * (i1 * cols + j1), 4 * cols)
        tiles.release()

    return multiply


_KERNELS = {(signed, codes): _make_multiply(signed, codes) for signed in (True, False) for codes in (True, False)}


def stairs_table(edges: Array, first: Array, direction: Array) -> Array:
    """Stairs (`requantize.Stairs`) as numbers of 32 bits, of which sixteen are read at a time: (2 + E, columns)."""
    table = np.concatenate([np.stack([first, direction]).astype(np.int32), edges])
    return np.pad(table, ((0, 0), (0, max(0, tiles.COLUMNS - table.shape[1]))))


def multiply(a: Array, places: Array, panels: Panels, signed: bool, y: Array, stairs: Array | None = None) -> None:
    """y (M, N) int32, or codes with a stairs_table: rows at `places`, in groups of four bytes of a, times w."""
    m, n = y.shape
    steps, columns, data = panels
    height, depth, col_pairs = min(m, tiles.ROWS), len(steps) // 2, len(columns) // 2
    threads, row_pairs = get_num_threads(), -(-m // PAIR)
    piece = max(1, CACHED // (depth * 2 * TILE))  # pairs of tiles of w
    if row_pairs < 4 * threads > 1:
        piece = min(piece, max(1, -(-col_pairs * row_pairs // (4 * threads))))
    pieces, counter = row_pairs * -(-col_pairs // piece), np.zeros(1, np.int64)
    table, octets = tiles.shape(height, min(n, tiles.COLUMNS)), a.view(np.int8)
    kernel, flat = _KERNELS[signed, stairs is not None], y.reshape(-1)
    if stairs is not None:
        flat = flat.view(np.int8)

    def body(first: int, last: int) -> None:
        gathered = scratch(depth * 2 * TILE // 4, slot=2).view(np.int8)
        sums = scratch(PAIR * PAIR, slot=3).view(np.int32)
        kernel(
            counter, table, octets, places, steps, columns, data, height, n, piece, pieces, gathered, flat, sums, stairs
        )

    run(body, min(threads, pieces), 1)
