"""A product of b-bit numbers is a few products of bits: plane by plane, and, popcount, and a shift.

    w = Σ_i p_i · W_i + c        W_i a plane of 0 and 1,  p_i its weight,  c a constant
    x = Σ_j q_j · X_j + d

    Σ_k w_k · x_k = Σ_ij p_i · q_j · popcount(W_i and X_j)  +  d · Σ_k w'_k  +  c · Σ_k x'_k  +  K · c · d

with w' = w − c, x' = x − d. The first term costs one product of bits for each pair of planes: 2-bit weights and 2-bit
activations cost four. The other terms depend on one index alone. The pairs are taken from the largest weight to the
smallest, so that a shift of the sums between two pairs does for all of p_i · q_j (Horner's rule).

What the schemes' codes are as planes ("kind"), low bit first; the results count in the units of the last column:

    kind        schemes             codes                   planes p_i             c    a code's value here
    binary      Binary              −1, +1                  −2 (is it −1?)         1    the code
    ternary     Ternary             −1, 0, +1               1, −2                  0    the code
    signed      FixedQ              −2^(b−1) … 2^(b−1)−1    1, 2, …, −2^(b−1)      0    the code
    unsigned    after ReLU, PACT    0 … 2^b − 1             1, 2, …, 2^(b−1)       0    the code
    midrise     ClipQ, Quaternary   −2^(b−1) … 2^(b−1)−1    2, 4, …, −2^b          1    2·code + 1, twice code + ½
    zoom        ZoomQ               0 … 2^b − 1             2, 4, …, 2^b           1    2·code + 1, twice code + ½
    residual    ResQ                b signs, first highest  −2 each                1    b results, one for each sign

A mid-rise number is a sum of binary planes too: 2·code + 1 = Σ_i ±2^i, and so is ResQ's Σ_i ±α_i, but with scales that
are no powers of two: its result has the sign as first index, `y[i] = Σ_k x_k · s_ik`, for the caller to weigh with α_i.
ZoomQ's value is α/2 · (2·code + 1) + min: for the minimum the caller needs Σ_k of the other factor, `weight_sums` and
`row_sums(x)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.kernels import tiled, tiles
from tinyqnn.kernels.bitrow import multiply_rows, plan_row, row_sum, shifted
from tinyqnn.kernels.bits import BitGemm
from tinyqnn.kernels.count import ROWS, count_and
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.pack import as_bytes, empty_words, pack_rows, words_of
from tinyqnn.kernels.product import COLS, MANY, UNIT, UNITS, WIDTH, Rows, by_taps, in_a_row, panels
from tinyqnn.kernels.simd import add_to_rows, apply, cyclic, multiples, offsets, put_tile, zeros
from tinyqnn.kernels.turns import leave, take
from tinyqnn.kernels.widened import GROUPS, byte_panels, widen

__all__ = ["KINDS", "Alphabet", "BitSerialGemm"]

Array = np.ndarray

BLOCK = 64 // UNITS  # words of k at a time, over all planes
KINDS = ("binary", "ternary", "signed", "unsigned", "midrise", "zoom", "residual")


class Alphabet(NamedTuple):
    """What codes mean: which bits of a byte are planes, the weight of each, the constant, and the range of codes."""

    kind: str
    bits: int
    planes: tuple[int, ...]
    weights: tuple[int, ...]
    constant: int
    low: int
    high: int

    @classmethod
    def of(cls, kind: str, bits: int) -> Alphabet:
        """The alphabet of a kind of codes and a width.

        >>> Alphabet.of("midrise", 2).weights, Alphabet.of("midrise", 2).constant
        ((2, -4), 1)
        """
        widths = {"binary": range(1, 2), "ternary": range(2, 3), "residual": range(1, 9)}.get(kind, range(1, 9))
        if kind not in KINDS:
            raise ValueError(f"there is no kind of codes {kind!r}; there are {', '.join(KINDS)}")
        if bits not in widths:
            raise ValueError(f"{kind} codes have from {widths[0]} to {widths[-1]} bits, got {bits!r}")
        planes, powers = tuple(range(bits)), [2**i for i in range(bits)]
        half = 2 ** (bits - 1)
        if kind == "binary":  # in two's complement −1 is …11 and +1 is …01
            return cls(kind, 1, (1,), (-2,), 1, -1, 1)
        if kind == "residual":  # a 1 is the sign +: +1 is 2·1 − 1
            return cls(kind, bits, planes[::-1], (2,) * bits, -1, 0, 2 * half - 1)
        factor, constant = (2, 1) if kind in ("midrise", "zoom") else (1, 0)
        weights = [factor * power for power in powers]
        if kind in ("unsigned", "zoom"):
            return cls(kind, bits, planes, tuple(weights), constant, 0, 2 * half - 1)
        weights[-1] *= -1
        if kind == "ternary":
            return cls(kind, bits, planes, tuple(weights), constant, -1, 1)
        return cls(kind, bits, planes, tuple(weights), constant, -half, half - 1)

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        if self.kind == "residual":
            return 1
        low, high = (2 * self.low + 1, 2 * self.high + 1) if self.kind in ("midrise", "zoom") else (self.low, self.high)
        return max(-low, high)

    def check(self, codes: Any, name: str) -> Array:
        """Codes as bytes; ValueError for what is not in the alphabet."""
        octets = as_bytes(codes, self.low, self.high, f"{self.kind} {name} of {self.bits} bits")
        if self.kind == "binary" and octets.size and not octets.all():
            raise ValueError(
                f"binary {name} are 1 and −1 alone, got a 0; take the signs first, with one of the two for 0"
            )
        return octets

    def values(self, octets: Array) -> Array:
        """The numbers that checked codes stand for: (…) -> (…) int32; ResQ's signs: (…) -> (b, …)."""
        found = np.stack([octets >> plane & 1 for plane in self.planes]).astype(np.int32)
        if self.kind == "residual":
            return 2 * found - 1
        return np.tensordot(np.array(self.weights, np.int32), found, 1) + np.int32(self.constant)


