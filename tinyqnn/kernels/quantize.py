"""Fake quantization in one pass over memory; the pages in `tinyqnn/quant` are the twins, and give the same bits.

All kernels go through the numbers in the order in which they lie in memory: a channels-last image costs no reorder.
float32 only, one set of parameters for the whole array. A training step is bound by memory here, not by arithmetic: so
the pass that writes Q(x) also notes where the gradient will pass, a byte an element, and x is not read again for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels.jit import jit, run, share
from tinyqnn.kernels.loops import flat
from tinyqnn.kernels.measure import CHUNK, piece_of
from tinyqnn.kernels.turns import leave, take

__all__ = ["Pass", "affine", "keep", "mix", "mix_grad", "pass_inside", "power_of_two", "signs"]

Array = np.ndarray

_BLOCK = 2048  # numbers that stay in the first cache while several loops go over them


class Pass(NamedTuple):
    """A scheme with its parameters as a compiled pass: `kind` of formula, and its numbers, float32. Call it on arrays.

    The first number is the scale of the values.

    >>> signs(np.array([2.0, 1.0], np.float32))(np.array([0.5, -4.0], np.float32)).tolist()
    [1.0, -3.0]
    """

    kind: int
    numbers: Array

    def __call__(self, x: Array) -> Array:
        x = _packed(x)
        out = np.empty_like(x)
        self._write(flat(x), flat(out), 0.0, 0.0, np.empty(0, bool))
        return out

    def in_units(self, scale: float) -> Pass:
        """The same codes with another scale for their values, and without `low`, which the caller takes off x.

        >>> affine(0.5, 0.0, 0.0, 0.5, -4, 3).in_units(2)(np.array([0.6, -9.0], np.float32)).tolist()
        [3.0, -7.0]
        """
        numbers = self.numbers.copy()
        numbers[0] = scale
        if self.kind == _AFFINE:
            numbers[2] = 0
        return Pass(self.kind, numbers)

    def marked(self, x: Array, low: Any, high: Any) -> tuple[Array, Array]:
        """The values, and for each element whether low ≤ x ≤ high."""
        x = _packed(x)
        out, inside = np.empty_like(x), np.empty_like(x, bool)
        self._write(flat(x), flat(out), low, high, flat(inside))
        return out, inside

    def _write(self, x: Array, out: Array, low: Any, high: Any, inside: Array) -> None:
        low, high, piece = np.float32(low), np.float32(high), piece_of(x.size)
        share(_pass, -(-x.size // piece), self.kind, self.numbers, x, out, low, high, inside, piece)


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
    sums = np.empty((-(-x.size // CHUNK), len(passes)))
    run(
        lambda first, last: _mix_grad(
            grad, x, *table, weights, low, high, everywhere, first, last, CHUNK, sums, out
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
    source, target, gradient = flat(x), flat(out), flat(grad)
    low, high = np.float32(low), np.float32(high)
    run(lambda i, j: _pass_inside(gradient[i:j], source[i:j], target[i:j], low, high), x.size, _share(x.size))
    return out


def keep(grad: Array, inside: Array, plus: Array | None = None) -> Array:
    """grad where `inside`, else 0, and `plus`; all in the same order in memory."""
    out, piece = np.empty_like(grad), piece_of(grad.size)
    more = flat(out)[:0] if plus is None else flat(plus)
    share(_keep, -(-grad.size // piece), flat(grad), flat(inside), more, flat(out), piece)
    return out


def _packed(x: Array) -> Array:
    """`x` if its numbers fill one stretch of memory in some order of axes, else a copy that does."""
    return x if flat(x).base is not None else x.copy(order="K")


def _share(size: int) -> int:
    """How many numbers `run` hands out at a time: a few shares a thread, none too small."""
    return max(CHUNK, -(-size // 8))


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
def _pass(seat, kind, n, x, out, low, high, inside, piece):
    item = take(seat)
    while item >= 0:
        for start in range(item * piece, min((item + 1) * piece, x.size), _BLOCK):
            stop = min(start + _BLOCK, (item + 1) * piece)
            block, marks = x[start:stop], inside[start:stop]  # no marks if nobody asks
            _values(kind, n, block, out[start:stop])
            for i in range(marks.size):
                marks[i] = (low <= block[i]) & (block[i] <= high)
        item = take(seat)
    leave(seat)


@jit
def _keep(seat, grad, inside, plus, out, piece):
    item = take(seat)
    while item >= 0:
        start, stop = item * piece, min((item + 1) * piece, grad.size)
        g, marks, more, to = grad[start:stop], inside[start:stop], plus[start:stop], out[start:stop]
        if more.size:
            for i in range(g.size):
                to[i] = (g[i] if marks[i] else np.float32(0)) + more[i]
        else:
            for i in range(g.size):
                to[i] = g[i] if marks[i] else np.float32(0)
        item = take(seat)
    leave(seat)


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
