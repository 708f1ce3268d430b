"""What the schemes measure on a tensor, compiled: one pass over memory, sums in float64, cut in the same places always.

The twins, and why they sum as they do, are in `tinyqnn/quant/measure.py` and on the schemes' pages. float32 only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn.kernels.ahead import ahead
from tinyqnn.kernels.jit import jit, run, share
from tinyqnn.kernels.loops import flat
from tinyqnn.kernels.turns import leave, take

__all__ = ["mean_abs", "mean_abs_kept", "mean_abs_rest", "sd"]

Array = np.ndarray

CHUNK = 2**15  # numbers summed up at a time; fixed, so that sums do not depend on the number of threads
_FEW = 512  # numbers after which the next are asked for


def piece_of(size: int) -> int:
    """How many numbers a thread takes at a time; two pieces or less are not worth another thread."""
    return CHUNK if size > 2 * CHUNK else size


def mean_abs(x: Array) -> float:
    """E|x|, summed in float64."""
    source = flat(x)
    sums = np.empty(-(-source.size // CHUNK))
    run(lambda i, j: _sum_abs(source, sums, i, j, CHUNK), sums.size)
    return float(sums.sum()) / source.size


def mean_abs_rest(x: Array, scales: Array) -> float:
    """E|r|, summed in float64; r is what is left of x after taking off ±scaleᵢ, each with the sign of what was left."""
    source = flat(x)
    sums = np.empty(-(-source.size // CHUNK))
    run(lambda i, j: _sum_rest(source, scales, sums, i, j, CHUNK), sums.size)
    return float(sums.sum()) / source.size


def mean_abs_kept(x: Array, step: Any) -> float:
    """The mean of |x| over all x with ⌊x/step + ½⌋ ≠ 0, summed in float64; 0 if there are none."""
    source = flat(x)
    sums = np.empty((2, -(-source.size // CHUNK)))
    step = np.float32(step) if step > 0 else np.float32(np.inf)
    run(lambda i, j: _sum_kept(source, step, sums, i, j, CHUNK), sums.shape[1])
    total, count = (float(part) for part in sums.sum(axis=1))
    return total / count if count else 0.0


def sd(x: Array) -> float:
    """The population's standard deviation in one pass, shifted by x's first element (`quant/measure.py` says why)."""
    source, piece = flat(x), piece_of(x.size)
    sums = np.empty((2, -(-x.size // piece)))
    share(_sum_squares, sums.shape[1], source, x.item(0), piece, sums)
    mean, square = (sums.sum(axis=1) / x.size).tolist()
    return math.sqrt(max(square - mean * mean, 0.0)) if math.isfinite(square) else math.nan


@jit(fastmath={"reassoc", "contract"})
def _sum_abs(x, sums, first, last, chunk):
    for c in range(first, last):
        total = 0.0
        part = x[c * chunk : (c + 1) * chunk]
        for i in range(part.size):
            total += np.float64(abs(part[i]))
        sums[c] = total


@jit
def _sum_rest(x, scales, sums, first, last, chunk):
    rest = np.empty(chunk, np.float32)
    for c in range(first, last):
        part = x[c * chunk : (c + 1) * chunk]
        for i in range(part.size):
            rest[i] = part[i]
        for scale in scales:
            for i in range(part.size):
                rest[i] -= scale if rest[i] > 0 else -scale
        _sum_abs(rest[: part.size], sums[c : c + 1], 0, 1, chunk)


@jit(fastmath={"reassoc"})
def _sum_kept(x, step, sums, first, last, chunk):
    for c in range(first, last):
        total, count = 0.0, 0
        part = x[c * chunk : (c + 1) * chunk]
        for i in range(part.size):
            kept = np.floor(part[i] / step + np.float32(0.5)) != 0
            total += np.float64(abs(part[i]) if kept else np.float32(0))
            count += kept
        sums[0, c], sums[1, c] = total, count


@jit(fastmath={"reassoc", "contract"}, inner=True)
def _two_sums(x, shift):
    total, squares = 0.0, 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - shift
        total += d
        squares += d * d
    return total, squares


@jit
def _sum_squares(seat, x, shift, piece, sums):
    item = take(seat)
    while item >= 0:
        total, squares = 0.0, 0.0
        for start in range(item * piece, min((item + 1) * piece, x.size), _FEW):
            stop = min(start + _FEW, (item + 1) * piece)
            ahead(x, start, stop)
            few = _two_sums(x[start:stop], shift)
            total, squares = total + few[0], squares + few[1]
        sums[0, item], sums[1, item] = total, squares
        item = take(seat)
    leave(seat)
