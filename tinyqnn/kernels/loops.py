"""Compiled loops over memory: each reads every number once, in the order it lies there, on all threads.

Whoever calls them keeps the plain twin. A table is (rows, columns), contiguous. Sums are cut in the same places
whatever the number of threads, so results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyqnn.kernels.ahead import ahead
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, run

Array = np.ndarray

CHUNK = 1 << 16  # numbers that are worth a thread
SPAN = 256  # a row of a table is repeated to at least this length, so that a narrow table still fills vectors


def flat(x: Array) -> Array:
    """All elements in the order they lie in memory: a view, or a copy if there are gaps.

    >>> flat(np.array([[1, 2], [3, 4]]).T).tolist()
    [1, 2, 3, 4]
    """
    return x.ravel(order="K")


def pieces(size: int) -> int:
    """Numbers a thread takes at a time: a few pieces each, for at the end of one it waits for Python's lock.

    >>> pieces(10) == CHUNK
    True
    """
    return max(CHUNK, -(-size // (4 * get_num_threads())))


def _span(columns: int) -> int:
    """The shortest multiple of a row that fills vectors."""
    return columns * -(-SPAN // columns)


def spread(*vectors: Array) -> Array:
    """One number a column, repeated over a span each: (vectors, span) float32.

    >>> spread(np.zeros(100), np.ones(100)).shape
    (2, 300)
    """
    columns = len(vectors[0])
    wide = np.empty((len(vectors), _span(columns) // columns, columns), np.float32)
    for row, vector in zip(wide, vectors):
        row[:] = vector
    return wide.reshape(len(vectors), -1)


class _Walk:
    """How a table (rows, columns) is walked: span after span, in chunks of about CHUNK numbers."""

    def __init__(self, table: Array) -> None:
        self.columns, self.size = table.shape[1], table.size
        self.span = _span(self.columns)
        self.chunk = self.span * max(CHUNK // self.span, 1)
        self.chunks = -(-self.size // self.chunk)

    def sums(self, body: Callable[[int, int, Array], None]) -> tuple[Array, Array]:
        """Two sums a column: each chunk adds to its own part (2, span), and the parts are added up in their order."""
        parts = np.zeros((self.chunks, 2, self.span))
        run(lambda first, last: body(first, last, parts), self.chunks)
        both = parts.sum(axis=0).reshape(2, -1, self.columns).sum(axis=1)
        return both[0], both[1]


@jit(fastmath={"contract"})
def _column_moments(x, first, last, chunk, parts):
    span = parts.shape[2]
    for part in range(first, last):
        total, squares = parts[part, 0], parts[part, 1]
        end, start = min((part + 1) * chunk, len(x)), part * chunk
        while start + 4 * span <= end:  # four rows at a time: the sums are fetched a quarter as often
            ahead(x, start, start + 4 * span)
            x0, x1 = x[start : start + span], x[start + span : start + 2 * span]
            x2, x3 = x[start + 2 * span : start + 3 * span], x[start + 3 * span : start + 4 * span]
            for j in range(span):
                a, b, c, d = np.float64(x0[j]), np.float64(x1[j]), np.float64(x2[j]), np.float64(x3[j])
                total[j] += (a + b) + (c + d)
                squares[j] += (a * a + b * b) + (c * c + d * d)
            start += 4 * span
        while start < end:
            xs = x[start : min(start + span, end)]
            for j in range(len(xs)):
                a = np.float64(xs[j])
                total[j] += a
                squares[j] += a * a
            start += span


def column_moments(x: Array) -> tuple[Array, Array]:
    """Σ x and Σ x² of every column, (columns,) float64 each."""
    x = np.ascontiguousarray(x)
    walk, flat_x = _Walk(x), x.reshape(-1)
    return walk.sums(lambda first, last, parts: _column_moments(flat_x, first, last, walk.chunk, parts))


@jit(fastmath={"contract"})
def _column_affine(x, plus, first, last, chunk, mean, scale, shift, floor, y):
    span, end = len(mean), min(last * chunk, len(x))
    for start in range(first * chunk, end, span):
        stop = min(start + span, end)
        xs, ys = x[start:stop], y[start:stop]
        if len(plus):
            ps = plus[start:stop]
            for j in range(len(xs)):
                value = ((xs[j] - mean[j]) * scale[j] + shift[j]) + ps[j]
                ys[j] = floor if value <= floor else value  # NaN stays NaN
        else:
            for j in range(len(xs)):
                value = (xs[j] - mean[j]) * scale[j] + shift[j]
                ys[j] = floor if value <= floor else value


@jit(fastmath={"contract"})
def column_affine_over(y, plus, first, last, mean, scale, shift, floor):
    """The same in place, from number `first`, a first column's, to `last`.

    A loop of its own: of two arrays that are one the compiler would make no vectors.
    """
    span = len(mean)
    for start in range(first, last, span):
        stop = min(start + span, last)
        ys = y[start:stop]
        if len(plus):
            ps = plus[start:stop]
            for j in range(len(ys)):
                value = ((ys[j] - mean[j]) * scale[j] + shift[j]) + ps[j]
                ys[j] = floor if value <= floor else value
        else:
            for j in range(len(ys)):
                value = (ys[j] - mean[j]) * scale[j] + shift[j]
                ys[j] = floor if value <= floor else value


def column_affine(x: Array, mean: Array, scale: Array, shift: Array, floor: float, plus: Array | None) -> Array:
    """max((x − mean) · scale + shift + plus, floor), one mean, scale and shift a column."""
    x = np.ascontiguousarray(x)
    flat_plus = np.empty(0, np.float32) if plus is None else np.ascontiguousarray(plus).reshape(-1)
    walk, floor, flat_x = _Walk(x), np.float32(floor), x.reshape(-1)
    vectors, y = spread(mean, scale, shift), aligned(x.size).reshape(x.shape)
    flat_y = y.reshape(-1)
    run(
        lambda first, last: _column_affine(flat_x, flat_plus, first, last, walk.chunk, *vectors, floor, flat_y),
        walk.chunks,
    )
    return y


FEW = 16  # numbers that are added in float32 before their sum goes on in float64


@jit
def _relu_grad(g, y, first, last, out):
    gs, ys, outs = g[first:last], y[first:last], out[first:last]
    for i in range(len(ys)):
        outs[i] = gs[i] if ys[i] > 0 else np.float32(0)


@jit(fastmath={"contract"})
def _column_sums(g, x, y, kept, first, last, chunk, mean, scale, shift, floor, parts):
    """`kept` is g itself if there is no y, else it comes to be g where y > 0."""
    span, none = len(mean), np.float32(0)
    total, products = np.empty(span, np.float32), np.empty(span, np.float32)
    for part in range(first, last):
        totals, all_products = parts[part, 0], parts[part, 1]
        start, end = part * chunk, min((part + 1) * chunk, len(x))
        while start < end:
            total[:] = 0
            products[:] = 0
            stop = min(start + FEW * span, end)
            while start + 4 * span <= stop:  # four rows at a time, as above
                ahead(g, start, start + 4 * span)
                ahead(x, start, start + 4 * span)
                if len(y):
                    ahead(y, start, start + 4 * span)
                    _relu_grad(g, y, start, start + 4 * span, kept)
                x0, x1 = x[start : start + span], x[start + span : start + 2 * span]
                x2, x3 = x[start + 2 * span : start + 3 * span], x[start + 3 * span : start + 4 * span]
                g0, g1 = kept[start : start + span], kept[start + span : start + 2 * span]
                g2, g3 = kept[start + 2 * span : start + 3 * span], kept[start + 3 * span : start + 4 * span]
                for j in range(span):
                    d0, d1, d2, d3 = x0[j] - mean[j], x1[j] - mean[j], x2[j] - mean[j], x3[j] - mean[j]
                    k0 = g0[j] if d0 * scale[j] + shift[j] > floor else none
                    k1 = g1[j] if d1 * scale[j] + shift[j] > floor else none
                    k2 = g2[j] if d2 * scale[j] + shift[j] > floor else none
                    k3 = g3[j] if d3 * scale[j] + shift[j] > floor else none
                    total[j] = (((total[j] + k0) + k1) + k2) + k3
                    products[j] = (((products[j] + k0 * d0) + k1 * d1) + k2 * d2) + k3 * d3
                start += 4 * span
            while start < stop:
                if len(y):
                    _relu_grad(g, y, start, min(start + span, end), kept)
                gs, xs = kept[start : min(start + span, end)], x[start : min(start + span, end)]
                for j in range(len(xs)):
                    d = xs[j] - mean[j]
                    k = gs[j] if d * scale[j] + shift[j] > floor else none
                    total[j] += k
                    products[j] += k * d
                start += span
            for j in range(span):
                totals[j] += total[j]
                all_products[j] += products[j]


def column_sums(
    g: Array, x: Array, mean: Array, scale: Array, shift: Array, floor: float, y: Array | None = None
) -> tuple[Array, Array, Array]:
    """Σ g and Σ g·(x − mean) of every column, float64, over the rows where (x − mean) · scale + shift > floor; and g.

    With y, over those where y > 0; and g there, else 0, is the third result.
    """
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    if y is None:  # of one type with what is written to, in compiled code
        kept, flat_y = g if g.flags.writeable else g.copy(), np.empty(0, np.float32)
    else:
        kept, flat_y = aligned(g.size), np.ascontiguousarray(y).reshape(-1)
    walk, floor = _Walk(x), np.float32(floor)
    vectors, flat_g, flat_x, flat_kept = spread(mean, scale, shift), g.reshape(-1), x.reshape(-1), kept.reshape(-1)
    sums = walk.sums(
        lambda first, last, parts: _column_sums(
            flat_g, flat_x, flat_y, flat_kept, first, last, walk.chunk, *vectors, floor, parts
        )
    )
    return *sums, kept.reshape(g.shape)


@jit(fastmath={"contract"})
def _column_combine(g, x, first, last, chunk, mean, scale, shift, floor, b, c, y):
    span, end = len(mean), min(last * chunk, len(x))
    for start in range(first * chunk, end, span):
        stop = min(start + span, end)
        gs, xs, ys = g[start:stop], x[start:stop], y[start:stop]
        for j in range(len(xs)):
            d = xs[j] - mean[j]
            kept = gs[j] if d * scale[j] + shift[j] > floor else np.float32(0)
            ys[j] = scale[j] * kept + (b[j] * d + c[j])


def column_combine(
    g: Array, x: Array, mean: Array, scale: Array, shift: Array, floor: float, b: Array, c: Array
) -> Array:
    """scale·g + b·(x − mean) + c, with 0 for g where (x − mean) · scale + shift ≤ floor; all but g and x a column's."""
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    y, walk, floor = aligned(x.size).reshape(x.shape), _Walk(x), np.float32(floor)
    mean, scale, shift, b, c = spread(mean, scale, shift, b, c)
    flat_g, flat_x, flat_y = g.reshape(-1), x.reshape(-1), y.reshape(-1)
    run(
        lambda first, last: _column_combine(
            flat_g, flat_x, first, last, walk.chunk, mean, scale, shift, floor, b, c, flat_y
        ),
        walk.chunks,
    )
    return y


