"""A convolution of codes is a product whose rows are found in the packed image, never written down.

The codes of a pixel are packed along its channels, each pixel into words of its own; around the image lies a border of
zero words. For an output pixel, the numbers under the filter are at fixed distances from its upper left corner: that is
the `walk` of a product's row (see `product.py`), the corner its `place`. A patch matrix, float or packed, never exists.

Beyond the border the value is 0. Where the packed 0 stands for another value (+1 for signs, ½ for mid-rise codes), what
the hidden taps add is taken off the number that the sums of such a pixel start from.

Bytes on tiles have a loop of their own for this, `tiledconv.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels.jit import jit, run
from tinyqnn.kernels.product import Rows
from tinyqnn.kernels.reference import conv2d_output_size
from tinyqnn.kernels.requantize import Stairs, staircase

__all__ = ["IntConv2d"]

Array = np.ndarray
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Where everything is, in units of a packed pixel's words; the same for every batch of one shape."""

    out: Pair
    size: int  # units in the bordered images
    targets: Array  # (N·H·W,) where each pixel goes
    places: Array  # (N·H'·W',) the upper left corner of each output pixel
    walk: Array  # (kh·kw·units,) from there to what lies under the filter
    missing: Array | None  # (H'·W', kh·kw) which taps lie beyond the border; None without a border


