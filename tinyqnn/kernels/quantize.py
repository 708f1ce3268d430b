"""Fake quantization in one pass over memory; the pages in `tinyqnn/quant` are the twins, and give the same bits.

All kernels go through the numbers in the order in which they lie in memory: a channels-last image costs no reorder.
float32 only, one set of parameters for the whole array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn.kernels.jit import jit, run

__all__ = ["affine", "mean_abs", "mean_abs_kept", "mean_abs_rest", "pass_inside", "power_of_two", "sd", "signs"]

Array = np.ndarray

_CHUNK = 2**15  # numbers summed up at a time; fixed, so that sums do not depend on the number of threads


def affine(
    x: Array, scale: Any, low: Any, shift: float, lift: float, first: Any, last: Any, step: Any = None
) -> Array:  # fmt: skip
    """scale · (clip(⌊(x − low)/step + shift⌋, first, last) + lift) + low; the step is the scale if not given."""
    x = _packed(x)
    out = np.empty_like(x)
    source, target = _flat(x), _flat(out)
    f = np.float32
    step = scale if step is None else step
    divisor = f(step) if step > 0 else f(np.inf)
    numbers = (f(scale), divisor, f(low), f(shift), f(lift), f(first), f(last))
    run(lambda i, j: _affine(source[i:j], target[i:j], *numbers), x.size, _share(x.size))
    return out


def power_of_two(x: Array, scale: Any, edges: Array) -> Array:
    """±scale · (½, 2, 4, 8, …)[how many of `edges` are ≤ |x|/scale], with the sign of x (0 counts as negative)."""
    x = _packed(x)
    out = np.empty_like(x)
    source, target = _flat(x), _flat(out)
    divisor = np.float32(scale) if scale > 0 else np.float32(np.inf)
    scale = np.float32(scale)
    seven = [*edges, *[np.float32(np.inf)] * (7 - len(edges))]
    run(lambda i, j: _power_of_two(source[i:j], target[i:j], scale, divisor, *seven), x.size, _share(x.size))
    return out


def signs(x: Array, scales: Array) -> Array:
    """Σ ±scaleᵢ, each with the sign of what the ones before it left of x (0 counts as negative)."""
    x = _packed(x)
    out = np.empty_like(x)
    source, target = _flat(x), _flat(out)
    run(lambda i, j: _signs(source[i:j], target[i:j], scales), x.size, _share(x.size))
    return out


def pass_inside(grad: Array, x: Array, low: Any, high: Any) -> Array:
    """grad where low ≤ x ≤ high, else 0."""
    x = _packed(x)
    out = np.empty_like(x)
    if grad.dtype != x.dtype or grad.strides != x.strides:
        np.copyto(out, grad)
        grad = out
    source, target, gradient = _flat(x), _flat(out), _flat(grad)
    low, high = np.float32(low), np.float32(high)
    run(lambda i, j: _pass_inside(gradient[i:j], source[i:j], target[i:j], low, high), x.size, _share(x.size))
    return out


def mean_abs(x: Array) -> float:
    """E|x|, summed in float64."""
    source = _flat(_packed(x))
    sums = np.empty(-(-source.size // _CHUNK))
    run(lambda i, j: _sum_abs(source, sums, i, j, _CHUNK), sums.size)
    return float(sums.sum()) / source.size


def mean_abs_rest(x: Array, scales: Array) -> float:
    """E|r|, summed in float64; r is what is left of x after taking off ±scaleᵢ, each with the sign of what was left."""
    source = _flat(_packed(x))
    sums = np.empty(-(-source.size // _CHUNK))
    run(lambda i, j: _sum_rest(source, scales, sums, i, j, _CHUNK), sums.size)
    return float(sums.sum()) / source.size


def mean_abs_kept(x: Array, step: Any) -> float:
    """The mean of |x| over all x with ⌊x/step + ½⌋ ≠ 0, summed in float64; 0 if there are none."""
    source = _flat(_packed(x))
    sums = np.empty((2, -(-source.size // _CHUNK)))
    step = np.float32(step) if step > 0 else np.float32(np.inf)
    run(lambda i, j: _sum_kept(source, step, sums, i, j, _CHUNK), sums.shape[1])
    total, count = (float(part) for part in sums.sum(axis=1))
    return total / count if count else 0.0


def sd(x: Array) -> float:
    """The population's standard deviation in one pass, shifted by x's first element (`quant/measure.py` says why)."""
    source = _flat(_packed(x))
    sums = np.empty((2, -(-source.size // _CHUNK)))
    shift = float(x.flat[0])
    run(lambda i, j: _sum_squares(source, shift, sums, i, j, _CHUNK), sums.shape[1])
    mean, square = (float(total) / source.size for total in sums.sum(axis=1))
    return math.sqrt(max(square - mean * mean, 0.0)) if math.isfinite(square) else math.nan


def _packed(x: Array) -> Array:
    """`x` if its numbers fill one stretch of memory in some order of axes, else a copy that does."""
    return x if _order(x) is not None else x.copy(order="K")


def _order(x: Array) -> list[int] | None:
    """The order of axes in which `x` is contiguous."""
    axes = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    return axes if x.transpose(axes).flags.c_contiguous else None


def _flat(x: Array) -> Array:
    """All numbers of a packed array, as they lie in memory: a view."""
    return x.transpose(_order(x)).reshape(-1)


def _share(size: int) -> int:
    """How many numbers to hand out at a time: a few shares a thread, none too small."""
    return max(_CHUNK, -(-size // 8))


@jit
def _affine(x, out, scale, divisor, low, shift, lift, first, last):
    for i in range(x.size):
        code = np.floor((x[i] - low) / divisor + shift)
        code = first if code < first else code
        code = last if code > last else code
        out[i] = scale * (code + lift) + low


@jit
def _power_of_two(x, out, scale, divisor, e1, e2, e3, e4, e5, e6, e7):
    f = np.float32  # seven comparisons without a loop: the compiler makes vectors of them
    for i in range(x.size):
        u = abs(x[i]) / divisor
        magnitude = f(2) if u >= e1 else f(0.5)
        magnitude = f(4) if u >= e2 else magnitude
        magnitude = f(8) if u >= e3 else magnitude
        magnitude = f(16) if u >= e4 else magnitude
        magnitude = f(32) if u >= e5 else magnitude
        magnitude = f(64) if u >= e6 else magnitude
        magnitude = f(128) if u >= e7 else magnitude
        value = scale * magnitude
        out[i] = value if x[i] > 0 else f(0) - value


@jit
def _pass_inside(grad, x, out, low, high):
    for i in range(x.size):
        out[i] = grad[i] if (x[i] >= low) & (x[i] <= high) else np.float32(0)


@jit
def _signs(x, out, scales):
    rest = np.empty(min(x.size, 2048), np.float32)  # a block stays in the first cache for all bits
    for start in range(0, x.size, 2048):
        block, values = x[start : start + 2048], out[start : start + 2048]
        for i in range(block.size):
            rest[i] = block[i]
            values[i] = np.float32(0)
        for scale in scales:
            for i in range(block.size):
                part = scale if rest[i] > 0 else -scale
                values[i] += part
                rest[i] -= part


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


@jit(fastmath={"reassoc", "contract"})
def _sum_squares(x, shift, sums, first, last, chunk):
    for c in range(first, last):
        total, squares = 0.0, 0.0
        part = x[c * chunk : (c + 1) * chunk]
        for i in range(part.size):
            d = np.float64(part[i]) - shift
            total += d
            squares += d * d
        sums[0, c], sums[1, c] = total, squares
