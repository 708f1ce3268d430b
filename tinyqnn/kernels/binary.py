"""A product of signs is a count: where two signs agree it is +1, where they differ −1.

Let −1 be the bit 1 and +1 the bit 0. Then `a xor b` marks the places that differ, and with D = popcount(a xor b) of
them among K, P = K − D agree, so

    Σ_k a_k · b_k = P − D = 2·P − K = K − 2·D

Five instructions on registers of 512 bits do the work of 1024 multiplications and additions: `count.py` tells how the
ones are counted. Bits behind the K-th are 0 in both and never differ.

Where there are tiles (`tiles.py`) and many rows, nothing is counted: the bits of x become bytes +1 and −1 just before
they are multiplied (`near.py`), by weights that have been bytes all along. That is quicker than any way of counting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from tinyqnn.kernels import tiled, tiles
from tinyqnn.kernels.bits import BitGemm, strips
from tinyqnn.kernels.count import ROWS, count_xor
from tinyqnn.kernels.jit import get_num_threads, jit, share
from tinyqnn.kernels.pack import NOT_SIGNS, as_signs, check_signs, empty_words, pack_signs, signs_to_words, words_of
from tinyqnn.kernels.product import MANY, UNIT, UNITS, WIDTH, Rows, by_taps, in_a_row, panels, sums_of
from tinyqnn.kernels.simd import apply, cyclic, multiples, offsets, put_tile
from tinyqnn.kernels.turns import leave, take
from tinyqnn.kernels.widened import byte_panels

__all__ = ["BinaryGemm"]

Array = np.ndarray

BLOCK = 128  # words of k at a time: 32 kB of a panel, and 4 kB of a tile's rows, stay in an L1 cache of 48 kB


@jit(forceinline=True)
def minus_twice(acc, zero):
    return zero - (acc + acc)


def _make_block(rows: int) -> Any:
    """The product below for tiles of `rows` rows and two vectors of columns."""

    @numba.njit
    def block(i0, i1, j0, j1, a, places, walk, b, start, start_rows, cols, y):
        depth = len(walk)
        for k0 in range(0, depth, BLOCK):
            k1 = min(k0 + BLOCK, depth)
            for j in range(j0, j1, WIDTH):
                panel = (j * depth + k0 * WIDTH) * UNITS
                for i in range(i0, i1, rows):
                    row = offsets(places, i, i1 - 1, rows)
                    acc = apply(minus_twice, count_xor(a, row, 0, walk, k0, k1, b, panel), 0)
                    put_tile(
                        acc, y, multiples(cols, i1 - 1 - i, rows), i * cols + j, j1 - j, k0 == 0, start,
                        cyclic(i, i1 - 1, start_rows, cols, rows), j,
                    )  # fmt: skip

    return block


_row_block, _tile_block = _make_block(1), _make_block(ROWS)


@jit
def _multiply_row(seat, blocks, a, places, walk, b, start, start_rows, cols, y):
    block = take(seat)
    while block >= 0:
        i0, i1, j0, j1 = blocks[block]
        _row_block(i0, i1, j0, j1, a, places, walk, b, start, start_rows, cols, y)
        block = take(seat)
    leave(seat)


@jit
def _multiply_tile(seat, blocks, a, places, walk, b, start, start_rows, cols, y):
    block = take(seat)
    while block >= 0:
        i0, i1, j0, j1 = blocks[block]
        _tile_block(i0, i1, j0, j1, a, places, walk, b, start, start_rows, cols, y)
        block = take(seat)
    leave(seat)


@jit
def _pack_and_multiply(seat, blocks, x, count, refused, a, places, walk, b, start, cols, y):
    """The same from signs: who takes some rows packs them and multiplies them while they are near."""
    block = take(seat)
    while block >= 0:
        i0, i1, j0, j1 = blocks[block]
        if not signs_to_words(i0, i1, x, count, places, a):
            refused[0] = True
        _tile_block(i0, i1, j0, j1, a, places, walk, b, start, 1, cols, y)
        block = take(seat)
    leave(seat)


@jit
def _pack_and_multiply_on_tiles(
    seat, x, count, refused, table, words, places, steps, columns, b, height, cols, many, y
):  # fmt: skip
    """The same on tiles. A last tile is moved up: rows that another thread packs as well, with the same outcome."""
    m, pairs, mine = len(places), len(columns) // 2, take(seat)
    room = tiled.room(len(steps) // 2, pairs, b)
    tiles.configure(table)
    while mine >= 0:
        first, last = mine * many, min(mine * many + many, m)
        if not signs_to_words(min(first, m - height), last, x, count, places, words):
            refused[0] = True
        tiled.product(
            words, places, first, last, steps, columns, b, 0, pairs, height, cols, room, tiles.address(y), None
        )
        mine = take(seat)
    tiles.release()
    leave(seat)


@lru_cache(maxsize=64)
def _shares(m: int, n: int, depth: int, threads: int) -> tuple[int, int, Array]:
    """What a thread takes at a time, see `tiled.shares`, and the shape of its tiles."""
    return *tiled.shares(m, n, depth, threads), tiles.shape(tiles.ROWS, min(n, tiles.COLUMNS))


class BinaryGemm(BitGemm):
    """`x · wᵀ` for matrices of +1 and −1: `w` (N, K) packed once, `x` (M, K), the result (M, N) int32, exact.

    Any numeric dtype will do; int8 and float32 are packed fastest. `w` may be (N, taps, C), whose every tap begins a
    new word, as a convolution wants it.

    >>> w = np.array([[1, 1, -1], [-1, 1, 1]])
    >>> g = BinaryGemm(w)
    >>> p = g.pack(np.array([[1, 1, 1]]))
    >>> g.multiply(p).tolist()
    [[1, 1]]
    """

    def __init__(self, w: Any) -> None:
        signs = by_taps(w)
        n, taps, c = signs.shape
        super().__init__((n, taps * c), 1)
        self.values = signs.reshape(n, -1).astype(np.int8)
        self.tap_sums = signs.sum(-1, dtype=np.int64).T  # (taps, N)
        self.start = self.start_table(None)
        self.on_tiles = self.compiled and tiles.allowed()
        if not self.compiled:
            check_signs(signs)
            return
        self._taps = taps
        self._last: tuple[Any, Any] = (None, None)  # the last walk, and the tiles for it
        words = np.empty((n, taps * words_of(c)), np.uint64)
        pack_signs(signs.reshape(n * taps, c), np.arange(n * taps) * words_of(c), words.reshape(-1))
        units = words.view(UNIT)
        self.panels = empty_words(-(-n // WIDTH) * WIDTH * words.shape[1]).view(UNIT)
        self.panels[...] = panels(units[None], WIDTH).reshape(-1)

    def pack(self, x: Any) -> Rows:
        """Signs (M, K), one bit each."""
        x = self._matrix(x)
        if not self.compiled:
            return Rows(x.shape, self.numbers(x))
        depth = words_of(x.shape[1])
        words, layout = empty_words(len(x) * depth), in_a_row(len(x), depth)
        pack_signs(x, layout[0], words)
        return Rows(x.shape, words, *layout)

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        x, threads = self._matrix(x), get_num_threads()
        if not self.compiled or len(x) < 64 * threads:
            return super().__call__(x, out)
        (m, k), n, refused = x.shape, self.shape[0], np.zeros(1, np.bool_)
        depth = words_of(k)
        many, piece, table = _shares(m, n, depth, threads)
        if self.on_tiles and piece * tiled.PAIR < n:  # each row would be packed several times
            return super().__call__(x, out)
        signs, y = as_signs(x).reshape(-1), sums_of(m, n) if out is None else out
        packed = Rows(x.shape, empty_words(m * depth), *in_a_row(m, depth))
        self.check(packed, y)
        if self.on_tiles:
            share(
                _pack_and_multiply_on_tiles, -(-m // many), signs, k, refused, table, *packed[1:3],
                *self._tiles_for(packed.walk), tiles.ROWS, n, many, y.reshape(-1),
            )  # fmt: skip
        else:
            blocks = strips(m, n, threads)
            share(
                _pack_and_multiply, len(blocks), blocks, signs, k, refused, *packed[1:4], self.panels,
                self.start.reshape(-1), n, y.reshape(-1),
            )  # fmt: skip
        if refused[0]:
            raise ValueError(NOT_SIGNS)
        return y

    def numbers(self, x: Array) -> Array:
        """The activations' plain numbers, for the twin."""
        check_signs(x)
        return x.astype(np.int8)

    def pack_pixels(self, x: Array, targets: Array, size: int) -> Array:
        """Rows of signs (R, C) to `targets` in a new array of `size` words, with 0 everywhere else."""
        words = np.zeros(size, np.uint64)
        pack_signs(x, targets, words)
        return words

    def start_table(self, missing: Array | None) -> Array:
        """K; where a border hides a tap its bits are 0, which say +1: less the tap's weights."""
        table = np.full((1, len(missing) if missing is not None else 1, self.shape[0]), self.shape[1], np.int64)
        return (table if missing is None else table - missing.astype(np.int64) @ self.tap_sums).astype(np.int32)

    def multiply_part(self, packed: Rows, part: int, y: Array) -> None:
        """Write the product to `y`: on tiles, or by counting where rows are few or their sums start from a table."""
        if not self.on_tiles or packed.shape[0] < MANY or packed.start is not None:
            super().multiply_part(packed, part, y)
            return
        self.check(packed, y)
        tiled.multiply(packed.data, packed.places, self._tiles_for(packed.walk), y)

    def _tiles_for(self, walk: Array) -> tiled.Panels:
        """The weights as bytes in tiles, made when they are first wanted, for rows that lie as such a walk says."""
        known, panels = self._last
        if known is not walk:
            if panels is None:
                panels = byte_panels(self.values.reshape(self.shape[0], self._taps, -1))
            panels = panels._replace(steps=np.append(8 * walk, panels.steps[len(walk) :]))
            self._last = walk, panels
        return panels

    def loop(self, packed: Rows, part: int) -> tuple[Callable[..., object], tuple[Any, ...], int]:
        multiply = _multiply_tile if packed.shape[0] > ROWS // 2 else _multiply_row
        start = (self.start if packed.start is None else packed.start)[0]
        arguments = (packed.data, packed.places, packed.walk, self.panels, start.reshape(-1), len(start))
        return multiply, arguments, 1
