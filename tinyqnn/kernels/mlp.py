"""A small network of linear layers in one call: what it would spend most on is the way from layer to layer.

    h₀ = x,   hₗ = max(hₗ₋₁ Wₗᵀ + bₗ, 0),   y = hₗ Wᵀ + b in the last layer, which has no ReLU

No row of h asks for another row. So every thread takes some rows through all the layers by itself, and what it made in
one layer lies in its own cache when it comes to the next; to fetch 50 kB from another core takes 5 µs, a third of the
product. On the way back it is the same, with gₗ the gradient of what layer l makes before its ReLU:

    gₗ₋₁ = gₗ Wₗ where hₗ₋₁ > 0, else 0

Only the weights' gradients add over all rows. They come last, and threads share them by layers:

    ∂Wₗ = gₗᵀ hₗ₋₁,   ∂bₗ = Σ over the rows of gₗ

Every product is the one that `gemm.py` does for a layer alone, and so is each number to the last bit. The reading copy
is a loop over `functional.linear_relu`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Sequence
from operator import mul

import numpy as np

from tinyqnn.kernels.addresses import numbers_at
from tinyqnn.kernels.board import opened
from tinyqnn.kernels.gemm import TILE_ROWS, column_sums, fits_one_call, multiply_small, pack_small
from tinyqnn.kernels.jit import ByLetter, aligned, get_num_threads, jit, scratch, share
from tinyqnn.kernels.seats import RANGE
from tinyqnn.kernels.simd import whole_vectors
from tinyqnn.kernels.turns import again, finish, leave, take

__all__ = ["backward", "fits", "forward"]

Array = np.ndarray

FEW = 400_000  # multiplications that one thread has done before a second would help
PARTS = 2  # of a layer's outputs, when threads share gradients of weights


@jit(inner=True)
def _room(sizes, rows):
    """Space for the packed factor of any product here; each thread has its own."""
    size = 0
    for layer in range(len(sizes) - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        size = max(size, n_in * whole_vectors(n_out), max(rows, n_out) * whole_vectors(n_in))
    return aligned(size)


@ByLetter
def _forward(at, told):
    """Rows, in strips of `size`, through all layers. The hidden outputs, layer after layer, come to lie in `hidden`."""
    seat, letter = opened(at, told)
    size, rows, layers, x_, hidden_, y_ = letter[0], letter[1], letter[2], letter[3], letter[4], letter[5]
    sizes, weights, biases = letter[6 : 7 + layers], letter[7 + layers : 7 + 2 * layers], letter[7 + 2 * layers :]
    x, y = numbers_at(x_, rows * sizes[0]), numbers_at(y_, rows * sizes[layers])
    hidden, none, one = numbers_at(hidden_, rows * sizes[1:layers].sum()), np.int64(0), np.int64(1)
    room, strip = _room(sizes, rows), take(seat)
    while strip >= 0:
        first, last = strip * size, min(strip * size + size, rows)
        h, begin = x[first * sizes[0] : last * sizes[0]], 0
        for layer in range(layers):
            n_in, n_out, relu = sizes[layer], sizes[layer + 1], layer + 1 < layers
            made = (hidden[begin:] if relu else y)[first * n_out : last * n_out]
            pack_small(numbers_at(weights[layer], n_in * n_out), one, n_in, n_in, n_out, room)
            multiply_small(
                h, n_in, one, last - first, n_in, room, none, n_out, numbers_at(biases[layer], n_out), relu, made
            )
            h = made
            begin += rows * n_out
        strip = take(seat)
    leave(seat)


@jit(inner=True)
def _back_through_rows(first, last, rows, sizes, weights, room, zeros, hidden, g, kept, gx):
    """Some rows back to the first layer, or to the input if there is room for its gradient in `gx`.

    The gradients gₗ of hidden layers come to lie in `kept`, as the layers' outputs do in `hidden`.
    """
    layers, begin, none, one = len(weights), len(hidden), np.int64(0), np.int64(1)
    back = g[first * sizes[layers] : last * sizes[layers]]
    for layer in range(layers - 1, -1 if len(gx) else 0, -1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        begin -= rows * n_in
        made = (kept[begin:] if layer else gx)[first * n_in : last * n_in]
        pack_small(numbers_at(weights[layer], n_in * n_out), n_in, one, n_out, n_in, room)
        multiply_small(back, n_out, one, last - first, n_out, room, none, n_in, zeros, False, made)
        if layer:
            h = hidden[begin + first * n_in : begin + last * n_in]
            for i in range(len(made)):
                made[i] = made[i] if h[i] > 0 else np.float32(0)
        back = made


@jit(inner=True)
def _back_to_weights(layer, part, fresh, rows, sizes, room, zeros, x, hidden, g, kept, gw, gb):
    """The gradients of a layer's weights and biases, for one part of its outputs; `fresh`: the layer's first here."""
    n_in, n_out, begin = sizes[layer], sizes[layer + 1], rows * sizes[1:layer].sum()
    none, one = np.int64(0), np.int64(1)
    if fresh:
        pack_small(hidden[begin : begin + rows * n_in] if layer else x, n_in, one, rows, n_in, room)
    begin += rows * n_in if layer else 0
    back = kept[begin : begin + rows * n_out] if layer + 2 < len(sizes) else g
    first, last = part * n_out // PARTS, (part + 1) * n_out // PARTS
    made = numbers_at(gw[layer], n_in * n_out)[first * n_in : last * n_in]
    multiply_small(back[first:], one, n_out, last - first, rows, room, none, n_in, zeros, False, made)
    column_sums(first, last, back, n_out, numbers_at(gb[layer], n_out))


@ByLetter
def _backward(at, told):
    """First all rows, then all weights, and a second thread is there for both."""
    seat, letter = opened(at, told)
    size, rows, layers, x_, hidden_, g_, kept_, zeros_ = (
        letter[0], letter[1], letter[2], letter[3], letter[4], letter[5], letter[6], letter[7],
    )  # fmt: skip
    gx_, need_w, sizes = letter[8], letter[9], letter[10 : 11 + layers]
    weights, gw, gb = letter[11 + layers :][:layers], letter[11 + 2 * layers :][:layers], letter[11 + 3 * layers :]
    x, g = numbers_at(x_, rows * sizes[0]), numbers_at(g_, rows * sizes[layers])
    of_all = rows * sizes[1:layers].sum()
    hidden, kept, zeros = numbers_at(hidden_, of_all), numbers_at(kept_, of_all), numbers_at(zeros_, sizes.max())
    gx = numbers_at(gx_, rows * sizes[0]) if gx_ else zeros[:0]
    room, mine, strip = _room(sizes, rows), seat[RANGE], take(seat)
    while strip >= 0:
        first, last = strip * size, min(strip * size + size, rows)
        _back_through_rows(first, last, rows, sizes, weights, room, zeros, hidden, g, kept, gx)
        strip = take(seat)
    if need_w:
        weights_seat, ready = again(seat, mine, PARTS * layers), np.int64(-1)
        item = take(weights_seat)
        while item >= 0:
            layer, part = item // PARTS, item % PARTS
            _back_to_weights(layer, part, layer != ready, rows, sizes, room, zeros, x, hidden, g, kept, gw, gb)
            ready, item = layer, take(weights_seat)
        finish(weights_seat)
    leave(seat)


def _strip(rows: int, sizes: Sequence[int]) -> int:
    """How many rows a thread shall take: whole tiles, and the first, who begins earlier, rather more than less."""
    threads = 1 if rows * sum(map(mul, sizes, sizes[1:])) < FEW else get_num_threads()
    return -(-rows // (threads * TILE_ROWS)) * TILE_ROWS


def fits(x: Array, weights: Sequence[Array], biases: Sequence[Array | None]) -> bool:
    """Are these layers, of which each fits the next, so small that they are done in one call?

    >>> fits(np.zeros((2, 3)), [np.zeros((4, 3)), np.zeros((1, 4))], [None, None])  # float64
    False
    """
    arrays = [x, *weights, *[b for b in biases if b is not None]]
    return fits_one_call(arrays, *x.shape, *map(len, weights))


def forward(x: Array, weights: Sequence[Array], biases: Sequence[Array | None]) -> tuple[Array, Array]:
    """The result (n, out) of layers that `fits`, for x (n, in), and all hidden outputs, for `backward`.

    >>> one = np.ones((1, 1), np.float32)
    >>> forward(-one, [one, one], [None, one[0]])
    (array([[1.]], dtype=float32), array([0.], dtype=float32))
    """
    rows, sizes = len(x), [x.shape[1], *map(len, weights)]
    zeros, size = np.zeros(max(sizes), np.float32), _strip(rows, sizes)
    hidden, y = np.empty(rows * sum(sizes[1:-1]), np.float32), np.empty((rows, sizes[-1]), np.float32)
    offsets = [zeros if b is None else b for b in biases]
    letter = (size, rows, len(weights), *map(id, (x, hidden, y)), *sizes, *map(id, weights), *map(id, offsets))
    share(_forward, -(-rows // size), np.array(letter, np.int64))
    return y, hidden


def backward(
    g: Array, x: Array, hidden: Array, weights: Sequence[Array], need_x: bool = True, need_w: bool = True
) -> tuple[Array | None, list[Array], list[Array]]:
    """Gradients of x, of every weight and of every bias, from that of the result, g (n, out).

    >>> one = np.ones((1, 1), np.float32)
    >>> backward(one, one, np.float32([2]), [one, one])
    (array([[1.]], dtype=float32), [array([[1.]], dtype=float32), array([[2.]], dtype=float32)], \
[array([1.], dtype=float32), array([1.], dtype=float32)])
    """
    rows, sizes, g = len(x), [x.shape[1], *map(len, weights)], np.ascontiguousarray(g)
    zeros, kept, size = np.zeros(max(sizes), np.float32), scratch(len(hidden)), _strip(rows, sizes)
    gx = np.empty_like(x) if need_x else None
    gw = [np.empty_like(w) for w in weights] if need_w else []
    gb = [np.empty(n, np.float32) for n in sizes[1:]] if need_w else []
    letter = (
        size, rows, len(weights), *map(id, (x, hidden, g, kept, zeros)), 0 if gx is None else id(gx), need_w, *sizes,
        *map(id, weights), *map(id, gw), *map(id, gb),
    )  # fmt: skip
    share(_backward, -(-rows // size), np.array(letter, np.int64))
    return gx, gw, gb
