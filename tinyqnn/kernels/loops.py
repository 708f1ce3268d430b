"""Compiled loops over memory: each reads every number once, in the order it lies there, on all threads.

Whoever calls them keeps the plain twin. A table is (rows, columns), contiguous. Work is cut in the same places whatever
the number of threads, so results do not depend on it.
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels.jit import jit, run

Array = np.ndarray

CHUNK = 1 << 16  # numbers that a thread takes at a time: a quarter of a megabyte stays in its cache
SPAN = 256  # a row of a table is repeated to at least this length, so that a narrow table still fills vectors


def flat(x: Array) -> Array:
    """All elements in the order they lie in memory: a view, or a copy if there are gaps.

    >>> flat(np.array([[1, 2], [3, 4]]).T).tolist()
    [1, 2, 3, 4]
    """
    return x.ravel(order="K")


def _span(columns: int) -> int:
    """The shortest multiple of a row that fills vectors."""
    return columns * -(-SPAN // columns)


def _repeat(vector: Array, span: int) -> Array:
    return np.tile(vector, span // len(vector))


def _over_rows(table: Array) -> tuple[int, int, int]:
    """(span, chunk, number of chunks) for a walk through a table; a chunk is whole spans."""
    span = _span(table.shape[1])
    chunk = span * max(CHUNK // span, 1)
    return span, chunk, -(-table.size // chunk)


@jit(fastmath={"contract"})
def _column_sums(g, x, first, last, total, products):
    span = len(total)
    start = first
    while start < last:
        gs, xs = g[start : min(start + span, last)], x[start : min(start + span, last)]
        for j in range(len(gs)):
            value = np.float64(gs[j])
            total[j] += value
            products[j] += value * np.float64(xs[j])
        start += span


def column_sums(g: Array, x: Array) -> tuple[Array, Array]:
    """Σ g and Σ g·x of every column, (columns,) float64 each."""
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    span, chunk, chunks = _over_rows(g)
    parts = np.zeros((chunks, 2, span))
    size, flat_g, flat_x = g.size, g.reshape(-1), x.reshape(-1)

    def body(first: int, last: int) -> None:
        for c in range(first, last):
            _column_sums(flat_g, flat_x, c * chunk, min((c + 1) * chunk, size), parts[c, 0], parts[c, 1])

    run(body, chunks, 1)
    both = parts.sum(axis=0).reshape(2, -1, g.shape[1]).sum(axis=1)
    return both[0], both[1]


@jit(fastmath={"contract"})
def _column_affine(x, first, last, mean, scale, shift, y):
    span = len(mean)
    start = first
    while start < last:
        xs, ys = x[start : min(start + span, last)], y[start : min(start + span, last)]
        for j in range(len(xs)):
            ys[j] = (xs[j] - mean[j]) * scale[j] + shift[j]
        start += span


def column_affine(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x − mean) · scale + shift, one of each a column."""
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    span, chunk, chunks = _over_rows(x)
    mean, scale, shift = (_repeat(v, span) for v in (mean, scale, shift))
    flat_x, flat_y, size = x.reshape(-1), y.reshape(-1), x.size

    def body(first: int, last: int) -> None:
        _column_affine(flat_x, first * chunk, min(last * chunk, size), mean, scale, shift, flat_y)

    run(body, chunks, 1)
    return y


@jit(fastmath={"contract"})
def _column_combine(g, x, first, last, a, mean, b, c, y):
    span = len(mean)
    start = first
    while start < last:
        gs, xs, ys = (
            g[start : min(start + span, last)],
            x[start : min(start + span, last)],
            y[start : min(start + span, last)],
        )
        for j in range(len(xs)):
            ys[j] = a[j] * gs[j] + (b[j] * (xs[j] - mean[j]) + c[j])
        start += span


def column_combine(g: Array, x: Array, a: Array, mean: Array, b: Array, c: Array) -> Array:
    """a·g + b·(x − mean) + c, one of each letter but g and x a column."""
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    y = np.empty_like(x)
    span, chunk, chunks = _over_rows(x)
    a, mean, b, c = (_repeat(v, span) for v in (a, mean, b, c))
    flat_g, flat_x, flat_y, size = g.reshape(-1), x.reshape(-1), y.reshape(-1), x.size

    def body(first: int, last: int) -> None:
        _column_combine(flat_g, flat_x, first * chunk, min(last * chunk, size), a, mean, b, c, flat_y)

    run(body, chunks, 1)
    return y


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
        run(lambda first, last: _relu(flat_x, first, last, flat_y), x.size, CHUNK)
    return y


@jit
def _relu_grad(g, y, first, last, out):
    gs, ys, outs = g[first:last], y[first:last], out[first:last]
    for i in range(len(ys)):
        outs[i] = gs[i] if ys[i] > 0 else np.float32(0)


def relu_grad(g: Array, y: Array) -> Array:
    """g where y > 0, else 0, in y's memory order."""
    out = np.empty_like(y)
    flat_g, flat_y = _together(g, y)
    flat_out = flat(out)
    if y.size <= CHUNK:
        _relu_grad(flat_g, flat_y, 0, y.size, flat_out)
    else:
        run(lambda first, last: _relu_grad(flat_g, flat_y, first, last, flat_out), y.size, CHUNK)
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
def _max_pool_grad(g, winner, out, kw, sh, sw, ph, pw, first, last):
    for n in range(first, last):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                for c in range(g.shape[3]):
                    place = np.int64(winner[n, i, j, c])
                    u = place // kw
                    out[n, i * sh + u - ph, j * sw + place - u * kw - pw, c] += g[n, i, j, c]


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
    out = np.zeros((n, h, w, c), g.dtype)
    pixels, places = np.ascontiguousarray(g.transpose(0, 2, 3, 1)), np.ascontiguousarray(winner.transpose(0, 2, 3, 1))
    run(lambda first, last: _max_pool_grad(pixels, places, out, kernel[1], *stride, *padding, first, last), n)
    return out.transpose(0, 3, 1, 2)
