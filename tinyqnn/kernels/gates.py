"""A state times its weights, a few rows at a time: what an LSTM does at every step, without a detour.

For one row the time goes into reading the weights, and into everything that a call does besides. So the weights lie as
planes of bits, word k of all outputs side by side, and one call does it all: codes to bits, products of bits, and the
factor. The sums are those of `bitserial.py`:

    w = Σ_i p_i · W_i + c,   x = Σ_j q_j · X_j + d
    Σ w·x = Σ_ij p_i · q_j · popcount(W_i and X_j) + d · Σ w' + c · Σ x' + K·c·d
"""

from __future__ import annotations

import numpy as np

from tinyqnn.kernels.bitserial import Alphabet
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.pack import pack_words
from tinyqnn.kernels.simd import popcount

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
        w, x = Alphabet.of(kind, bits), Alphabet.of(x_kind, x_bits)
        if "residual" in (kind, x_kind):
            raise ValueError("residual codes have a scale for each plane; use BitSerialGemm")
        self.shape = codes.shape
        octets = w.check(codes, "weights")
        planes = np.stack([octets >> plane & 1 for plane in w.planes])
        self.planes = np.ascontiguousarray(pack_words(planes).transpose(0, 2, 1))  # (planes, words, N)
        inner = np.tensordot(np.array(w.weights, np.int64), planes.sum(-1, dtype=np.int64), 1)  # Σ w' of each output
        self.start = x.constant * (inner + codes.shape[1] * w.constant)
        self.weights, self.constant = np.array(w.weights, np.int64), w.constant
        self.x_planes, self.x_weights = np.array(x.planes, np.int64), np.array(x.weights, np.int64)
        self.factor = np.broadcast_to(np.asarray(factor, np.float64), codes.shape[:1]).copy()

    def __call__(self, x: Array, to: Array | None = None) -> Array:
        """The product, or `to` (M, N) with the product added to it."""
        out = np.zeros((len(x), self.shape[0]), np.float32) if to is None else to
        _rows(
            x.view(np.int8), self.planes, self.start, self.weights, self.constant, self.x_planes, self.x_weights,
            self.factor, out,
        )  # fmt: skip
        return out

    def step(self, h: Array, edges: Array, first: int, direction: int, scale: Array, to: Array) -> Array:
        """A step of an LSTM up to tanh: codes of h, their product added to the gates `to`, all times `scale`.

        h                         (M, K) float32
        edges, first, direction   the stairs of its code, see `requantize.py`
        returns the codes, (M, K) int8 or the bytes of uint8
        """
        codes = np.empty(h.shape, np.int8)
        _step(
            h, edges, first, direction, codes, self.planes, self.start, self.weights, self.constant, self.x_planes,
            self.x_weights, self.factor, scale, to,
        )  # fmt: skip
        return codes


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
def _step(h, edges, first, direction, codes, planes, start, weights, constant, x_planes, x_weights, factor, scale, out):
    counts = np.empty(h.shape[1], np.int32)
    for m in range(len(h)):
        row, code = h[m], codes[m]
        counts[:] = 0
        for edge in edges:
            for i in range(len(row)):
                counts[i] += np.int32(row[i] >= edge)
        for i in range(len(row)):
            code[i] = first + direction * counts[i]
    _rows(codes, planes, start, weights, constant, x_planes, x_weights, factor, out)
    for m in range(len(out)):
        line = out[m]
        for o in range(len(line)):
            line[o] *= scale[o]


@jit
def _count(planes, words, counts):
    """counts[o] = Σ_k popcount(planes[k, o] and words[k]), four k at a time."""
    depth, n = planes.shape
    counts[:] = 0
    k = 0
    while k + 4 <= depth:
        p0, p1, p2, p3 = planes[k], planes[k + 1], planes[k + 2], planes[k + 3]
        w0, w1, w2, w3 = words[k], words[k + 1], words[k + 2], words[k + 3]
        for o in range(n):
            two = np.int64(popcount(p0[o] & w0)) + np.int64(popcount(p1[o] & w1))
            counts[o] += two + (np.int64(popcount(p2[o] & w2)) + np.int64(popcount(p3[o] & w3)))
        k += 4
    while k < depth:
        plane, word = planes[k], words[k]
        for o in range(n):
            counts[o] += np.int64(popcount(plane[o] & word))
        k += 1


@jit
def _rows(x, planes, start, weights, constant, x_planes, x_weights, factor, out):
    depth, n = planes.shape[1], planes.shape[2]
    words, counts, total = np.empty(depth, np.uint64), np.empty(n, np.int64), np.empty(n, np.int64)
    for m in range(len(x)):
        row, ones = x[m], 0
        total[:] = start
        for j in range(len(x_planes)):
            bit = x_planes[j]
            for k in range(depth):
                word = np.uint64(0)
                for i in range(64 * k, min(64 * k + 64, len(row))):
                    word |= np.uint64((row[i] >> bit) & 1) << np.uint64(i - 64 * k)
                words[k] = word
                ones += x_weights[j] * np.int64(popcount(word))
            for p in range(len(weights)):
                _count(planes[p], words, counts)
                weight = weights[p] * x_weights[j]
                for o in range(n):
                    total[o] += weight * counts[o]
        ones *= constant
        line = out[m]
        for o in range(n):
            line[o] += np.float32(factor[o] * np.float64(total[o] + ones))
