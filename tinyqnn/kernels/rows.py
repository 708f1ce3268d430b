"""Work that is done row by row, as softmax does. Many rows at once would leave the cache: threads take a few each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyqnn import kernels
from tinyqnn.kernels.channels import fast

Array = np.ndarray


def exponentials(x: Array) -> tuple[Array, Array, Array]:
    """e^(x − top), top = max x and Σ e^(x − top) of every row: (n, k) -> (n, k), (n,), (n,).

    >>> e, top, total = exponentials(np.array([[1.0, 1.0]]))
    >>> e.tolist(), top.tolist(), total.tolist()
    ([[1.0, 1.0]], [1.0], [2.0])
    """
    e, top, total = np.empty_like(x), np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)

    def body(first: int, last: int) -> None:
        part = slice(first, last)
        np.max(x[part], axis=1, out=top[part])
        np.subtract(x[part], top[part, None], out=e[part])
        np.exp(e[part], out=e[part])
        np.sum(e[part], axis=1, out=total[part])

    _over(body, x)
    return e, top, total


def scale(x: Array, factor: Array) -> Array:
    """Multiply every row of x by its factor, in place: (n, k), (n,) -> x.

    >>> scale(np.array([[1.0, 2.0]]), np.array([3.0])).tolist()
    [[3.0, 6.0]]
    """
    _over(lambda first, last: np.multiply(x[first:last], factor[first:last, None], out=x[first:last]), x)
    return x


def _over(body: Callable[[int, int], object], x: Array) -> None:
    """Call `body` on ranges of rows, a quarter of a megabyte each; on all threads where that pays."""
    if not fast(x):
        body(0, len(x))
    else:
        kernels.jit.run(body, len(x), max(65_536 // x.shape[1], 1))
