"""Codes in planes of bits, as bytes for tiles: 64 bits of each plane at a time, times what the plane weighs.

    value = c + Σ_p weight_p · bit_p        (the table in `bitserial.py`)

Tiles multiply bytes four and more times as fast as bits are counted for a pair of planes. So where there are tiles and
many rows, planes are what lies in memory, and bytes are what is multiplied. Behind the K-th number a row is padded with
whatever the constant makes of no bit; the weights have zeros there.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyqnn.kernels import tiled, tiles
from tinyqnn.kernels.jit import jit, run
from tinyqnn.kernels.pack import words_of
from tinyqnn.kernels.product import Rows
from tinyqnn.kernels.simd import at

__all__ = ["GROUPS", "byte_panels", "widen"]

Array = np.ndarray

GROUPS = tiles.STEP // 4  # of four bytes, as `tiled.multiply` counts them, from a word of 64 bits


def byte_panels(values: Array) -> tiled.Panels:
    """Weights (N, taps, C) int8 as tiles, every tap a row of whole words."""
    n, taps, c = values.shape
    padded = np.zeros((n, taps, 64 * words_of(c)), np.int8)
    padded[:, :, :c] = values
    groups = padded.reshape(n, -1).view("<i4").astype(np.int32)
    return tiled.pack_panels(groups, ((0, groups.shape[1]),))


@jit
def _widen(first, last, words, places, walk, plane_size, weights, constant, out):
    to, planes = tiles.address(out) + first * len(walk) * tiles.STEP, tiles.address(words)
    for r in range(first, last):
        for k in range(len(walk)):
            where = planes + 8 * (at(places, r) + at(walk, k))
            tiles.put_sum(to, where, 8 * plane_size, tiles.address(weights), len(weights), constant)
            to += tiles.STEP


def widen(packed: Rows, weights: Sequence[int], constant: int) -> Array:
    """Rows in planes of these weights as bytes, one row behind the other, each of whole words."""
    m, depth = packed.shape[0], len(packed.walk)
    out, octets = tiled.aligned_bytes(m * depth * tiles.STEP), np.array(weights, np.int16).astype(np.int8)

    def body(first: int, last: int) -> None:
        _widen(first, last, packed.data, packed.places, packed.walk, packed.plane_size, octets, constant, out)

    run(body, m, work=16 * len(out))
    return out
