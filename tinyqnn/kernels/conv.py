"""Convolution is a matrix product whose left factor is never written down, only addressed.

The image lies channels-last in memory, so the `kw·C` numbers under one row of the kernel are neighbours: one *run*. For
a tile of a few output pixels and vectors of output channels, the sum over taps and channels is

    for run in runs:                                     # the kernel's rows, kh of them
        for k in range(kw·C):
            acc[r, lane] += image[pixel[r] + run + k] · w[run, k, lane]

and the three convolutions of a training step differ only in who plays the pixel, the run and the lane:

    y    pixels of y, runs over x's neighbourhood, lanes over output channels
    gx   pixels of gx, runs over gy's neighbourhood with the taps flipped, lanes over input channels; with stride s the
         pixels of gx fall into s·s classes, each with its own taps: s·s small convolutions of stride 1
    gw   taps and channels of w, runs over the rows of gy, lanes over output channels

Tables of addresses for the pixels and the runs say which, so the one product of `gemm.py` serves them all, with any
stride, dilation or number of groups. An image that needs a border is first copied into a zero-bordered work space that
stays in the core's own cache. Patches (im2col) are never stored. Where every channel has a kernel of its own
(depthwise) there is no matrix to multiply by: channels go on the lanes, and the taps are added one after the other.
What comes after it, a norm in evaluation or a gradient from elsewhere, is done with a few images at a time, as soon as
they are made; meanwhile the next are asked for.
Where the processor has tile registers, images of sixteen channels and more are theirs: `thirdconv.py`, `thirdgrad.py`.

The reading copy is `reference.py`; it also does the work in float64.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinyqnn.kernels import channels, reference, thirdconv, thirdgrad, tiles, use_reference
from tinyqnn.kernels.gemm import LINE_ROWS, WIDEST, matmul, panel_width, product, product_line, product_pixels
from tinyqnn.kernels.jit import aligned, jit, run, scratch
from tinyqnn.kernels.loops import add_to, column_affine_over, pieces, spread
from tinyqnn.kernels.reference import conv2d_output_size
from tinyqnn.kernels.simd import (
    LANES,
    copy,
    load,
    load_tile,
    multiples,
    offsets,
    scaled,
    spread_row,
    store,
    store_tile,
    transpose,
)

__all__ = ["conv2d", "conv2d_grad_input", "conv2d_grad_weight", "conv2d_output_size"]

Pair = tuple[int, int]
Taps = tuple[Pair, ...]  # (index in the kernel, shift)

WORK_SPACE = 64 * 1024  # float32 numbers of images that a thread works on at a time: a quarter of a 1 MB L2 cache
SLAB = 16  # channels side by side in the work space for gw: a cache line
L1_PIXELS = 128  # pixels summed into a tile of gw at a time, so that they stay in the L1 cache

READ_ONCE = 8  # products that go by while a depthwise kernel fetches a number, of which it makes one product only
DEPTHWISE_PIXELS = 8  # pixels that a depthwise kernel holds in registers
DEPTHWISE_TAPS = 9  # taps of which it holds the sums: a 3×3 kernel in one go

reorders = 0
"""How many arrays were copied because they were not channels-last in memory; a training step should add none."""


class Axis(NamedTuple):
    """The rows (or columns) of the result that have the same taps.

    They are `start, start + every, …`, `length` of them; the `q`-th reads the source at `q·step + shift` for each of
    `taps`, pairs (index in the kernel, shift) sorted by shift.
    """

    start: int
    every: int
    length: int
    step: int
    taps: Taps


def _forward(n_out: int, k: int, s: int, p: int, d: int) -> tuple[Axis, ...]:
    """`y[q]` reads `x[q·s + i·d - p]`."""
    return (Axis(0, 1, n_out, s, tuple((i, i * d - p) for i in range(k))),)


def _backward(n_in: int, k: int, s: int, p: int, d: int) -> tuple[Axis, ...]:
    """`gx[a + q·s]` reads `gy[q + (a + p - i·d) / s]` for those taps i where the division leaves no remainder."""
    axes = []
    for a in range(min(s, n_in)):
        taps = tuple((i, (a + p - i * d) // s) for i in reversed(range(k)) if (a + p - i * d) % s == 0)
        axes.append(Axis(a, s, -(-(n_in - a) // s), 1, taps))
    return tuple(axes)


def _border(axes: Sequence[Axis], size: int) -> Pair:
    """How far the taps reach beyond the source's first and last element."""
    reach = [(shift, (axis.length - 1) * axis.step + shift) for axis in axes for _, shift in axis.taps]
    before = max((-low for low, _ in reach), default=0)
    after = max((high - size + 1 for _, high in reach), default=0)
    return max(before, 0), max(after, 0)


