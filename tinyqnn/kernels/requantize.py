"""From the sums of a product to the next layer's codes, in one pass: how many edges of the staircase has a sum reached?

A staircase that rises with x, whatever its steps, is known by its edges: its code is the number of edges at or below x.
So a code needs comparisons alone. For whole numbers the edges are whole numbers, one row of them a channel:

    code[p, c] = first[c] + direction[c] · #{e : x[p, c] ≥ edges[e, c]}

`direction` is −1 where a negative factor turns the staircase round. Where there are too many edges to compare with,
`affine` gives the real number instead, in float64 and rounded once to float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyqnn.kernels import use_reference
from tinyqnn.kernels.jit import jit, run

__all__ = ["Stairs", "affine", "max_codes", "one_staircase", "staircase"]

Array = np.ndarray

CHUNK = 1 << 16  # numbers a thread takes at a time
SPAN = 256  # a row of channels is repeated to at least this length, so that few channels still fill vectors


class Stairs(NamedTuple):
    """Stairs of C channels, for whole numbers.

    edges       (E, C) int32
    first       (C,) int8 or uint8: the code below all edges
    direction   (C,) int8: what each edge adds
    """

    edges: Array
    first: Array
    direction: Array


def staircase(x: Array, edges: Array, first: Array, direction: Array) -> Array:
    """The codes of x (P, C): edges (E, C) of x's dtype, first and direction (C,) int8; int8 or uint8 as `first`.

    >>> one = np.ones(1, np.int8)
    >>> staircase(np.array([[-3], [0], [9]], np.int32), np.array([[0], [5]], np.int32), -one, one).ravel().tolist()
    [-1, 0, 1]
    """
    columns = x.shape[1]
    if use_reference():
        counts = (x >= edges[:, None, :]).sum(axis=0)  # (E, P, C) -> (P, C)
        return (first + direction * counts).astype(first.dtype)
    if columns == 1:
        return one_staircase(x, edges[:, 0], first, direction)
    y = np.empty(x.shape, first.dtype)
    repeat = -(-SPAN // columns)
    span = repeat * columns
    chunk = max(CHUNK // span, 1) * span
    source, target = np.ascontiguousarray(x).reshape(-1), y.reshape(-1).view(np.int8)
    tables = [np.tile(table, repeat) for table in (edges, first.astype(np.int32), direction.astype(np.int32))]
    walk = {1: _one_edge, 3: _three_edges}.get(len(edges), _staircase)

    def body(i: int, j: int) -> None:
        walk(source, i * chunk, min(j * chunk, x.size), *tables, target)

    run(body, -(-x.size // chunk), 1)
    return y


def one_staircase(x: Array, edges: Array, first: Array, direction: Array) -> Array:
    """The codes of x, of any shape, on one staircase: edges (E,) of x's dtype, first and direction (1,).

    >>> one_staircase(np.array([[-3, 9]]), np.array([0, 5]), np.zeros(1, np.int8), np.ones(1, np.int8)).tolist()
    [[0, 2]]
    """
    if use_reference():
        return (first + direction * (x[..., None] >= edges).sum(-1)).astype(first.dtype)
    y = np.empty(x.shape, first.dtype)
    source, target = np.ascontiguousarray(x).reshape(-1), y.reshape(-1).view(np.int8)
    one = edges, first.view(np.int8)[0], direction[0]
    if x.size <= CHUNK:
        _stairs(source, 0, x.size, *one, target)
    else:
        run(lambda i, j: _stairs(source, i, j, *one, target), x.size, CHUNK)
    return y


@jit
def _stairs(x, start, stop, edges, first, direction, y):
    """One stairs for all."""
    counts = np.empty(SPAN, np.int32)
    for i in range(start, stop, SPAN):
        end = min(i + SPAN, stop)
        step_up(x[i:end], edges, first, direction, counts, y[i:end])


@jit
def step_up(x, edges, first, direction, counts, y):
    """The codes of a few numbers: for each edge one walk over all of them. `counts` is room for as many int32."""
    for j in range(len(x)):
        counts[j] = 0
    for edge in edges:
        for j in range(len(x)):
            counts[j] += np.int32(x[j] >= edge)
    for j in range(len(x)):
        y[j] = first + direction * np.int8(counts[j])


@jit
def _one_edge(x, start, stop, edges, first, direction, y):
    """`_staircase` of 1 bit: no counts to keep."""
    span, e = edges.shape[1], edges[0]
    for i in range(start, stop, span):
        n = min(span, stop - i)
        xs, ys = x[i : i + n], y[i : i + n]
        for j in range(n):
            ys[j] = first[j] + direction[j] * np.int32(xs[j] >= e[j])


@jit
def _three_edges(x, start, stop, edges, first, direction, y):
    """`_staircase` of 2 bits."""
    span, e0, e1, e2 = edges.shape[1], edges[0], edges[1], edges[2]
    for i in range(start, stop, span):
        n = min(span, stop - i)
        xs, ys = x[i : i + n], y[i : i + n]
        for j in range(n):
            count = np.int32(xs[j] >= e0[j]) + np.int32(xs[j] >= e1[j]) + np.int32(xs[j] >= e2[j])
            ys[j] = first[j] + direction[j] * count


@jit
def _staircase(x, start, stop, edges, first, direction, y):
    span = edges.shape[1]
    counts = np.empty(span, np.int32)
    for i in range(start, stop, span):
        n = min(span, stop - i)
        xs, ys = x[i : i + n], y[i : i + n]
        row = edges[0]
        for j in range(n):
            counts[j] = np.int32(xs[j] >= row[j])
        for e in range(1, len(edges)):
            row = edges[e]
            for j in range(n):
                counts[j] += np.int32(xs[j] >= row[j])
        for j in range(n):
            ys[j] = first[j] + direction[j] * counts[j]


def affine(x: Array, factor: Array, addend: Array) -> Array:
    """Σ_t factor[t, c] · x[t, p, c] + addend[c], in float64, rounded once: (T, P, C) whole numbers -> (P, C) float32.

    >>> affine(np.array([[[2, 3]], [[1, 1]]], np.int32), np.array([[0.5, 1.0], [4.0, 0.0]]), np.ones(2)).tolist()
    [[6.0, 4.0]]
    """
    terms, pixels, columns = x.shape
    if use_reference():
        total = factor[0] * x[0]
        for t in range(1, terms):
            total = total + factor[t] * x[t]
        return (total + addend).astype(np.float32)
    y = np.empty((pixels, columns), np.float32)
    repeat = -(-SPAN // columns)
    span = repeat * columns
    chunk = max(CHUNK // span, 1) * span
    source, target = np.ascontiguousarray(x).reshape(terms, -1), y.reshape(-1)
    tables = np.tile(factor, repeat), np.tile(addend, repeat)
    run(
        lambda i, j: _affine(source, i * chunk, min(j * chunk, y.size), *tables, target),
        -(-y.size // chunk),
        1,
    )
    return y


@jit
def _affine(x, start, stop, factor, addend, y):
    span = len(addend)
    total = np.empty(span)
    for i in range(start, stop, span):
        n = min(span, stop - i)
        total[:] = 0
        for t in range(len(x)):
            xs, factors = x[t, i : i + n], factor[t]
            for j in range(n):
                total[j] += factors[j] * np.float64(xs[j])
        ys = y[i : i + n]
        for j in range(n):
            ys[j] = np.float32(total[j] + addend[j])


def max_codes(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], lowest: int
) -> Array:
    """Max pooling of codes (N, C, H, W), channels last in memory; the border is `lowest`, which never wins.

    >>> max_codes(np.array([[[[1, 2], [3, 0]]]], np.int8), (2, 2), (2, 2), (0, 0), 0).tolist()
    [[[[3]]]]
    """
    pixels = x.transpose(0, 2, 3, 1)
    if kernel == stride == (2, 2) and padding == (0, 0) and not use_reference():
        return _halved(np.ascontiguousarray(pixels)).transpose(0, 3, 1, 2)
    if padding != (0, 0):
        around = [(0, 0), *((p, p) for p in padding), (0, 0)]
        pixels = np.pad(pixels, around, constant_values=lowest)
    height, width = ((n - k) // s + 1 for n, k, s in zip(pixels.shape[1:3], kernel, stride))

    def seen(u: int, v: int) -> Array:
        """The image as the place (u, v) of the window sees it."""
        return pixels[:, u : u + stride[0] * height : stride[0], v : v + stride[1] * width : stride[1]]

    best = np.ascontiguousarray(seen(0, 0))
    for place in range(1, kernel[0] * kernel[1]):
        np.maximum(best, seen(*divmod(place, kernel[1])), out=best)
    return best.transpose(0, 3, 1, 2)


def _halved(x: Array) -> Array:
    """The largest of each two by two pixels: (N, H, W, C) -> (N, H/2, W/2, C)."""
    n, height, width, channels = x.shape
    y = np.empty((n, height // 2, width // 2, channels), x.dtype)
    if y.size:
        flat, out = x.reshape(-1), y.reshape(-1)
        run(lambda first, last: _largest_of_four(first, last, flat, height, width, channels, out), n * (height // 2))
    return y


@jit
def _largest_of_four(first, last, x, height, width, channels, y):
    """Rows first … last of all images' halved rows."""
    half = height // 2
    for row in range(first, last):
        upper = (row // half * height + row % half * 2) * width * channels
        for p in range(width // 2):
            i, o = upper + 2 * p * channels, (row * (width // 2) + p) * channels
            a, b = x[i : i + channels], x[i + channels : i + 2 * channels]
            c, d = x[i + width * channels :][:channels], x[i + (width + 1) * channels :][:channels]
            out = y[o : o + channels]
            for k in range(channels):
                out[k] = max(max(a[k], b[k]), max(c[k], d[k]))
