"""An optimizer's formula, read once from left to right for every number: each array passes through the cache once.

The formulas, and their NumPy twins, are in `tinyqnn/optim`; every product and sum here is rounded as it is there, so
the two agree to the last bit. Arrays are float32, contiguous, of one size, and changed in place.

An average that nothing is added to, as that of a unit that no longer answers, is divided by ten every 22 steps, until
it is below 10⁻³⁸: a *denormal* number, which a processor needs a hundred times as long for, and which may never get
smaller. A small network was seen to train four times slower for it. So there an average becomes 0.
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels import use_reference
from tinyqnn.kernels.jit import jit, run
from tinyqnn.kernels.loops import CHUNK, pieces

__all__ = ["adam", "fast", "flush", "sgd"]

Array = np.ndarray

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


@jit
def _sgd(p, g, m, first, last, lr, momentum, fresh, decay, nesterov):
    lr, momentum, fresh, decay = np.float32(lr), np.float32(momentum), np.float32(fresh), np.float32(decay)
    ps, gs = p[first:last], g[first:last]
    if momentum == 0:
        for i in range(len(ps)):
            ps[i] -= (ps[i] * decay + gs[i] if decay else gs[i]) * lr
        return
    ms = m[first:last]
    if nesterov:
        for i in range(len(ps)):
            slope = ps[i] * decay + gs[i] if decay else gs[i]
            ms[i] = _flushed(ms[i] * momentum + slope * fresh)
            ps[i] -= (ms[i] * momentum + slope) * lr
    else:
        for i in range(len(ps)):
            ms[i] = _flushed(ms[i] * momentum + (ps[i] * decay + gs[i] if decay else gs[i]) * fresh)
            ps[i] -= ms[i] * lr


def sgd(
    p: Array, g: Array, m: Array | None, lr: float, momentum: float, fresh: float, decay: float, nesterov: bool
) -> None:
    """m ← momentum·m + fresh·(g + decay·p), p ← p − lr·m, or with `nesterov` p − lr·(g + decay·p + momentum·m).

    >>> p = np.ones(1, np.float32)
    >>> sgd(p, p.copy(), None, 0.5, 0.0, 1.0, 0.0, False)
    >>> p.tolist()
    [0.5]
    """
    if p.ndim != 1:
        p, g, m = p.reshape(-1), g.reshape(-1), None if m is None else m.reshape(-1)
    m = p if m is None else m
    numbers = lr, momentum, fresh, decay, nesterov
    if p.size <= CHUNK:
        _sgd(p, g, m, 0, p.size, *numbers)
    else:
        run(lambda first, last: _sgd(p, g, m, first, last, *numbers), p.size, pieces(p.size))


@jit(error_model="numpy")  # a test for division by 0 would keep the loop from filling vectors
def _adam(p, g, m, v, first, last, beta1, rest1, beta2, rest2, decay, correction, eps, rate):
    beta1, rest1, beta2, rest2 = np.float32(beta1), np.float32(rest1), np.float32(beta2), np.float32(rest2)
    decay, correction, eps, rate = np.float32(decay), np.float32(correction), np.float32(eps), np.float32(rate)
    ps, gs, ms, vs = p[first:last], g[first:last], m[first:last], v[first:last]
    for i in range(len(ps)):
        slope = ps[i] * decay + gs[i] if decay else gs[i]
        ms[i] = _flushed(ms[i] * beta1 + slope * rest1)
        vs[i] = _flushed(vs[i] * beta2 + slope * slope * rest2)
        ps[i] -= ms[i] / (np.sqrt(vs[i]) * correction + eps) * rate


def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    betas: tuple[float, float],
    decay: float,
    correction: float,
    eps: float,
    rate: float,
) -> None:
    """m ← β1·m + (1 − β1)·g, v ← β2·v + (1 − β2)·g², p ← p − rate · m / (√v · correction + eps), with decay·p in g.

    >>> p, m, v = np.ones(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
    >>> adam(p, np.ones(1, np.float32), m, v, (0.5, 0.5), 0.0, 1.0, 0.0, 0.5)
    >>> round(float(p[0]), 4)
    0.6464
    """
    p, g, m, v = (a.reshape(-1) for a in (p, g, m, v))
    beta1, beta2 = betas
    numbers = beta1, 1 - beta1, beta2, 1 - beta2, decay, correction, eps, rate
    if p.size <= CHUNK:
        _adam(p, g, m, v, 0, p.size, *numbers)
    else:
        run(lambda first, last: _adam(p, g, m, v, first, last, *numbers), p.size, pieces(p.size))
