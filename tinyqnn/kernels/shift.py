"""Power-of-two weights: a product is a shift, and a sum of products is mostly a sum.

PotQ's weights are ±½, ±2, ±4, … ±2^(2^(b−1)−1). Counted in halves they are ±2^s with s among 0, 2, 3, 4, …, so

    2 · Σ_k w_k · x_k = Σ_s ( Σ_{w_k = +2^s} x_k − Σ_{w_k = −2^s} x_k ) << s

Many rows at once: for each output the numbers k are sorted by their shift when the weights are packed; those with the
same shift are added (or subtracted), and only the sum is shifted: `equalshifts.py`.

One row: weights are read once, so their bytes count: eight of them, 4 bits each, in a word of 32 bits. For each number
x_k the sixteen things that a weight can make of it, ±(x_k << s), are written down, and each output picks its own.

No multiplication is left, but that alone makes nothing faster on a processor whose multipliers work while one looks:
what is gained on the one row is gained by moving 4 bits where float32 moves 32. Where a processor looks up 64 bytes and
multiplies 64 at once, doing just that is twice as fast as shifting, so there one row is multiplied: 2^s is 4 · 2^(s−2),
or 1, and both are bytes that 4 bits can be looked up as. The weights in memory are the same, and so are the results.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tinyqnn.kernels import equalshifts, reference, use_reference
from tinyqnn.kernels.jit import aligned, jit, share
from tinyqnn.kernels.pack import as_bytes
from tinyqnn.kernels.product import Rows, by_taps, check_depth
from tinyqnn.kernels.simd import (
    HAS_BYTE_DOT,
    HAS_LOOK_UP,
    LANES,
    add_picked,
    at,
    dot_bytes,
    int_load,
    int_splat,
    int_store,
    look_up,
    nibbles,
)
from tinyqnn.kernels.turns import leave, mirrored, take

__all__ = ["ShiftGemm"]

Array = np.ndarray

PANEL = 4 * LANES  # outputs of one row side by side
SHIFTS = np.array([0, 2, 3, 4, 5, 6, 7, 8], np.int32)  # of twice the weights ½, 2, 4, …
FEW = 8  # rows of x up to which each is multiplied alone
BY_BYTES = HAS_LOOK_UP and HAS_BYTE_DOT  # is one row multiplied?
_FOURS = np.array([0, 1, 2, 4, 8, 16, 32, 64])  # 2^s = 4 · _FOURS[n] + _ONES[n]
_ONES = np.array([1, 0, 0, 0, 0, 0, 0, 0])
_BYTES = np.concatenate([np.tile([*t, *-t], 4) for t in (_FOURS, _ONES)]).astype(np.int8).view(np.int32)


@jit
def _shift_row(seat, back, table, groups, w, y, cols):
    """Panels of y, of four vectors, for one row of x: a word of w has eight weights."""
    part, panel = np.empty(PANEL, np.int32), take(seat)
    while panel >= 0:
        here = mirrored(seat, panel) if back else panel
        i = here * groups * PANEL
        a = b = c = d = int_load(part, 0) - int_load(part, 0)
        for g in range(groups):
            w0, w1 = int_load(w, i), int_load(w, i + LANES)
            w2, w3 = int_load(w, i + 2 * LANES), int_load(w, i + 3 * LANES)
            for k in range(8):
                x = (8 * g + k) * 16
                a, b = add_picked(a, table, x, w0, 4 * k), add_picked(b, table, x, w1, 4 * k)
                c, d = add_picked(c, table, x, w2, 4 * k), add_picked(d, table, x, w3, 4 * k)
            i += PANEL
        int_store(a, part, 0)
        int_store(b, part, LANES)
        int_store(c, part, 2 * LANES)
        int_store(d, part, 3 * LANES)
        for n in range(here * PANEL, min((here + 1) * PANEL, cols)):
            y[n] = part[n - here * PANEL]
        panel = take(seat)
    leave(seat)


@jit(forceinline=True)
def _add_eight(total, w, even, odd, table):
    """Eight weights a lane, looked up: those in bytes' lower halves times x_0 x_2 x_4 x_6, in upper ones the others."""
    total = dot_bytes(total, even, look_up(table, nibbles(w, 0)))
    return dot_bytes(total, odd, look_up(table, nibbles(w, 4)))


