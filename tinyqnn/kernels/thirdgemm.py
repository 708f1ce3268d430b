"""Products of float32 matrices on tile registers: blocks of the result, made of factors cut into thirds.

    y[i, j] = bias[j] + Σ_k a[i, k] · b[k, j]

To cut a number takes a tenth of the time of its products, if it is cut once. So the smaller factor is cut beforehand,
by all threads, and each block of the result cuts the part of the larger one that it alone needs. Where k is long and
the result small, blocks are stretches of k instead, which need no number in common; their sums are added up at the end.
The blocks depend on the shapes only, so the result does not depend on the number of threads.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from functools import lru_cache

import numpy as np

from tinyqnn.kernels import tiles, turns
from tinyqnn.kernels.jit import aligned, jit, scratch, share
from tinyqnn.kernels.thirds import (
    BYTES,
    DEPTH,
    ROWS,
    STEP,
    TILE,
    begin,
    dot,
    end,
    flat,
    pack_panel,
    parts,
    put_sums,
)
from tinyqnn.kernels.units import THIRDS, tries, worth

__all__ = ["cut", "matmul", "pays"]

Array = np.ndarray

BLOCK = 1 << 20  # bytes of panels that a core cuts at a time and keeps at hand
STRETCHES = 8  # of k
LONG = 8 * DEPTH  # numbers of k that a stretch has cut at a time
LEAST = 1 << 22  # multiplications; fewer are done sooner without cutting and without a second thread
CHUNK = 1 << 15  # numbers that a thread cuts at a time
PAIR = 2 * ROWS


def pays(rows: int, depth: int, cols: int) -> bool:
    """Are tiles the quickest way to such a product?"""
    return rows * depth * cols >= LEAST and min(rows, cols) >= ROWS and depth >= DEPTH and tiles.allowed()


@jit
def _cut(seat, chunk, x, across, along, rows, depth, left, unit, panels, space, spoiled):
    """`chunk` panels of x at a time; the last panel is moved up until it fits."""
    step = parts(unit) * TILE
    pitch, count = (depth + DEPTH - 1) // DEPTH * step, (rows + ROWS - 1) // ROWS
    item = turns.take(seat)
    while item >= 0:
        for panel in range(item * chunk, min(item * chunk + chunk, count)):
            start, to = min(panel * ROWS, rows - ROWS) * across, tiles.address(panels) + panel * pitch
            if not pack_panel(x, start, across, along, ROWS, depth, left, unit, space, to, step, TILE):
                spoiled[0] = 1
        item = turns.take(seat)
    turns.leave(seat)


@jit
def _by_blocks(
    seat, table, walk, a, across, along, left, block, unit, ready, of_ready, rows, cols, depth, zeros, bias, factor, y,
    space, here, sums, spoiled,
):  # fmt: skip
    """`block` rows of a left factor a, or columns of a right one, at a time, times all of the other, which is ready."""
    steps, none, spare = (depth + DEPTH - 1) // DEPTH, np.int64(0), tiles.address(space)
    count, others = (rows, cols) if left else (cols, rows)
    plus, out, table_, made = tiles.address(bias), tiles.address(y), tiles.address(walk), tiles.address(sums)
    start = plus if factor == 1 else tiles.address(zeros)
    of_x, of_w = (parts(unit), parts(of_ready)) if left else (parts(of_ready), parts(unit))
    step, x_pitch, w_pitch = parts(unit) * TILE, steps * of_x * TILE, steps * of_w * TILE
    tiles.configure(table)
    item = turns.take(seat)
    while item >= 0:
        first, last = item * block, min(item * block + block, count)
        for p in range(first, last, ROWS):
            to, begun = tiles.address(here) + (p - first) // ROWS * steps * step, min(p, count - ROWS) * across
            if not pack_panel(a, begun, across, along, ROWS, depth, left, unit, space, to, step, TILE):
                spoiled[0] = 1
        x, w = tiles.address(here if left else ready), tiles.address(ready if left else here)
        for p in range(0, others, PAIR):
            for q in range(first, last, PAIR):
                i, j = (q, p) if left else (p, q)
                i_end, j_end = (last, others) if left else (others, last)
                ia, ib = min(i, rows - ROWS), min(i + ROWS if i + ROWS < i_end else i, rows - ROWS)
                ja, jb = min(j, cols - ROWS), min(j + ROWS if j + ROWS < j_end else j, cols - ROWS)
                xa = x + (q - first if left else p) // ROWS * x_pitch
                wa = w + (p if left else q - first) // ROWS * w_pitch
                xb, wb = xa + x_pitch if i + ROWS < i_end else xa, wa + w_pitch if j + ROWS < j_end else wa
                begin(start + 4 * ja, none, 4 * (jb - ja), none)
                dot(xa, xb, 64, TILE, table_, wa, wb, TILE, of_w * TILE, steps, spare, of_x, of_w)
                if factor == 1:
                    end(out + 4 * (ia * cols + ja), 4 * cols, 4 * (jb - ja), 4 * cols * (ib - ia))
                else:
                    end(made, 128, 64, 2048)
                    for r in range(2 * ROWS):
                        row = (ia if r < ROWS else ib - ROWS) + r
                        put_sums(made + 128 * r, factor, plus + 4 * ja, out + 4 * (row * cols + ja))
                        put_sums(made + 128 * r + 64, factor, plus + 4 * jb, out + 4 * (row * cols + jb))
        item = turns.take(seat)
    tiles.release()
    turns.leave(seat)


@jit
def _by_stretches(
    seat, table, walk, a, a_across, a_along, a_unit, b, b_across, b_along, b_unit, rows, cols, depth, long, sums, space,
    here, spoiled,
):  # fmt: skip
    """Stretches of `long` numbers of k, each with sums of its own, which are whole tiles: (stretch, rows, cols)."""
    high, wide = (rows + PAIR - 1) // PAIR * PAIR, (cols + PAIR - 1) // PAIR * PAIR
    table_, x, spare = tiles.address(walk), tiles.address(here), tiles.address(space)
    of_a, of_b = parts(a_unit), parts(b_unit)
    a_step, b_step = of_a * TILE, of_b * TILE
    tiles.configure(table)
    item = turns.take(seat)
    while item >= 0:
        out = tiles.address(sums) + 4 * item * high * wide
        for k in range(item * long, min(item * long + long, depth), LONG):
            count = min(LONG, item * long + long - k, depth - k)
            steps = (count + DEPTH - 1) // DEPTH
            a_pitch, b_pitch, to = steps * a_step, steps * b_step, x
            for i in range(0, high, ROWS):
                begun, left = min(i, rows - 1) * a_across + k * a_along, max(0, min(ROWS, rows - i))
                if not pack_panel(a, begun, a_across, a_along, left, count, True, a_unit, space, to, a_step, TILE):
                    spoiled[0] = 1
                to += a_pitch
            for j in range(0, wide, ROWS):
                begun, left = min(j, cols - 1) * b_across + k * b_along, max(0, min(ROWS, cols - j))
                if not pack_panel(b, begun, b_across, b_along, left, count, False, b_unit, space, to, b_step, TILE):
                    spoiled[0] = 1
                to += b_pitch
            w = x + high // ROWS * a_pitch
            for i in range(0, high, PAIR):
                xa = x + i // ROWS * a_pitch
                for j in range(0, wide, PAIR):
                    wa, place = w + j // ROWS * b_pitch, out + 4 * (i * wide + j)
                    if k == item * long:
                        tiles.zero(0)
                        tiles.zero(1)
                        tiles.zero(2)
                        tiles.zero(3)
                    else:
                        begin(place, 4 * wide, 4 * ROWS, 4 * ROWS * wide)
                    dot(xa, xa + a_pitch, 64, TILE, table_, wa, wa + b_pitch, TILE, b_step, steps, spare, of_a, of_b)
                    end(place, 4 * wide, 4 * ROWS, 4 * ROWS * wide)
        item = turns.take(seat)
    tiles.release()
    turns.leave(seat)


@jit
def _add_up(seat, sums, factor, bias, y):
    """y = bias + factor · Σ sums, in order, row by row."""
    cols = y.shape[1]
    row = turns.take(seat)
    while row >= 0:
        for j in range(cols):
            y[row, j] = bias[j]
        for p in range(len(sums)):
            for j in range(cols):
                y[row, j] += factor * sums[p, row, j]
        row = turns.take(seat)
    turns.leave(seat)


@lru_cache(maxsize=64)
def _walk(depth: int, unit: np.float32) -> Array:
    """Where the steps of a panel lie: one behind the other."""
    return np.arange(-(-depth // DEPTH)) * _step(unit)


def _step(unit: np.float32) -> int:
    """Bytes of a step."""
    return TILE if unit else BYTES


def cut(b: Array, left: bool = False) -> tuple[Array, np.float32] | None:
    """A right factor (K, N), or a left one (M, K), as panels, and its unit; None if a number is not finite."""
    x, across, along = flat(b if left else b.T)
    rows, depth = b.shape if left else b.shape[::-1]
    for unit in tries(x):
        panels = _panels(x, across, along, rows, depth, left, unit)
        if panels is not None:
            return panels, unit
    return None


def _panels(x: Array, across: int, along: int, rows: int, depth: int, left: bool, unit: np.float32) -> Array | None:
    """The panels of one try."""
    panels, spoiled, chunk = -(-rows // ROWS), np.zeros(1, np.int64), max(1, CHUNK // (ROWS * depth))
    to = aligned(panels * -(-depth // DEPTH) * _step(unit) // 4)
    share(
        lambda seat: _cut(seat, chunk, x, across, along, rows, depth, left, unit, to, scratch(STEP), spoiled),
        -(-panels // chunk),
    )
    return None if spoiled[0] else to


def matmul(a: Array, b: Array, bias: Array, out: Array) -> bool:
    """out = a @ b + bias; False, and nothing of use in out, where a number is not finite."""
    if a.shape[1] < 2 * max(out.shape):
        return _in_blocks(a, b, bias, out)
    units = tries(flat(a)[0])[0], tries(flat(b)[0])[0]
    return any(_in_stretches(a, b, of_both, bias, out) for of_both in (units, (THIRDS, THIRDS)))


def _in_blocks(a: Array, b: Array, bias: Array, out: Array) -> bool:
    left = len(a) >= b.shape[1]  # which factor is cut block by block
    ready = cut(b) if left else cut(a, left=True)
    if ready is None:
        return False
    x = flat(a if left else b.T)
    return any(_blocks(*x, a.shape[1], left, unit, *ready, bias, out) for unit in tries(x[0]))


def _blocks(
    x: Array, across: int, along: int, depth: int, left: bool, unit: np.float32, ready: Array, of_ready: np.float32,
    bias: Array, out: Array,
) -> bool:  # fmt: skip
    """One try."""
    (rows, cols), spoiled = out.shape, np.zeros(1, np.int64)
    count, steps, step = max(rows, cols), -(-depth // DEPTH), _step(unit)
    block = max(PAIR, min(BLOCK * DEPTH // (step * depth), -(-count // 4)) // PAIR * PAIR)
    zeros, factor = np.zeros(cols, np.float32), worth(unit, of_ready)
    walk = _walk(depth, unit if left else of_ready)

    def call(seat: Array) -> None:
        _by_blocks(
            seat, tiles.shape(ROWS, ROWS), walk, x, across, along, left, block, unit, ready, of_ready,
            rows, cols, depth, zeros, bias, factor, out.reshape(-1), scratch(STEP),
            scratch(block // ROWS * steps * step // 4, slot=1), scratch(TILE, slot=2), spoiled,
        )  # fmt: skip

    share(call, -(-count // block))
    return not spoiled[0]


def _in_stretches(a: Array, b: Array, units: tuple[np.float32, ...], bias: Array, out: Array) -> bool:
    """One try."""
    (rows, cols), depth, spoiled = out.shape, a.shape[1], np.zeros(1, np.int64)
    high, wide = -(-rows // PAIR) * PAIR, -(-cols // PAIR) * PAIR
    long = -(-depth // STRETCHES // LONG) * LONG
    sums = aligned(-(-depth // long) * high * wide).reshape(-1, high, wide)
    left, right, here = flat(a), flat(b.T), (high + wide) // ROWS * (LONG // DEPTH) * STEP

    def call(seat: Array) -> None:
        _by_stretches(
            seat, tiles.shape(ROWS, ROWS), _walk(LONG, units[0]), *left, units[0], *right, units[1], rows, cols, depth,
            long, sums, scratch(STEP), scratch(here, slot=1), spoiled,
        )  # fmt: skip

    share(call, len(sums))
    if not spoiled[0]:
        share(_add_up, rows, sums, worth(*units), bias, out)
    return not spoiled[0]
