"""An LSTM on codes for a few rows: every step, from the state to the next, without a detour through Python.

For one row the time goes into reading the weights, and into everything that a call does besides. So one call does it
all, at every step: the state becomes codes, codes become bits, then one row times planes of bits (`bitrow.py`), the
factors, and the gates of `lstm.py`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.kernels import using
from tinyqnn.kernels.bitrow import multiply_row, plan_row
from tinyqnn.kernels.bitserial import BitSerialGemm
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.lstm import advance_row
from tinyqnn.kernels.pack import words_of
from tinyqnn.kernels.requantize import step_up
from tinyqnn.kernels.simd import copy, popcount, test_bits

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
        with using("compiled"):  # the twin packs nothing
            g = BitSerialGemm(codes, bits, kind, x_bits, x_kind)
        (w, x), self.shape = g.parts[0], g.shape
        plan, together = plan_row(w, x)
        walk = np.arange(words_of(self.shape[1]))
        group = tuple(len(walk) * plane for plane in range(together))
        self.weights = g.panels, len(w), plan, group, walk, g.start.reshape(-1)
        x_planes, x_weights = (np.array(of, np.int64) for of in (g.x_alphabet.planes, g.x_alphabet.weights))
        self.x = x_planes, g.alphabet.constant * x_weights
        self.factor = np.broadcast_to(np.asarray(factor, np.float64), self.shape[:1]).copy()

    def __call__(self, x: Array, to: Array | None = None) -> Array:
        """The product, or `to` (M, N) with the product added to it."""
        out = np.zeros((len(x), self.shape[0]), np.float32) if to is None else to
        _rows(x.view(np.int8), *self.weights, *self.x, self.factor, out)
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
            stairs.first.view(np.int8)[0], stairs.direction[0], *self.weights, *self.x, self.factor,
        )  # fmt: skip


@jit
def _steps(
    shares, unit, bias, y, c, codes, from_zeros, edges, first, direction, panels, planes, plan, group, walk, start,
    x_planes, x_weights, factor,
):  # fmt: skip
    steps, rows, size = shares.shape
    hidden, depth = y.shape[2], len(walk)
    octets, words = np.zeros(64 * depth, np.int8), np.empty(depth * len(x_planes), np.uint64)
    sums, gates, counts = np.empty(size, np.int32), np.empty(size, np.float32), np.empty(hidden, np.int32)
    for t in range(steps):
        for m in range(rows):
            share = shares[t, m]
            if t > 0 or not from_zeros:
                step_up(y[t, m], edges, first, direction, counts, octets)
                copy(codes, (t * rows + m) * hidden, octets, 0, hidden)
                ones = _to_words(octets, x_planes, x_weights, words)
                multiply_row(panels, planes, plan, words, group, walk, start, sums)
                for j in range(size):
                    given = np.float32(unit[j] * np.float64(share[j])) + bias[j]
                    gates[j] = given + np.float32(factor[j] * np.float64(np.int32(sums[j] + ones)))
            else:
                for j in range(size):
                    gates[j] = np.float32(unit[j] * np.float64(share[j])) + bias[j]
            advance_row(gates, c[t, m], c[t + 1, m], y[t + 1, m])


@jit
def _rows(x, panels, planes, plan, group, walk, start, x_planes, x_weights, factor, out):
    depth, sums = len(walk), np.empty(len(start), np.int32)
    octets, words = np.zeros(64 * depth, np.int8), np.empty(depth * len(x_planes), np.uint64)
    for m in range(len(x)):
        octets[: x.shape[1]] = x[m]
        ones = _to_words(octets, x_planes, x_weights, words)
        multiply_row(panels, planes, plan, words, group, walk, start, sums)
        line = out[m]
        for j in range(len(sums)):
            line[j] += np.float32(factor[j] * np.float64(np.int32(sums[j] + ones)))


@jit
def _to_words(octets, planes, weights, words):
    """The planes of codes, one behind the other; returns the weighted number of their bits."""
    depth, total = len(octets) // 64, 0
    for j in range(len(planes)):
        for k in range(depth):
            word = test_bits(octets, 64 * k, planes[j])
            words[j * depth + k] = word
            total += weights[j] * np.int64(popcount(word))
    return total
