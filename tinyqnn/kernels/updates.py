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

from tinyqnn.kernels.addresses import fast, numbers_at
from tinyqnn.kernels.ahead import ahead_of_writing
from tinyqnn.kernels.board import opened
from tinyqnn.kernels.jit import ByLetter, get_num_threads, jit, share
from tinyqnn.kernels.loops import CHUNK
from tinyqnn.kernels.turns import leave, take

__all__ = ["adam", "fast", "flush", "sgd"]

Array = np.ndarray

FEW = 1 << 15  # numbers of all arrays that one thread has moved before another would help
PIECE = 512  # numbers, of which the next are asked for while these are moved
TINY = np.finfo(np.float32).tiny  # the smallest number that is not denormal


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
def _sgd(ps, gs, ms, lr, momentum, fresh, decay, nesterov):
    if momentum == 0:
        for i in range(len(ps)):
            ps[i] -= (ps[i] * decay + gs[i] if decay else gs[i]) * lr
    elif nesterov:
        for i in range(len(ps)):
            slope = ps[i] * decay + gs[i] if decay else gs[i]
            ms[i] = _flushed(ms[i] * momentum + slope * fresh)
            ps[i] -= (ms[i] * momentum + slope) * lr
    else:
        for i in range(len(ps)):
            ms[i] = _flushed(ms[i] * momentum + (ps[i] * decay + gs[i] if decay else gs[i]) * fresh)
            ps[i] -= ms[i] * lr


@ByLetter
def _sgd_of_all(at, told):
    seat, letter = opened(at, told)
    items, count, rates, nesterov = letter[0], letter[1], numbers_at(letter[2], 3 + letter[1]), letter[3] != 0
    p, g, m, ends = letter[4:], letter[4 + count :], letter[4 + 2 * count :], letter[4 + 3 * count :][: count + 1]
    item = take(seat)
    while item >= 0:
        for i in range(count):
            a, b = _overlap(item, items, ends, i)
            if a < b:
                ps, gs, ms = numbers_at(p[i], b), numbers_at(g[i], b), numbers_at(m[i], b)
                for j in range(a, b, PIECE):
                    end = min(j + PIECE, b)
                    ahead_of_writing(ps, end, min(end + PIECE, b))
                    _sgd(ps[j:end], gs[j:end], ms[j:end], rates[0], rates[1], rates[3 + i], rates[2], nesterov)
        item = take(seat)
    leave(seat)


@jit(forceinline=True)
def _overlap(item, items, ends, i):
    """Where an item's part of all numbers begins and ends in array i, whose own end is `ends[i + 1]`."""
    total, a, b = ends[len(ends) - 1], ends[i], ends[i + 1]
    first, last = item * total // items, (item + 1) * total // items
    return max(first, a) - a, min(last, b) - a


def _items(arrays: Sequence[Array]) -> tuple[int, list[int]]:
    """In how many parts threads move these arrays, and where each would end if they stood in one row."""
    ends, threads = [0, *accumulate([array.size for array in arrays])], get_num_threads()
    total = ends[-1]
    return (1 if total <= FEW else 2 * threads if total <= threads * CHUNK else -(-total // CHUNK)), ends


def sgd(
    params: Sequence[Array],
    grads: Sequence[Array],
    averages: Sequence[Array],
    fresh: Sequence[float],
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """m ← momentum·m + fresh·(g + decay·p), p ← p − lr·m, or with `nesterov` p − lr·(g + decay·p + momentum·m).

    Of many parameters at once: each p, g and m is an array, and has a number `fresh`. Without momentum no m is touched.

    >>> p = np.ones(1, np.float32)
    >>> sgd([p], [p.copy()], [p], [1.0], 0.5, 0.0, 0.0, False)
    >>> p.tolist()
    [0.5]
    """
    items, ends = _items(params)
    rates = np.array([lr, momentum, decay, *fresh], np.float32)
    arrays = map(id, (*params, *grads, *averages))
    share(_sgd_of_all, items, np.array((items, len(params), id(rates), nesterov, *arrays, *ends), np.int64))


@jit(inner=True, error_model="numpy")  # a test for division by 0 would keep the loop from filling vectors
def _adam(ps, gs, ms, vs, beta1, rest1, beta2, rest2, decay, correction, eps, rate):
    for i in range(len(ps)):
        slope = ps[i] * decay + gs[i] if decay else gs[i]
        ms[i] = _flushed(ms[i] * beta1 + slope * rest1)
        vs[i] = _flushed(vs[i] * beta2 + slope * slope * rest2)
        ps[i] -= ms[i] / (np.sqrt(vs[i]) * correction + eps) * rate


@ByLetter
def _adam_of_all(at, told):
    seat, letter = opened(at, told)
    items, count, numbers = letter[0], letter[1], numbers_at(letter[2], 6 + 2 * letter[1])
    beta1, rest1, beta2, rest2, decay, eps = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
    corrections, rates = numbers[6 : 6 + count], numbers[6 + count :]
    p, g, m, v = letter[3:], letter[3 + count :], letter[3 + 2 * count :], letter[3 + 3 * count :]
    ends, item = letter[3 + 4 * count :][: count + 1], take(seat)
    while item >= 0:
        for i in range(count):
            a, b = _overlap(item, items, ends, i)
            if a < b:
                ps, gs, ms, vs = numbers_at(p[i], b), numbers_at(g[i], b), numbers_at(m[i], b), numbers_at(v[i], b)
                for j in range(a, b, PIECE):
                    end = min(j + PIECE, b)
                    ahead_of_writing(ps, end, min(end + PIECE, b))
                    _adam(
                        ps[j:end], gs[j:end], ms[j:end], vs[j:end], beta1, rest1, beta2, rest2, decay, corrections[i],
                        eps, rates[i],
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
    numbers = np.array([beta1, 1 - beta1, beta2, 1 - beta2, decay, eps, *corrections, *rates], np.float32)
    arrays = map(id, (*params, *grads, *averages, *squares))
    share(_adam_of_all, items, np.array((items, len(params), id(numbers), *arrays, *ends), np.int64))
