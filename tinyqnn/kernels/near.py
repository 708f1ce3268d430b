"""Rows of x where tiles can load them: where they lie, or gathered, or bits that are widened to bytes on the way.

A tile wants 64 bytes of each of sixteen rows, at equal distances. Rows of a matrix of bytes lie so. Pixels on both
sides of an image's edge do not: they are copied to a work space first. Signs in memory are bits, an eighth of the bytes
to fetch: 64 of them, one word, become 64 bytes +1 and −1 with one instruction and a store. What is widened serves all
columns of w, and has to stay in the nearest cache as long: if k is long, a part of it at a time.

In the work space a step of 64 bytes of k takes two tiles, one below the other: rows 0 … 15, and, for whoever begins a
tile further, rows 16 … 31.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload

from tinyqnn.kernels import tiles

__all__ = ["bring", "parts"]

TILE = tiles.ROWS * tiles.STEP  # bytes
DEEP = 18  # steps of widened rows that are kept at once: 36 kB, in an L1 cache of 48 kB
PART = 8  # where there are more, k is cut into parts of so many steps, or some more: 16 kB


def parts(kind, depth):
    """Into how many parts k is cut: bytes that lie somewhere are read there, but what is widened has to stay near."""
    raise NotImplementedError("for compiled code")


@overload(parts, jit_options={"forceinline": True})
def _parts(kind, depth):
    if kind != types.uint64:
        return lambda kind, depth: 1
    return lambda kind, depth: 1 if depth <= DEEP else depth // PART


def bring(kind, x, places, walk, s0, s1, depth, height, space):
    """One of the `parts` of sixteen rows, steps s0 … s1 of `depth`: address, stride, and where in the walk they begin.

    `kind` is a number of x, whose type decides: bytes, or words of 64 bits. x, places and walk are addresses. Places
    count groups of four bytes, or words; the walk counts bytes, and in its second half leads through the work space.
    """
    raise NotImplementedError("for compiled code")


def _bytes(kind, x, places, walk, s0, s1, depth, height, space):
    first, stride = 4 * tiles.whole(places), np.int64(tiles.STEP)
    if height > 1:
        stride = 4 * tiles.whole(places + 8) - first
    even = True
    for r in range(2, height):
        even &= 4 * tiles.whole(places + 8 * r) - first == r * stride
    if even:
        return x + first, stride, np.int64(0)
    for r in range(height):
        place, to = x + 4 * tiles.whole(places + 8 * r), space + r * tiles.STEP
        for s in range(depth):
            tiles.copy_step(to, place + tiles.whole(walk + 8 * s))
            to += 2 * TILE
    return space, np.int64(tiles.STEP), depth


def _signs(kind, x, places, walk, s0, s1, depth, height, space):
    for r in range(height):
        place, to = x + 8 * tiles.whole(places + 8 * r), space + r * tiles.STEP
        for s in range(s0, s1):
            tiles.put_signs(to, place + tiles.whole(walk + 8 * s))
            to += 2 * TILE
    return space - s0 * 2 * TILE, np.int64(tiles.STEP), depth


@overload(bring, jit_options={"forceinline": True})
def _bring(kind, x, places, walk, s0, s1, depth, height, space):
    return _signs if kind == types.uint64 else _bytes
