"""Products of bytes on tile registers: 32 × 32 sums at a time, from two tiles of x and two of w.

    y[m, n] = Σ_k x[m, k] · w[n, k]

Four loads feed four tile products, and that is the best that eight tiles allow. The numbers of a row of x lie in *runs*
of neighbours: a matrix has one, a filter of an image one for each of its rows. A run is cut into steps of 64 bytes, and
what a last step reads behind its run meets zeros in w. How rows come to where tiles can load them, `near.py` tells.

A tile product is finished 52 steps of the clock after it began, and the next may begin after 16. So sums are stored one
block late, each between two products of the next block's first step: stored at once they would be waited for, and with
them whatever comes behind. Weights are read from the second cache past the first, which so keeps the rows of x.

There are no ragged edges: the last tile is moved up, or to the left, until it fits, and a few sums are made twice. A
product with less than sixteen rows or columns has tiles of its own shape.

Threads take pieces of the result from a common counter, so that whoever is free has work, and Python is called once.

Sums may step up the stairs to the next layer's codes (`requantize.py`) as soon as they are made: then sums of 32 bits
never reach the memory, which for them would be the slowest part.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from tinyqnn.kernels import tiles
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, share
from tinyqnn.kernels.near import TILE, bring, parts
from tinyqnn.kernels.simd import at
from tinyqnn.kernels.turns import leave, take

__all__ = ["Panels", "aligned_bytes", "multiply", "pack_panels", "product", "room", "runs_of", "shares", "space",
           "stairs_table"]  # fmt: skip

Array = np.ndarray

PAIR = 2 * tiles.ROWS  # rows of y, and columns, in a piece's innermost block
AHEAD = 12  # steps: so far before a tile of w is wanted it is asked for, where few rows leave nothing else to do
CACHED = 1 << 20  # bytes of w that a core keeps at hand
PAYS = 1 << 24  # products of two bytes from which a second thread pays
EACH = 1 << 24  # of them that a thread takes at a time: some 8 µs


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
    """`tiles.dot_bytes`: unsigned where array x is of unsigned bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = "tdpbusd" if x.dtype == types.uint8 else "tdpbssd"
        tiles._emit(builder, f"{word} %tmm{b.literal_value}, %tmm{a.literal_value}, %tmm{c.literal_value}")
        return context.get_dummy_value()

    return types.void(c, a, b, x), codegen


# Helpers take addresses: with arrays for arguments Numba would count references at each call, which costs more than
# what they do.


@jit(forceinline=True)
def _step_up(sums, height, stairs, count, line, codes, cols, lanes):
    """The codes of a tile's sums; `line` bytes from a row of the stairs to the next."""
    low, up, edges = tiles.numbers(stairs), tiles.numbers(stairs + line), stairs + 2 * line
    e0 = tiles.numbers(edges)
    if count == 1:
        for r in range(height):
            x = tiles.numbers(sums + r * tiles.STEP)
            tiles.put_bytes(tiles.reach(low, x, e0, up), codes + r * cols, lanes)
    elif count == 3:
        e1, e2 = tiles.numbers(edges + line), tiles.numbers(edges + 2 * line)
        for r in range(height):
            x = tiles.numbers(sums + r * tiles.STEP)
            code = tiles.reach(tiles.reach(tiles.reach(low, x, e0, up), x, e1, up), x, e2, up)
            tiles.put_bytes(code, codes + r * cols, lanes)
    else:
        for r in range(height):
            x = tiles.numbers(sums + r * tiles.STEP)
            code = tiles.reach(low, x, e0, up)
            for e in range(1, count):
                code = tiles.reach(code, x, tiles.numbers(edges + e * line), up)
            tiles.put_bytes(code, codes + r * cols, lanes)


@jit
def _climb(count, sums, i0, i1, j0, j1, height, stairs, edges, line, codes, cols, lanes):
    """The codes of `count` tiles of sums, of which the first two are of rows from i0 on."""
    for k in range(count):
        i, j = i1 if k > 1 else i0, j1 if k % 2 else j0
        _step_up(sums + k * TILE, height, stairs + 4 * j, edges, line, codes + i * cols + j, cols, lanes)


@jit
def space(count, like):
    """`count` uninitialised bytes of the type of those in `like` that begin on a cache line, and a step more."""
    raw = np.empty(count + 2 * tiles.STEP, like.dtype)
    return raw[-tiles.address(raw) & 63 :]


