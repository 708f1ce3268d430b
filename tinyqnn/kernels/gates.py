"""An LSTM on codes for a few rows: every step, from the state to the next, without a detour through Python.

For one row the time goes into reading the weights, and into everything that a call does besides. So one call does it
all, at every step: the state becomes codes, codes become bits, then the products of bits of `bitserial.py`, the factor,
and the gates of `lstm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.kernels.bitserial import BitSerialGemm, add_pairs, plan_pairs
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.lstm import advance_row
from tinyqnn.kernels.product import COLS, WIDTH
from tinyqnn.kernels.requantize import step_up
from tinyqnn.kernels.simd import multiples, popcount, put_tile, test_bits, zeros

__all__ = ["BitRows"]

Array = np.ndarray


class BitRows:
    """`factor · (x · wᵀ)` for a few rows of codes x (M, K) and fixed codes w (N, K), float32, rounded once.

    bits, kind, x_bits, x_kind   what the codes are, as for `BitSerialGemm`; not "residual"
    factor                       (N,) float64

    >>> rows = BitRows(np.array([[1, -1, 0]], np.int8), 2, "ternary", 3, "unsigned", np.array([0.5]))
    >>> rows(np.array([[7, 2, 5]], np.uint8)).tolist()
    [[2.5]]
    """

    def __init__(self, codes: Array, bits: int, kind: str, x_bits: int, x_kind: str, factor: Array) -> None:
        if "residual" in (kind, x_kind):
            raise ValueError("residual codes have a scale for each plane; use BitSerialGemm")
        g = BitSerialGemm(codes, bits, kind, x_bits, x_kind)
        (w, x), self.shape = g.parts[0], g.shape
        self.panels, self.pairs, self.start = g.panels, plan_pairs(w, x), g.start.reshape(-1)
        self.planes, self.constant = len(w), g.alphabet.constant
        self.x_planes, self.x_weights = (np.array(of, np.int64) for of in (g.x_alphabet.planes, g.x_alphabet.weights))
        self.factor = np.broadcast_to(np.asarray(factor, np.float64), self.shape[:1]).copy()

    def __call__(self, x: Array, to: Array | None = None) -> Array:
        """The product, or `to` (M, N) with the product added to it."""
        out = np.zeros((len(x), self.shape[0]), np.float32) if to is None else to
        _rows(
            x.view(np.int8), self.panels, self.planes, self.pairs, self.start, self.constant, self.x_planes,
            self.x_weights, self.factor, out,
        )  # fmt: skip
        return out

    def steps(
        self, shares: Array, unit: Array, bias: Array, stairs: Any, from_zeros: bool, codes: Array, y: Array, c: Array
    ) -> None:
        """All steps of an LSTM whose state is encoded before it is multiplied, in one call.

        shares       (T, M, 4K) the inputs' share of the gates' sums, int32 or float32, to be multiplied with
        unit         (4K,) float64, and rounded to float32
        bias         (4K,) float32
        stairs       the code of the state: `edges` (E, 1) float32, `first` and `direction` (1,), see `requantize.py`
        from_zeros   the first state is zeros, and is not encoded
        codes        (T, M, K), written
        y, c         (T + 1, M, K) float32: states and cells, of which [0] is given
        """
        _steps(
            shares, unit, bias, y, c, codes.view(np.int8), from_zeros, stairs.edges[:, 0],
            stairs.first.view(np.int8)[0], stairs.direction[0], self.panels, self.planes, self.pairs, self.start,
            self.constant, self.x_planes, self.x_weights, self.factor,
        )  # fmt: skip


@jit
def _steps(
    shares, unit, bias, y, c, codes, from_zeros, edges, first, direction, panels, planes, pairs, start, constant,
    x_planes, x_weights, factor,
):  # fmt: skip
    steps, rows, size = shares.shape
    sums, counts = np.empty((rows, size), np.float32), np.empty(size, np.int32)
    for t in range(steps):
        for m in range(rows):
            line, share = sums[m], shares[t, m]
            for j in range(size):
                line[j] = np.float32(unit[j] * np.float64(share[j])) + bias[j]
        if t > 0 or not from_zeros:
            for m in range(rows):
                step_up(y[t, m], edges, first, direction, counts, codes[t, m])
            _rows(codes[t], panels, planes, pairs, start, constant, x_planes, x_weights, factor, sums)
        for m in range(rows):
            advance_row(sums[m], c[t, m], c[t + 1, m], y[t + 1, m])


@jit
def _rows(x, panels, planes, pairs, start, constant, x_planes, x_weights, factor, out):
    depth, n = -(-x.shape[1] // 64), len(start)
    row, words = np.zeros(64 * depth, np.int8), np.empty(len(x_planes) * depth, np.uint64)
    total, walk, first = np.empty(n, np.int32), np.arange(depth), multiples(0, 0, 1)
    for m in range(len(x)):
        row[: x.shape[1]] = x[m]
        ones = 0
        for j in range(len(x_planes)):
            for k in range(depth):
                word = test_bits(row, 64 * k, x_planes[j])
                words[j * depth + k] = word
                ones += x_weights[j] * np.int64(popcount(word))
        ones *= constant
        for j in range(0, n, WIDTH):
            acc = add_pairs(zeros(panels, 1, COLS), pairs, words, first, depth, walk, 0, depth, panels, j, planes)
            put_tile(acc, total, first, j, n - j, True, start, first, j)
        line = out[m]
        for o in range(n):
            line[o] += np.float32(factor[o] * np.float64(np.int32(total[o] + ones)))
