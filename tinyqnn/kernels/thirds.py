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
    ints,
    load,
    load_tile,
    multiples,
    splat,
    transpose,
    vector,
)

__all__ = [
    "BYTES",
    "DEPTH",
    "ROWS",
    "STEP",
    "TILE",
    "begin",
    "cut_line",
    "dot",
    "dot_three",
    "end",
    "flat",
    "pack_panel",
    "thirds",
]

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
def cut_line(x, start, count, to, third):
    """`x[start : start + count]` as three lines of bfloat16 at the address `to`, with zeros up to a whole step."""
    marks = splat(np.float32(0.0))
    for k in range(0, count, DEPTH):
        even, odd = apart(load(x, start + k, count - k), load(x, start + k + LANES, count - k - LANES))
        high, middle, low, marks = thirds(even, odd, marks)
        tiles.put(high, to + 2 * k)
        tiles.put(middle, to + 2 * k + third)
        tiles.put(low, to + 2 * k + 2 * third)
    return is_finite(marks)


@jit(forceinline=True)
def pack_panel(x, start, across, along, rows, depth, left, space, to, step, third):
    """Up to 16 rows of x as a panel at the address `to`, zeros behind their ends; says whether all numbers are finite.

    Row r, number k lies at x[start + r·across + k·along], and one of the two strides is 1. `left`: of a left factor.
    Steps and thirds lie so many bytes apart. `space` has room for a step.
    """
    turned = (along == 1) != left
    marks, lines = splat(np.float32(0.0)), multiples(ROWS, ROWS - 1, ROWS)
    for k in range(0, depth, DEPTH):
        target, behind = (tiles.address(space), TILE) if turned else (to, third)
        for i in range(ROWS):
            if along == 1:
                lanes = depth - k if i < rows else 0
                begun = start + min(i, rows - 1) * across + k
                even, odd = apart(load(x, begun, lanes), load(x, begun + LANES, lanes - LANES))
            else:
                left_ = max(0, depth - k - 2 * i)
                begun = start + (k + 2 * i) * along
                even, odd = load(x, begun, rows * min(1, left_)), load(x, begun + along, rows * min(1, left_ // 2))
            high, middle, low, marks = thirds(even, odd, marks)
            tiles.put(high, target + 64 * i)
            tiles.put(middle, target + 64 * i + behind)
            tiles.put(low, target + 64 * i + 2 * behind)
        if turned:
            for t in range(3):
                block = transpose(load_tile(space, lines, t * WORDS, 1, LANES))
                tiles.put_rows(block, to + t * third)
        to += step
    return is_finite(marks)


# A word that takes addresses: with arrays for arguments Numba would count references at each call.


@jit(forceinline=True)
def dot(x0, x1, stride, x_third, walk, w0, w1, w_third, w_step, steps, spare):
    """Tiles 0 … 3 += panels (x0, x1) · panels (w0, w1), row by row, over `steps` steps.

    A tile of x has its rows `stride` bytes apart, its thirds `x_third` bytes, its steps where the table `walk` says;
    one of w has its thirds `w_third` bytes apart and its steps `w_step`. The six products come in the order in which
    fewest tiles are loaded twice. After some 2,000 ticks of its clock without a store the processor takes 700 more to
    store a tile; so one is stored to `spare`, 1024 bytes that nobody reads, while there is still work to do.
    """
    for s in range(steps):
        at, to = tiles.whole(walk + 8 * s), s * w_step
        a0, a1, b0, b1 = x0 + at, x1 + at, w0 + to, w1 + to
        tiles.load(4, a0, stride)
        tiles.load(5, a1, stride)
        tiles.load(6, b0 + 2 * w_third, 64)
        tiles.load(7, b1 + 2 * w_third, 64)
        four_dots()  # high · low
        tiles.load(6, b0 + w_third, 64)
        tiles.load(7, b1 + w_third, 64)
        four_dots()  # high · middle
        tiles.load(4, a0 + x_third, stride)
        tiles.load(5, a1 + x_third, stride)
        four_dots()  # middle · middle
        tiles.load(6, b0, 64)
        tiles.load(7, b1, 64)
        four_dots()  # middle · high
        tiles.load(4, a0 + 2 * x_third, stride)
        tiles.load(5, a1 + 2 * x_third, stride)
        four_dots()  # low · high
        tiles.load(4, a0, stride)
        tiles.load(5, a1, stride)
        four_dots()  # high · high
        if s == steps - 4:
            tiles.store(6, spare, 64)


@jit(forceinline=True)
def dot_three(x0, x1, x2, stride, x_third, walk, w, w_third, w_step, steps, spare, x_is_left):
    """Tiles 0 … 2 += panels (x0, x1, x2) · panel w; or, if x is not the left factor, panel w · (x0, x1, x2)."""
    for s in range(steps):
        at, to = tiles.whole(walk + 8 * s), w + s * w_step
        a0, a1, a2 = x0 + at, x1 + at, x2 + at
        three_loads(a0, a1, a2, stride)
        tiles.load(6, to + 2 * w_third, 64)
        three_dots(6, x_is_left)  # high · low
        tiles.load(7, to + w_third, 64)
        three_dots(7, x_is_left)  # high · middle
        tiles.load(6, to, 64)
        three_dots(6, x_is_left)  # high · high
        three_loads(a0 + x_third, a1 + x_third, a2 + x_third, stride)
        three_dots(7, x_is_left)  # middle · middle
        three_dots(6, x_is_left)  # middle · high
        three_loads(a0 + 2 * x_third, a1 + 2 * x_third, a2 + 2 * x_third, stride)
        three_dots(6, x_is_left)  # low · high
        if s == steps - 4:
            tiles.store(6, spare, 64)


@jit(forceinline=True)
def three_loads(a0, a1, a2, stride):
    """Tiles 3 … 5 = a0, a1, a2."""
    tiles.load(3, a0, stride)
    tiles.load(4, a1, stride)
    tiles.load(5, a2, stride)


@jit(forceinline=True)
def three_dots(w, x_is_left):
    """Tiles 0 … 2 += (3, 4, 5) · tile w, or tile w · (3, 4, 5)."""
    if x_is_left:
        tiles.dot_halves(0, 3, w)
        tiles.dot_halves(1, 4, w)
        tiles.dot_halves(2, 5, w)
    else:
        tiles.dot_halves(0, w, 3)
        tiles.dot_halves(1, w, 4)
        tiles.dot_halves(2, w, 5)


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