@jit
def room(depth, pairs, like):
    """What `product` wants for itself: for rows of x, and for a block of sums, and one for each pair of tiles."""
    return space((2 * depth + 4 + 4 * pairs) * TILE, like)


@jit
def product(x, places, first, last, steps, columns, b, pair, end, height, cols, room, y, stairs):
    """Rows first … last of x times pairs of tiles of w; `y` is where row 0 of the sums lies, or of codes with stairs.

    A row that is moved up is row 0 at least, so there must be `height` of them.
    """
    m, depth, lanes, kind = len(places), len(steps) // 2, min(cols, tiles.COLUMNS), at(x, 0)
    rows, walk, data, w, space = (
        tiles.address(places), tiles.address(steps), tiles.address(x), tiles.address(b), tiles.address(room),
    )  # fmt: skip
    sums, low, i, cuts = space + 2 * depth * TILE, m - height, first, parts(kind, depth)
    y0, y1, y2, y3, wide = sums, sums + TILE, sums + 2 * TILE, sums + 3 * TILE, np.int64(tiles.STEP)
    i0 = i1 = j0 = j1 = np.int64(0)
    due = False  # are codes to be made of the sums that are stored next?
    while i < last and i < low:
        e0, e1 = i, min(i + tiles.ROWS, low)
        for cut in range(cuts):
            s0, s1 = cut * depth // cuts, (cut + 1) * depth // cuts
            x0, stride0, t0 = bring(kind, data, rows + 8 * e0, walk, s0, s1, depth, height, space)
            x1, stride1, t1 = bring(kind, data, rows + 8 * e1, walk, s0, s1, depth, height, space + TILE)
            for p in range(pair, end):
                from_, part = w + (p * depth + s0) * 2 * TILE, sums + (4 + 4 * (p - pair)) * TILE
                tiles.stream(6, from_, tiles.STEP)
                tiles.stream(7, from_ + TILE, tiles.STEP)
                tiles.load(4, x0 + at(steps, t0 + s0), stride0)
                tiles.load(5, x1 + at(steps, t1 + s0), stride1)
                tiles.store(0, y0, wide)  # the block before, while the products of this one begin
                tiles.begin(0, part if s0 > 0 else 0)
                dot(0, 4, 6, x)
                tiles.store(1, y1, wide)
                tiles.begin(1, part + TILE if s0 > 0 else 0)
                dot(1, 4, 7, x)
                tiles.store(2, y2, wide)
                tiles.begin(2, part + 2 * TILE if s0 > 0 else 0)
                dot(2, 5, 6, x)
                tiles.store(3, y3, wide)
                tiles.begin(3, part + 3 * TILE if s0 > 0 else 0)
                dot(3, 5, 7, x)
                for s in range(s0 + 1, s1):
                    from_ += 2 * TILE
                    tiles.stream(6, from_, tiles.STEP)
                    tiles.stream(7, from_ + TILE, tiles.STEP)
                    tiles.load(4, x0 + at(steps, t0 + s), stride0)
                    tiles.load(5, x1 + at(steps, t1 + s), stride1)
                    dot(0, 4, 6, x)
                    dot(1, 4, 7, x)
                    dot(2, 5, 6, x)
                    dot(3, 5, 7, x)
                if stairs is not None and due:
                    _climb(4, sums, i0, i1, j0, j1, height, tiles.address(stairs), len(stairs) - 2,
                           4 * stairs.shape[1], y, cols, lanes)  # fmt: skip
                i0, i1, j0, j1, due = e0, e1, at(columns, 2 * p), at(columns, 2 * p + 1), s1 == depth
                if s1 < depth:
                    y0, y1, y2, y3, wide = part, part + TILE, part + 2 * TILE, part + 3 * TILE, np.int64(tiles.STEP)
                elif stairs is not None:
                    y0, y1, y2, y3, wide = sums, sums + TILE, sums + 2 * TILE, sums + 3 * TILE, np.int64(tiles.STEP)
                else:
                    above, below, wide = y + 4 * i0 * cols, y + 4 * i1 * cols, np.int64(4 * cols)
                    y0, y1, y2, y3 = above + 4 * j0, above + 4 * j1, below + 4 * j0, below + 4 * j1
        i += PAIR
    tiles.store(0, y0, wide)
    tiles.store(1, y1, wide)
    tiles.store(2, y2, wide)
    tiles.store(3, y3, wide)
    if stairs is not None and due:
        _climb(4, sums, i0, i1, j0, j1, height, tiles.address(stairs), len(stairs) - 2, 4 * stairs.shape[1], y, cols,
               lanes)  # fmt: skip
    if i < last:  # few rows are left, and what takes the time is reading w
        x0, stride0, t0 = bring(kind, data, rows + 8 * low, walk, 0, depth, depth, height, space)
        for p in range(pair, end):
            tiles.zero(0)
            tiles.zero(1)
            from_ = w + p * depth * 2 * TILE
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
                tiles.store(0, sums, tiles.STEP)
                tiles.store(1, sums + TILE, tiles.STEP)
                _climb(2, sums, low, low, j0, j1, height, tiles.address(stairs), len(stairs) - 2,
                       4 * stairs.shape[1], y, cols, lanes)  # fmt: skip
            else:
                tiles.store(0, y + 4 * (low * cols + j0), 4 * cols)
                tiles.store(1, y + 4 * (low * cols + j1), 4 * cols)


