"""A state times its weights, a few rows at a time: what an LSTM does at every step, without a detour.

For one row the time goes into reading the weights, and into everything that a call does besides. So one call does it
all: codes to bits, the products of bits of `bitserial.py`, and the factor.
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels.bitserial import BitSerialGemm, minus, plan_pairs, shifted
from tinyqnn.kernels.count import count_and
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.product import COLS, UNITS, WIDTH
from tinyqnn.kernels.simd import apply, multiples, popcount, put_tile, test_bits, zeros

__all__ = ["BitRows", "cell"]

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

    def step(
        self, h: Array, before: Array, edges: Array, first: int, direction: int, scale: Array, codes: Array, to: Array
    ) -> None:
        """A step of an LSTM up to tanh: h itself, its codes, their product added to the gates, all times `scale`.

        h                         (M, K) float32: tanh(c), multiplied here with the gate o of `before`
        before, to                (M, 4K) the gates of the step before and of this one
        edges, first, direction   the stairs of its code, see `requantize.py`
        codes                     (M, K) int8 or uint8, written
        """
        _step(
            h, before, edges, first, direction, codes.view(np.int8), self.panels, self.planes, self.pairs, self.start,
            self.constant, self.x_planes, self.x_weights, self.factor, scale, to,
        )  # fmt: skip


@jit
def cell(a, scale, shift, c, out):
    """What follows tanh: a · scale + shift in place, the gates i, f, g, o; out = f · c + i · g."""
    hidden = c.shape[1]
    for m in range(len(a)):
        row, old, new = a[m], c[m], out[m]
        for j in range(4 * hidden):
            row[j] = row[j] * scale[j] + shift[j]
        for j in range(hidden):
            new[j] = row[hidden + j] * old[j] + row[j] * row[2 * hidden + j]


@jit
def _step(
    h, before, edges, first, direction, codes, panels, planes, pairs, start, constant, x_planes, x_weights, factor,
    scale, out,
):  # fmt: skip
    hidden = h.shape[1]
    counts = np.empty(hidden, np.int32)
    for m in range(len(h)):
        row, code, o = h[m], codes[m], before[m, 3 * hidden :]
        for i in range(hidden):
            row[i] *= o[i]
        counts[:] = 0
        for edge in edges:
            for i in range(hidden):
                counts[i] += np.int32(row[i] >= edge)
        for i in range(hidden):
            code[i] = first + direction * counts[i]
    _rows(codes, panels, planes, pairs, start, constant, x_planes, x_weights, factor, out)
    for m in range(len(out)):
        line = out[m]
        for o in range(len(line)):
            line[o] *= scale[o]


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
            acc = zeros(panels, 1, COLS)
            for pair in range(len(pairs)):
                w_plane, x_plane, up, flip = pairs[pair, 0], pairs[pair, 1], pairs[pair, 2], pairs[pair, 3]
                if up != 0:
                    acc = apply(shifted, acc, up)
                if flip != 0:
                    acc = apply(minus, acc, 0)
                if w_plane >= 0:
                    panel = (j * planes + w_plane * WIDTH) * depth * UNITS
                    acc = acc + count_and(words, first, x_plane * depth, walk, 0, depth, panels, panel)
            put_tile(acc, total, first, j, n - j, True, start, first, j)
        line = out[m]
        for o in range(n):
            line[o] += np.float32(factor[o] * np.float64(np.int32(total[o] + ones)))
