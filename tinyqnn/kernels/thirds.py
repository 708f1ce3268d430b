"""A float32 is the sum of three short numbers, and those multiply on tile registers three times as fast as the whole.

A float32 has 24 bits behind its exponent, a bfloat16 has the same exponent and 8 bits. So, without any rounding,

    x = high + middle + low        x·y = hh + (hm + mh) + (mm + hl + lh) + (ml + lm + ll)

and the last three of the nine products come to 2⁻²⁴ of x·y at most, as much as the one rounding of a float32 product.
The other six are sums of short numbers' products, the bit planes of `bitserial.py` once more with planes of eight bits,
and a processor with AMX adds up 16 × 16 × 32 of them in one instruction, in float32.

    panel      16 rows of a factor, cut into steps of 32 neighbours of k
    step       three tiles, high, middle and low, of 1024 bytes each: BYTES in all, STEP words of 32 bits
    tile       of a left factor: a row's 16 pairs of k side by side; of a right one: a pair's 16 columns side by side

What is quantized needs no cutting: its numbers are short ones times a unit that they share, see `units.py`. Of such a
factor there is one tile a step, and of the six products there are three, or one where both factors are so. The units
are multiplied in at the end. A factor's `unit` is 0 where it is cut into thirds.

Numbers below 10⁻³⁸ count as 0 on tiles. Those that are not finite, or no short ones times the unit, are found while
they are cut, and the caller then takes a more ordinary way.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

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
    _splat,
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
    "parts",
    "put_sums",
    "short",
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
def short(typingctx: Any, even: Any, odd: Any, unit: Any, marks: Any) -> Any:
    """Two vectors divided by `unit`, as 16 pairs (even, odd) of bfloat16, and `marks`, not 0 where that left a rest."""
    result = types.Tuple((ints, vector))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def word(number: int) -> Any:
            return ir.Constant(ints.llvm, [number] * LANES)

        unit_, marks_, both = _splat(builder, args[2]), builder.bitcast(args[3], ints.llvm), []
        inverse = builder.fdiv(ir.Constant(_VECTOR, [1.0] * LANES), unit_)
        for x in args[:2]:
            bits = builder.add(builder.bitcast(builder.fmul(x, inverse), ints.llvm), word(0x8000))
            bits = builder.and_(bits, word(0xFFFF0000))
            rest = builder.fsub(builder.fmul(builder.bitcast(bits, _VECTOR), unit_), x)
            marks_ = builder.or_(marks_, builder.bitcast(rest, ints.llvm))
            both.append(bits)
        pairs = builder.or_(builder.lshr(both[0], word(16)), both[1])
        return context.make_tuple(builder, result, [pairs, builder.bitcast(marks_, _VECTOR)])

    return result(even, odd, types.float32, marks), codegen


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
def is_clean(typingctx: Any, marks: Any) -> Any:
    """Is every number of a vector 0?"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bad = builder.fcmp_unordered("une", args[0], ir.Constant(_VECTOR, [0.0] * LANES))
        return builder.icmp_unsigned("==", builder.bitcast(bad, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(marks), codegen


@jit(forceinline=True)
def parts(unit):
    """How many bfloat16 numbers stand for one number of a factor."""
    return 1 if unit > 0 else 3


@jit(forceinline=True)
def _cut(even, odd, unit, marks, to, third):
    """Two vectors as pairs of bfloat16 at the address `to`: one line of them, or three, `third` bytes apart."""
    if unit > 0:
        high, marks = short(even, odd, unit, marks)
        tiles.put(high, to)
    else:
        high, middle, low, marks = thirds(even, odd, marks)
        tiles.put(high, to)
        tiles.put(middle, to + third)
        tiles.put(low, to + 2 * third)
    return marks


@jit(forceinline=True)
def cut_line(x, start, count, unit, to, third):
    """`x[start : start + count]` as lines of bfloat16 at the address `to`, with zeros up to a whole step; one or three.

    Says whether all numbers are finite, and with a unit whether they are short ones times it.
    """
    marks = splat(np.float32(0.0))
    for k in range(0, count, DEPTH):
        even, odd = apart(load(x, start + k, count - k), load(x, start + k + LANES, count - k - LANES))
        marks = _cut(even, odd, unit, marks, to + 2 * k, third)
    return is_clean(marks)


@jit(inner=True)
def pack_panel(x, start, across, along, rows, depth, left, unit, space, to, step, third):
    """Up to 16 rows of x as a panel at the address `to`, zeros behind their ends; says what `cut_line` says.

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
            marks = _cut(even, odd, unit, marks, target + 64 * i, behind)
        if turned:
            for t in range(parts(unit)):
                block = transpose(load_tile(space, lines, t * WORDS, 1, LANES))
                tiles.put_rows(block, to + t * third)
        to += step
    return is_clean(marks)


# The words below are sequences of the processor's own: Numba would take its time over as many calls of single ones.

HIGH, MIDDLE, LOW = range(3)
# The six products, a third of x times a third of w, in the orders in which fewest tiles are loaded twice.
ORDER = ((HIGH, LOW), (HIGH, MIDDLE), (MIDDLE, MIDDLE), (MIDDLE, HIGH), (LOW, HIGH), (HIGH, HIGH))
ORDER_OF_THREE = ((HIGH, LOW), (HIGH, MIDDLE), (HIGH, HIGH), (MIDDLE, MIDDLE), (MIDDLE, HIGH), (LOW, HIGH))


class _Factor(NamedTuple):
    """Panels of a factor at one step; places and distances are addresses and bytes, in code.

    tiles     which tiles hold the panels' high thirds, which their middle and which their low ones
    places    where each panel lies
    third     from a third to the next
    row       from a row of a tile to the next
    """

    tiles: tuple[tuple[int, ...], ...]
    places: list[Any]
    third: Any
    row: Any


def _products(builder: Any, order: list[tuple[int, int]], x: _Factor, w: _Factor, x_is_left: bool) -> None:
    """Tiles 0, 1, … += each panel of x · each panel of w, third by third in the given order."""
    held: dict[int, int] = {}
    for pair in order:
        for factor, third in zip((x, w), pair):
            for tile, place in zip(factor.tiles[third], factor.places):
                if held.get(tile) != third:
                    here = builder.add(place, builder.mul(factor.third, factor.third.type(third)))
                    tiles._emit(builder, f"tileloadd ($0,$1,1), %tmm{tile}", here, factor.row)
                    held[tile] = third
        for c, (a, b) in enumerate(product(x.tiles[pair[0]], w.tiles[pair[1]])):
            left, right = (a, b) if x_is_left else (b, a)
            tiles._emit(builder, f"tdpbf16ps %tmm{right}, %tmm{left}, %tmm{c}")


@contextmanager
def _each_step(builder: Any, walk: Any, w_step: Any, steps: Any, spare: Any) -> Iterator[tuple[Any, Any]]:
    """Code inside runs for each step, and is given how far it is from the first, in x and in w.

    After some 2,000 ticks of its clock without a store the processor takes 700 more to store a tile; so one is stored
    to `spare`, 1024 bytes that nobody reads, while there is still work to do.
    """
    with cgutils.for_range(builder, steps, intp=steps.type) as loop:
        table = builder.inttoptr(walk, steps.type.as_pointer())
        yield builder.load(builder.gep(table, [loop.index])), builder.mul(loop.index, w_step)
        with builder.if_then(builder.icmp_signed("==", loop.index, builder.sub(steps, steps.type(4)))):
            tiles._emit(builder, "tilestored %tmm6, ($0,$1,1)", spare, steps.type(64))


def _ways(builder: Any, there: list[Any], order: tuple[tuple[int, int], ...]) -> Iterator[list[tuple[int, int]]]:
    """What follows is code for one part or three of x, and of w, and is given the products of these; see `parts`."""
    for x, w in product((3, 1), repeat=2):
        here = [builder.icmp_signed("==", value, value.type(many)) for value, many in zip(there, (x, w))]
        with builder.if_then(builder.and_(*here)):
            yield [pair for pair in order if pair[0] < x and pair[1] < w]


@intrinsic
def dot(typingctx: Any, x0: Any, x1: Any, stride: Any, x_third: Any, walk: Any, w0: Any, w1: Any, w_third: Any,
        w_step: Any, steps: Any, spare: Any, x_parts: Any, w_parts: Any) -> Any:  # fmt: skip
    """Tiles 0 … 3 += panels (x0, x1) · panels (w0, w1), row by row, over `steps` steps.

    A tile of x has its rows `stride` bytes apart, its thirds `x_third` bytes, its steps where the table `walk` says;
    one of w has its thirds `w_third` bytes apart and its steps `w_step`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x0, x1, stride, x_third, walk, w0, w1, w_third, w_step, steps, spare, *there = args
        for pairs in _ways(builder, there, ORDER):
            with _each_step(builder, walk, w_step, steps, spare) as (at, to):
                x = _Factor(3 * ((4, 5),), [builder.add(panel, at) for panel in (x0, x1)], x_third, stride)
                w = _Factor(3 * ((6, 7),), [builder.add(panel, to) for panel in (w0, w1)], w_third, stride.type(64))
                _products(builder, pairs, x, w, True)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 13), codegen


@intrinsic(prefer_literal=True)
def dot_three(typingctx: Any, x0: Any, x1: Any, x2: Any, stride: Any, x_third: Any, walk: Any, w: Any, w_third: Any,
              w_step: Any, steps: Any, spare: Any, x_parts: Any, w_parts: Any, x_is_left: Any) -> Any:  # fmt: skip
    """Tiles 0 … 2 += panels (x0, x1, x2) · panel w; or, if x is not the left factor, panel w · (x0, x1, x2)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x0, x1, x2, stride, x_third, walk, w, w_third, w_step, steps, spare, *there, _ = args
        for pairs in _ways(builder, there, ORDER_OF_THREE):
            with _each_step(builder, walk, w_step, steps, spare) as (at, to):
                x_ = _Factor(3 * ((3, 4, 5),), [builder.add(panel, at) for panel in (x0, x1, x2)], x_third, stride)
                w_ = _Factor(((6,), (7,), (6,)), [builder.add(w, to)], w_third, stride.type(64))
                _products(builder, pairs, x_, w_, x_is_left.literal_value)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 13, x_is_left), codegen


@intrinsic
def put_sums(typingctx: Any, sums: Any, factor: Any, plus: Any, to: Any) -> Any:
    """`the 16 numbers at to = those at sums · factor + those at plus`; these three are addresses."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, factor, plus, to = args
        there = [builder.inttoptr(place, _VECTOR.as_pointer()) for place in (sums, plus, to)]
        read = [builder.load(place) for place in there[:2]]
        for value in read:
            value.align = 4
        builder.store(_fma(builder, read[0], _splat(builder, factor), read[1]), there[2]).align = 4
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp, types.intp), codegen