@jit
def _multiply(seat, table, x, places, steps, columns, b, height, cols, many, piece, y, stairs):
    """Pieces of the result: `many` rows, and `piece` pairs of tiles of w."""
    m, pairs = len(places), len(columns) // 2
    groups, mine, own = -(-m // many), take(seat), room(len(steps) // 2, piece, b)
    tiles.configure(table)
    while mine >= 0:
        first, pair = mine % groups * many, mine // groups * piece
        product(
            x, places, first, min(first + many, m), steps, columns, b, pair, min(pair + piece, pairs), height, cols,
            own, tiles.address(y), stairs,
        )  # fmt: skip
        mine = take(seat)
    tiles.release()
    leave(seat)


def shares(m: int, n: int, depth: int, threads: int) -> tuple[int, int]:
    """How many rows, and pairs of tiles of w, a thread takes at a time.

    >>> shares(1024, 1024, 16, 1), shares(1024, 1024, 16, 2), shares(16384, 64, 9, 2), shares(64, 1024, 16, 2)
    ((1024, 32), (32, 32), (448, 2), (32, 8))
    """
    pairs = -(-n // PAIR)
    piece = min(pairs, max(1, CACHED // (depth * 2 * TILE)))
    if threads == 1:
        return m, piece
    many = PAIR * max(1, EACH // (PAIR * min(n, piece * PAIR) * depth * tiles.STEP))
    many = min(many, max(PAIR, m // (4 * threads) // PAIR * PAIR))
    groups = -(-m // many)
    if groups < 4 * threads:
        piece = min(piece, max(1, -(-pairs * groups // (4 * threads))))
    return many, piece


def stairs_table(edges: Array, first: Array, direction: Array) -> Array:
    """Stairs (`requantize.Stairs`) as numbers of 32 bits, of which sixteen are read at a time: (2 + E, columns)."""
    table = np.concatenate([np.stack([first, direction]).astype(np.int32), edges])
    return np.pad(table, ((0, 0), (0, max(0, tiles.COLUMNS - table.shape[1]))))


def multiply(x: Array, places: Array, panels: Panels, y: Array, stairs: Array | None = None) -> None:
    """y (M, N) int32, or codes with a stairs_table: rows of x, as `near.bring` finds them, times w."""
    (m, n), depth = y.shape, len(panels.steps) // 2
    pieces, table, *sizes = _plan(m, n, depth, get_num_threads())
    share(_multiply, pieces, table, x, places, *panels, *sizes, y if stairs is None else y.view(np.int8), stairs)


@lru_cache(maxsize=256)
def _plan(m: int, n: int, depth: int, threads: int) -> tuple[Any, ...]:
    """How many pieces a product has, the shape of its tiles, and what is the same for all of its pieces."""
    many, piece = shares(m, n, depth, threads if m * n * depth * tiles.STEP > PAYS else 1)
    height = min(m, tiles.ROWS)
    pieces = -(-m // many) * -(-n // (PAIR * piece))
    return pieces, tiles.shape(height, min(n, tiles.COLUMNS)), height, n, many, piece