@dataclass(frozen=True, eq=False)
class Plan:
    """Where everything is, counted in elements; the same for every batch of one geometry.

    A class is a set of pixels of the result with the same taps: one for `y`, s·s for `gx`. Its row in `classes` is
    (first entry in `pixels`, entries an image, first run, one past its last run, numbers a run, number of taps, first
    entry in `taps`).
    """

    size: tuple[int, int, int]  # (H, W, C) of the source
    corner: Pair  # where the source begins in its bordered copy
    padded: Pair  # height and width of the bordered copy
    batch: int  # images in the work space at a time
    pixels: np.ndarray  # address of each pixel's neighbourhood in the work space, image after image
    targets: np.ndarray  # address of each pixel in the result
    runs: np.ndarray  # address of each run, relative to its pixel
    in_lines: bool  # are LINE_ROWS pixels at a time LANES numbers apart?
    taps: np.ndarray  # index i·kw + j of each tap, in the order of the runs
    classes: np.ndarray
    extents: tuple[Pair, ...]  # rows and columns of pixels of each class

    @property
    def bordered(self) -> bool:
        """Whether there is a border at all; without one the source is read where it is."""
        return self.padded != self.size[:2]

    @property
    def pitch(self) -> int:
        """Elements of an image in the work space."""
        return self.padded[0] * self.padded[1] * self.size[2]