@jit
def add_to(y, x, first, last):
    """y += x from place `first` to `last`."""
    ys, xs = y[first:last], x[first:last]
    for i in range(len(ys)):
        ys[i] += xs[i]


@jit
def _relu(x, first, last, y):
    xs, ys = x[first:last], y[first:last]
    for i in range(len(xs)):
        ys[i] = np.float32(0) if xs[i] <= 0 else xs[i]  # NaN stays NaN


def relu(x: Array) -> Array:
    """max(x, 0), in x's memory order."""
    y = np.empty_like(x)
    flat_x, flat_y = _together(x, y)
    if x.size <= CHUNK:
        _relu(flat_x, 0, x.size, flat_y)
    else:
        run(lambda first, last: _relu(flat_x, first, last, flat_y), x.size, pieces(x.size))
    return y


def relu_grad(g: Array, y: Array) -> Array:
    """g where y > 0, else 0, in y's memory order."""
    out = np.empty_like(y)
    flat_g, flat_y = _together(g, y)
    flat_out = flat(out)
    if y.size <= CHUNK:
        _relu_grad(flat_g, flat_y, 0, y.size, flat_out)
    else:
        run(lambda first, last: _relu_grad(flat_g, flat_y, first, last, flat_out), y.size, pieces(y.size))
    return out


