"""A product of bytes: four neighbours of k at a time, multiplied and added into 32 bits by one instruction.

    acc[n] += x_k · w_nk + x_k+1 · w_n,k+1 + x_k+2 · w_n,k+2 + x_k+3 · w_n,k+3

That instruction (byte-dot, VNNI) takes unsigned bytes on one side and signed ones on the other. Signed activations are
made unsigned by adding 128, which the sums start from: Σ_k w_k · (x_k + 128) − 128 · Σ_k w_k. Where a processor lacks
it the same four products are formed one by one. Numbers behind the K-th are 0 in w.

Where there are tiles (`tiles.py`), which multiply signed bytes as they are, they do it: see `tiled.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyqnn.kernels import tiled, tiledconv, tiles
from tinyqnn.kernels.jit import aligned, jit, run
from tinyqnn.kernels.pack import as_bytes
from tinyqnn.kernels.product import IntegerGemm, Rows, by_taps, in_a_row, panels, sums_of
from tinyqnn.kernels.requantize import Stairs
from tinyqnn.kernels.simd import (
    LANES,
    REGISTERS,
    at,
    copy,
    cyclic,
    dot_bytes,
    multiples,
    offsets,
    outer_with,
    put_tile,
    zeros,
)

__all__ = ["Int8Gemm"]

Array = np.ndarray
Pair = tuple[int, int]

COPY_PAYS = 1 << 21  # bytes from which a second thread pays; it takes about as long to wake as to copy half of them
BLOCK = 96  # groups of four bytes of k at a time: 24 kB of a panel
ROWS, COLS = (
    (6, 4) if REGISTERS == 32 else (4, 2)
)  # vectors; the loads of ROWS + COLS numbers serve ROWS · COLS products
WIDTH = COLS * LANES


@jit(forceinline=True)
def add_products(acc, a, b):
    return dot_bytes(acc, a, b)


def _make_multiply(rows: int) -> Any:
    """The loop below for tiles of `rows` rows and COLS vectors of columns."""

    @jit
    def multiply(i0, i1, j0, j1, a, places, walk, b, start, start_rows, cols, y):
        depth = len(walk)
        for k0 in range(0, depth, BLOCK):
            k1 = min(k0 + BLOCK, depth)
            for j in range(j0, j1, WIDTH):
                panel = j * depth
                for i in range(i0, i1, rows):
                    row, acc = offsets(places, i, i1 - 1, rows), zeros(a, rows, COLS)
                    for k in range(k0, k1):
                        acc = outer_with(add_products, acc, a, row, at(walk, k), b, panel + k * WIDTH)
                    put_tile(
                        acc,
                        y,
                        multiples(cols, i1 - 1 - i, rows),
                        i * cols + j,
                        j1 - j,
                        k0 == 0,
                        start,
                        cyclic(i, i1 - 1, start_rows, cols, rows),
                        j,
                    )

    return multiply


_multiply_tile, _multiply_row = _make_multiply(ROWS), _make_multiply(1)


@jit
def _place(first, last, x, count, targets, data):
    """Rows first … last of `count` bytes go to group `targets[r]` of data."""
    for r in range(first, last):
        copy(data, 4 * targets[r], x, r * count, count)


@jit
def _place_doubled(first, last, x, count, low, high, targets, data):
    """The same with 2·x + 1; returns whether all x are from `low` to `high`."""
    least = most = np.int8(0)
    for r in range(first, last):
        row, o = x[r * count : (r + 1) * count], 4 * targets[r]
        there = data[o : o + count]
        for k in range(count):
            least, most = min(least, row[k]), max(most, row[k])
            there[k] = np.int8(2) * row[k] + np.int8(1)
    return low <= least and most <= high


@jit
def _on_tiles(x, low, high, midrise, table, steps, columns, b, y):
    """The product of x (M, K) with panels, on this thread; False, and none, where an x is not from `low` to `high`."""
    (rows, count), (_, cols) = x.shape, y.shape
    height, stride = min(rows, tiles.ROWS), -(-count // tiles.STEP) * tiles.STEP
    flat, places, data = x.reshape(-1), np.arange(rows) * (stride // 4), tiled.space(rows * stride, x)
    good = True
    if midrise:
        good = _place_doubled(0, rows, flat, count, low, high, places, data)
    else:
        _place(0, rows, flat, count, places, data)
    if good:
        pairs = len(columns) // 2
        room = tiled.room(len(steps) // 2, pairs, b)
        tiles.configure(table)
        tiled.product(
            data, places, 0, rows, steps, columns, b, 0, pairs, height, cols, room, tiles.address(y), None,
        )  # fmt: skip
        tiles.release()
    return good


class Int8Gemm(IntegerGemm):
    """`x · wᵀ` for bytes: `w` (N, K), −128 … 127, packed once; `x` (M, K), −128 … 127, or 0 … 255 with `unsigned`.

    With `midrise`, x are codes that stand for 2·x + 1, half as many of them. The result is (M, N) int32, exact. `w` may
    be (N, taps, C), as a convolution wants it.

    >>> g = Int8Gemm(np.array([[1, -2, 3]]))
    >>> g(np.array([[100, 100, -128]])).tolist()
    [[-484]]
    """

    width = WIDTH

    def __init__(self, w: Any, unsigned: bool = False, midrise: bool = False) -> None:
        w = by_taps(as_bytes(w, -128, 127, "weights"))
        n, taps, c = w.shape
        super().__init__((n, taps * c), 128 * (255 if unsigned else 128))
        self.unsigned, self.midrise, self.values = unsigned, midrise, w.reshape(n, -1)
        self.low, self.high = (0, 255) if unsigned else (-128, 127)
        if midrise:
            self.low, self.high = self.low // 2, self.high // 2
        self.tiles = self.compiled and tiles.allowed()
        self.start = self._start()
        if not self.compiled:
            return
        padded = np.zeros((n, taps, fours(c)), np.int8)
        padded[:, :, :c] = w
        groups = padded.reshape(n, -1).view("<i4").astype(np.int32)  # four bytes, the first lowest
        if self.tiles:
            self.groups = groups
            self.panels_of: dict[tuple[tuple[int, int], ...], tiled.Panels] = {}
            self._last: tuple[Any, Any] = (None, None)  # what the last walk, and the last stairs, were made into
            self._stairs: tuple[Any, Any] = (None, None)
            self._walk = np.arange(groups.shape[1])
            return
        self.panels = aligned(-(-n // WIDTH) * WIDTH * groups.shape[1]).view(np.int32)
        self.panels[...] = panels(groups[None], WIDTH).reshape(-1)

    @property
    def zero(self) -> int:
        """The packed byte that means 0."""
        return 0 if self.unsigned or self.tiles else 128

    def octets(self, x: Any) -> Array:
        """Activations as the bytes that are multiplied: (…) uint8."""
        octets = as_bytes(x, self.low, self.high, "activations").view(np.uint8)
        if self.midrise:
            octets = octets + octets
            octets += np.uint8(1)
        return octets if self.zero == 0 else octets ^ np.uint8(128)

    def pack(self, x: Any) -> Rows:
        """Activations (M, K) as bytes, K in whole fours; for tiles a row begins on a cache line."""
        x = self._matrix(x)
        if not self.compiled:
            return Rows(x.shape, self.numbers(x))
        (m, k), depth = x.shape, fours(x.shape[1])
        if self.tiles:
            stride = -(-k // tiles.STEP) * tiles.STEP // 4
            places, data = np.arange(0, m * stride, stride), tiled.aligned_bytes(4 * stride * m)
            if self.midrise and x.dtype == np.int8:
                self._placed_doubled(x, places, data)
                return Rows(x.shape, data.view(np.int32), places, self._walk)
            return Rows(x.shape, self._placed(self.octets(x), places, data), places, self._walk)
        octets = self.octets(x)
        data = np.ascontiguousarray(octets)
        if depth > k:
            data = np.zeros((m, depth), np.uint8)
            data[:, :k] = octets
        return Rows(x.shape, data.reshape(-1).view(np.int32), *in_a_row(m, depth // 4))

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        x = self._matrix(x)
        small = 0 < x.size * self.shape[0] <= tiled.PAYS
        if self.tiles and small and x.dtype == (np.uint8 if self.unsigned else np.int8):
            return self._at_once(x, out)
        if not self.tiles or self.midrise or x.shape[1] % tiles.STEP:
            return super().__call__(x, out)
        octets = np.ascontiguousarray(self.octets(x))  # read where they lie: whole steps reach no further
        places = np.arange(len(x)) * (x.shape[1] // 4)
        return self.multiply(Rows(x.shape, octets.reshape(-1).view(np.int32), places, self._walk), out)

    def _at_once(self, x: Array, out: Array | None) -> Array:
        """A product too small for two threads: packing and tiles in one call."""
        y = sums_of(len(x), self.shape[0]) if out is None else out
        if out is not None:
            self.check(Rows(x.shape, x), y)
        table = tiles.shape(min(len(x), tiles.ROWS), min(self.shape[0], tiles.COLUMNS))
        low, panels = 0 if self.unsigned else self.low, self._panels(self._walk)
        if not _on_tiles(np.ascontiguousarray(x), low, self.high, self.midrise, table, *panels, y):
            as_bytes(x, self.low, self.high, "activations")  # raises
        return y

    def numbers(self, x: Array) -> Array:
        """The activations' plain numbers, for the twin."""
        octets = self.octets(x)
        return (octets.astype(np.int16) - self.zero) if self.unsigned or self.zero else octets.view(np.int8)

    @staticmethod
    def units(c: int) -> int:
        """How many numbers of 32 bits a pixel of `c` channels takes."""
        return fours(c) // 4

    def pack_pixels(self, x: Array, targets: Array, size: int) -> Array:
        """Rows of bytes (R, C) to `targets` in a new array of `size` groups of four, the byte of 0 elsewhere."""
        return self._placed(self.octets(x), targets, np.full(4 * size, self.zero, np.uint8))

    def convolve(self, pixels: Array, size: tuple[int, int, int], layout: tuple[Pair, Pair, Pair, Pair],
                 stairs: Stairs | None = None) -> Array:  # fmt: skip
        """Images of `size` (N, H, W), pixels (N·H·W, C): sums (N, H', W', O), or codes; on tiles.

        `layout` is kernel, stride, padding and dilation.
        """
        (n, h, w), c, low, high = size, pixels.shape[1], self.low, self.high
        if pixels.dtype not in (np.int8, np.uint8) or not self.midrise:
            pixels = as_bytes(pixels, low, high, "activations")
        if pixels.dtype == np.uint8:  # of which those from 128 on look negative
            low = 0
        where = tiledconv.plan(n, (h, w), self.units(c), self.shape[0], *layout)
        y = np.empty((n, *where.out, self.shape[0]), np.int32 if stairs is None else stairs.first.dtype)
        good = not n or tiledconv.convolve(
            np.ascontiguousarray(pixels).view(np.uint8 if self.unsigned else np.int8), (n, h, w, c, fours(c)),
            layout[2], (low, min(high, 127)) if self.midrise else None, where, self._by_runs(where.runs),
            y.reshape(-1, self.shape[0]), self._table(stairs),
        )  # fmt: skip
        if not good:
            raise ValueError(f"activations: expected whole numbers from {self.low} to {self.high}")
        return y

    @staticmethod
    def _placed(octets: Array, targets: Array, data: Array) -> Array:
        """Rows of bytes (R, C) at group `targets[r]` of data; as groups of four."""
        rows, octets_in = data.view(np.uint8), np.ascontiguousarray(octets)
        (count, size), flat = octets_in.shape, octets_in.reshape(-1)
        body = lambda first, last: _place(first, last, flat, size, targets, rows)  # noqa: E731
        run(body, count, None if octets.size > COPY_PAYS else max(count, 1))
        return data.view(np.int32)

    def _placed_doubled(self, codes: Array, targets: Array, data: Array) -> None:
        """2·code + 1 for int8 codes (R, C) at group `targets[r]` of data."""
        (count, size), flat, good = codes.shape, np.ascontiguousarray(codes).reshape(-1), []

        def body(first: int, last: int) -> None:
            good.append(_place_doubled(first, last, flat, size, self.low, self.high, targets, data))

        run(body, count, None if codes.size > COPY_PAYS else max(count, 1))
        if not all(good):
            as_bytes(codes, self.low, self.high, "activations")  # raises

    def start_table(self, missing: Array | None) -> Array:
        """Behind a border lies `zero`, so that nothing is missing."""
        return self.start

    def _start(self) -> Array:
        """−128 · Σ w for signed activations."""
        return (-self.zero * self.values.sum(-1, dtype=np.int64)).astype(np.int32).reshape(1, 1, -1)

    def multiply_part(self, packed: Rows, part: int, y: Array) -> None:
        if self.tiles:
            self.check(packed, y)
            self._on_tiles(packed, y)
        else:
            super().multiply_part(packed, part, y)

    def to_codes(self, packed: Rows, stairs: Stairs) -> Array:
        if not self.tiles:
            return super().to_codes(packed, stairs)
        y = np.empty((packed.shape[0], self.shape[0]), stairs.first.dtype)
        self._on_tiles(packed, y, stairs)
        return y

    def _on_tiles(self, packed: Rows, y: Array, stairs: Stairs | None = None) -> None:
        if not len(y):
            return
        panels = self._panels(packed.walk)
        octets = packed.data.view(np.uint8 if self.unsigned else np.int8)
        tiled.multiply(octets, packed.places, panels, y, self._table(stairs))

    def _panels(self, walk: Array) -> tiled.Panels:
        """The weights as tiles for rows of such a walk."""
        known, panels = self._last
        if known is not walk:
            panels = self._by_runs(tiled.runs_of(walk))
            self._last = walk, panels
        return panels

    def _by_runs(self, runs: tuple[tuple[int, int], ...]) -> tiled.Panels:
        """The weights as tiles for rows that lie in such runs."""
        if runs not in self.panels_of:
            self.panels_of[runs] = tiled.pack_panels(self.groups, runs)
        return self.panels_of[runs]

    def _table(self, stairs: Stairs | None) -> Array | None:
        known, table = self._stairs
        if known is not stairs:
            table = None if stairs is None else tiled.stairs_table(*stairs)
            self._stairs = stairs, table
        return table

    def kernel(self, packed: Rows, part: int) -> Callable[[int, int, int, int, Array], None]:
        multiply = _multiply_tile if packed.shape[0] > ROWS // 2 else _multiply_row

        def compiled(i0: int, i1: int, j0: int, j1: int, y: Array) -> None:
            multiply(
                i0,
                i1,
                j0,
                j1,
                packed.data,
                packed.places,
                packed.walk,
                self.panels,
                self.start.reshape(-1),
                1,
                self.shape[0],
                y,
            )

        return compiled


def fours(k: int) -> int:
    """`k` rounded up to whole groups of four bytes."""
    return -(-k // 4) * 4
