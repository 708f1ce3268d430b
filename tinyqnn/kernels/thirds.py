"""A float32 is the sum of three short numbers, and those multiply on tile registers three times as fast as the whole.

A float32 has 24 bits behind its exponent, a bfloat16 has the same exponent and 8 bits. So, without any rounding,

    x = high + middle + low        x·y = hh + (hm + mh) + (mm + hl + lh) + (ml + lm + ll)

and the last three of the nine products come to 2⁻²⁴ of x·y at most, as much as the one rounding of a float32 product.
The other six are sums of short numbers' products, the bit planes of `bitserial.py` once more with planes of eight bits,
and a processor with AMX adds up 16 × 16 × 32 of them in one instruction, in float32.

    panel      16 rows of a factor, cut into steps of 32 neighbours of k
    step       three tiles, high, middle and low, of 1024 bytes each: BYTES in all, STEP words of 32 bits
    tile       of a left factor: a row's 16 pairs of k side by side; of a right one: a pair's 16 columns side by side

Numbers below 10⁻³⁸ count as 0 on tiles. Those that are not finite are found while they are cut, and the caller then
takes the ordinary way.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tinyqnn.kernels import tiles
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.simd import (
    _VECTOR,
    LANES,
    _fma,
    int_store,
    ints,
    load,
    load_tile,
    multiples,
    splat,
    store_tile,
    transpose,
    vector,
)

__all__ = ["BYTES", "DEPTH", "ROWS", "STEP", "TILE", "begin", "dot", "end", "flat", "pack_panel", "thirds"]

ROWS = tiles.ROWS  # of a panel
DEPTH = 32  # numbers of k in a step
TILE = 1024  # bytes
BYTES = 3 * TILE  # of a step
WORDS = TILE // 4
STEP = 3 * WORDS


@intrinsic
def thirds(typingctx: Any, even: Any, odd: Any, marks: Any) -> Any:
    """High, middle and low of two vectors, each as 16 pairs (even, odd) of bfloat16, and `marks` + 0 · high.

    High and middle are rounded, the low third is what is left, exactly. Where high is not finite marks become NaN.
    """
    result = types.Tuple((ints, ints, ints, vector))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def word(number: int) -> Any:
            return ir.Constant(ints.llvm, [number] * LANES)

        columns, marks_ = [], args[2]
        for rest in args[:2]:
            cut = []
            for _ in range(3):
                bits = builder.add(builder.bitcast(rest, ints.llvm), word(0x8000))  # the lower half rounds the upper
                bits = builder.and_(bits, word(0xFFFF0000))
                part = builder.bitcast(bits, _VECTOR)
                rest = builder.fsub(rest, part)
                cut.append(bits)
            columns.append(cut)
            marks_ = _fma(builder, builder.bitcast(cut[0], _VECTOR), ir.Constant(_VECTOR, [0.0] * LANES), marks_)
        pairs = [builder.or_(builder.lshr(e, word(16)), o) for e, o in zip(*columns)]
        return context.make_tuple(builder, result, [*pairs, marks_])

    return result(even, odd, marks), codegen


@intrinsic
def apart(typingctx: Any, first: Any, second: Any) -> Any:
    """Numbers 0, 2, 4, … and 1, 3, 5, … of the 2·LANES in two vectors."""
    two = types.UniTuple(vector, 2)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.VectorType(ir.IntType(32), LANES)
        chosen = [ir.Constant(places, list(range(start, 2 * LANES, 2))) for start in (0, 1)]
        return cgutils.pack_array(builder, [builder.shuffle_vector(*args, which) for which in chosen])

    return two(first, second), codegen


@intrinsic
def is_finite(typingctx: Any, marks: Any) -> Any:
    """Is no number of a vector NaN?"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bad = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.icmp_unsigned("==", builder.bitcast(bad, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(marks), codegen