def _together(x: Array, y: Array) -> tuple[Array, Array]:
    """All elements of x and y in y's memory order."""
    if x.flags.c_contiguous and y.flags.c_contiguous:
        return x.reshape(-1), y.reshape(-1)
    if x.strides != y.strides:
        copy = np.empty_like(y)
        copy[...] = x
        x = copy
    return flat(x), flat(y)


@jit
def _max_pool(x, y, winner, kh, kw, sh, sw, ph, pw, first, last):
    height, width, channels = x.shape[1:]
    for n in range(first, last):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best, place = y[n, i, j], winner[n, i, j]
                begun = False
                for u in range(kh):
                    row = i * sh + u - ph
                    if row < 0 or row >= height:
                        continue
                    for v in range(kw):
                        column = j * sw + v - pw
                        if column < 0 or column >= width:
                            continue
                        here, number = x[n, row, column], np.uint8(u * kw + v)
                        if not begun:
                            for c in range(channels):
                                best[c] = here[c]
                                place[c] = number
                            begun = True
                        else:
                            for c in range(channels):
                                higher = here[c] > best[c]
                                best[c] = here[c] if higher else best[c]
                                place[c] = number if higher else place[c]


def max_pool(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Array, Array]:
    """The maximum of every window of (N, C, H, W) and its place in the window, in reading order (uint8)."""
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    n, h, w, c = pixels.shape
    out_h = (h + 2 * padding[0] - kernel[0]) // stride[0] + 1
    out_w = (w + 2 * padding[1] - kernel[1]) // stride[1] + 1
    y, winner = np.empty((n, out_h, out_w, c), x.dtype), np.empty((n, out_h, out_w, c), np.uint8)
    run(lambda first, last: _max_pool(pixels, y, winner, *kernel, *stride, *padding, first, last), n)
    return y.transpose(0, 3, 1, 2), winner.transpose(0, 3, 1, 2)


