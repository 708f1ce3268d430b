"""Work that is done channel by channel, as batch norm does: sums over all pixels, products with one number a channel.

An image is a table (pixels, channels) here, which channels-last memory is already. Each function has its NumPy twin
inside, the lines after `if not fast(x)`; the compiled loops are in `loops.py`. Sums are kept in float64: the variance
Σx²/n − m² then loses nothing that float32 pixels had.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyqnn import kernels

Array = np.ndarray


class Affine(NamedTuple):
    """What `affine` is told besides x, for those who have it done by whoever makes x."""

    mean: Array
    scale: Array
    shift: Array
    floor: float = -np.inf
    plus: Array | None = None


LEAST = 4096  # numbers for which the compiled loops pay


def fast(*arrays: Array) -> bool:
    """Do the compiled loops serve? They are for float32; float64 and small arrays take the twins."""
    if arrays[0].size < LEAST or kernels.use_reference():
        return False
    for a in arrays:  # noqa: SIM110 - all() takes twice as long
        if a.dtype != np.float32:
            return False
    return True


def table(x: Array) -> Array:
    """(N, C, …) -> (pixels, C), a view wherever channels are last in memory.

    >>> table(np.zeros((2, 3, 4, 5))).shape
    (40, 3)
    """
    if x.ndim == 4:  # the usual ones; `moveaxis` takes ten times as long
        return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
    return (x if x.ndim == 2 else np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def like(rows: Array, shape: tuple[int, ...]) -> Array:
    """(pixels, C) -> (N, C, …): what `table` did, undone.

    >>> like(np.zeros((40, 3)), (2, 3, 4, 5)).shape
    (2, 3, 4, 5)
    """
    if len(shape) == 4:
        n, c, h, w = shape
        return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return rows if len(shape) == 2 else np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance (over n, not n − 1) of every channel: (N, C, …) -> (C,), (C,).

    >>> [array.tolist() for array in moments(np.array([[1.0], [3.0]]))]
    [[2.0], [1.0]]
    """
    rows = table(x)
    if not fast(x):
        mean = rows.mean(axis=0, dtype=np.float64).astype(x.dtype)
        return mean, np.square(rows - mean).mean(axis=0, dtype=np.float64).astype(x.dtype)
    total, squares = kernels.loops.column_moments(rows)
    mean, n = total / len(rows), len(rows)
    return mean.astype(x.dtype), np.maximum(squares / n - mean * mean, 0).astype(x.dtype)


def totals(g: Array) -> Array:
    """Σ g of every channel: (N, C, …) -> (C,).

    >>> totals(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [4.0, 6.0]
    """
    rows = table(g)
    return kernels.loops.column_moments(rows)[0].astype(g.dtype) if fast(g) else rows.sum(axis=0)


def affine(
    x: Array,
    mean: Array,
    scale: Array,
    shift: Array,
    floor: float = -np.inf,
    plus: Array | None = None,
) -> Array:
    """max((x − mean) · scale + shift + plus, floor), with one mean, scale and shift a channel: (N, C, …) -> the same.

    >>> x, mean, scale, shift = np.array([[1.0], [3.0]]), np.array([2.0]), np.array([10.0]), np.array([1.0])
    >>> affine(x, mean, scale, shift).tolist(), affine(x, mean, scale, shift, floor=0).tolist()
    ([[-9.0], [11.0]], [[0.0], [11.0]])
    """
    if plus is not None and plus.shape != x.shape:
        raise ValueError(f"affine: plus has x's shape {x.shape}, got {plus.shape}")
    if not fast(x, mean, scale, shift) or (plus is not None and plus.dtype != np.float32):
        y = (table(x) - mean) * scale + shift
        return like(np.maximum(y if plus is None else y + table(plus), floor), x.shape)
    plus = None if plus is None else table(plus)
    return like(kernels.loops.column_affine(table(x), mean, scale, shift, floor, plus), x.shape)


def _kept(g: Array, x: Array, mean: Array, scale: Array, shift: Array, floor: float) -> Array:
    """g as a table, with 0 where `affine` came down to the floor: there the result did not move with x."""
    return np.where((table(x) - mean) * scale + shift > floor, table(g), 0)


def sums(
    g: Array, x: Array, mean: Array, scale: Array, shift: Array, floor: float = -np.inf, y: Array | None = None
) -> tuple[Array, Array, Array]:
    """Σ g and Σ g·(x − mean) of every channel, over the places where `affine(x, …)` is above the floor, and g.

    y   what a ReLU came to: then over the places where that is above 0, and the third result is g there, else 0

    >>> g, x, mean, one = np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]]), np.array([2.0]), np.ones(1)
    >>> [array.tolist() for array in sums(g, x, mean, one, 0 * one)]
    [[2.0], [0.0], [[1.0], [1.0]]]
    >>> [array.tolist() for array in sums(g, x, mean, one, 0 * one, floor=0)[:2]]
    [[1.0], [1.0]]
    >>> [array.tolist() for array in sums(g, x, mean, one, 0 * one, y=np.array([[5.0], [0.0]]))]
    [[1.0], [-1.0], [[1.0], [0.0]]]
    """
    if not fast(g, x, mean, scale, shift) or (y is not None and y.dtype != np.float32):
        g = g if y is None else g * (y > 0)
        kept = _kept(g, x, mean, scale, shift, floor)
        return kept.sum(axis=0), (kept * (table(x) - mean)).sum(axis=0), g
    of_y = None if y is None else table(y)
    total, products, kept = kernels.loops.column_sums(table(g), table(x), mean, scale, shift, floor, of_y)
    return total.astype(x.dtype), products.astype(x.dtype), g if y is None else like(kept, g.shape)


def combine(
    g: Array, x: Array, mean: Array, scale: Array, shift: Array, b: Array, c: Array, floor: float = -np.inf
) -> Array:
    """scale·g + b·(x − mean) + c, with 0 for g where `affine(x, …)` came down to the floor: (N, C, …) -> the same.

    >>> one, g, x = np.ones(1), np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]])
    >>> combine(g, x, 2 * one, one, 0 * one, one, one).tolist()
    [[1.0], [4.0]]
    """
    if not fast(g, x, mean, scale, shift, b, c):
        return like(scale * _kept(g, x, mean, scale, shift, floor) + (b * (table(x) - mean) + c), x.shape)
    return like(kernels.loops.column_combine(table(g), table(x), mean, scale, shift, floor, b, c), x.shape)