@jit
def _multiply_row(seat, back, x, tables, groups, w, start, y, cols):
    """The same with products of bytes: x has four even bytes and four odd ones of each eight as two words."""
    part, panel = np.empty(PANEL, np.int32), take(seat)
    fours, ones = int_load(tables, 0), int_load(tables, LANES)
    while panel >= 0:
        here = mirrored(seat, panel) if back else panel
        i = here * groups * PANEL
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = fours - fours
        for g in range(groups):
            even, odd = int_splat(fours, at(x, 2 * g)), int_splat(fours, at(x, 2 * g + 1))
            w0, w1 = int_load(w, i), int_load(w, i + LANES)
            w2, w3 = int_load(w, i + 2 * LANES), int_load(w, i + 3 * LANES)
            a0, b0 = _add_eight(a0, w0, even, odd, fours), _add_eight(b0, w0, even, odd, ones)
            a1, b1 = _add_eight(a1, w1, even, odd, fours), _add_eight(b1, w1, even, odd, ones)
            a2, b2 = _add_eight(a2, w2, even, odd, fours), _add_eight(b2, w2, even, odd, ones)
            a3, b3 = _add_eight(a3, w3, even, odd, fours), _add_eight(b3, w3, even, odd, ones)
            i += PANEL
        int_store(a0 + a0 + a0 + a0 + b0, part, 0)
        int_store(a1 + a1 + a1 + a1 + b1, part, LANES)
        int_store(a2 + a2 + a2 + a2 + b2, part, 2 * LANES)
        int_store(a3 + a3 + a3 + a3 + b3, part, 3 * LANES)
        for n in range(here * PANEL, min((here + 1) * PANEL, cols)):
            y[n] = start[n] + part[n - here * PANEL]
        panel = take(seat)
    leave(seat)