@jit(forceinline=True)
def minus(acc, zero):
    return zero - acc


@jit(forceinline=True)
def add_pairs(acc, pairs, a, row, plane_size, walk, k0, k1, b, j, planes):
    """Words k0 … k1 of a few rows times two vectors of columns from j on: all pairs of planes, as `plan_pairs` says."""
    for pair in range(len(pairs)):
        w_plane, x_plane, up, flip = pairs[pair, 0], pairs[pair, 1], pairs[pair, 2], pairs[pair, 3]
        if up != 0:
            acc = apply(shifted, acc, up)
        if flip != 0:
            acc = apply(minus, acc, 0)
        if w_plane >= 0:  # else behind the last pair: the shift for its own weight
            panel = ((j * planes + w_plane * WIDTH) * len(walk) + k0 * WIDTH) * UNITS
            acc = acc + count_and(a, row, x_plane * plane_size, walk, k0, k1, b, panel)
    return acc


@jit
def _multiply_tile(
    seat, blocks, a, places, walk, plane_size, b, planes, pairs, start, start_rows, constant, x_planes, x_weights, cols,
    y,
):  # fmt: skip
    """Blocks of y, in tiles of ROWS rows and two vectors of columns."""
    depth, span, block = len(walk), max(4, BLOCK // planes), take(seat)
    while block >= 0:
        i0, i1, j0, j1 = blocks[block]
        terms = np.zeros(i1 - i0, np.int64)
        if constant != 0:
            for i in range(i0, i1):
                terms[i - i0] = constant * row_sum(a, places[i], walk, plane_size, x_planes, x_weights)
        for k0 in range(0, depth, span):
            k1 = min(k0 + span, depth)
            for j in range(j0, j1, WIDTH):
                for i in range(i0, i1, ROWS):
                    row, acc = offsets(places, i, i1 - 1, ROWS), zeros(b, ROWS, COLS)
                    acc = add_pairs(acc, pairs, a, row, plane_size, walk, k0, k1, b, j, planes)
                    if constant != 0 and k0 == 0:
                        acc = add_to_rows(acc, terms, i - i0, i1 - 1 - i0)
                    put_tile(
                        acc, y, multiples(cols, i1 - 1 - i, ROWS), i * cols + j, j1 - j, k0 == 0, start,
                        cyclic(i, i1 - 1, start_rows, cols, ROWS), j,
                    )  # fmt: skip
        block = take(seat)
    leave(seat)


def plan_pairs(w: list[tuple[int, int]], x: list[tuple[int, int]]) -> Array:
    """The pairs of planes, the largest weight first: rows (plane of w, plane of x, shift, change of sign).

    `w` and `x` are lists of (plane, weight). Shift and change of sign come before the pair's product is added; the last
    row, with plane −1, has those that come behind all.

    >>> plan_pairs([(0, 1), (1, -2)], [(0, 1)]).tolist()
    [[1, 0, 0, 0], [0, 0, 1, 1], [-1, -1, 0, 0]]
    """
    products = sorted(((p * q, i, j) for i, p in w for j, q in x), key=lambda entry: (-abs(entry[0]), entry[0]))
    table, before = [], products[0][0]
    for weight, i, j in [*products, (1, -1, -1)]:
        ratio = before // weight
        table.append((i, j, abs(ratio).bit_length() - 1, int(ratio < 0)))
        before = weight
    return np.array(table, np.int64)


class _Plan(NamedTuple):
    """What the loops want to know of one part of a product: planes of x and their weights, and two ways through."""

    x: tuple[Array, Array]
    pairs: Array
    row: tuple[int, ...]
    together: int

    @classmethod
    def of(cls, w: list[tuple[int, int]], x: list[tuple[int, int]]) -> _Plan:
        planes, weights = (np.array(column, np.int64) for column in zip(*x))
        return cls((planes, weights), plan_pairs(w, x), *plan_row(w, x))


class BitSerialGemm(BitGemm):
    """`x · wᵀ` for codes of any kinds and widths, in 1-bit planes: `codes` (N, K) packed once, `x` (M, K).

    codes, bits, kind      the weights: one of the kinds in the table above, and their width
    x_bits, x_kind         the same for the activations; without them, unsigned of as many bits
    the result             (M, N) int32, exact, the product of the values in the table's last column; with a "residual"
                           factor the b signs come first: (bits, M, N), and with two (bits, x_bits, M, N)

    `codes` may be (N, taps, C), as a convolution wants it. The cost is one product of bits for each pair of planes:
    from about five pairs on `Int8Gemm` is faster (`fastest.py` has the table). On a processor with tiles, where bytes
    are quicker than a single pair, planes of many rows are widened to bytes (`widened.py`).

    >>> g = BitSerialGemm(np.array([[1, -1, 0]]), 2, "ternary", 3, "unsigned")
    >>> g(np.array([[7, 2, 5]])).tolist()
    [[5]]
    >>> BitSerialGemm(np.array([[-2, 1]]), 2, "midrise")(np.array([[1, 3]])).tolist()  # −3 · 1 + 3 · 3
    [[6]]
    """

    def __init__(
        self, codes: Any, bits: int, kind: str = "signed", x_bits: int | None = None, x_kind: str = "unsigned"
    ) -> None:
        codes = by_taps(codes)
        n, taps, c = codes.shape
        self.alphabet, self.x_alphabet = Alphabet.of(kind, bits), Alphabet.of(x_kind, x_bits or bits)
        super().__init__((n, taps * c), self.alphabet.largest * self.x_alphabet.largest)
        octets = self.alphabet.check(codes, "weights")
        self.values = self.alphabet.values(octets)  # (N, taps, C), (bits, N, taps, C) for ResQ
        # Each part is a product of its own: (planes of w, planes of x) as lists of (plane, weight).
        self.parts = [(w, x) for w in _parts(self.alphabet) for x in _parts(self.x_alphabet)]
        self.lead = tuple(a.bits for a in (self.alphabet, self.x_alphabet) if a.kind == "residual")
        stacked = self.values if self.alphabet.kind == "residual" else self.values[None]
        x_parts = len(_parts(self.x_alphabet))
        self.tap_sums = np.repeat(stacked.sum(-1, dtype=np.int64).transpose(0, 2, 1), x_parts, 0)  # (parts, taps, N)
        self.start = self.start_table(None)
        self.back = False  # which way the last call read the weights
        widest = max(self.alphabet.largest, self.x_alphabet.largest)
        self.on_tiles = self.compiled and not self.lead and widest <= 127 and tiles.allowed()
        self._tiles: tiled.Panels | None = None  # the weights as bytes, made when they are first wanted
        if not self.compiled:
            return
        planes = len(self.alphabet.planes)
        depth = taps * words_of(c)
        self.plans = [_Plan.of(w, x) for w, x in self.parts]
        words, places = np.empty((planes, n, depth), np.uint64), np.arange(n * taps) * words_of(c)
        pack_rows(octets.reshape(n * taps, c), self.alphabet.planes, places, words.reshape(-1), n * depth)
        self.panels = empty_words(planes * -(-n // WIDTH) * WIDTH * depth).view(UNIT)
        self.panels[...] = panels(words.view(UNIT), WIDTH).reshape(-1)

    @property
    def weight_sums(self) -> Array:
        """Σ_k of the weights' values: (N,), or (bits, N) for ResQ: the factor of an offset of the activations."""
        return self.values.sum((-1, -2), dtype=np.int64)

    def row_sums(self, x: Any) -> Array:
        """Σ_k of the activations' values: (M,), or (x_bits, M) for ResQ: the factor of an offset of the weights."""
        return self.numbers(self._matrix(x)).sum(-1, dtype=np.int64)

    def start_table(self, missing: Array | None) -> Array:
        """(parts, S, N) int32: d · Σ w, without the taps that are `missing` (S, taps) at a border."""
        d = self.x_alphabet.constant
        present = np.ones((1, self.tap_sums.shape[1]), np.int64) if missing is None else 1 - missing.astype(np.int64)
        return (d * (present @ self.tap_sums)).astype(np.int32)

    def pack(self, x: Any) -> Rows:
        """Codes (M, K) in the planes of the activations' alphabet."""
        x = self._matrix(x)
        if not self.compiled:
            return Rows(x.shape, self.numbers(x))
        octets = self.x_alphabet.check(x, "activations")
        m, depth, planes = len(x), words_of(x.shape[1]), len(self.x_alphabet.planes)
        words, (places, walk) = empty_words(planes * m * depth), in_a_row(m, depth)
        pack_rows(octets, self.x_alphabet.planes, places, words, m * depth)
        return Rows(x.shape, words, places, walk, m * depth)

    def numbers(self, x: Array) -> Array:
        """The activations' values, (M, K), or (x_bits, M, K) for ResQ; for the twin."""
        return self.x_alphabet.values(self.x_alphabet.check(x, "activations"))

    def pack_pixels(self, x: Array, targets: Array, size: int) -> Array:
        """Rows of codes (R, C) to `targets` in new planes of `size` words, with 0 everywhere else."""
        words = np.zeros(len(self.x_alphabet.planes) * size, np.uint64)
        pack_rows(self.x_alphabet.check(x, "activations"), self.x_alphabet.planes, targets, words, size)
        return words

    def multiply(self, packed: Rows, out: Array | None = None) -> Array:
        """The product with packed activations: (M, N) int32, or (bits, M, N) with ResQ."""
        if not self.lead:
            return super().multiply(packed, out)
        y = np.empty((*self.lead, packed.shape[0], self.shape[0]), np.int32) if out is None else out
        if y.shape != (*self.lead, packed.shape[0], self.shape[0]):
            raise ValueError(f"expected out to be {(*self.lead, packed.shape[0], self.shape[0])}, got {y.shape}")
        for part, matrix in enumerate(y.reshape(-1, *y.shape[-2:])):
            self.multiply_part(packed, part, matrix)
        return y

    def multiply_part(self, packed: Rows, part: int, y: Array) -> None:
        """Write one product to `y`: on tiles, or by counting where rows are few or their sums start from a table."""
        if not self.on_tiles or packed.shape[0] < MANY or packed.start is not None:
            super().multiply_part(packed, part, y)
            return
        self.check(packed, y)
        if self._tiles is None:
            self._tiles = byte_panels(self.values.astype(np.int8))
        octets = widen(packed, self.x_alphabet.weights, self.x_alphabet.constant)
        places, _ = in_a_row(len(y), GROUPS * len(packed.walk))
        tiled.multiply(octets, places, self._tiles, y)

    def twin(self, packed: Rows, part: int) -> tuple[Array, Array]:
        """The two matrices of values of one part."""
        w, x = self.values.reshape(-1, *self.shape), packed.data.reshape(-1, *packed.shape)
        return x[part % len(x)], w[part // len(x)]

    def loop(self, packed: Rows, part: int) -> tuple[Callable[..., object], tuple[Any, ...], int]:
        plan = self.plans[part]
        start = (self.start if packed.start is None else packed.start)[part]
        rows = packed.data, packed.places, packed.walk, packed.plane_size, self.panels, len(self.alphabet.planes)
        constants = start.reshape(-1), len(start), self.alphabet.constant, *plan.x
        if packed.shape[0] > max(ROWS // 2, 1):
            return _multiply_tile, (*rows, plan.pairs, *constants), len(plan.pairs) - 1
        group = tuple([packed.plane_size * plane for plane in range(plan.together)])
        self.back = not self.back
        return multiply_rows, (self.back, *rows, plan.row, group, int(plan.x[0][0]), *constants), len(plan.pairs) - 1


def _parts(alphabet: Alphabet) -> list[list[tuple[int, int]]]:
    """(plane, weight) of the planes that are added up: all of them, or each of ResQ's alone."""
    entries = list(enumerate(alphabet.weights))
    return [[entry] for entry in entries] if alphabet.kind == "residual" else [entries]
