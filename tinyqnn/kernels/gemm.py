"""A matrix product is many small ones: tiles of the result that stay in registers while a column times a row is added.

`c[i, j] = Σ_k a[i, k] · b[k, j]`. The second factor is packed into panels up to four vectors wide, so that the row of a
panel is a few aligned loads; the first is only addressed, through its two strides, so `a.T` costs nothing. `k` is
walked in blocks, so that a panel's block stays in the nearest cache while all rows pass by; meanwhile the next one is
asked for, tile by tile, for the processor's own guess comes too late. A factor is packed once for all rows; but one
that no cache holds would only be written to be read again, so whoever is about to read a panel of it packs that.

A product of matrices that fit a core's cache is one call of `multiply_small` instead: one thread, one block, and b may
be read where it is if its rows lie in memory as rows of whole vectors, which pays where a has few rows. Where the
processor has tile registers, all larger products are theirs, see `thirdgemm.py`.

    matmul(a, b, bias)              a @ b + bias: packs b and multiplies, on all threads where that pays
    linear(x, w, bias)              x @ w.T + bias, and max(…, 0) in the same call
    linear_grad(g, x, w)            its three gradients
    p = pack(b);  matmul(a, p)      b packed once for many products, as an LSTM's weights are for all time steps

The reading copy is one line of NumPy in `reference.py`; it also does the work in float64.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Iterable
from operator import mul
from typing import Any

import numpy as np

from tinyqnn.kernels import reference, thirdgemm, use_reference
from tinyqnn.kernels.addresses import fast
from tinyqnn.kernels.ahead import ask, ask_far
from tinyqnn.kernels.jit import aligned, get_num_threads, jit, run, scratch
from tinyqnn.kernels.simd import (
    LANES,
    REGISTERS,
    load,
    load_tile,
    multiples,
    offsets,
    outer,
    outer_lines,
    rectified,
    spread_row,
    store,
    store_tile,
    transpose,
    whole_vectors,
)
from tinyqnn.kernels.thirds import flat

__all__ = ["Packed", "linear_grad", "matmul", "pack", "packed", "panel_width", "product"]

DEPTH = 320  # numbers of k walked at a time: with ROW_BLOCK rows of a 0.3 MB, a part of the L2 cache
ROW_BLOCK = 240
# Multiplications below which a second thread does not pay. One of 128 × 128 × 100 takes a core 18 µs, and 5 µs to fetch
# each factor, of 50 kB, from the other core that made it; and all it makes has to go back.
SMALL = 4_000_000
LARGE = 1 << 19  # numbers of a factor that would leave the nearer caches before it is read, packed for all
SMALL_DEPTH = 2048  # and the numbers of k that go well in one block
WIDEST = 4 if REGISTERS == 32 else 2  # vectors in the widest panel
TILE_ROWS = 5 if REGISTERS == 32 else 6  # of its tile: 20 registers for sums, or 12
FEW = 60  # places: ten tiles or more


@jit(inner=True)
def _next_panel(size, places):
    """Numbers of the next panel, as large as this, to ask for with as many places.

    None where two panels would not find room in the cache, or where there are so few tiles that each had to wait.
    """
    return size if size <= DEPTH * WIDEST * LANES and places >= FEW else 0


def _make_product(rows: int, cols: int) -> Any:
    """The loop below for tiles of `rows` × `cols` vectors, as many as there are registers, less a few for a and b."""

    @jit(inner=True)
    def product(
        a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y, targets, q,
        lanes, soon, at, size, far,
    ):  # fmt: skip
        share = size * rows // max(last - first, 1)
        for p in range(first, last, rows):
            row, y_row = offsets(places, p, last - 1, rows), offsets(targets, p, last - 1, rows)
            if far:
                ask_far(soon, at, at + share)
            else:
                ask(soon, at, at + share)
            at += share
            if add:
                acc = load_tile(y, y_row, q, cols, lanes)
            else:
                acc = spread_row(bias, o, rows, cols, lanes)
            j = j0
            for t in range(run0, run1):
                i = base + runs[t]
                for _ in range(steps):
                    acc = outer(acc, a, row, i, b, j)
                    i += step
                    j += pitch
            if relu:
                acc = rectified(acc)
            store_tile(acc, y, y_row, q, lanes)

    return product


LINE_ROWS = REGISTERS // 2


@jit(inner=True)
def product_line(a, places, first, last, runs, run0, run1, base, steps, step, b, j0, y, targets, q, soon, at, size):
    """`product` for one full vector of lanes added to y, where LINE_ROWS places at a time are neighbours.

    They need one address, which leaves room for more accumulators.
    """
    share = size * LINE_ROWS // max(last - first, 1)
    for p in range(first, last, LINE_ROWS):
        y_row = offsets(targets, p, last - 1, LINE_ROWS)
        ask(soon, at, at + share)
        at += share
        acc = load_tile(y, y_row, q, 1, LANES)
        j = j0
        for t in range(run0, run1):
            i = base + runs[t]
            for _ in range(steps):
                acc = outer(acc, a, places[p], i, b, j)
                i += step
                j += LANES
        store_tile(acc, y, y_row, q, LANES)


@jit(inner=True)
def product_pixels(
    a, places, first, last, runs, run0, run1, base, steps, b, j0, bias, o, y, targets, q, lanes, soon, at, size
):
    """`product` for one vector of lanes, where LINE_ROWS places at a time lie LANES numbers apart, as pixels do."""
    share = size * LINE_ROWS // max(last - first, 1)
    for p in range(first, last, LINE_ROWS):
        y_row = offsets(targets, p, last - 1, LINE_ROWS)
        ask(soon, at, at + share)
        at += share
        acc = spread_row(bias, o, LINE_ROWS, 1, lanes)
        j = j0
        for t in range(run0, run1):
            i = base + runs[t]
            for _ in range(steps):
                acc = outer_lines(acc, a, places[p], i, b, j)
                i += 1
                j += LANES
        store_tile(acc, y, y_row, q, lanes)


# More rows than 8 do not find room for their addresses in the processor's other registers. Of a single vector two steps
# are unrolled into one, with twice the addresses: 6 rows there.
_product1 = _make_product(6, 1)
_product2 = _make_product(8 if REGISTERS == 32 else TILE_ROWS, 2)
_product3 = _make_product(8 if REGISTERS == 32 else 4, 3)
_product4 = _make_product(TILE_ROWS if REGISTERS == 32 else 3, 4)


@jit
def panel_width(lanes):
    """Lanes of the next panel when `lanes` columns are left: up to four vectors, or up to two."""
    if WIDEST == 4 and lanes > 2 * LANES:
        return 4 * LANES if lanes > 3 * LANES else 3 * LANES
    return 2 * LANES if lanes > LANES else LANES


@jit(inner=True)
def product(
    a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y, targets, q,
    lanes, soon, at, size, far,
):  # fmt: skip
    """A strip of a product: places first … last times one panel of b.

    For every place p, with Σ over the runs t = run0 … run1 and k = 0 … steps,

        y[targets[p] + q + lane] = start + Σ_t Σ_k a[places[p] + base + runs[t] + k·step] · b[j + lane]

    where j begins at j0 and moves on by `pitch`, a row of b, each step, and start is what `y` held (`add`), else
    `bias[o + lane]`; with `relu`, the larger of that and 0. Of the panel's lanes the first `lanes` are written.
    Meanwhile what is wanted next is asked for, a share with each tile: `size` numbers of `soon`, from number `at` on,
    to the nearest cache or, `far`, to the next.
    """
    if WIDEST == 4 and lanes > 3 * LANES:
        _product4(
            a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y,
            targets, q, lanes, soon, at, size, far,
        )  # fmt: skip
    elif WIDEST == 4 and lanes > 2 * LANES:
        _product3(
            a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y,
            targets, q, lanes, soon, at, size, far,
        )  # fmt: skip
    elif lanes > LANES:
        _product2(
            a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y,
            targets, q, lanes, soon, at, size, far,
        )  # fmt: skip
    else:
        _product1(
            a, places, first, last, runs, run0, run1, base, steps, step, b, j0, pitch, bias, o, add, relu, y,
            targets, q, lanes, soon, at, size, far,
        )  # fmt: skip


class Packed:
    """A (K, N) matrix as (block, panel, k, lane), in the order in which a product reads it.

    A block has `step` numbers of k. The last panels are narrower; the lanes behind column N are not used.
    """

    def __init__(self, matrix: np.ndarray, data: np.ndarray, step: int) -> None:
        self.matrix, self.shape, self.data, self.step = matrix, matrix.shape, data, step


@jit
def _pack(first, last, b, stride_k, stride_n, depth, step, cols, packed):
    """Panels first … last of b, each as wide as the widest, of every block of k."""
    for panel in range(first, last):
        o = panel * WIDEST * LANES
        end = min(o + WIDEST * LANES, cols)
        while o < end:
            width = panel_width(cols - o)
            for k0 in range(0, depth, step):
                k1 = min(k0 + step, depth)
                begin = k0 * whole_vectors(cols) + o * (k1 - k0)
                _pack_block(b, stride_k, stride_n, k0, k1, o, width, cols, packed, begin)
            o += width


@jit(inner=True)
def _pack_block(b, stride_k, stride_n, k0, k1, o, width, cols, packed, begin):
    """Numbers k0 … k1 of the columns from o on, to where `packed` begins."""
    if stride_n == 1:
        for k in range(k0, k1):
            for lane in range(0, width, LANES):
                place = begin + (k - k0) * width + lane
                store(load(b, k * stride_k + o + lane, cols - o - lane), packed, place, LANES)
    elif k1 - k0 < LANES:
        block = packed[begin : begin + (k1 - k0) * width]
        block[:] = 0  # lanes that are not used are multiplied too: what lay there may take long
        for k in range(k0, k1):
            for n in range(min(width, cols - o)):
                block[(k - k0) * width + n] = b[k * stride_k + (o + n) * stride_n]
    else:  # each column is contiguous: LANES × LANES numbers at a time change rows and columns
        for lane in range(0, width, LANES):
            first_column = min(o + lane, cols - 1)
            columns = multiples(stride_n, cols - 1 - first_column, LANES)
            for k in range(k0, k1, LANES):
                k = min(k, k1 - LANES)
                turned = transpose(load_tile(b, columns, first_column * stride_n + k, 1, LANES))
                store_tile(turned, packed, multiples(width, LANES, LANES), begin + (k - k0) * width + lane, LANES)


@jit(inner=True)
def _gather(a, start, stride_i, stride_k, rows, depth, space, pitch):
    """Rows of a transposed matrix, which would be walked across its lines: LANES of them, k by k, side by side."""
    for k in range(depth):
        for i in range(0, rows, LANES):
            store(load(a, start + i * stride_i + k * stride_k, rows - i), space, i * pitch + k * LANES, LANES)


@jit
def _multiply(
    first, last, space, panel, a, stride_i, stride_k, rows, depth, step, cols, packed, b, b_k, b_n, bias, y, row_block,
    block,
):  # fmt: skip
    """Items first … last of y, blocks of `row_block` rows × `block` columns, with `step` numbers of k at a time.

    Where there is room for a panel, b is not packed yet: each panel is, into that, when its turn has come.
    """
    n_blocks = (cols + block - 1) // block
    none, start = np.int64(0), np.zeros(1, np.int64)
    places, targets = np.empty(row_block, np.int64), np.empty(row_block, np.int64)
    for item in range(first, last):
        i0, o0 = item // n_blocks * row_block, item % n_blocks * block
        count, o1 = min(row_block, rows - i0), min(o0 + block, cols)
        for i in range(count):
            places[i] = i * stride_i if stride_k == 1 else i // LANES * LANES * step + i % LANES
            targets[i] = (i0 + i) * cols
        for k0 in range(0, depth, step):
            steps = min(step, depth - k0)
            if stride_k == 1:
                source, base, walk = a, i0 * stride_i + k0, none + 1
            else:
                _gather(a, i0 * stride_i + k0 * stride_k, stride_i, stride_k, count, steps, space, step)
                source, base, walk = space, none, none + LANES
            o = o0
            while o < o1:
                width = panel_width(cols - o)
                right, j, soon, size = packed, k0 * whole_vectors(cols) + o * steps, packed, steps * width
                at = j + size
                if len(panel):
                    _pack_block(b, b_k, b_n, k0, k0 + steps, o, width, cols, panel, none)
                    right, j, soon = panel, none, b
                    # Next come other columns, if k is all of a column, else a share of the next block's rows.
                    at = (k0 + steps) * b_k + o * steps if b_n == 1 else (o + width) * b_n
                product(
                    source, places, none, count, start, none, none + 1, base, steps, walk, right, j, width, bias, o,
                    k0, False, y, targets, o, min(width, cols - o), soon, at, _next_panel(size, count), False,
                )  # fmt: skip
                o += width


@jit(inner=True)
def pack_small(b, stride_b, stride_n, depth, cols, packed):
    """All of b, as `multiply_small` reads it."""
    _pack(
        np.int64(0), (cols + WIDEST * LANES - 1) // (WIDEST * LANES), b, stride_b, stride_n, depth, depth, cols, packed
    )


@jit(inner=True)
def multiply_small(a, stride_i, stride_k, rows, depth, b, pitch, cols, bias, relu, y, soon):
    """The whole of y = a @ b + bias, or the larger of that and 0; meanwhile all of `soon` is asked for.

    b is packed if its pitch, the numbers from one row to the next, is 0. A transposed a is gathered first: its rows
    would lie on the same few places of the nearest cache, and drive one another out.
    """
    none, start, step = np.int64(0), np.zeros(1, np.int64), np.int64(1)
    places, targets = np.empty(rows, np.int64), np.empty(rows, np.int64)
    if stride_k == 1:
        for i in range(rows):
            places[i], targets[i] = i * stride_i, i * cols
    else:
        side_by_side, step = np.empty(whole_vectors(rows) * depth, np.float32), np.int64(LANES)
        _gather(a, none, stride_i, stride_k, rows, depth, side_by_side, depth)
        for i in range(rows):
            places[i], targets[i] = i // LANES * LANES * depth + i % LANES, i * cols
        a = side_by_side
    o = none
    while o < cols:
        width = panel_width(cols - o)
        j, row = (o, pitch) if pitch else (o * depth, width)
        product(
            a, places, none, rows, start, none, none + 1, none, depth, step, b, j, row, bias, o, none, relu, y, targets,
            o, min(width, cols - o), soon, o * len(soon) // cols, min(width, cols - o) * len(soon) // cols, True,
        )  # fmt: skip
        o += width


@jit
def _multiply_once(a, stride_i, stride_k, rows, depth, b, stride_b, stride_n, cols, packed, bias, relu, y):
    """`multiply_small`, with b packed first if there is room for it."""
    right, pitch = b, stride_b
    if len(packed):
        pack_small(b, stride_b, stride_n, depth, cols, packed)
        right, pitch = packed, 0
    multiply_small(a, stride_i, stride_k, rows, depth, right, pitch, cols, bias, relu, y, y[:0])


def _step(depth: int) -> int:
    """Numbers of k that are walked at a time: up to DEPTH, in as many equal parts."""
    return -(-max(depth, 1) // max(1, -(-depth // DEPTH)))


def pack(b: np.ndarray, step: int | None = None) -> Packed:
    """`b` (K, N), float32, in the order in which a product reads it.

    step   numbers of k that are walked at a time; up to DEPTH if not given
    """
    numbers, stride_k, stride_n = flat(b)
    depth, cols = b.shape
    step = step or _step(depth)
    packed = aligned(depth * whole_vectors(cols))
    panels = -(-cols // (WIDEST * LANES))

    def body(first: int, last: int) -> None:
        _pack(first, last, numbers, stride_k, stride_n, depth, step, cols, packed)

    run(body, panels, panels if b.size < 32768 else None)
    return Packed(b, packed, step)


def packed(b: np.ndarray) -> np.ndarray | Packed:
    """`pack(b)` for a factor of many products, or b itself where NumPy does them.

    >>> packed(np.ones((2, 3))).shape
    (2, 3)
    """
    return b if b.dtype != np.float32 or b.size == 0 or use_reference() else pack(b)


def _blocks(rows: int, cols: int, most: int) -> tuple[int, int]:
    """Rows and columns of a part of the result, of which each thread takes as many; a tall one has at most `most` rows.

    A tall result is cut into rows, for then a is read once; a wide one into columns, so that b is.
    """
    threads = get_num_threads()
    if rows < cols:
        panels = -(-cols // (WIDEST * LANES))
        return -(-rows // -(-rows // (2 * most))), -(-panels // (4 * threads)) * WIDEST * LANES
    return -(-rows // (-(-rows // (threads * most)) * threads)), cols


def matmul(
    a: np.ndarray, b: np.ndarray | Packed, bias: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """`a @ b + bias` for (M, K), (K, N) and (N,), the matrices transposed or not: (M, N). `out` must be contiguous.

    >>> matmul(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """
    (rows, depth), (depth_b, cols) = a.shape, b.shape
    work = rows * depth * cols
    if isinstance(b, Packed) and a.dtype != np.float32:
        b = b.matrix
    if isinstance(b, np.ndarray) and (work == 0 or a.dtype != np.float32 or b.dtype != np.float32 or use_reference()):
        return reference.matmul(a, b, bias, out)
    if depth != depth_b:
        raise ValueError(f"expected a (M, K) and b (K, N) with the same K, got {a.shape} and {b.shape}")
    if out is None:
        out = np.empty((rows, cols), np.float32)
    elif out.shape != (rows, cols) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"expected out: a contiguous float32 {(rows, cols)}, got {out.dtype} {out.shape}; leave it out"
        )
    bias = np.zeros(cols, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
    if work == 0:
        out[...] = bias
        return out
    left, stride_i, stride_k = flat(a)
    result = out.reshape(-1)
    if isinstance(b, np.ndarray):
        if thirdgemm.pays(rows, depth, cols) and thirdgemm.matmul(a, b, bias, out):
            return out
        if work < SMALL and depth <= SMALL_DEPTH:
            numbers, stride_b, stride_n = flat(b)
            packed = scratch(0 if stride_n == 1 and cols % LANES == 0 else depth * whole_vectors(cols))
            _multiply_once(
                left, stride_i, stride_k, rows, depth, numbers, stride_b, stride_n, cols, packed, bias, False, result
            )
            return out
        if rows + LANES < cols and rows * (depth + 2 * cols) < depth * cols:
            # The second factor is packed, so the smaller one shall be second: y = (bᵀ aᵀ)ᵀ.
            return np.add(matmul(b.T, a.T).T, bias, out=out)
        if b.size < LARGE or rows < ROW_BLOCK:
            b = pack(b)
    if isinstance(b, Packed):
        row_block, block = (rows, cols) if work < SMALL else _blocks(rows, cols, ROW_BLOCK)
        panels, step, source, b_k, b_n, room = b.data, b.step, result[:0], 0, 0, 0
    else:  # each part of the result packs what it reads: tall parts, then, for that is seldom and little
        row_block, block = _blocks(rows, cols, 2 * ROW_BLOCK)
        panels, step, (source, b_k, b_n) = result[:0], _step(depth), flat(b)
        room = step * WIDEST * LANES
    items = -(-rows // row_block) * -(-cols // block)

    def body(first: int, last: int) -> None:
        space = scratch(0 if stride_k == 1 else whole_vectors(row_block) * step)
        _multiply(
            first, last, space, scratch(room, slot=1), left, stride_i, stride_k, rows, depth, step, cols, panels,
            source, b_k, b_n, bias, result, row_block, block,
        )  # fmt: skip

    run(body, items, 1)
    return out


def fits_one_call(arrays: Iterable[np.ndarray], rows: int, *sizes: int) -> bool:
    """Are linear layers, each from one of the sizes to the next, so small that they are done in one compiled call?"""
    if min(rows, *sizes) < 1 or max(rows, *sizes) > SMALL_DEPTH or rows * max(map(mul, sizes, sizes[1:])) >= SMALL:
        return False
    return fast(*arrays)


def linear(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, relu: bool = False) -> np.ndarray:
    """x @ w.T + bias, or the larger of that and 0, with x (n, in) and w (out, in): (n, out).

    >>> linear(np.ones((1, 3)), np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]), relu=True).tolist()
    [[3.0, 0.0]]
    """
    rows, (n_out, n_in) = len(x), w.shape
    if not fits_one_call((x, w), rows, n_in, n_out):
        y = matmul(x, w.T, bias)
        return np.maximum(y, 0, out=y) if relu else y
    y = np.empty((rows, n_out), np.float32)
    bias = np.zeros(n_out, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
    packed = scratch(n_in * whole_vectors(n_out))
    _multiply_once(x.reshape(-1), n_in, 1, rows, n_in, w.reshape(-1), 1, n_in, n_out, packed, bias, relu, y.reshape(-1))
    return y


@jit
def column_sums(first, last, g, n_out, gb):
    """gb[j] = Σ_i g[i, j] for columns first … last."""
    sums = gb[first:last]
    sums[:] = 0.0
    for row in range(0, len(g), n_out):
        line = g[row + first : row + last]
        for j in range(len(sums)):
            sums[j] += line[j]


@jit
def _linear_grad(g, y, kept, x, w, rows, n_out, n_in, packed, gx, gw, gb):
    """The three gradients in one call; gx is left out if there is no room for it. Of g is `kept` what y > 0 passes."""
    zeros, one = np.zeros(n_in, np.float32), np.int64(1)
    if len(y):
        for i in range(len(y)):
            kept[i] = g[i] if y[i] > 0 else np.float32(0)
        g = kept
    if len(gx):
        _multiply_once(g, n_out, one, rows, n_out, w, n_in, one, n_in, packed, zeros, False, gx)
    _multiply_once(g, one, n_out, n_out, rows, x, n_in, one, n_in, packed, zeros, False, gw)
    column_sums(0, n_out, g, n_out, gb)


def linear_grad(
    g: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    y: np.ndarray | None = None,
    need_x: bool = True,
    need_w: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
    """Gradients of `linear` from g (n, out), with x (n, in) and w (out, in): g @ w, g.T @ x and Σ g.

    y   its result, if that was with `relu`: g counts where y > 0

    >>> gx, gw, gb = linear_grad(np.ones((3, 1)), np.ones((3, 2)), np.ones((1, 2)))
    >>> gx.tolist(), gw.tolist(), gb.tolist()
    ([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[3.0, 3.0]], [3.0])
    """
    rows, (n_out, n_in) = len(g), w.shape
    if not need_w or not fits_one_call((g, x, w), rows, n_in, n_out):
        g = g if y is None else np.where(y > 0, g, 0)
        gx, gw = matmul(g, w) if need_x else None, matmul(g.T, x) if need_w else None
        if not fast(g):
            return gx, gw, g.sum(axis=0)
        gb, flat_g = np.empty(n_out, np.float32), g.reshape(-1)
        run(lambda first, last: column_sums(first, last, flat_g, n_out, gb), n_out, max(256, n_out // 8))
        return gx, gw, gb
    gx, gw, gb = np.empty((rows if need_x else 0, n_in), np.float32), np.empty_like(w), np.empty(n_out, np.float32)
    packed = scratch(max(rows, n_out) * whole_vectors(n_in))
    result, kept = (y.reshape(-1), scratch(y.size, slot=1)) if y is not None else (gb[:0], gb)
    _linear_grad(
        g.reshape(-1), result, kept, x.reshape(-1), w.reshape(-1), rows, n_out, n_in, packed,
        gx.reshape(-1), gw.reshape(-1), gb,
    )  # fmt: skip
    return gx if need_x else None, gw, gb
