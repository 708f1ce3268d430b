"""Work that is done row by row, as softmax does: a row stays in the cache while it is read again and again."""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from tinyqnn.kernels.exponential import exp
from tinyqnn.kernels.jit import jit, run

__all__ = ["cross_entropy"]

Array = np.ndarray

CHUNK = 65_536  # numbers that a thread takes at a time
TOGETHER = 16  # maxima and sums that are kept side by side, so that they fill vectors


@jit(error_model="numpy")
def _cross_entropy(x, targets, ignore_index, share, first, last, loss, grad):
    """Rows first … last. The numbers behind the last whole vector go through the same steps, one by one."""
    columns, whole = x.shape[1], x.shape[1] // TOGETHER * TOGETHER
    e, tops, sums = np.empty(columns, np.float32), np.empty(TOGETHER, np.float32), np.empty(TOGETHER, np.float32)
    for i in range(first, last):
        row, target = x[i], targets[i]
        if target == ignore_index:
            loss[i] = 0
            grad[i] = 0
            continue
        top = row[0]
        if whole:
            tops[:] = top
            for j in range(0, whole, TOGETHER):
                for k in range(TOGETHER):
                    tops[k] = row[j + k] if row[j + k] > tops[k] else tops[k]
            top = tops.max()
        for j in range(whole, columns):
            top = row[j] if row[j] > top else top
        for j in range(columns):
            e[j] = exp(row[j] - top)
        total = np.float32(0)
        if whole:
            sums[:] = 0
            for j in range(0, whole, TOGETHER):
                for k in range(TOGETHER):
                    sums[k] += e[j + k]
            total = sums.sum()
        for j in range(whole, columns):
            total += e[j]
        loss[i] = np.log(total) + (top - row[target])
        factor, out = np.float32(share) / total, grad[i]
        for j in range(columns):
            out[j] = e[j] * factor
        out[target] -= np.float32(share)


def cross_entropy(x: Array, targets: Array, ignore_index: int, share: float) -> tuple[Array, Array]:
    """−ln softmax(x)[target] of every row, and share · (softmax(x) − onehot(target)): (n, k), (n,) -> (n,), (n, k).

    Rows whose target is `ignore_index` give zeros.

    >>> loss, grad = cross_entropy(np.zeros((1, 2), np.float32), np.array([1]), -100, 1.0)
    >>> loss.round(4).tolist(), grad.tolist()
    ([0.6930999755859375], [[0.5, -0.5]])
    """
    x = np.ascontiguousarray(x)
    loss, grad = np.empty(len(x), np.float32), np.empty_like(x)
    if x.size <= CHUNK:
        _cross_entropy(x, targets, ignore_index, share, 0, len(x), loss, grad)
    else:
        run(
            lambda first, last: _cross_entropy(x, targets, ignore_index, share, first, last, loss, grad),
            len(x),
            max(CHUNK // x.shape[1], 1),
        )
    return loss, grad