def _on_four(instruction: str) -> Any:
    """Code for one instruction on each of tiles 0 … 3, which lie in two rows: `begin` and `end`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place, stride, right, below = args
        under = builder.add(place, below)
        for tile, where in enumerate((place, builder.add(place, right), under, builder.add(under, right))):
            tiles._emit(builder, instruction.format(tile), where, stride)
        return context.get_dummy_value()

    return codegen


@intrinsic
def begin(typingctx: Any, place: Any, stride: Any, right: Any, below: Any) -> Any:
    """Tiles 0 … 3 = 2 × 2 tiles of numbers in memory: the first at `place`, its neighbours so many bytes further."""
    return types.void(*[types.intp] * 4), _on_four("tileloadd ($0,$1,1), %tmm{}")


@intrinsic
def end(typingctx: Any, place: Any, stride: Any, right: Any, below: Any) -> Any:
    """The reverse of `begin`."""
    return types.void(*[types.intp] * 4), _on_four("tilestored %tmm{}, ($0,$1,1)")


def flat(a: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A matrix's numbers as one vector, and its two strides in elements; copied unless it is contiguous either way."""
    if a.flags.c_contiguous:
        return a.reshape(-1), a.shape[1], 1
    if a.flags.f_contiguous:
        return a.T.reshape(-1), 1, a.shape[0]
    return np.ascontiguousarray(a).reshape(-1), a.shape[1], 1