@jit(forceinline=True)
def pack_panel(x, start, across, along, rows, depth, left, space, to, place):
    """Up to 16 rows of x as a panel at to[place], zeros behind their ends; says whether all numbers are finite.

    Row r, number k lies at x[start + r·across + k·along], and one of the two strides is 1. `left`: of a left factor.
    `space` has room for a step.
    """
    turned = (along == 1) != left
    marks = splat(np.float32(0.0))
    for k in range(0, depth, DEPTH):
        target, begin = (space, 0) if turned else (to, place)
        for i in range(16):
            if along == 1:
                lanes = depth - k if i < rows else 0
                begun = start + min(i, rows - 1) * across + k
                even, odd = apart(load(x, begun, lanes), load(x, begun + LANES, lanes - LANES))
            else:
                behind = max(0, depth - k - 2 * i)
                begun = start + (k + 2 * i) * along
                even, odd = load(x, begun, rows * min(1, behind)), load(x, begun + along, rows * min(1, behind // 2))
            high, middle, low, marks = thirds(even, odd, marks)
            int_store(high, target, begin + LANES * i)
            int_store(middle, target, begin + WORDS + LANES * i)
            int_store(low, target, begin + 2 * WORDS + LANES * i)
        if turned:
            lines = multiples(16, 15, 16)
            for third in range(0, STEP, WORDS):
                store_tile(transpose(load_tile(space, lines, third, 1, LANES)), to, lines, place + third, LANES)
        place += STEP
    return is_finite(marks)


# A word that takes addresses: with arrays for arguments Numba would count references at each call.


@jit(forceinline=True)
def dot(x0, x1, stride, third, walk, steps, w0, w1, spare):
    """Tiles 0 … 3 += panels (x0, x1) · panels (w0, w1), row by row, over `steps` steps.

    A tile of x has its rows `stride` bytes apart, its thirds `third` bytes, its steps where the table `walk` says; w is
    as `pack_panel` leaves it. The order of the six products is the one in which fewest tiles are loaded twice. After
    some 2,000 steps of the clock without a store the processor takes 700 more to store a tile; so one is stored to
    `spare`, 1024 bytes that nobody reads, while there is still work to do.
    """
    for s in range(steps):
        at, to = tiles.whole(walk + 8 * s), s * BYTES
        a0, a1, b0, b1 = x0 + at, x1 + at, w0 + to, w1 + to
        tiles.load(4, a0, stride)
        tiles.load(5, a1, stride)
        tiles.load(6, b0 + 2 * TILE, 64)
        tiles.load(7, b1 + 2 * TILE, 64)
        four_dots()  # high · low
        tiles.load(6, b0 + TILE, 64)
        tiles.load(7, b1 + TILE, 64)
        four_dots()  # high · middle
        tiles.load(4, a0 + third, stride)
        tiles.load(5, a1 + third, stride)
        four_dots()  # middle · middle
        tiles.load(6, b0, 64)
        tiles.load(7, b1, 64)
        four_dots()  # middle · high
        tiles.load(4, a0 + 2 * third, stride)
        tiles.load(5, a1 + 2 * third, stride)
        four_dots()  # low · high
        tiles.load(4, a0, stride)
        tiles.load(5, a1, stride)
        four_dots()  # high · high
        if s == steps - 4:
            tiles.store(6, spare, 64)


@jit(forceinline=True)
def four_dots():
    """Tiles 0 … 3 += (4, 5) · (6, 7)."""
    tiles.dot_halves(0, 4, 6)
    tiles.dot_halves(1, 4, 7)
    tiles.dot_halves(2, 5, 6)
    tiles.dot_halves(3, 5, 7)


@jit(forceinline=True)
def begin(place, stride, right, below):
    """Tiles 0 … 3 = 2 × 2 tiles of numbers in memory: the first at `place`, its neighbours so many bytes further."""
    tiles.load(0, place, stride)
    tiles.load(1, place + right, stride)
    tiles.load(2, place + below, stride)
    tiles.load(3, place + right + below, stride)


@jit(forceinline=True)
def end(place, stride, right, below):
    """The reverse of `begin`."""
    tiles.store(0, place, stride)
    tiles.store(1, place + right, stride)
    tiles.store(2, place + below, stride)
    tiles.store(3, place + right + below, stride)


def flat(a: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix's numbers as one vector, and its two strides in elements; copied unless it is contiguous either way."""
    if a.flags.c_contiguous:
        return a.reshape(-1), a.shape[1], 1
    if a.flags.f_contiguous:
        return a.T.reshape(-1), 1, a.shape[0]
    return np.ascontiguousarray(a).reshape(-1), a.shape[1], 1
