"""Fake quantization in one pass over memory; the pages in `tinyqnn/quant` are the twins, and give the same bits.

All kernels go through the numbers in the order in which they lie in memory: a channels-last image costs no reorder.
float32 only, one set of parameters for the whole array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels.jit import jit, run

__all__ = ["Pass", "affine", "mean_abs", "mean_abs_kept", "mean_abs_rest", "mix", "mix_grad", "pass_inside",
           "power_of_two", "sd", "signs"]  # fmt: skip

Array = np.ndarray

_BLOCK = 2048  # numbers that stay in the first cache while several loops go over them
_CHUNK = 2**15  # numbers summed up at a time; fixed, so that sums do not depend on the number of threads


class Pass(NamedTuple):
    """A scheme with its parameters as a compiled pass: `kind` of formula, and its numbers, float32. Call it on arrays.

    >>> signs(np.array([2.0, 1.0], np.float32))(np.array([0.5, -4.0], np.float32)).tolist()
    [1.0, -3.0]
    """

    kind: int
    numbers: Array

    def __call__(self, x: Array) -> Array:
        x = _packed(x)
        out = np.empty_like(x)
        source, target = _flat(x), _flat(out)
        run(lambda i, j: _values(self.kind, self.numbers, source[i:j], target[i:j]), x.size, _share(x.size))
        return out


_AFFINE, _POWER_OF_TWO, _SIGNS = range(3)


def affine(scale: Any, low: Any, shift: float, lift: float, first: Any, last: Any, step: Any = None) -> Pass:
    """scale · (clip(⌊(x − low)/step + shift⌋, first, last) + lift) + low; the step is the scale if not given."""
    step = scale if step is None else step
    return Pass(_AFFINE, np.array([scale, step if step > 0 else np.inf, low, shift, lift, first, last], np.float32))


def power_of_two(scale: Any, edges: Array) -> Pass:
    """±scale · (½, 2, 4, 8, …)[how many of `edges` are ≤ |x|/scale], with the sign of x (0 counts as negative)."""
    seven = [*edges, *[np.inf] * (7 - len(edges))]
    return Pass(_POWER_OF_TWO, np.array([scale, scale if scale > 0 else np.inf, *seven], np.float32))


def signs(scales: Array) -> Pass:
    """Σ ±scaleᵢ, each with the sign of what the ones before it left of x (0 counts as negative)."""
    return Pass(_SIGNS, np.ascontiguousarray(scales, np.float32))


def mix(x: Array, passes: Sequence[Pass], weights: Array) -> Array:
    """Σ_j weights_j · Q_j(x) of a vector x; those of weight 0 are left out.

    >>> x, one = np.array([0.5, -4.0], np.float32), signs(np.ones(1, np.float32))
    >>> mix(x, [one, one], np.array([0.5, 0.25])).tolist()
    [0.75, -0.75]
    """
    y, table, weights = np.empty_like(x), _table(passes), weights.astype(np.float32)
    run(lambda first, last: _mix(x[first:last], *table, weights, y[first:last]), x.size, _share(x.size))
    return y


def mix_grad(
    grad: Array, x: Array, passes: Sequence[Pass], limits: Sequence[tuple[Array, Array] | None], weights: Array
) -> tuple[Array, Array]:
    """Gradients of `mix` to x, straight through between each pass's limits (None: everywhere), and to its weights.

    The latter, Σ grad · Q_j(x), are summed in float64.
    """
    out, table = np.empty_like(x), _table(passes)
    everywhere, weights = np.float32(weights[[limit is None for limit in limits]].sum()), weights.astype(np.float32)
    nowhere = np.float32(np.inf), np.float32(-np.inf)
    low, high = np.array([limit or nowhere for limit in limits], np.float32).T.copy()
    sums = np.empty((-(-x.size // _CHUNK), len(passes)))
    run(
        lambda first, last: _mix_grad(
            grad, x, *table, weights, low, high, everywhere, first, last, _CHUNK, sums, out
        ),
        len(sums),
    )  # fmt: skip
    return out, sums.sum(axis=0)


def _table(passes: Sequence[Pass]) -> tuple[Array, Array, Array]:
    """Passes for compiled loops: their kinds, their numbers one behind the other, and where each one's begin."""
    begin = np.cumsum([0, *[len(one.numbers) for one in passes]])
    return np.array([one.kind for one in passes]), np.concatenate([one.numbers for one in passes]), begin


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
    rest = np.empty(min(x.size, _BLOCK), np.float32)
    for start in range(0, x.size, _BLOCK):
        block, values = x[start : start + _BLOCK], out[start : start + _BLOCK]
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
def _values(kind, n, x, out):
    """A pass: `out = Q(x)`."""
    if kind == _AFFINE:
        _affine(x, out, n[0], n[1], n[2], n[3], n[4], n[5], n[6])
    elif kind == _POWER_OF_TWO:
        _power_of_two(x, out, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8])
    else:
        _signs(x, out, n)


@jit
def _mix(x, kinds, numbers, begin, weights, y):
    made = np.empty(min(x.size, _BLOCK), np.float32)
    for start in range(0, x.size, _BLOCK):
        block, total = x[start : start + _BLOCK], y[start : start + _BLOCK]
        values = made[: block.size]
        total[:] = 0
        for j in range(len(kinds)):
            if weights[j] > 0:
                _values(kinds[j], numbers[begin[j] : begin[j + 1]], block, values)
                for i in range(block.size):
                    total[i] += weights[j] * values[i]


@jit(fastmath={"reassoc", "contract"})
def _dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@jit
def _mix_grad(grad, x, kinds, numbers, begin, weights, low, high, everywhere, first, last, chunk, sums, out):
    made, passing = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for c in range(first, last):
        sums[c] = 0.0
        end = min((c + 1) * chunk, x.size)
        for start in range(c * chunk, end, _BLOCK):
            stop = min(start + _BLOCK, end)
            block, g, to = x[start:stop], grad[start:stop], out[start:stop]
            values = made[: block.size]
            passing[:] = everywhere
            for j in range(len(kinds)):
                _values(kinds[j], numbers[begin[j] : begin[j + 1]], block, values)
                sums[c, j] += _dot(g, values)
                for i in range(block.size):
                    inside = (low[j] <= block[i]) & (block[i] <= high[j])
                    passing[i] += weights[j] if inside else np.float32(0)
            for i in range(block.size):
                to[i] = g[i] * passing[i]


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