@lru_cache(maxsize=64)
def _geometry(n: int, image: Pair, units: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Geometry:
    (h, w), (ph, pw) = image, padding
    out = conv2d_output_size(image, kernel, stride, padding, dilation)
    if min(out) < 1:
        raise ValueError(
            f"images of {image} with padding {padding} are smaller than the filter {kernel} of dilation {dilation}"
        )
    rows, cols = h + 2 * ph, w + 2 * pw

    def pixels(ys: Array, xs: Array) -> Array:
        """Number of the pixels (image, y, x), images outermost."""
        one = ys[:, None] * cols + xs
        return (np.arange(n)[:, None, None] * rows * cols + one).reshape(-1)

    top, left = np.arange(out[0]) * stride[0], np.arange(out[1]) * stride[1]
    down, right = np.arange(kernel[0]) * dilation[0], np.arange(kernel[1]) * dilation[1]
    taps = (down[:, None] * cols + right).reshape(-1, 1)
    missing = None
    if ph or pw:
        y, x = top[:, None] + down - ph, left[:, None] + right - pw  # (H', kh), (W', kw): rows and columns of the image
        inside = ((y >= 0) & (y < h))[:, None, :, None] & ((x >= 0) & (x < w))[None, :, None, :]
        missing = ~inside.reshape(out[0] * out[1], -1)
    return Geometry(
        out, n * rows * cols * units, pixels(np.arange(h) + ph, np.arange(w) + pw) * units, pixels(top, left) * units,
        (taps * units + np.arange(units)).reshape(-1), missing,
    )  # fmt: skip


@jit
def _depthwise(first, last, x, height, width, channels, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw, y):
    """Images first … last, a filter a channel: x (N, H, W, C), w (kh·kw, C), y (N, H', W', C)."""
    for n in range(first, last):
        for oh in range(out_h):
            for ow in range(out_w):
                o = ((n * out_h + oh) * out_w + ow) * channels
                y[o : o + channels] = 0
                for i in range(kh):
                    for j in range(kw):
                        row, col = oh * sh + i * dh - ph, ow * sw + j * dw - pw
                        if 0 <= row < height and 0 <= col < width:
                            p, t = ((n * height + row) * width + col) * channels, (i * kw + j) * channels
                            for c in range(channels):
                                y[o + c] += np.int32(x[p + c]) * np.int32(w[t + c])


class IntConv2d:
    """Cross-correlate codes (N, C, H, W) with packed weights (O, C/groups, kh, kw): (N, O, H', W') int32, exact.

    `make` packs the weights of one group, given as (O/groups, kh·kw, C/groups): a class of this package, or a function
    that calls one with its further arguments. The scale is that of its products; beyond the border lies the value 0.
    Images are NCHW by shape; channels-last in memory is quickest, and what comes out is.

    >>> from tinyqnn.kernels.int8 import Int8Gemm
    >>> conv = IntConv2d(np.ones((1, 1, 3, 3), np.int8), Int8Gemm, padding=1)
    >>> conv(np.ones((1, 1, 3, 3), np.int8))[0, 0].tolist()
    [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    """

    def __init__(
        self, codes: Any, make: Callable[[Array], Any], stride: int | Pair = 1, padding: int | Pair = 0,
        dilation: int | Pair = 1, groups: int = 1,
    ) -> None:  # fmt: skip
        codes = np.asarray(codes)
        if codes.ndim != 4 or codes.size == 0 or groups < 1 or len(codes) % groups:
            raise ValueError(
                f"expected weights (O, C/groups, kh, kw), O a multiple of groups = {groups}, got {codes.shape}"
            )
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        if min(self.stride) < 1 or min(self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"expected stride and dilation from 1 and padding from 0, got {stride}, {dilation}, {padding}"
            )
        self.groups, self.kernel = groups, (codes.shape[2], codes.shape[3])
        self._layout = self.kernel, self.stride, self.padding, self.dilation
        o, self.channels = len(codes), codes.shape[1] * groups
        taps = codes.transpose(0, 2, 3, 1).reshape(groups, o // groups, -1, codes.shape[1])  # (G, O/G, kh·kw, C/G)
        self.gemms = [make(group) for group in taps]
        self.depthwise = codes.shape[1] == 1 and o == groups > 1 and not getattr(self.gemms[0], "lead", ())
        if self.depthwise:
            values = [np.asarray(gemm.values).reshape(-1) for gemm in self.gemms]
            self.filters = np.stack(values, -1).astype(np.int32)  # (kh·kw, C)
        self._starts: dict[tuple[int, int, int], Array] = {}

    def __call__(self, x: Any) -> Array:
        pixels, (n, h, w) = self._pixels(x)
        if self.depthwise and self.gemms[0].compiled:
            return self._depthwise(pixels, (n, h, w))
        parts, size = [], self.channels // self.groups
        for g, gemm in enumerate(self.gemms):
            group = pixels if self.groups == 1 else np.ascontiguousarray(pixels[:, g * size : (g + 1) * size])
            if getattr(gemm, "tiles", False):
                parts.append(gemm.convolve(group, (n, h, w), self._layout))
            else:
                rows, out = self._rows(g, group, (n, h, w))
                part = gemm.multiply(rows)  # (…, N·H'·W', O/G)
                parts.append(part.reshape(*part.shape[:-2], n, *out, part.shape[-1]))
        return np.moveaxis(parts[0] if self.groups == 1 else np.concatenate(parts, -1), -1, -3)

    def to_codes(self, x: Any, stairs: Stairs) -> Array:
        """The codes (N, O, H', W') to which the sums of `self(x)` step up.

        >>> from tinyqnn.kernels.int8 import Int8Gemm
        >>> stairs = Stairs(np.array([[5]], np.int32), np.zeros(1, np.int8), np.ones(1, np.int8))
        >>> conv = IntConv2d(np.ones((1, 1, 3, 3), np.int8), Int8Gemm, padding=1)
        >>> conv.to_codes(np.ones((1, 1, 3, 3), np.int8), stairs)[0, 0].tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
        """
        if self.groups > 1:
            y = self(x).transpose(0, 2, 3, 1)
            return staircase(y.reshape(-1, y.shape[-1]), *stairs).reshape(y.shape).transpose(0, 3, 1, 2)
        pixels, size = self._pixels(x)
        if getattr(self.gemms[0], "tiles", False):
            return self.gemms[0].convolve(pixels, size, self._layout, stairs).transpose(0, 3, 1, 2)
        rows, out = self._rows(0, pixels, size)
        return self.gemms[0].to_codes(rows, stairs).reshape(size[0], *out, -1).transpose(0, 3, 1, 2)

    def _pixels(self, x: Any) -> tuple[Array, tuple[int, int, int]]:
        """(N, C, H, W) -> (N·H·W, C), no copy if channels-last, and (N, H, W)."""
        x = np.asarray(x)
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected images (N, {self.channels}, H, W), got {x.shape}")
        n, c, h, w = x.shape
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, c), (n, h, w)

    def _rows(self, g: int, pixels: Array, size: tuple[int, int, int]) -> tuple[Rows, Pair]:
        """What lies under the filter of each output pixel: addresses in the packed image, or the numbers; (H', W')."""
        gemm, (n, h, w) = self.gemms[g], size
        units = gemm.units(pixels.shape[1]) if gemm.compiled else 1
        place = _geometry(n, (h, w), units, self.kernel, self.stride, self.padding, self.dilation)
        shape = (len(place.places), gemm.shape[1])
        if gemm.compiled:
            data = gemm.pack_pixels(pixels, place.targets, place.size)
            start = None if place.missing is None else self._start(g, size, place.missing)
            return Rows(shape, data, place.places, place.walk, place.size, start), place.out
        numbers = gemm.numbers(pixels)  # (…, N·H·W, C)
        image = np.zeros((*numbers.shape[:-2], place.size, numbers.shape[-1]), numbers.dtype)
        image[..., place.targets, :] = numbers
        patches = image[..., place.places[:, None] + place.walk, :]  # (…, M, kh·kw, C)
        return Rows(shape, patches.reshape(*numbers.shape[:-2], *shape)), place.out

    def _start(self, g: int, size: tuple[int, int, int], missing: Array) -> Array:
        """What a border hides from a group's sums, worked out once for each size of image."""
        key = g, size[1], size[2]
        if key not in self._starts:
            if len(self._starts) > 64:
                self._starts.clear()
            self._starts[key] = self.gemms[g].start_table(missing)
        return self._starts[key]

    def _depthwise(self, pixels: Array, size: tuple[int, int, int]) -> Array:
        (n, h, w), c = size, self.channels
        out = conv2d_output_size((h, w), self.kernel, self.stride, self.padding, self.dilation)
        if min(out) < 1:
            raise ValueError(
                f"images of {(h, w)} with padding {self.padding} are smaller than the filter {self.kernel}"
            )
        x = np.ascontiguousarray(self.gemms[0].numbers(pixels)).astype(np.int16).reshape(-1)
        y, filters = np.empty(n * out[0] * out[1] * c, np.int32), self.filters.reshape(-1)

        def body(first: int, last: int) -> None:
            _depthwise(
                first, last, x, h, w, c, filters, *out, *self.kernel, *self.stride, *self.padding, *self.dilation, y
            )

        run(body, n)
        return y.reshape(n, *out, c).transpose(0, 3, 1, 2)


def _pair(value: int | Pair) -> Pair:
    """One number for both directions, or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
