"""The gradient to a convolution's filters on tile registers: a product over all pixels of all images.

    gw[o, tap, c] = Σ over pixels   gy[pixel, o] · x[pixel + tap, c]

Both images lie on a line of pixels, zeros between their rows, so that a tap is a shift along the line. A right factor
lies in pairs of pixels, which only an even shift leaves whole; so x is packed twice, from its first pixel on and from
its second. Strides other than 1 go the ordinary way.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyqnn.kernels import tiles, turns
from tinyqnn.kernels.jit import aligned, jit, scratch, share
from tinyqnn.kernels.simd import at, copy
from tinyqnn.kernels.thirds import BYTES, DEPTH, ROWS, STEP, TILE, begin, dot, dot_three, end, pack_panel, parts
from tinyqnn.kernels.units import THIRDS, tries, worth

if TYPE_CHECKING:
    from tinyqnn.kernels.conv import Plan

__all__ = ["grad_weight"]

Array = np.ndarray

SPACE = 1 << 21  # bytes of images that a thread works on at a time


class Grid(NamedTuple):
    """The images as one line of pixels, in which the zeros behind a row, or an image, are the next one's border too.

    high, wide   rows from an image to the next, and pixels from a row to the next, an even number
    first        where the first pixel lies
    shifts       from a pixel of gy to that of x which belongs to it, for each tap
    """

    high: int
    wide: int
    first: int
    shifts: Array


@lru_cache(maxsize=256)
def _grid(plan: Plan, taps: tuple[tuple[int, int], ...], y_size: tuple[int, int]) -> Grid:
    (h, w, _), (top, left), (hp, wp) = plan.size, plan.corner, plan.padded
    high, wide = max(h + max(top, hp - h - top), y_size[0]), max(w + max(left, wp - w - left), y_size[1])
    first = top * wide + left
    return Grid(high, wide, first, np.array([first + dh * wide + dw for dh, dw in taps]))


@jit(forceinline=True)
def _lay_out(x, n0, n1, size, channels, grid, first, line):
    """Images n0 … n1 on the line, zeros between them."""
    (h, w), (high, wide) = size, grid
    for n in range(n0, n1):
        for i in range(h):
            copy(line, (first + ((n - n0) * high + i) * wide) * channels, x, (n * h + i) * w * channels, w * channels)


@jit
def _grad_weight(
    seat, table, walk, n_images, batch, x, unit, gy, x_size, y_size, c_in, c_out, grid, first, taps, reach, third, turn,
    sums, line, line_y, space, space_y, block, spoiled,
):  # fmt: skip
    """Slices of the images, each with sums of its own: (slice, outputs, taps · channels), all in sixteens.

    From the thirds of x to the next there are `third` bytes, from its first packing to the second `turn`.
    """
    in_panels, out_panels, depth = (c_in + ROWS - 1) // ROWS, (c_out + ROWS - 1) // ROWS, batch * grid[0] * grid[1]
    n_slices, count, steps = len(sums), len(taps) * in_panels, (depth + DEPTH - 1) // DEPTH
    cols, panel = 4 * ROWS * count, steps * BYTES
    xs, ys, way, spare = tiles.address(space), tiles.address(space_y), tiles.address(walk), tiles.address(block)
    line[:] = 0.0
    line_y[:] = 0.0
    x_parts, y_parts = parts(unit), parts(THIRDS)
    x_panel = x_parts * third
    tiles.configure(table)
    item = turns.take(seat)
    while item >= 0:
        m0, m1 = item * n_images // n_slices, (item + 1) * n_images // n_slices
        out = tiles.address(sums) + item * out_panels * ROWS * cols
        for n0 in range(m0, m1, batch):
            n1 = min(n0 + batch, m1)
            if n1 - n0 < batch:
                line_y[:] = 0.0
            _lay_out(x, n0, n1, x_size, c_in, grid, first, line)
            _lay_out(gy, n0, n1, y_size, c_out, grid, 0, line_y)
            for c in range(0, c_in, ROWS):
                left, to = min(ROWS, c_in - c), xs + c // ROWS * x_panel
                good = pack_panel(line, c, 1, c_in, left, reach, False, unit, block, to, TILE, third)
                good &= pack_panel(line, c + c_in, 1, c_in, left, reach, False, unit, block, to + turn, TILE, third)
                if not good:
                    spoiled[0] = 1
            for o in range(0, c_out, ROWS):
                left, to = min(ROWS, c_out - o), ys + o // ROWS * panel
                if not pack_panel(line_y, o, 1, c_out, left, depth, True, THIRDS, block, to, BYTES, TILE):
                    spoiled[0] = 1
            for m in range(0, count, 2 if out_panels > 1 else 3):
                mb, mc = min(m + 1, count - 1), min(m + 2, count - 1)
                wa = xs + at(taps, m // in_panels) + m % in_panels * x_panel
                wb = xs + at(taps, mb // in_panels) + mb % in_panels * x_panel
                wc = xs + at(taps, mc // in_panels) + mc % in_panels * x_panel
                if out_panels == 1:
                    if n0 == m0:
                        tiles.zero(0)
                        tiles.zero(1)
                        tiles.zero(2)
                    else:
                        tiles.load(0, out + 64 * m, cols)
                        tiles.load(1, out + 64 * mb, cols)
                        tiles.load(2, out + 64 * mc, cols)
                    dot_three(wa, wb, wc, 64, third, way, ys, TILE, BYTES, steps, spare, x_parts, y_parts, False)
                    tiles.store(0, out + 64 * m, cols)
                    tiles.store(1, out + 64 * mb, cols)
                    tiles.store(2, out + 64 * mc, cols)
                else:
                    for p in range(0, out_panels, 2):
                        q = min(p + 1, out_panels - 1)
                        to, right, below = out + p * ROWS * cols + 64 * m, 64 * (mb - m), (q - p) * ROWS * cols
                        if n0 == m0:
                            tiles.zero(0)
                            tiles.zero(1)
                            tiles.zero(2)
                            tiles.zero(3)
                        else:
                            begin(to, cols, right, below)
                        ya, yb = ys + p * panel, ys + q * panel
                        dot(ya, yb, 64, TILE, way + 8 * steps, wa, wb, third, TILE, steps, spare, y_parts, x_parts)
                        end(to, cols, right, below)
        item = turns.take(seat)
    tiles.release()
    turns.leave(seat)


@jit
def _add_up(seat, sums, factor, n_taps, channels, c_in, gw):
    """gw (O, C, taps) = factor · Σ sums (slice, O, taps · channels), in order."""
    o = turns.take(seat)
    while o >= 0:
        for c in range(c_in):
            for t in range(n_taps):
                total = np.float32(0.0)
                for part in range(len(sums)):
                    total += sums[part, o, t * channels + c]
                gw[o, c, t] = factor * total
        o = turns.take(seat)
    turns.leave(seat)


def grad_weight(plan: Plan, taps: tuple[tuple[int, int], ...], gy: Array, x: Array, n_slices: int) -> Array | None:
    """gw (O, C, taps) of a convolution of stride 1, from gy and x channels-last; None where a number is not finite.

    `taps` are (rows, columns) from a pixel of y to that of x; the images are cut into `n_slices`.
    """
    tried = (_grad_with(plan, taps, gy, x, unit, n_slices) for unit in tries(x.reshape(-1)))
    return next((gw for gw in tried if gw is not None), None)


def _grad_with(
    plan: Plan, taps: tuple[tuple[int, int], ...], gy: Array, x: Array, unit: np.float32, n_slices: int
) -> Array | None:
    """One try."""
    (n, *y_size, c_out), (h, w, c_in) = gy.shape, plan.size
    grid, spoiled = _grid(plan, taps, tuple(y_size)), np.zeros(1, np.int64)
    ins, outs, pixels = -(-c_in // ROWS) * ROWS, -(-c_out // ROWS) * ROWS, grid.high * grid.wide
    images = -(-n // n_slices)
    batch = max(1, min(images, SPACE // (((8 if unit else 16) * ins + 10 * outs) * pixels)))
    batch = -(-images // -(-images // batch))  # turns of equal length
    steps = -(-batch * pixels // DEPTH)
    reach = steps * DEPTH + int(grid.shifts.max())
    third = -(-reach // DEPTH) * TILE
    turn = ins // ROWS * (1 if unit else 3) * third
    offsets, count = grid.shifts % 2 * turn + grid.shifts // 2 * 64, np.arange(steps)
    walk = np.concatenate([count * TILE, count * BYTES])
    sums = aligned(n_slices * outs * len(taps) * ins).reshape(n_slices, outs, -1)
    x_flat, gy_flat, gw = x.reshape(-1), gy.reshape(-1), np.empty((c_out, c_in, len(taps)), np.float32)

    def call(seat: Array) -> None:
        _grad_weight(
            seat, tiles.shape(ROWS, ROWS), walk, n, batch, x_flat, unit, gy_flat, (h, w), tuple(y_size), c_in, c_out,
            grid[:2], grid.first, offsets, reach, third, turn, sums, scratch((reach + 1) * c_in, slot=1),
            scratch(batch * pixels * c_out, slot=2), scratch(2 * turn // 4, slot=3),
            scratch(outs // ROWS * steps * STEP, slot=4), scratch(STEP), spoiled,
        )  # fmt: skip

    share(call, n_slices)
    if spoiled[0]:
        return None
    share(_add_up, c_out, sums, worth(unit, THIRDS), len(taps), ins, c_in, gw)
    return gw
