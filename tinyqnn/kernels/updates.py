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
from itertools import chain

import numpy as np

from tinyqnn.kernels.addresses import PLAIN, axes, length, numbers_at, objects_at, plain, writeable
from tinyqnn.kernels.ahead import ahead_of_writing
from tinyqnn.kernels.board import opened
from tinyqnn.kernels.jit import ByLetter, get_num_threads, jit, share
from tinyqnn.kernels.loops import CHUNK
from tinyqnn.kernels.turns import leave, take

__all__ = ["Row", "adam", "flush", "sgd"]

Array = np.ndarray

FEW = 1 << 15  # numbers of all arrays that one thread has moved before another would help
PIECE = 512  # numbers, of which the next are asked for while these are moved
TINY = np.finfo(np.float32).tiny  # the smallest number that is not denormal


# The letter of both kernels: how many items and parameters; by their `id` the tuple of all arrays, column after column,
# and the rates; is it Nesterov's rule; and from ENDS on where each parameter ends.
ITEMS, COUNT, ARRAYS, RATES, NESTEROV, ENDS = range(6)


@jit
def _look_over(letter, columns, array, float32):
    """Fill in where each parameter of a `Row` ends.

    Returns how many numbers those are, −1 if the row does not serve; and does a parameter stand in for what is not
    remembered yet?
    """
    count, ends, first = letter[COUNT], letter[ENDS:], False
    arrays = objects_at(letter[ARRAYS], columns * count)
    for i in range(len(arrays)):
        at, param = arrays[i], arrays[i % count]
        if not plain(at, array, float32) or axes(at) != axes(param):
            return -1, first
        if i < (columns - 1) * count:  # all but a gradient
            if not writeable(at):
                return -1, first
            first |= i >= count and at == param
        size = 1
        for axis in range(axes(at)):
            size *= length(at, axis)
            if length(at, axis) != length(param, axis):
                return -1, first
        if i < count:
            ends[i + 1] = ends[i] + size
    return ends[count], first


class Row:
    """Parameters, what is remembered of each, and their gradients, as one row of numbers for the compiled loops.

    serve   do these loops serve, which want contiguous float32, of one shape for each parameter, all but the gradients
            to be written to?
    first   does a parameter stand in for what is not remembered of it yet?

    >>> Row([np.ones(3)], [np.ones(3)]).serve  # float64
    False
    """

    def __init__(self, params: Sequence[Array], *others: Sequence[Array]) -> None:
        count, self.arrays = len(params), (*params, *chain(*others))
        self.letter = np.zeros(ENDS + count + 1, np.int64)
        self.letter[COUNT], self.letter[ARRAYS] = count, id(self.arrays)
        self.total, self.first = _look_over(self.letter, 1 + len(others), *PLAIN)
        self.serve = self.total >= 0

    def move(self, kernel: ByLetter, numbers: Sequence[float], nesterov: bool = False) -> None:
        """Have a kernel move the parameters, on all threads if there is enough to do."""
        threads, rates = get_num_threads(), np.array(numbers, np.float32)
        few, some = self.total <= FEW, self.total <= threads * CHUNK
        self.letter[ITEMS] = items = 1 if few else 2 * threads if some else -(-self.total // CHUNK)
        self.letter[RATES], self.letter[NESTEROV] = id(rates), nesterov
        share(kernel, items, self.letter)


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
    items, count, nesterov = letter[ITEMS], letter[COUNT], letter[NESTEROV] != 0
    rates, ends = numbers_at(letter[RATES], 3 + count), letter[ENDS:][: count + 1]
    p = objects_at(letter[ARRAYS], 3 * count)
    m, g, item = p[count:], p[2 * count :], take(seat)
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


def sgd(row: Row, fresh: Sequence[float], lr: float, momentum: float, decay: float, nesterov: bool) -> None:
    """m ← momentum·m + fresh·(g + decay·p), p ← p − lr·m, or with `nesterov` p − lr·(g + decay·p + momentum·m).

    Of many parameters at once: a row of all p, all m and all g, with a number `fresh` for each p. Without momentum no m
    is touched.

    >>> p, m, g = np.zeros(1, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32)
    >>> sgd(Row([p], [m], [g]), [1.0], 0.5, 0.5, 0.0, False); p.tolist(), m.tolist()
    ([-0.5], [1.0])
    """
    row.move(_sgd_of_all, [lr, momentum, decay, *fresh], nesterov)


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
    items, count, numbers = letter[ITEMS], letter[COUNT], numbers_at(letter[RATES], 6 + 2 * letter[COUNT])
    beta1, rest1, beta2, rest2, decay, eps = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
    corrections, rates = numbers[6 : 6 + count], numbers[6 + count :]
    p, ends, item = objects_at(letter[ARRAYS], 4 * count), letter[ENDS:][: count + 1], take(seat)
    m, v, g = p[count:], p[2 * count :], p[3 * count :]
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
    row: Row,
    corrections: Sequence[float],
    rates: Sequence[float],
    betas: tuple[float, float],
    decay: float,
    eps: float,
) -> None:
    """m ← β1·m + (1 − β1)·g, v ← β2·v + (1 − β2)·g², p ← p − rate · m / (√v · correction + eps), with decay·p in g.

    Of many parameters at once: a row of all p, all m, all v and all g, with a correction and a rate for each p.

    >>> p, m, v, g = (np.full(1, x, np.float32) for x in (1, 0, 0, 1))
    >>> adam(Row([p], [m], [v], [g]), [1.0], [0.5], (0.5, 0.5), 0.0, 0.0); round(float(p[0]), 4)
    0.6464
    """
    beta1, beta2 = betas
    row.move(_adam_of_all, [beta1, 1 - beta1, beta2, 1 - beta2, decay, eps, *corrections, *rates])
