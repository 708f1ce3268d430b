"""A convolution of bytes on tiles: a thread puts a border around some images, and multiplies them while they are near.

The rows of the product lie in the bordered image (see `intconv.py`). That image is written to a work space which the
thread's own cache holds, and read a few microseconds later: memory sees the codes once, and the sums once. Threads
meet once, at the end, and Python is called once.

An *item* for a thread is some whole images, or a strip of one image's output where images are few and large.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinyqnn.kernels import tiled, tiles
from tinyqnn.kernels.jit import get_num_threads, jit, share
from tinyqnn.kernels.reference import conv2d_output_size
from tinyqnn.kernels.simd import copy
from tinyqnn.kernels.turns import leave, take

__all__ = ["Plan", "convolve", "plan"]

Array = np.ndarray
Pair = tuple[int, int]

FEW, MANY = 256, 1024  # rows of the product in an item: so often is each byte of w used, so much space is taken
ITEMS = 32  # so many if there are rows enough


class Plan(NamedTuple):
    """Where everything is, for images of one size; units are groups of four bytes.

    places     (R,) the upper left corner of each output pixel in the work space of the largest item
    runs       what lies under the filter, see `tiled.runs_of`
    items      how many; if they are strips, so many of each image
    strips
    fewest     rows of the product in the smallest item
    out        lines and pixels a line of an output image
    stride     lines from an output line to the next
    span       lines under the filter
    space      bytes of the work space
    """

    places: Array
    runs: tuple[tuple[int, int], ...]
    items: int
    strips: int
    fewest: int
    out: Pair
    stride: int
    span: int
    space: int


@lru_cache(maxsize=256)
def plan(
    n: int, image: Pair, unit: int, filters: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Plan:
    """The plan for `n` images of pixels of `unit` groups, and so many filters.

    >>> plan(32, (16, 16), 32, 128, (3, 3), (1, 1), (1, 1), (1, 1)).items
    32
    >>> plan(1, (64, 64), 32, 128, (3, 3), (1, 1), (1, 1), (1, 1)).strips
    16
    """
    out = conv2d_output_size(image, kernel, stride, padding, dilation)
    if min(out) < 1:
        raise ValueError(
            f"images of {image} with padding {padding} are smaller than the filter {kernel} of dilation {dilation}"
        )
    pixels, span, line = out[0] * out[1], (kernel[0] - 1) * dilation[0] + 1, (image[1] + 2 * padding[1]) * unit
    wanted = min(max(n * pixels // ITEMS, FEW, tiled.PAYS // (4 * unit * kernel[0] * kernel[1] * filters)), MANY)
    strips = min(max(1, pixels // wanted), out[0])
    items = n * strips if strips > 1 else max(1, min(n, n * pixels // wanted))
    most, lines = (
        (1, -(-out[0] // strips)) if strips > 1 else (-(-n // items), out[0])
    )  # images of an item, their lines
    fewest = out[0] // strips * out[1] if strips > 1 else n // items * pixels
    tall = (lines - 1) * stride[0] + span  # lines of an image in the work space
    down, right = np.arange(lines)[:, None] * stride[0] * line, np.arange(out[1]) * stride[1] * unit
    places = np.arange(most)[:, None, None] * tall * line + down + right
    taps = np.arange(kernel[0])[:, None] * dilation[0] * line + np.arange(kernel[1]) * dilation[1] * unit
    runs = tiled.runs_of((taps[:, :, None] + np.arange(unit)).reshape(-1))
    return Plan(places.reshape(-1), runs, items, strips, fewest, out, stride[0], span, 4 * most * tall * line)


@jit
def _clear(data, o, end):
    for k in range(o, end):
        data[k] = 0


@jit
def _line(x, i, size, channels, data, o, unit, twice, low, high):
    """`size` bytes from `x[i]`, pixels of `channels`, to `data[o]`, pixels of `unit` bytes.

    With `twice` a byte becomes 2·byte + 1, and the answer is whether all were between low and high.
    """
    smallest = largest = x[i]
    if unit != channels:
        for p in range(size // channels):
            for c in range(unit):
                if c < channels:
                    byte = x[i + p * channels + c]
                    smallest, largest = min(smallest, byte), max(largest, byte)
                    data[o + p * unit + c] = 2 * byte + 1 if twice else byte
                else:
                    data[o + p * unit + c] = 0
    elif twice:  # two plain loops over places that cannot be negative, which the compiler turns into vectors
        source, target = x[i : i + size], data[o : o + size]
        for k in range(size):
            target[k] = 2 * source[k] + 1
        for byte in source:
            smallest, largest = min(smallest, byte), max(largest, byte)
    else:
        copy(data, o, x, i, size)
    return not twice or (low <= smallest and largest <= high)


@jit
def _border(x, images, first, last, image, border, twice, limits, data):
    """Lines first … last of some bordered images, one image after another; were all within the limits?"""
    (_, lines, width, channels, unit), (up, left), (low, high), o, good = image, border, limits, 0, True
    side, size = left * unit, width * channels
    for i in range(images[0], images[1]):
        for r in range(first - up, last - up):
            end = o + 2 * side + width * unit
            if 0 <= r < lines:
                _clear(data, o, o + side)
                good &= _line(x, (i * lines + r) * size, size, channels, data, o + side, unit, twice, low, high)
                _clear(data, end - side, end)
            else:
                _clear(data, o, end)
            o = end
    return good


@jit
def _convolve(
    seat, x, image, border, twice, limits, items, strips, out, stride, span, space, places, table, steps, columns, b,
    height, cols, piece, near, y, stairs, refused,
):  # fmt: skip
    """Items, and for each `piece` pairs of tiles of w, of which `near` fit into the cache."""
    data, room = tiled.space(space, x), tiled.room(len(steps) // 2, near, x)
    pairs, n, (lines, width), mine = len(columns) // 2, image[0], out, take(seat)
    tiles.configure(table)
    while mine >= 0:
        item, pair = mine % items, mine // items * piece
        if strips > 1:
            images, strip = (item // strips, item // strips + 1), item % strips
            first, last = strip * lines // strips, (strip + 1) * lines // strips
        else:
            images, first, last = (item * n // items, (item + 1) * n // items), 0, lines
        if not _border(x, images, first * stride, (last - 1) * stride + span, image, border, twice, limits, data):
            refused[0] = True
        rows, end = (images[1] - images[0]) * (last - first) * width, min(pair + piece, pairs)
        to = tiles.address(y) + (images[0] * lines + first) * width * cols * y.itemsize
        for p in range(pair, end, near):
            tiled.product(
                data, places[:rows], 0, rows, steps, columns, b, p, min(p + near, end), height, cols, room, to, stairs,
            )  # fmt: skip
        mine = take(seat)
    tiles.release()
    leave(seat)


def convolve(
    x: Array, image: tuple[int, int, int, int, int], border: Pair, limits: Pair | None, where: Plan,
    panels: tiled.Panels, y: Array, stairs: Array | None = None,
) -> bool:  # fmt: skip
    """y (pixels, N) int32, or codes with a stairs_table: bytes (images, H, W, C), int8 or uint8, as `where` says.

    image      images, lines, pixels a line, channels, and bytes of a pixel in the work space, a multiple of four
    limits     None, or of x, whose bytes stand for 2·x + 1; False where one lies outside
    """
    n, depth, pairs = y.shape[1], len(panels.steps) // 2, len(panels.columns) // 2
    height, piece, refused = min(where.fewest, tiles.ROWS), pairs, np.zeros(1, np.bool_)
    threads = get_num_threads() if y.size * depth * tiles.STEP > tiled.PAYS else 1
    if where.items < 4 * threads > 1:
        piece = max(1, -(-pairs * where.items // (4 * threads)))
    near = max(1, tiled.CACHED // (depth * 2 * tiled.TILE))
    share(
        _convolve, where.items * -(-pairs // piece), x.reshape(-1), image, border, limits is not None, limits or (0, 0),
        where.items, where.strips, where.out, where.stride, where.span, where.space, where.places,
        tiles.shape(height, min(n, tiles.COLUMNS)), *panels, height, n, piece, near, y.reshape(-1), stairs, refused,
    )  # fmt: skip
    return not refused[0]
