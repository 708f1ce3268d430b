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
from numba.core import types
from numba.extending import intrinsic

from tinyqnn.kernels import tiles
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, share
from tinyqnn.kernels.simd import at
from tinyqnn.kernels.turns import leave, take

__all__ = ["Panels", "aligned_bytes", "multiply", "pack_panels", "product", "runs_of", "space", "stairs_table"]

Array = np.ndarray

PAIR = 2 * tiles.ROWS  # rows of y, and columns, in a piece's innermost block
TILE = tiles.ROWS * tiles.STEP  # bytes
AHEAD = 12  # steps: so far before a tile of w is wanted it is asked for, where few rows leave nothing else to do
CACHED = 1 << 20  # bytes of w that a core keeps at hand
PAYS = 1 << 24  # products of two bytes from which a second thread pays


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


@intrinsic(prefer_literal=True)
def dot(typingctx: Any, c: Any, a: Any, b: Any, x: Any) -> Any:
    """`tiles.dot_bytes`, signed as the numbers of array x."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = "tdpbssd" if x.dtype.signed else "tdpbusd"
        tiles._emit(builder, f"{word} %tmm{b.literal_value}, %tmm{a.literal_value}, %tmm{c.literal_value}")
        return context.get_dummy_value()

    return types.void(c, a, b, x), codegen


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


@jit
def space(count, like):
    """`count` uninitialised bytes of the type of those in `like` that begin on a cache line, and a step more."""
    raw = np.empty(count + 2 * tiles.STEP, like.dtype)
    return raw[-tiles.address(raw) & 63 :]


@jit
def product(x, places, first, last, steps, columns, b, pair, end, height, cols, gathered, y, here, stairs):
    """Rows first … last of x times pairs of tiles of w; `y` is where row 0 of the sums lies, or of codes with stairs.

    A row that is moved up is row 0 at least, so there must be `height` of them.
    """
    m, depth, lanes = len(places), len(steps) // 2, min(cols, tiles.COLUMNS)
    rows, walk, data, w, space = (
        tiles.address(places), tiles.address(steps), tiles.address(x), tiles.address(b), tiles.address(gathered),
    )  # fmt: skip
    tile_sums = tiles.address(here)
    for i in range(first, last, PAIR):
        i0, i1 = min(i, m - height), min(i + tiles.ROWS, m - height)
        x0, stride0, t0 = _rows(data, rows + 8 * i0, walk, depth, height, space)
        x1, stride1, t1 = x0, stride0, t0
        if i1 > i0:
            x1, stride1, t1 = _rows(data, rows + 8 * i1, walk, depth, height, space + TILE)
        for p in range(pair, end):
            tiles.zero(0)
            tiles.zero(1)
            from_ = w + p * depth * 2 * TILE
            if i1 > i0:
                tiles.zero(2)
                tiles.zero(3)
                for s in range(depth):
                    tiles.stream(6, from_ + s * 2 * TILE, tiles.STEP)
                    tiles.stream(7, from_ + s * 2 * TILE + TILE, tiles.STEP)
                    tiles.load(4, x0 + at(steps, t0 + s), stride0)
                    tiles.load(5, x1 + at(steps, t1 + s), stride1)
                    dot(0, 4, 6, x)
                    dot(1, 4, 7, x)
                    dot(2, 5, 6, x)
                    dot(3, 5, 7, x)
            else:  # few rows: what takes the time is reading w
                for s in range(depth):
                    tiles.expect(from_ + (s + AHEAD) * 2 * TILE)
                    tiles.expect(from_ + (s + AHEAD) * 2 * TILE + TILE)
                    tiles.load(6, from_ + s * 2 * TILE, tiles.STEP)
                    tiles.load(7, from_ + s * 2 * TILE + TILE, tiles.STEP)
                    tiles.load(4, x0 + at(steps, t0 + s), stride0)
                    dot(0, 4, 6, x)
                    dot(1, 4, 7, x)
            j0, j1 = at(columns, 2 * p), at(columns, 2 * p + 1)
            if stairs is not None:
                line, half, f = 4 * stairs.shape[1], 4 * tiles.COLUMNS, tiles.address(stairs)
                tiles.store(0, tile_sums, 4 * PAIR)
                tiles.store(1, tile_sums + half, 4 * PAIR)
                if i1 > i0:
                    tiles.store(2, tile_sums + 2 * TILE, 4 * PAIR)
                    tiles.store(3, tile_sums + 2 * TILE + half, 4 * PAIR)
                for k in range(4 if i1 > i0 else 2):
                    i_, c = i1 if k > 1 else i0, 4 * (j1 if k % 2 else j0)
                    tile, out = tile_sums + k // 2 * 2 * TILE + k % 2 * half, y + i_ * cols + c // 4
                    _step_up(tile, height, f + c, len(stairs) - 2, line, out, cols, lanes)
            else:
                tiles.store(0, y + 4 * (i0 * cols + j0), 4 * cols)
                tiles.store(1, y + 4 * (i0 * cols + j1), 4 * cols)
                if i1 > i0:
                    tiles.store(2, y + 4 * (i1 * cols + j0), 4 * cols)
                    tiles.store(3, y + 4 * (i1 * cols + j1), 4 * cols)


@jit
def _multiply(seat, table, x, places, steps, columns, b, height, cols, many, piece, y, stairs):
    """Pieces of the result: `many` rows, and `piece` pairs of tiles of w."""
    m, depth, pairs = len(places), len(steps) // 2, len(columns) // 2
    groups, here, gathered = -(-m // many), space(4 * PAIR * PAIR, b), space(depth * 2 * TILE, b)
    mine = take(seat)
    tiles.configure(table)
    while mine >= 0:
        first, pair = mine % groups * many, mine // groups * piece
        product(
            x, places, first, min(first + many, m), steps, columns, b, pair, min(pair + piece, pairs), height, cols,
            gathered, tiles.address(y), here, stairs,
        )  # fmt: skip
        mine = take(seat)
    tiles.release()
    leave(seat)


def stairs_table(edges: Array, first: Array, direction: Array) -> Array:
    """Stairs (`requantize.Stairs`) as numbers of 32 bits, of which sixteen are read at a time: (2 + E, columns)."""
    table = np.concatenate([np.stack([first, direction]).astype(np.int32), edges])
    return np.pad(table, ((0, 0), (0, max(0, tiles.COLUMNS - table.shape[1]))))


def multiply(a: Array, places: Array, panels: Panels, signed: bool, y: Array, stairs: Array | None = None) -> None:
    """y (M, N) int32, or codes with a stairs_table: rows at `places`, in groups of four bytes of a, times w."""
    m, n = y.shape
    steps, columns, data = panels
    height, depth, col_pairs = min(m, tiles.ROWS), len(steps) // 2, len(columns) // 2
    threads = get_num_threads() if m * n * depth * tiles.STEP > PAYS else 1
    many, piece = PAIR if threads > 1 else m, max(1, CACHED // (depth * 2 * TILE))  # rows, and pairs of tiles of w
    pieces = -(-m // many)
    if threads > 1 and pieces < 4 * threads:
        piece = min(piece, max(1, -(-col_pairs * pieces // (4 * threads))))
    pieces *= -(-col_pairs // piece)
    octets, flat = a.view(np.int8 if signed else np.uint8), y.reshape(-1)
    arguments = tiles.shape(height, min(n, tiles.COLUMNS)), octets, places, steps, columns, data, height, n
    share(_multiply, pieces, *arguments, many, piece, flat if stairs is None else flat.view(np.int8), stairs)