class ShiftGemm:
    """`2 · x · wᵀ` for PotQ's codes: `codes` (N, K) packed once, `x` (M, K) of −128 … 127 or 0 … 255 with `unsigned`.

    A code n from 0 is the weight +2^(n − [n = 0]), a code −1 − n is minus that, as `PotQ.encode` returns them. The
    result is (M, N) int32, exact, and counts in halves: with −½ for the code −1, `x · w` is half of it.

    >>> g = ShiftGemm(np.array([[0, 1, -2, -1]]), bits=3)  # ½, 2, −2, −½
    >>> g(np.array([[10, 3, 1, 4]])).tolist()  # 5 + 6 − 2 − 2 = 7
    [[14]]
    """

    def __init__(self, codes: Any, bits: int = 4, unsigned: bool = False) -> None:
        if bits not in (2, 3, 4):
            raise ValueError(f"power-of-two weights have 2, 3 or 4 bits, got {bits!r}")
        half = 2 ** (bits - 1)
        octets = by_taps(as_bytes(codes, -half, half - 1, f"power-of-two weights of {bits} bits"))
        octets = octets.reshape(len(octets), -1)
        self.shape, self.back = octets.shape, False  # which way the last call read the weights
        check_depth(self.shape[1], 2**half * (255 if unsigned else 128))
        self.bits, self.unsigned, self.compiled = bits, unsigned, not use_reference()
        shift = np.where(octets >= 0, octets, -1 - octets).astype(np.int64)
        shift += shift > 0
        self.values = (np.where(octets >= 0, 1, -1) << shift).astype(np.int32)
        if not self.compiled:
            return
        self.codes, self.nibbles = octets.copy(), _nibbles(octets)
        self.start = (0 if unsigned else -128) * self.values.sum(-1, dtype=np.int64)  # the loops want bytes from 0 on

    @cached_property
    def sorted(self) -> equalshifts.Sorted:
        """The weights for many rows; who asks for one row alone never waits for them."""
        power = np.where(self.codes >= 0, self.codes, -1 - self.codes).astype(np.int64)
        return equalshifts.sort_by_shift(self.codes < 0, power + (power > 0))

    def pack(self, x: Any) -> Rows:
        """Activations (M, K): rows side by side where there are many, K after K; else row by row."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.shape[1]:
            raise ValueError(f"expected activations (M, {self.shape[1]}), got {x.shape}")
        low, high = (0, 255) if self.unsigned else (-128, 127)
        octets = as_bytes(x, low, high, "activations")
        if self.compiled and len(x) <= FEW and BY_BYTES:
            return Rows(x.shape, _halves(octets if self.unsigned else octets ^ np.int8(-128)))
        if not self.compiled or len(x) <= FEW:
            return Rows(x.shape, (octets.view(np.uint8) if self.unsigned else octets).astype(np.int32))
        return Rows(
            x.shape, equalshifts.side_by_side((octets if self.unsigned else octets ^ np.int8(-128)).view(np.uint8))
        )

    def multiply(self, packed: Rows, out: Array | None = None) -> Array:
        """Twice the product with packed activations: (M, N) int32."""
        (m, k), n = packed.shape, self.shape[0]
        if k != self.shape[1]:
            raise ValueError(f"expected packed rows of K = {self.shape[1]} numbers, got {packed.shape}")
        y = np.empty((m, n), np.int32) if out is None else out
        if y.shape != (m, n) or y.dtype != np.int32 or not y.flags.c_contiguous:
            raise ValueError(f"expected out to be int32, contiguous, {(m, n)}, got {y.dtype}, {y.shape}")
        if not self.compiled:
            y[...] = reference.integer_matmul(packed.data, self.values)
        elif packed.data.ndim == 2:
            for row, target in zip(packed.data, y):
                self._row(row, target)
        else:
            equalshifts.multiply(packed.data, self.sorted, self.start, y)
        return y

    def _row(self, x: Array, y: Array) -> None:
        panels, groups = -(-len(y) // PANEL), -(-self.shape[1] // 8)
        self.back = not self.back
        if BY_BYTES:
            share(_multiply_row, panels, self.back, x, _BYTES, groups, self.nibbles, self.start, y, len(y))
            return
        table = np.zeros((8 * groups, 16), np.int32)
        np.left_shift(x[:, None], SHIFTS, out=table[: len(x), :8])
        np.negative(table[:, :8], out=table[:, 8:])
        share(_shift_row, panels, self.back, table.reshape(-1), groups, self.nibbles, y, len(y))

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        return self.multiply(self.pack(x), out)


def _halves(octets: Array) -> Array:
    """Bytes (M, K) -> words (M, K/4): of each eight bytes those in even places, then those in odd ones.

    >>> _halves(np.arange(8, dtype=np.int8)[None]).tobytes().hex()
    '0002040601030507'
    """
    m, k = octets.shape
    padded = np.zeros((m, -(-k // 8) * 8), np.int8)
    padded[:, :k] = octets
    return np.ascontiguousarray(padded.reshape(m, -1, 4, 2).swapaxes(2, 3)).reshape(m, -1).view(np.int32)


def _nibbles(codes: Array) -> Array:
    """(N, K) codes -> (N/PANEL, K/8, PANEL) words of eight 4-bit weights: three bits n, the fourth the sign."""
    n, k = codes.shape
    fours = np.where(codes >= 0, codes, (-1 - codes) | 8).astype(np.uint32)
    padded = np.zeros((-(-n // PANEL) * PANEL, -(-k // 8) * 8), np.uint32)
    padded[:n, :k] = fours
    groups = (padded.reshape(len(padded), -1, 8) << np.arange(0, 32, 4, dtype=np.uint32)).sum(-1, dtype=np.uint32)
    found = aligned(groups.size).view(np.int32)
    found.view(np.uint32).reshape(-1, groups.shape[1], PANEL)[...] = groups.reshape(
        -1, PANEL, groups.shape[1]
    ).transpose(0, 2, 1)
    return found