@lru_cache(maxsize=512)
def _plan(
    rows: tuple[Axis, ...],
    cols: tuple[Axis, ...],
    kw: int,
    size: tuple[int, int, int],
    target: tuple[int, int, int],
    groups: int,
) -> Plan:
    """Tables for a result of `target` = (H', W', O) made of the classes `rows` × `cols` from a source of `size`."""
    h, w, c = size
    (top, bottom), (left, right) = _border(rows, h), _border(cols, w)
    hp, wp = h + top + bottom, w + left + right
    batch = max(1, WORK_SPACE // (hp * wp * c))
    image = np.arange(batch)[:, None, None]
    pixels: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    runs: list[int] = []
    taps: list[int] = []
    classes: list[tuple[int, ...]] = []
    n_pixels = 0
    for row in rows:
        for col in cols:
            qh, qw = np.arange(row.length)[:, None], np.arange(col.length)
            pixels.append((image * hp + top + qh * row.step) * wp + left + qw * col.step)
            targets.append((image * target[0] + row.start + qh * row.every) * target[1] + col.start + qw * col.every)
            neighbours = all(b[1] - a[1] == 1 for a, b in zip(col.taps, col.taps[1:]))
            merge = len(col.taps) if neighbours and groups == 1 else 1  # taps that make one run
            first_run, first_tap = len(runs), len(taps)
            for i, dh in row.taps:
                runs += [(dh * wp + dw) * c for _, dw in col.taps[::merge]] if col.taps else []
                taps += [i * kw + j for j, _ in col.taps]
            numbers = merge * (c // groups)
            classes.append(
                (n_pixels, row.length * col.length, first_run, len(runs), numbers, len(taps) - first_tap, first_tap)
            )
            n_pixels += pixels[-1].size
    flat = [np.concatenate([t.ravel() for t in tables]).astype(np.int64) for tables in (pixels, targets)]
    return Plan(
        size,
        (top, left),
        (hp, wp),
        batch,
        flat[0] * c,
        flat[1] * target[2],
        np.array(runs, np.int64),
        all(col.step * c == LANES and col.length % LINE_ROWS == 0 for col in cols),
        np.array(taps, np.int64),
        np.array(classes, np.int64).reshape(-1, 7),
        tuple((row.length, col.length) for row in rows for col in cols),
    )


@jit
def _pack(first, last, w, group, lane, channel, kernel, taps, classes, groups, c_in, c_out, packed):
    """Weights in the order in which `_correlate` reads them: class, group, panel, tap, channel, lane.

    In `w` the next group, lane and channel are `group, lane, channel` numbers on, and `kernel` taps lie side by side.
    """
    blocks = (c_out + WIDEST * LANES - 1) // (WIDEST * LANES)
    width_all = (c_out + LANES - 1) // LANES * LANES
    # What lies side by side in w: all taps of all channels (y), or only the taps of one (gx).
    whole = channel == kernel
    length, rounds = (kernel * c_in, 1) if whole else (kernel, c_in)
    place = np.empty((length + LANES - 1) // LANES * LANES, np.int64)
    for item in range(first, last):
        g, o = item // blocks, item % blocks * WIDEST * LANES
        end = min(o + WIDEST * LANES, c_out)
        while o < end:
            width = panel_width(c_out - o)
            for k in range(len(classes)):
                n_taps, tap0 = classes[k, 5], classes[k, 6]
                base = tap0 * c_in * groups * width_all + (g * width_all + o) * n_taps * c_in
                place[:] = len(packed) - rounds * width  # numbers that this class has no use for go to the end
                for t in range(n_taps):
                    if whole:
                        for c in range(c_in):
                            place[c * kernel + taps[tap0 + t]] = base + (t * c_in + c) * width
                    else:
                        place[taps[tap0 + t]] = base + t * c_in * width
                for v in range(0, width, LANES):
                    column = min(o + v, c_out - 1)
                    columns = multiples(lane, c_out - 1 - column, LANES)
                    for c in range(rounds):
                        source = g * group + column * lane + c * channel
                        for q in range(0, length, LANES):
                            block = transpose(load_tile(w, columns, source + q, 1, length - q))
                            store_tile(block, packed, offsets(place, q, len(place) - 1, LANES), c * width + v, LANES)
            o += width


@jit(inner=True)
def _fill(space, x, n0, n1, size, corner, padded):
    """Copy images n0 … n1 of x (N, H, W, C) into the middle of the work space, whose border is zero already."""
    h, w, c = size
    for n in range(n0, n1):
        for i in range(h):
            s = (((n - n0) * padded[0] + corner[0] + i) * padded[1] + corner[1]) * c
            t = (n * h + i) * w * c
            copy(space, s, x, t, w * c)


@jit
def _finish(y, first, last, norm, floor, plus):
    """What comes after a convolution, done with y[first:last] while that is near; see `_After`."""
    if norm.shape[1]:
        column_affine_over(y, plus, first, last, norm[0], norm[1], norm[2], floor)
    elif len(plus):
        add_to(y, plus, first, last)


@jit
def _correlate(
    first, last, space, batch, x, size, corner, padded, bordered, pixels, targets, runs, in_lines, classes, w, groups,
    c_in, c_out, bias, norm, floor, plus, y, y_size,
):  # fmt: skip
    """Images first … last of y: for every class, group and panel of channels, tile after tile of pixels."""
    pitch, image = padded[0] * padded[1] * size[2], size[0] * size[1] * size[2]
    width_all = (c_out + LANES - 1) // LANES * LANES
    if bordered:
        space[: batch * pitch] = 0.0
    for n0 in range(first, last, batch):
        n1 = min(n0 + batch, last)
        a, a0 = x, n0 * pitch
        if bordered:
            _fill(space, x, n0, n1, size, corner, padded)
            a, a0 = space, 0
        for k in range(len(classes)):
            p0, p_image, t0, t1, numbers, n_taps, tap0 = classes[k]
            p1 = p0 + (n1 - n0) * p_image
            coming = (min(n1 + batch, last) - n1) * image if k == 0 else 0  # numbers, asked for with the first panel
            for g in range(groups):
                o = 0
                while o < c_out:
                    width = panel_width(c_out - o)
                    j = tap0 * c_in * groups * width_all + (g * width_all + o) * n_taps * c_in
                    if in_lines and width == LANES:
                        product_pixels(
                            a, pixels, p0, p1, runs, t0, t1, a0 + g * c_in, numbers, w, j, bias, g * c_out + o, y,
                            targets, n0 * y_size + g * c_out + o, min(width, c_out - o), x, n1 * image, coming,
                        )  # fmt: skip
                    else:
                        product(
                            a, pixels, p0, p1, runs, t0, t1, a0 + g * c_in, numbers, np.int64(1), w, j, width, bias,
                            g * c_out + o, np.int64(0), False, y, targets, n0 * y_size + g * c_out + o,
                            min(width, c_out - o), x, n1 * image, coming, False,
                        )  # fmt: skip
                    o, coming = o + width, 0
        _finish(y, n0 * y_size, n1 * y_size, norm, floor, plus)


@jit
def _depthwise(
    first, last, space, batch, x, size, corner, padded, bordered, pixels, targets, runs, taps, classes, w, bias, norm,
    floor, plus, y, y_size,
):  # fmt: skip
    """`_correlate` where every channel has a kernel of its own, `w` (kh·kw, C)."""
    c = size[2]
    pitch = padded[0] * padded[1] * c
    if bordered:
        space[: batch * pitch] = 0.0
    for n0 in range(first, last, batch):
        n1 = min(n0 + batch, last)
        a, a0 = x, n0 * pitch
        if bordered:
            _fill(space, x, n0, n1, size, corner, padded)
            a, a0 = space, 0
        for k in range(len(classes)):
            p0, p_image, t0, t1, _, _, tap0 = classes[k]
            p1 = p0 + (n1 - n0) * p_image
            for v in range(0, c, LANES):
                for p in range(p0, p1, DEPTHWISE_PIXELS):
                    rows = offsets(pixels, p, p1 - 1, DEPTHWISE_PIXELS)
                    y_rows = offsets(targets, p, p1 - 1, DEPTHWISE_PIXELS)
                    acc = spread_row(bias, v, DEPTHWISE_PIXELS, 1, c - v)
                    for t in range(t0, t1):
                        weights = load(w, taps[tap0 + t - t0] * c + v, c - v)
                        acc = scaled(acc, a, rows, a0 + runs[t] + v, weights, c - v)
                    store_tile(acc, y, y_rows, n0 * y_size + v, c - v)
        _finish(y, n0 * y_size, n1 * y_size, norm, floor, plus)


@jit
def _depthwise_grad_weight(
    first, last, space, batch, x, size, corner, padded, bordered, pixels, p_image, runs, gy, parts
):
    """Sums over slices first … last of the images into `parts` (slice, kh·kw, C): one accumulator a tap."""
    c, n_taps = size[2], len(runs)
    pitch = padded[0] * padded[1] * c
    n_images, n_slices = len(x) // (size[0] * size[1] * c), parts.shape[0]
    flat, places = parts.reshape(-1), np.arange(n_taps) * c
    flat[first * n_taps * c : last * n_taps * c] = 0.0
    if bordered:
        space[: batch * pitch] = 0.0
    for part in range(first, last):
        m0, m1 = part * n_images // n_slices, (part + 1) * n_images // n_slices
        for n0 in range(m0, m1, batch):
            n1 = min(n0 + batch, m1)
            a, a0 = x, n0 * pitch
            if bordered:
                _fill(space, x, n0, n1, size, corner, padded)
                a, a0 = space, 0
            for v in range(0, c, LANES):
                for t in range(0, n_taps, DEPTHWISE_TAPS):
                    rows = offsets(runs, t, n_taps - 1, DEPTHWISE_TAPS)
                    sums = offsets(places, t, n_taps - 1, DEPTHWISE_TAPS)
                    q = part * n_taps * c + v
                    acc = load_tile(flat, sums, q, 1, c - v)
                    for p in range((n1 - n0) * p_image):
                        g = load(gy, (n0 * p_image + p) * c + v, c - v)
                        acc = scaled(acc, a, rows, a0 + pixels[p] + v, g, c - v)
                    store_tile(acc, flat, sums, q, c - v)


class _After(NamedTuple):
    """What comes after a convolution, as kernels want it: y = max((y − mean) · scale + shift + plus, floor)."""

    norm: np.ndarray  # mean, scale and shift, each repeated over a span of `loops.py`; or nothing, (3, 0)
    floor: np.float32
    plus: np.ndarray  # as long as y, or empty

    def whole(self, y: np.ndarray) -> np.ndarray:
        """Do it with all of y (N, H, W, C), in place."""
        flat = y.reshape(-1)
        if self.norm.size or self.plus.size:
            width = y.shape[3]
            run(
                lambda first, last: _finish(flat, first * width, last * width, *self),
                y.size // width,
                -(-pieces(y.size) // width),
            )
        return y


def _after(shape: tuple[int, ...], then: channels.Affine | None = None, plus: np.ndarray | None = None) -> _After:
    """What is done with a result of this shape (N, C, H, W)."""
    if plus is not None and plus.shape != shape:
        raise ValueError(f"what is added to a convolution has its result's shape {shape}, got {plus.shape}")
    norm = np.empty((3, 0), np.float32) if then is None else spread(then.mean, then.scale, then.shift)
    flat = np.empty(0, np.float32) if plus is None else _channels_last(plus).reshape(-1)
    return _After(norm, np.float32(-np.inf if then is None else then.floor), flat)


def _channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C) contiguous; copied, and counted, if it was not channels-last."""
    global reorders
    nhwc = x.transpose(0, 2, 3, 1)
    if not nhwc.flags.c_contiguous:
        reorders += 1
        nhwc = np.ascontiguousarray(nhwc)
    return nhwc


def _pixels(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N·H·W, C)."""
    return _channels_last(x).reshape(-1, x.shape[1])


def _image(pixels: np.ndarray, h: int, w: int) -> np.ndarray:
    """(N·H·W, C) -> (N, C, H, W)."""
    return pixels.reshape(-1, h, w, pixels.shape[1]).transpose(0, 3, 1, 2)


def _is_depthwise(w_shape: tuple[int, ...], groups: int) -> bool:
    """One input channel a group, and several groups."""
    return w_shape[1] == 1 and groups > 1


def _is_product(w_shape: tuple[int, ...], depth: int, stride: Pair, padding: Pair, groups: int) -> bool:
    """Is a convolution one product of matrices, and quickest as that? Filters see a pixel each, and there are tiles."""
    plain = w_shape[2:] == (1, 1) == stride and padding == (0, 0) and groups == 1
    return plain and depth >= thirdconv.LEAST and min(w_shape[:2]) >= tiles.ROWS and tiles.allowed()


def _repeated(x: np.ndarray, times: int) -> np.ndarray:
    """(N, C, H, W) -> (N, C·times, H, W): the input channel of every output channel, channels-last."""
    return np.repeat(_channels_last(x), times, axis=3).transpose(0, 3, 1, 2) if times > 1 else x


def _run_depthwise(
    plan: Plan, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, after: _After, target: tuple[int, int, int]
) -> np.ndarray:
    """Share out the images: (N, H, W, C) -> (N, H', W', C)."""
    n, y_size = len(x), target[0] * target[1] * target[2]
    y, source, batch = aligned(n * y_size), x.reshape(-1), min(plan.batch, n)
    w = w.reshape(len(w), -1).T.ravel()  # (C, 1, kh, kw) -> (kh·kw, C)
    if bias is None:
        bias = np.zeros(target[2], np.float32)

    def body(first: int, last: int) -> None:
        space = scratch(batch * plan.pitch if plan.bordered else 0)
        _depthwise(
            first, last, space, batch, source, plan.size, plan.corner, plan.padded, plan.bordered, plan.pixels,
            plan.targets, plan.runs, plan.taps, plan.classes, w, bias, *after, y, y_size,
        )  # fmt: skip

    run(body, n, work=READ_ONCE * y.size * len(plan.taps))
    return y.reshape(n, *target)


def _run_plan(
    plan: Plan,
    x: np.ndarray,
    w: np.ndarray,
    strides: tuple[int, int, int],
    groups: int,
    c_in: int,
    c_out: int,
    bias: np.ndarray | None,
    after: _After,
    target: tuple[int, int, int],
) -> np.ndarray:
    """Pack the weights, then share out the images: (N, H, W, C) -> (N, H', W', O)."""
    n, y_size = len(x), target[0] * target[1] * target[2]
    y = aligned(n * y_size)
    bias = np.zeros(groups * c_out, np.float32) if bias is None else bias
    if thirdconv.pays(plan, groups, c_in, c_out):
        images = y.reshape(n, *target)
        if thirdconv.correlate(plan, x, np.ascontiguousarray(w).reshape(-1), *strides[1:], c_out, bias, images):
            return after.whole(images)
    width_all = -(-c_out // LANES) * LANES
    packed = aligned((len(plan.taps) * groups * width_all + WIDEST * LANES) * c_in)
    panels = groups * -(-c_out // (WIDEST * LANES))
    kernel, w = w.shape[2] * w.shape[3], np.ascontiguousarray(w).ravel()

    def pack(first: int, last: int) -> None:
        _pack(first, last, w, *strides, kernel, plan.taps, plan.classes, groups, c_in, c_out, packed)

    run(pack, panels, panels if packed.size < 65536 else 1)
    source, batch = x.reshape(-1), min(plan.batch, n)

    def body(first: int, last: int) -> None:
        space = scratch(batch * plan.pitch if plan.bordered else 0)
        _correlate(
            first, last, space, batch, source, plan.size, plan.corner, plan.padded, plan.bordered, plan.pixels,
            plan.targets, plan.runs, plan.in_lines, plan.classes, packed, groups, c_in, c_out, bias, *after, y,
            y_size,
        )  # fmt: skip

    run(body, n, work=n * target[0] * target[1] * len(plan.taps) * groups * c_in * width_all)
    return y.reshape(n, *target)


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    then: channels.Affine | None = None,
) -> np.ndarray:
    """Cross-correlate images `x` (N, C, H, W) with `w` (O, C/groups, kh, kw), add `b` (O,): (N, O, H', W').

    then   what `channels.affine` does with the result is done with each image of it while that is near

    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> conv2d(x, np.ones((1, 1, 2, 2), np.float32), stride=(2, 2))[0, 0].tolist()
    [[10.0, 18.0], [42.0, 50.0]]
    """
    if use_reference() or not x.dtype == w.dtype == np.float32:
        y = reference.conv2d(x, w, b, stride, padding, dilation, groups)
        return y if then is None else channels.affine(y, *then)
    (n, _, h, wid), (o, c_in, kh, kw) = x.shape, w.shape
    ho, wo = conv2d_output_size((h, wid), (kh, kw), stride, padding, dilation)
    plus = None if then is None else then.plus
    if then is not None and (n * ho * wo * o < channels.LEAST or (plus is not None and plus.dtype != np.float32)):
        return channels.affine(conv2d(x, w, b, stride, padding, dilation, groups), *then)
    after = _after((n, o, ho, wo), then, plus)
    if _is_product(w.shape, c_in, stride, padding, groups):
        y = matmul(_pixels(x), w.reshape(o, c_in).T, b).reshape(-1, h, wid, o)
        return after.whole(y).transpose(0, 3, 1, 2)
    depthwise = _is_depthwise(w.shape, groups)
    if depthwise:
        x, groups = _repeated(x, o // groups), o
    rows, cols = (_forward(*axis) for axis in zip((ho, wo), (kh, kw), stride, padding, dilation))
    plan = _plan(rows, cols, kw, (h, wid, x.shape[1]), (ho, wo, o), groups)
    if depthwise:
        return _run_depthwise(plan, _channels_last(x), w, b, after, (ho, wo, o)).transpose(0, 3, 1, 2)
    strides = (o // groups * c_in * kh * kw, c_in * kh * kw, kh * kw)  # of a group, an output and an input channel
    y = _run_plan(plan, _channels_last(x), w, strides, groups, c_in, o // groups, b, after, (ho, wo, o))
    return y.transpose(0, 3, 1, 2)


def conv2d_grad_input(
    gy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    plus: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient to `x`, of shape `x_shape`, from `gy` (N, O, H', W'): the same sums, inputs and outputs exchanged.

    plus   what is added to it: a gradient that `x` has from elsewhere
    """
    if use_reference() or not gy.dtype == w.dtype == np.float32:
        gx = reference.conv2d_grad_input(gy, w, x_shape, stride, padding, dilation, groups)
        return gx if plus is None else gx + plus
    after = _after(x_shape, plus=plus)
    (c, h, wid), (o, c_in, kh, kw) = x_shape[1:], w.shape
    if _is_product(w.shape, o, stride, padding, groups):
        gx = matmul(_pixels(gy), w.reshape(o, c_in)).reshape(-1, h, wid, c)
        return after.whole(gx).transpose(0, 3, 1, 2)
    rows, cols = (_backward(*axis) for axis in zip((h, wid), (kh, kw), stride, padding, dilation))
    if _is_depthwise(w.shape, groups):
        plan = _plan(rows, cols, kw, (*gy.shape[2:], o), (h, wid, o), o)
        if o == c:
            return _run_depthwise(plan, _channels_last(gy), w, None, after, (h, wid, o)).transpose(0, 3, 1, 2)
        gx = _run_depthwise(plan, _channels_last(gy), w, None, _after(x_shape), (h, wid, o))
        return after.whole(gx.reshape(-1, h, wid, c, o // c).sum(axis=4)).transpose(0, 3, 1, 2)
    plan = _plan(rows, cols, kw, (*gy.shape[2:], o), (h, wid, c), groups)
    strides = (o // groups * c_in * kh * kw, kh * kw, c_in * kh * kw)
    gx = _run_plan(plan, _channels_last(gy), w, strides, groups, o // groups, c_in, None, after, (h, wid, c))
    return gx.transpose(0, 3, 1, 2)


@jit(inner=True)
def _fill_slabs(space, x, n0, n1, batch, size, corner, padded, slab):
    """The same as slabs of `slab` channels: (N, H, W, C) -> (C/slab, batch, H, W, slab).

    Neighbouring pixels are close, so that a walk along them stays in few cache lines however many channels there are.
    """
    h, w, c = size
    pitch = padded[0] * padded[1]
    for c0 in range(0, c, slab):
        for n in range(n0, n1):
            for i in range(h):
                s = ((c0 // slab * batch + n - n0) * pitch + (corner[0] + i) * padded[1] + corner[1]) * slab
                t = (n * h + i) * w * c + c0
                if slab == c:
                    copy(space, s, x, t, w * c)
                else:
                    for _ in range(w):
                        for k in range(0, slab, LANES):
                            store(load(x, t + k, c - c0 - k), space, s + k, LANES)
                        s += slab
                        t += c


@jit(inner=True)
def _panels(space, gy, n0, n1, n_pixels, groups, c_out):
    """gy of images n0 … n1, (pixel, G·O) -> (group, panel, pixel, lane): aligned vectors, one after the other."""
    width_all = (c_out + LANES - 1) // LANES * LANES
    count = (n1 - n0) * n_pixels
    for g in range(groups):
        o = 0
        while o < c_out:
            width = panel_width(c_out - o)
            lanes = min(width, c_out - o)
            s, t = (g * width_all + o) * count, n0 * n_pixels * groups * c_out + g * c_out + o
            for _ in range(count):
                for k in range(0, width, LANES):
                    store(load(gy, t + k, lanes - k), space, s + k, LANES)
                s += width
                t += groups * c_out
            o += width


@jit
def _grad_weight(
    first, last, space, space_gy, batch, x, size, corner, padded, slab, entries, row_starts, step, gy, gy_size, groups,
    c_out, chunk, parts, places,
):  # fmt: skip
    """Sums over slices first … last of the images, each in its own part (G, kh·kw·C, O) of `parts`."""
    image, n_slices = size[0] * size[1] * size[2], parts.shape[0]
    n_images, (ho, wo) = len(x) // image, gy_size
    depth, width_all = parts.shape[2], parts.shape[3]
    flat = parts.reshape(-1)
    for part in range(first, last):
        flat[part * groups * depth * width_all : (part + 1) * groups * depth * width_all] = 0.0
        m0, m1 = part * n_images // n_slices, (part + 1) * n_images // n_slices
        if slab:
            space[:] = 0.0
        for n0 in range(m0, m1, batch):
            n1 = min(n0 + batch, m1)
            a, a0 = x, n0 * image
            if slab:
                _fill_slabs(space, x, n0, n1, batch, size, corner, padded, slab)
                a, a0 = space, 0
            b, b0 = gy, n0 * ho * wo * c_out
            if len(space_gy):
                _panels(space_gy, gy, n0, n1, ho * wo, groups, c_out)
                b, b0 = space_gy, 0
            n_rows = (n1 - n0) * ho
            for t0 in range(0, n_rows, chunk):
                t1 = min(t0 + chunk, n_rows)
                # Of the next images, what these rows take of these is asked for, with the first panel.
                at, coming = n1 * image + t0 * image // ho, (min(n1 + batch, m1) - n1) * image * (t1 - t0) // n_rows
                for g in range(groups):
                    e0, e1 = g * depth, (g + 1) * depth
                    o = 0
                    while o < width_all:
                        width = panel_width(width_all - o)
                        j = b0 + (g * width_all + o) * n_rows * wo + t0 * wo * width
                        q = part * groups * depth * width_all + o
                        if width == LANES and slab == SLAB and size[2] % (groups * SLAB) == 0:
                            product_line(
                                a, entries, e0, e1, row_starts, t0, t1, a0, wo, step, b, j, flat, places, q, x, at,
                                coming,
                            )  # fmt: skip
                        else:
                            product(
                                a, entries, e0, e1, row_starts, t0, t1, a0, wo, step, b, j, width, flat, q,
                                np.int64(1), False, flat, places, q, width, x, at, coming, False,
                            )  # fmt: skip
                        o += width
                        coming = 0


@jit
def _collect(first, last, parts, groups, n_taps, c_in, c_out, gw):
    """Add the parts up, in order: (G, taps, C, O) -> (G, O, C, taps), of each group the channels first … last."""
    total = np.empty(parts.shape[3], np.float32)
    for g in range(groups):
        for c in range(first, last):
            for t in range(n_taps):
                total[:] = 0.0
                for part in range(parts.shape[0]):
                    row = parts[part, g, t * c_in + c]
                    for o in range(len(total)):
                        total[o] += row[o]
                for o in range(c_out):
                    gw[((g * c_out + o) * c_in + c) * n_taps + t] = total[o]


def _run_depthwise_grad_weight(plan: Plan, gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(N, H', W', C) and (N, H, W, C) -> (C, kh·kw), summed over a fixed number of slices of the images."""
    n, source, gy_flat, batch = len(x), x.reshape(-1), gy.reshape(-1), min(plan.batch, len(x))
    parts = aligned(min(n, 8) * len(plan.taps) * plan.size[2]).reshape(min(n, 8), len(plan.taps), plan.size[2])

    def body(first: int, last: int) -> None:
        space = scratch(batch * plan.pitch if plan.bordered else 0)
        _depthwise_grad_weight(
            first, last, space, batch, source, plan.size, plan.corner, plan.padded, plan.bordered, plan.pixels,
            gy[0, :, :, 0].size, plan.runs, gy_flat, parts,
        )  # fmt: skip

    run(body, len(parts), 1, work=READ_ONCE * gy.size * len(plan.taps))
    return np.ascontiguousarray(parts.sum(axis=0).T)


@lru_cache(maxsize=512)
def _entries(plan: Plan, batch: int, row_taps: Taps, col_taps: Taps, groups: int, slab: int) -> np.ndarray:
    """Where the entries (group, tap, channel) of a filter lie in a work space of `batch` images, from a pixel on."""
    (hp, wp), (top, left), c = plan.padded, plan.corner, plan.size[2]
    taps = np.array([(top + dh) * wp + left + dw for _, dh in row_taps for _, dw in col_taps])[:, None]
    channel = np.arange(c).reshape(groups, 1, -1)
    if slab == 0:
        return (taps * c + channel).ravel()
    return ((channel // slab * batch * hp * wp + taps) * slab + channel % slab).ravel()


def _parts_of_grad_weight(plan, row_taps, col_taps, gy, x, c_in, stride, groups, n_slices):
    """Sums over slices of the images (slice, G, kh·kw·C, O), O in whole vectors, from gy and x channels-last."""
    (n, ho, wo, o), c = gy.shape, x.shape[3]
    c_out, depth = o // groups, len(row_taps) * len(col_taps) * c_in
    width_all = -(-c_out // LANES) * LANES
    hp, wp = plan.padded
    slab = min(c, SLAB) if plan.bordered or c > 4 * SLAB else 0
    pixel = slab or c  # distance of neighbouring pixels
    starts = ((np.arange(plan.batch)[:, None] * hp + np.arange(ho) * stride[0]) * wp).ravel() * pixel
    parts = aligned(n_slices * groups * depth * width_all).reshape(n_slices, groups, depth, width_all)
    source, gy_flat, batch = x.reshape(-1), gy.reshape(-1), min(plan.batch, n)
    entries, places = _entries(plan, batch, row_taps, col_taps, groups, slab), np.arange(groups * depth) * width_all
    is_panel = groups == 1 and panel_width(c_out) == c_out  # gy is one already

    def body(first: int, last: int) -> None:
        space = scratch(batch * hp * wp * -(-c // slab) * slab if slab else 0)
        space_gy = scratch(0 if is_panel else batch * ho * wo * groups * width_all, slot=1)
        _grad_weight(
            first, last, space, space_gy, batch, source, plan.size, plan.corner, plan.padded, slab, entries, starts,
            stride[1] * pixel, gy_flat, (ho, wo), groups, c_out, max(1, L1_PIXELS // wo), parts, places,
        )  # fmt: skip

    run(body, n_slices, 1, work=n * ho * wo * groups * depth * width_all)
    return parts


def conv2d_grad_weight(
    gy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Gradient to `w`, of shape `w_shape`, from `gy` (N, O, H', W') and `x` (N, C, H, W).

    The images are cut into a few slices whatever the number of threads, so the sum does not depend on it.
    """
    if use_reference() or not gy.dtype == x.dtype == np.float32:
        return reference.conv2d_grad_weight(gy, x, w_shape, stride, padding, dilation, groups)
    if _is_product(w_shape, gy[:, 0].size, stride, padding, groups):
        return matmul(_pixels(gy).T, _pixels(x)).reshape(w_shape)
    depthwise = _is_depthwise(w_shape, groups)
    if depthwise:
        x, groups = _repeated(x, w_shape[0] // groups), w_shape[0]
    (n, c, h, wid), (o, c_in, kh, kw), (ho, wo) = x.shape, w_shape, gy.shape[2:]
    rows, cols = (_forward(*axis) for axis in zip((ho, wo), (kh, kw), stride, padding, dilation))
    plan = _plan(rows, cols, kw, (h, wid, c), (ho, wo, o), groups)
    if depthwise:
        return _run_depthwise_grad_weight(plan, _channels_last(gy), _channels_last(x)).reshape(w_shape)
    x, gy, c_out = _channels_last(x), _channels_last(gy), o // groups
    width_all, depth = -(-c_out // LANES) * LANES, kh * kw * c_in
    n_slices = min(n, 8 if groups * depth * width_all <= 1 << 16 else 4 if groups * depth * width_all <= 1 << 18 else 2)
    if stride == (1, 1) and thirdconv.pays(plan, groups, c_in, c_out):
        shifts = tuple((dh, dw) for _, dh in rows[0].taps for _, dw in cols[0].taps)
        found = thirdgrad.grad_weight(plan, shifts, gy, x, n_slices)
        if found is not None:
            return found.reshape(w_shape)
    parts = _parts_of_grad_weight(plan, rows[0].taps, cols[0].taps, gy, x, c_in, stride, groups, n_slices)
    gw = np.empty(o * c_in * kh * kw, np.float32)

    def collect(first: int, last: int) -> None:
        _collect(first, last, parts, groups, kh * kw, c_in, c_out, gw)

    run(collect, c_in, c_in if gw.size < 65536 else None)
    return gw.reshape(w_shape)
