"""An optimizer's formula, read once from left to right for every number: each array passes through the cache once.

All parameters are moved in one call, as if they stood in one row: a call takes as long as ten thousand numbers.
The formulas, and their NumPy twins, are in `tinyqnn/optim`; every product and sum here is rounded as it is there, so
the two agree to the last bit. Arrays are float32, contiguous, of one size, and changed in place.

An average that nothing is added to, as that of a unit that no longer answers, is divided by ten every 22 steps, until
it is below 10⁻³⁸: a *denormal* number, which a processor needs a hundred times as long for, and which may never get
smaller. A small network was seen to train four times slower for it. So there an average becomes 0.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from tinyqnn.kernels import use_reference
from tinyqnn.kernels.addresses import addresses, numbers_at
from tinyqnn.kernels.jit import get_num_threads, jit, share
from tinyqnn.kernels.loops import CHUNK
from tinyqnn.kernels.turns import leave, take

__all__ = ["adam", "fast", "flush", "sgd"]

Array = np.ndarray

FEW = 1 << 15  # numbers of all arrays that one thread has moved before another would help
TINY = np.finfo(np.float32).tiny  # the smallest number that is not denormal


def fast(*arrays: Array) -> bool:
    """Do the compiled loops serve?

    >>> fast(np.zeros(3))
    False
    """
    for a in arrays:
        if a.dtype != np.float32 or not a.flags.c_contiguous:
            return False
    return not use_reference()


@jit(inner=True)
def _flushed(x):
    return np.float32(0) if abs(x) < TINY else x


def flush(*averages: Array) -> None:
    """Set denormal numbers to 0, in place.

    >>> average = np.array([1e-39, 1e-38, 1], np.float32)
    >>> flush(average); average.tolist()[0]
    0.0
    """
    for average in averages:
        average[np.abs(average) < np.finfo(average.dtype).tiny] = 0


@jit(inner=True)
def _sgd(p, g, m, count, lr, momentum, fresh, decay, nesterov):
    ps, gs, ms = numbers_at(p, count), numbers_at(g, count), numbers_at(m, count)
    if momentum == 0:
        for i in range(count):
            ps[i] -= (ps[i] * decay + gs[i] if decay else gs[i]) * lr
    elif nesterov:
        for i in range(count):
            slope = ps[i] * decay + gs[i] if decay else gs[i]
            ms[i] = _flushed(ms[i] * momentum + slope * fresh)
            ps[i] -= (ms[i] * momentum + slope) * lr
    else:
        for i in range(count):
            ms[i] = _flushed(ms[i] * momentum + (ps[i] * decay + gs[i] if decay else gs[i]) * fresh)
            ps[i] -= ms[i] * lr


@jit
def _sgd_of_all(seat, items, ends, p, g, m, fresh, lr, momentum, decay, nesterov):
    lr, momentum, decay = np.float32(lr), np.float32(momentum), np.float32(decay)
    item = take(seat)
    while item >= 0:
        for i in range(len(p)):
            a, count = _overlap(item, items, ends, i)
            if count > 0:
                _sgd(p[i] + 4 * a, g[i] + 4 * a, m[i] + 4 * a, count, lr, momentum, fresh[i], decay, nesterov)
        item = take(seat)
    leave(seat)


@jit(forceinline=True)
def _overlap(item, items, ends, i):
    """Where an item's part of all numbers begins in array i, and how many they are; array i ends at `ends[i + 1]`."""
    total, a, b = ends[len(ends) - 1], ends[i], ends[i + 1]
    first, last = item * total // items, (item + 1) * total // items
    first, last = (first if first > a else a), (last if last < b else b)
    return first - a, last - first


def _items(arrays: Sequence[Array]) -> tuple[int, Array]:
    """In how many parts threads move these arrays, and where each would end if they stood in one row."""
    ends, threads = [0, *accumulate([array.size for array in arrays])], get_num_threads()
    total = ends[-1]
    return (1 if total <= FEW else 2 * threads if total <= threads * CHUNK else -(-total // CHUNK)), np.array(ends)


def sgd(
    params: Sequence[Array],
    grads: Sequence[Array],
    averages: Sequence[Array] | None,
    fresh: Sequence[float],
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """m ← momentum·m + fresh·(g + decay·p), p ← p − lr·m, or with `nesterov` p − lr·(g + decay·p + momentum·m).

    Of many parameters at once: each p, g and m is an array, and has a number `fresh`.

    >>> p = np.ones(1, np.float32)
    >>> sgd([p], [p.copy()], None, [1.0], 0.5, 0.0, 0.0, False)
    >>> p.tolist()
    [0.5]
    """
    items, ends = _items(params)
    p, g = addresses(params), addresses(grads)
    m = p if averages is None else addresses(averages)
    rates = np.array(fresh, np.float32)
    share(_sgd_of_all, items, items, ends, p, g, m, rates, lr, momentum, decay, nesterov)


@jit(inner=True, error_model="numpy")  # a test for division by 0 would keep the loop from filling vectors
def _adam(p, g, m, v, count, beta1, rest1, beta2, rest2, decay, correction, eps, rate):
    ps, gs, ms, vs = numbers_at(p, count), numbers_at(g, count), numbers_at(m, count), numbers_at(v, count)
    for i in range(count):
        slope = ps[i] * decay + gs[i] if decay else gs[i]
        ms[i] = _flushed(ms[i] * beta1 + slope * rest1)
        vs[i] = _flushed(vs[i] * beta2 + slope * slope * rest2)
        ps[i] -= ms[i] / (np.sqrt(vs[i]) * correction + eps) * rate


@jit
def _adam_of_all(seat, items, ends, p, g, m, v, corrections, rates, beta1, rest1, beta2, rest2, decay, eps):
    beta1, rest1, beta2, rest2 = np.float32(beta1), np.float32(rest1), np.float32(beta2), np.float32(rest2)
    decay, eps, item = np.float32(decay), np.float32(eps), take(seat)
    while item >= 0:
        for i in range(len(p)):
            a, count = _overlap(item, items, ends, i)
            if count > 0:
                _adam(
                    p[i] + 4 * a, g[i] + 4 * a, m[i] + 4 * a, v[i] + 4 * a, count, beta1, rest1, beta2, rest2, decay,
                    corrections[i], eps, rates[i],
                )  # fmt: skip
        item = take(seat)
    leave(seat)


def adam(
    params: Sequence[Array],
    grads: Sequence[Array],
    averages: Sequence[Array],
    squares: Sequence[Array],
    corrections: Sequence[float],
    rates: Sequence[float],
    betas: tuple[float, float],
    decay: float,
    eps: float,
) -> None:
    """m ← β1·m + (1 − β1)·g, v ← β2·v + (1 − β2)·g², p ← p − rate · m / (√v · correction + eps), with decay·p in g.

    Of many parameters at once: each p, g, m and v is an array, and has a correction and a rate.

    >>> p, m, v = np.ones(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
    >>> adam([p], [np.ones(1, np.float32)], [m], [v], [1.0], [0.5], (0.5, 0.5), 0.0, 0.0)
    >>> round(float(p[0]), 4)
    0.6464
    """
    beta1, beta2 = betas
    items, ends = _items(params)
    share(
        _adam_of_all, items, items, ends, *map(addresses, (params, grads, averages, squares)),
        np.array(corrections, np.float32), np.array(rates, np.float32), beta1, 1 - beta1, beta2, 1 - beta2, decay, eps,
    )  # fmt: skip
