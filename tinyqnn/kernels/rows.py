"""Work that is done row by row: what is read again and again, as by softmax, or added to, stays in the cache.

The formulas, and the NumPy twins, are in `tinyqnn/functional/{loss,embedding}.py`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from tinyqnn.kernels.exponential import exp
from tinyqnn.kernels.jit import jit, run
from tinyqnn.kernels.loops import CHUNK, pieces

__all__ = ["add_rows", "check_class", "cross_entropy"]

Array = np.ndarray

TOGETHER = 256  # maxima that are kept side by side: several vectors, none of which waits for the one before
FEW = 256  # classes, whose exponentials are not worth a walk of their own


@jit(inner=True)
def _largest(row, tops):
    top, whole = row[0], len(row) // TOGETHER * TOGETHER
    if whole:
        tops[:] = top
        for j in range(0, whole, TOGETHER):
            for k in range(TOGETHER):
                tops[k] = row[j + k] if row[j + k] > tops[k] else tops[k]
        for k in range(TOGETHER):
            top = tops[k] if tops[k] > top else top
    for j in range(whole, len(row)):
        top = row[j] if row[j] > top else top
    return top


@jit(inner=True, fastmath={"reassoc"})  # the sum may be taken in any order, so it fills vectors
def _exponentials(row, top, out):
    """e^(row − top) to `out`, and the sum of all."""
    total = np.float32(0)
    for j in range(len(row)):
        out[j] = exp(row[j] - top)
        total += out[j]
    return total


@jit(inner=True, error_model="numpy")
def _to_gradient(out, total, target, share):
    """From exponentials, and the sum of all, to a row's share of the gradient."""
    factor = np.float32(share) / total
    for j in range(len(out)):
        out[j] *= factor
    out[target] -= np.float32(share)


@jit
def _cross_entropy(x, targets, ignore_index, share, first, last, loss, grad):
    """Rows first … last, each in three walks: the largest, the exponentials, and their share of the sum."""
    tops = np.empty(TOGETHER, np.float32)
    for i in range(first, last):
        row, target, out = x[i], targets[i], grad[i]
        if target == ignore_index:
            loss[i] = 0
            out[:] = 0
            continue
        top = _largest(row, tops)
        total = _exponentials(row, top, out)
        loss[i] = np.log(total) + (top - row[target])
        _to_gradient(out, total, target, share)


@jit
def _count(targets, classes, ignore_index):
    """How many targets count, and the place of the first that is no class, or −1."""
    n, wrong = 0, -1
    for i in range(len(targets)):
        if targets[i] != ignore_index:
            n += 1
            if wrong < 0 and (targets[i] < 0 or targets[i] >= classes):
                wrong = i
    return n, wrong


@jit(inner=True, fastmath={"reassoc"})
def _sum(row):
    total = np.float32(0)
    for j in range(len(row)):
        total += row[j]
    return total


@jit
def _cross_entropy_at_once(x, targets, ignore_index, loss, grad):
    """All rows, if there are few: the sum of their losses and what `_count` tells.

    A row of few classes fills no vector, so all rows take each walk together.
    """
    n, wrong = _count(targets, x.shape[1], ignore_index)
    share, losses = 1 / max(n, 1), 0.0
    if wrong >= 0:
        return losses, n, wrong
    for i in range(len(x)):
        row, top = x[i], x[i, 0]
        for j in range(len(row)):
            top = row[j] if row[j] > top else top
        for j in range(len(row)):
            grad[i, j] = row[j] - top
        loss[i] = top - row[targets[i]] if targets[i] != ignore_index else 0
    exponents = grad.reshape(-1)
    for j in range(len(exponents)):
        exponents[j] = exp(exponents[j])
    for i in range(len(x)):
        if targets[i] == ignore_index:
            grad[i] = 0
            continue
        total = _sum(grad[i])
        losses += np.log(total) + loss[i]
        _to_gradient(grad[i], total, targets[i], share)
    return losses, n, wrong


def cross_entropy(x: Array, targets: Array, ignore_index: int) -> tuple[float, Array]:
    """The mean of −ln softmax(x)[target] over all rows whose target counts, and its gradient: (n, k), (n,) -> (n, k).

    Rows whose target is `ignore_index` do not count, and their gradient is 0. A ValueError for a target that is none.

    >>> loss, grad = cross_entropy(np.zeros((1, 2), np.float32), np.array([1]), -100)
    >>> round(loss, 4), grad.tolist()
    (0.6931, [[0.5, -0.5]])
    """
    x = np.ascontiguousarray(x)
    loss, grad = np.empty(len(x), np.float32), np.empty_like(x)
    if x.size <= CHUNK and x.shape[1] <= FEW:
        total, n, wrong = _cross_entropy_at_once(x, targets, ignore_index, loss, grad)
        check_class(targets, wrong, x.shape[1])
    else:
        n, wrong = _count(targets, x.shape[1], ignore_index)
        check_class(targets, wrong, x.shape[1])
        share = 1 / max(n, 1)
        run(
            lambda first, last: _cross_entropy(x, targets, ignore_index, share, first, last, loss, grad),
            len(x),
            max(pieces(x.size) // x.shape[1], 1),
        )
        total = loss.sum(dtype=np.float64)
    return float(total) / max(n, 1), grad


def check_class(targets: Array, place: int, classes: int) -> None:
    """A ValueError, if there is a place where the target is no class; it is −1 if there is none."""
    if place >= 0:
        raise ValueError(f"target {int(targets[place])} is no class: the input has classes 0 … {classes - 1}")


@jit
def _add_rows(first, last, rows, order, places, table):
    table[first:last] = 0
    k = np.searchsorted(places, first)
    while k < len(places) and places[k] < last:
        source, target = rows[order[k]], table[places[k]]
        for j in range(len(target)):
            target[j] += source[j]
        k += 1


def add_rows(rows: Array, places: Array, count: int) -> Array:
    """A table of `count` rows, zeros, to which row after row is added: rows (n, dim), places (n,) -> (count, dim).

    Each thread has rows of the table for itself and adds to them in the order in which they come.

    >>> add_rows(np.ones((3, 1), np.float32), np.array([1, 0, 1]), 3).tolist()
    [[1.0], [2.0], [0.0]]
    """
    order = np.argsort(places, kind="stable")
    rows, sorted_places = np.ascontiguousarray(rows), places[order].astype(np.int64)
    table = np.empty((count, rows.shape[1]), np.float32)
    run(
        lambda first, last: _add_rows(first, last, rows, order, sorted_places, table),
        count,
        max(pieces(table.size) // max(table.shape[1], 1), 1),
    )
    return table