@jit
def _max_pool_grad(g, winner, out, kh, kw, sh, sw, ph, pw, once, first, last):
    height, width, channels = out.shape[1:]
    for n in range(first, last):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                grad, place = g[n, i, j], winner[n, i, j]
                for u in range(kh):
                    row = i * sh + u - ph
                    if row < 0 or row >= height:
                        continue
                    for v in range(kw):
                        column = j * sw + v - pw
                        if column < 0 or column >= width:
                            continue
                        here, number = out[n, row, column], np.uint8(u * kw + v)
                        if once:
                            for c in range(channels):
                                here[c] = np.float32(0) + (grad[c] if place[c] == number else np.float32(0))
                        else:
                            for c in range(channels):  # not the winner: 0 is added, so that vectors are whole
                                here[c] += grad[c] if place[c] == number else np.float32(0)


def max_pool_grad(
    g: Array,
    winner: Array,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Array:
    """Each gradient goes to where the maximum was: (N, C, H', W') -> (N, C, H, W)."""
    n, c, h, w = shape
    once = kernel == stride and padding == (0, 0) and h % kernel[0] == 0 == w % kernel[1]  # each pixel is in one window
    out = (np.empty if once else np.zeros)((n, h, w, c), g.dtype)
    pixels, places = np.ascontiguousarray(g.transpose(0, 2, 3, 1)), np.ascontiguousarray(winner.transpose(0, 2, 3, 1))
    run(lambda first, last: _max_pool_grad(pixels, places, out, *kernel, *stride, *padding, once, first, last), n)
    return out.transpose(0, 3, 1, 2)
