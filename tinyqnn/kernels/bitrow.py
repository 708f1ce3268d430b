"""One row times planes of bits: each word of the weights is read once, and held against all planes of the row.

    Σ_k w_k · x_k = Σ_i 2^i · Σ_j 2^j · popcount(W_i and X_j)        i over planes of w, j over those of x

With many rows a tile of the result stays in registers (`bitserial.py`). With one, reading the weights is what takes the
time, so the planes of x take the place of a tile's rows. Both sums go from the highest plane down, doubling what there
is and adding the next. Where codes have a sign, their highest plane counts −2^(b−1) and not 2^(b−1): in two's
complement it goes on for ever to the left, and the planes there are worth −2^b in all. So the sum starts with minus
that plane.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from tinyqnn.kernels.count import ROWS, count_and
from tinyqnn.kernels.jit import jit
from tinyqnn.kernels.product import COLS, UNITS, WIDTH
from tinyqnn.kernels.simd import apply, multiples, popcount, put_tile, zeros
from tinyqnn.kernels.turns import leave, mirrored, take

__all__ = ["Planes", "multiply_row", "multiply_rows", "plan_row", "row_sum", "shifted"]

Planes = list[tuple[int, int]]  # (number, weight) of neighbours, each with twice the weight of the one before


def plan_row(w: Planes, x: Planes) -> tuple[tuple[int, ...], int]:
    """For the loop: (first and last plane of w, is the last negative, groups of planes of x, is their last negative,
    shift of the sum), and how many planes of x make a group, to be counted at once.

    >>> plan_row([(0, 2), (1, -4)], [(0, 1)])
    ((0, 2, 1, 1, 0, 1), 1)
    """
    together = max(rows for rows in range(1, ROWS + 1) if len(x) % rows == 0)
    up = abs(w[0][1] * x[0][1]).bit_length() - 1
    return (w[0][0], w[-1][0] + 1, int(w[-1][1] < 0), len(x) // together, int(x[-1][1] < 0), up), together


@intrinsic
def _doubled(typingctx: Any, acc: Any, counts: Any) -> Any:
    """`acc · 2^rows + Σ_r 2^r · counts[r]`, of tiles of one row and of some."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = args[0]
        for place in reversed(range(counts.rows * acc.cols)):
            before = builder.extract_value(total, place % acc.cols)
            value = builder.add(builder.add(before, before), builder.extract_value(args[1], place))
            total = builder.insert_value(total, value, place % acc.cols)
        return total

    return acc(acc, counts), codegen


@intrinsic
def _minus_last(typingctx: Any, acc: Any, counts: Any) -> Any:
    """`acc − counts[-1]`, of tiles of one row and of some."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = args[0]
        for n in range(acc.cols):
            last = builder.extract_value(args[1], (counts.rows - 1) * acc.cols + n)
            total = builder.insert_value(total, builder.sub(builder.extract_value(total, n), last), n)
        return total

    return acc(acc, counts), codegen


@jit(forceinline=True)
def shifted(acc, bits):
    return acc << bits


@jit(forceinline=True)
def _times_row(b, j, planes, plan, a, base, group, plane_size, walk):
    """The sums for two vectors of columns, from j on, as a tile of one row.

    The panels b have `planes` planes. Plane p of the row is at `a[base + p·plane_size + walk[k]]`; `group` is a tuple
    (0, plane_size, …), where those of a group are.
    """
    first, last, negative, groups, x_negative, up = plan
    none, depth = zeros(b, 1, COLS), len(walk)
    total = none
    for i in range(last - 1, first - 1, -1):
        panel, part = (j * planes + i * WIDTH) * depth * UNITS, none
        for g in range(groups - 1, -1, -1):
            counts = count_and(a, group, base + g * len(group) * plane_size, walk, 0, depth, b, panel)
            if x_negative != 0 and g == groups - 1:
                part = _minus_last(part, counts)
            part = _doubled(part, counts)
        if negative != 0 and i == last - 1:
            total = total - part
        total = total + total + part
    return apply(shifted, total, up)


@jit
def row_sum(a, place, walk, plane_size, x_planes, x_weights):
    """Σ_k x'_k of one row: every plane's bits, counted and weighed."""
    total = 0
    for j in range(len(x_planes)):
        count, base = 0, x_planes[j] * plane_size + place
        for k in range(len(walk)):
            count += popcount(a[base + walk[k]])
        total += x_weights[j] * count
    return total


@jit
def multiply_row(b, planes, plan, a, group, walk, start, total):
    """All columns: `total = start + ` the sums of one row, whose planes lie one behind the other in a."""
    n, none = len(total), multiples(0, 0, 1)
    for j in range(0, n, WIDTH):
        acc = _times_row(b, j, planes, plan, a, 0, group, len(walk), walk)
        put_tile(acc, total, none, j, n - j, True, start, none, j)


@jit
def multiply_rows(
    seat, blocks, back, a, places, walk, plane_size, b, planes, plan, group, x_first, start, start_rows, constant,
    x_planes, x_weights, cols, y,
):  # fmt: skip
    """Blocks of y, row by row, from the first panel to the last, or `back` (see `turns.mirrored`)."""
    block, none = take(seat), multiples(0, 0, 1)
    while block >= 0:
        i0, i1, j0, j1 = blocks[mirrored(seat, block) if back else block]
        last = j0 + (j1 - j0 - 1) // WIDTH * WIDTH
        for j in range(last, j0 - 1, -WIDTH) if back else range(j0, j1, WIDTH):
            for i in range(i0, i1):
                acc = _times_row(b, j, planes, plan, a, places[i] + x_first * plane_size, group, plane_size, walk)
                put_tile(acc, y, none, i * cols + j, j1 - j, True, start, none, i % start_rows * cols + j)
        if constant != 0:
            for i in range(i0, i1):
                term = np.int32(constant * row_sum(a, places[i], walk, plane_size, x_planes, x_weights))
                line = y[i * cols + j0 : i * cols + j1]
                for j in range(len(line)):
                    line[j] += term
        block = take(seat)
    leave(seat)
