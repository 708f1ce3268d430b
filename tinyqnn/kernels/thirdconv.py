"""Convolutions of float32 images on tile registers: images are cut into thirds once, and tiles are loaded from them.

Channels-last, the numbers under one row of a filter are neighbours in the image, and those of the next pixel begin one
step of pixels further. That is all a tile load wants to know, an address and a distance between rows: sixteen pixels of
a row of the result are sixteen rows of a left factor, which nobody has to lay out. Filters are panels of a right one.

    y[pixel, o] = bias[o] + Σ over runs, k   image[place of pixel + run + k] · w[run, k, o]

The addresses are those of the `Plan` that `conv.py` makes; a run is cut into steps of 32 numbers, and what the last
step reads behind its run meets zeros in w. Where a row of the result has fewer than sixteen pixels a tile goes on with
the next row, over the border between them, and what it makes of the border is thrown away.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyqnn.kernels import tiles, turns
from tinyqnn.kernels.jit import aligned, jit, scratch, share
from tinyqnn.kernels.simd import at
from tinyqnn.kernels.thirds import (
    DEPTH,
    ROWS,
    STEP,
    TILE,
    begin,
    cut_line,
    dot,
    dot_three,
    end,
    pack_panel,
    parts,
    put_sums,
)
from tinyqnn.kernels.units import tries, worth

if TYPE_CHECKING:
    from tinyqnn.kernels.conv import Plan

__all__ = ["correlate", "pays"]

Array = np.ndarray

LEAST = 128  # products a number of the result; fewer do not pay for cutting
FEW, MANY = 3 << 17, 5 << 18  # bytes of images that are multiplied at a time
SLACK = 512  # numbers behind the last image that a step may read


def pays(plan: Plan, groups: int, c_in: int, c_out: int) -> bool:
    """Are tiles the quickest way to such a convolution?"""
    return groups == 1 and min(c_in, c_out) >= ROWS and len(plan.taps) * c_in >= LEAST and tiles.allowed()


class Layout(NamedTuple):
    """Where tiles lie, of every class of pixels.

    shapes    (classes, 64) as `tiles.configure` wants them
    classes   (first tile, tiles an image, first step, steps, bytes between pixels, rows of a tile, first row, rows to
              the next tile's, numbers between results' pixels)
    places    where in an image's copy the first pixel of each tile lies
    targets   and where in the image of the result
    rows      where each row of a tile belongs, from the target on, or -1; one tile's for all if they are alike
    channels  the channel of each number of a filter's steps
    taps      and its tap, or -1: a 0
    walk      bytes from a pixel to each of its steps
    """

    shapes: Array
    classes: Array
    places: Array
    targets: Array
    rows: Array
    channels: Array
    taps: Array
    walk: Array


def _tiles_of(pixels: Array, results: Array, between: int, below: int, pitch: int) -> tuple[Array, Array, Array, int]:
    """Places, targets and rows (see Layout) of one class's tiles, and their height.

    Pixels lie `between` numbers apart, rows of them `below`; there are `pitch` pixels in a row and its border.
    """
    high, wide = pixels.shape
    if pitch and wide < ROWS and below == pitch * between:  # a tile goes on over the border between rows
        line = np.full((high, pitch), -1)
        line[:, :wide] = results
        line = line.ravel()[: (high - 1) * pitch + wide]
        height = -(-len(line) // -(-len(line) // ROWS))
        first = np.arange(0, len(line), height)
        rows = np.append(line, np.full(len(first) * height - len(line), -1))
        return pixels[0, 0] + first * between, first * 0, rows, height
    height = -(-wide // -(-wide // ROWS))
    first = np.minimum(np.arange(0, wide, height), wide - height)  # the last is moved to the left until it fits
    return pixels[:, first].ravel(), results[:, first].ravel(), np.zeros(0, np.int64), height


@lru_cache(maxsize=256)
def _layout(plan: Plan) -> Layout:
    shapes: list[Array] = []
    classes: list[tuple[int, ...]] = []
    walk: list[int] = []
    tables: list[list[Array]] = [[np.zeros(0, np.int64)] for _ in range(5)]
    places, targets, rows, channels, taps = tables
    c = plan.size[2]
    for (p0, _, run0, run1, numbers, _, tap0), (high, wide) in zip(plan.classes.tolist(), plan.extents):
        pixels, results = (table[p0 : p0 + high * wide].reshape(high, wide) for table in (plan.pixels, plan.targets))
        between = int(pixels[0, 1] - pixels[0, 0]) if wide > 1 else c
        below = int(pixels[1, 0] - pixels[0, 0]) if high > 1 else 0
        pitch = plan.padded[1] if between == c else 0  # with other strides tiles end where rows end
        begun, to, scattered, height = _tiles_of(pixels, results, between, below, pitch)
        steps = -(-numbers // DEPTH)
        apart = int(results[0, 1] - results[0, 0]) if wide > 1 else 0
        shapes.append(tiles.shape(height, ROWS))
        classes.append(
            (
                sum(len(table) for table in places),
                len(begun),
                len(walk),
                (run1 - run0) * steps,
                2 * between,
                height,
                sum(len(table) for table in rows),
                height if len(scattered) else 0,
                apart,
            )
        )
        places.append(begun)
        targets.append(to)
        rows.append(scattered if len(scattered) else np.arange(height) * apart)
        number = np.arange(steps * DEPTH)
        for r, run in enumerate(plan.runs[run0:run1].tolist()):
            walk += [2 * (run + DEPTH * s) for s in range(steps)]
            in_run = np.append(plan.taps[tap0 + r * numbers // c :][: numbers // c], -1)
            channels.append(number % c)
            taps.append(in_run[np.minimum(number, numbers) // c])
    joined = [np.concatenate(table) for table in tables]
    return Layout._make([np.stack(shapes), np.array(classes), *joined, np.array(walk, np.int64)])


@jit(forceinline=True)
def _scatter(sums, height, rows, factor, plus, out):
    """Rows of a tile at the address `sums`, 128 bytes apart, times factor and plus a bias, where the table says."""
    for r in range(height):
        to = tiles.whole(rows + 8 * r)
        if to >= 0:
            put_sums(sums + 128 * r, factor, plus, out + 4 * to)


@jit
def _correlate(
    seat, n_images, batch, x, unit, size, corner, padded, third, shapes, classes, places, targets, rows, walk, w,
    of_w, c_out, zeros, bias, factor, y, y_size, space, sums, spare, spoiled,
):  # fmt: skip
    """Batches of images of y."""
    h, wide, c = size
    panels, images, weights = (c_out + ROWS - 1) // ROWS, tiles.address(space), tiles.address(w)
    plus, none = tiles.address(bias), np.int64(0)
    spare_, here = tiles.address(spare), tiles.address(sums)
    pitch, y_pitch = 2 * padded[0] * padded[1] * c, 4 * y_size
    x_parts, w_parts = parts(unit), parts(of_w)
    step = w_parts * TILE
    space[:] = 0.0
    item = turns.take(seat)
    while item >= 0:
        n0, n1 = item * batch, min(item * batch + batch, n_images)
        for n in range(n0, n1):
            for i in range(h):
                place = (n - n0) * pitch + 2 * ((corner[0] + i) * padded[1] + corner[1]) * c
                if not cut_line(x, (n * h + i) * wide * c, wide * c, unit, images + place, third):
                    spoiled[0] = 1
        result = tiles.address(y) + n0 * y_pitch
        for k in range(len(classes)):
            tile0, per_image, step0, steps, stride, height, row0, next_rows, between = classes[k]
            count = per_image * (n1 - n0)
            way, filters = tiles.address(walk) + 8 * step0, weights + panels * step0 * step
            table, straight = tiles.address(rows) + 8 * row0, next_rows == 0 and factor == 1
            start = plus if straight else tiles.address(zeros)
            tiles.configure(shapes[k])
            for j in range(0, panels, 2):
                ja, w0 = 4 * min(j * ROWS, c_out - ROWS), filters + j * steps * step
                jb, w1 = 4 * min((j + 1) * ROWS, c_out - ROWS), w0 + steps * step
                alone = j + 1 == panels
                for e in range(0, count, 3 if alone else 2):
                    ea, eb, ec = e, min(e + 1, count - 1), min(e + 2, count - 1)
                    na, nb, nc = ea // per_image, eb // per_image, ec // per_image
                    ta, tb, tc = ea - na * per_image, eb - nb * per_image, ec - nc * per_image
                    xa = images + na * pitch + 2 * at(places, tile0 + ta)
                    xb = images + nb * pitch + 2 * at(places, tile0 + tb)
                    xc = images + nc * pitch + 2 * at(places, tile0 + tc)
                    ya = result + na * y_pitch + 4 * at(targets, tile0 + ta)
                    yb = result + nb * y_pitch + 4 * at(targets, tile0 + tb)
                    yc = result + nc * y_pitch + 4 * at(targets, tile0 + tc)
                    ra, rb, rc = table + 8 * next_rows * ta, table + 8 * next_rows * tb, table + 8 * next_rows * tc
                    if alone:
                        tiles.load(0, start + ja, none)
                        tiles.load(1, start + ja, none)
                        tiles.load(2, start + ja, none)
                        dot_three(xa, xb, xc, stride, third, way, w0, TILE, step, steps, spare_, x_parts, w_parts, True)
                        if straight:
                            tiles.store(0, ya + ja, 4 * between)
                            tiles.store(1, yb + ja, 4 * between)
                            tiles.store(2, yc + ja, 4 * between)
                        else:
                            tiles.store(0, here, 128)
                            tiles.store(1, here + 64, 128)
                            tiles.store(2, here + 2048, 128)
                            _scatter(here, height, ra, factor, plus + ja, ya + ja)
                            _scatter(here + 64, height, rb, factor, plus + ja, yb + ja)
                            _scatter(here + 2048, height, rc, factor, plus + ja, yc + ja)
                    else:
                        begin(start + ja, none, jb - ja, none)
                        dot(xa, xb, stride, third, way, w0, w1, TILE, step, steps, spare_, x_parts, w_parts)
                        if straight:
                            end(ya + ja, 4 * between, jb - ja, yb - ya)
                        else:
                            end(here, 128, 64, 2048)
                            _scatter(here, height, ra, factor, plus + ja, ya + ja)
                            _scatter(here + 64, height, ra, factor, plus + jb, ya + jb)
                            _scatter(here + 2048, height, rb, factor, plus + ja, yb + ja)
                            _scatter(here + 2048 + 64, height, rb, factor, plus + jb, yb + jb)
        item = turns.take(seat)
    tiles.release()
    turns.leave(seat)


@jit
def _pack_filters(seat, w, lane, numbers, unit, classes, c_out, rows, space, panels, spoiled):
    """Filters as panels of a right factor: (class, panel, step)."""
    step = parts(unit) * TILE
    count = (c_out + ROWS - 1) // ROWS
    panel = turns.take(seat)
    while panel >= 0:
        first = min(panel * ROWS, c_out - ROWS)
        for k in range(len(classes)):
            step0, steps = classes[k, 2], classes[k, 3]
            depth, table = steps * DEPTH, numbers[step0 * DEPTH : (step0 + steps) * DEPTH]
            for r in range(ROWS):
                row, begun = rows[r * depth : (r + 1) * depth], (first + r) * lane
                for q in range(depth):
                    number = at(w, begun + max(table[q], 0))
                    row[q] = number if table[q] >= 0 else np.float32(0)
            to = tiles.address(panels) + (count * step0 + panel * steps) * step
            if not pack_panel(rows, 0, depth, 1, ROWS, depth, False, unit, space, to, step, TILE):
                spoiled[0] = 1
        panel = turns.take(seat)
    turns.leave(seat)


def correlate(plan: Plan, x: Array, w: Array, lane: int, channel: int, c_out: int, bias: Array, y: Array) -> bool:
    """y (N, H', W', O) of images x (N, H, W, C); False, and nothing of use in y, where a number is not finite.

    In w the next output channel is `lane` numbers on, the next input channel `channel`, and taps lie side by side.
    """
    layout, source = _layout(plan), x.reshape(-1)
    for of_w in tries(w):
        panels = _filters(layout, w, lane, _numbers(plan, channel), of_w, c_out)
        if panels is not None:
            return any(_images(plan, layout, source, unit, panels, of_w, c_out, bias, y) for unit in tries(source))
    return False


@lru_cache(maxsize=256)
def _numbers(plan: Plan, channel: int) -> Array:
    """Where in a filter each number of its steps lies, or -1: a 0."""
    layout = _layout(plan)
    return np.where(layout.taps >= 0, layout.channels * channel + layout.taps, -1)


def _filters(layout: Layout, w: Array, lane: int, numbers: Array, unit: np.float32, c_out: int) -> Array | None:
    """Filters as panels, in one try; None if it fails."""
    spoiled, count, steps = np.zeros(1, np.int64), -(-c_out // ROWS), len(layout.walk)
    panels = aligned(count * steps * STEP)
    share(
        lambda seat: _pack_filters(
            seat, w, lane, numbers, unit, layout.classes, c_out,
            scratch(ROWS * steps * DEPTH, slot=1), scratch(STEP), panels, spoiled,
        ),
        count,
    )  # fmt: skip
    return None if spoiled[0] else panels


def _images(
    plan: Plan, layout: Layout, x: Array, unit: np.float32, panels: Array, of_w: np.float32, c_out: int, bias: Array,
    y: Array,
) -> bool:  # fmt: skip
    """The images, in one try; whether it did not fail."""
    spoiled, n, y_size, result = np.zeros(1, np.int64), len(y), y[0].size, y.reshape(-1)
    number = 2 if unit else 6  # bytes
    room = max(FEW, min(MANY, 4 * len(panels)))  # if there are many filters, images should not ask for them often
    batch = max(1, min(-(-n // 4), room // (number * plan.pitch)))
    third = -(-(batch * plan.pitch + SLACK) // 32) * 64
    zeros, factor = np.zeros(c_out, np.float32), worth(unit, of_w)

    def call(seat: Array) -> None:
        _correlate(
            seat, n, batch, x, unit, plan.size, plan.corner, plan.padded, third, layout.shapes, layout.classes,
            layout.places, layout.targets, layout.rows, layout.walk, panels, of_w, c_out, zeros, bias, factor, result,
            y_size, scratch(number * third // 8, slot=1), scratch(TILE, slot=2), scratch(STEP), spoiled,
        )  # fmt: skip

    share(call, -(-n // batch))
    return not spoiled[0]
