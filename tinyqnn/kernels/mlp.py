"""A small network of linear layers in one call: what it would spend most on is the way from layer to layer.

    h₀ = x,   hₗ = max(hₗ₋₁ Wₗᵀ + bₗ, 0),   y = hₗ Wᵀ + b in the last layer, which has no ReLU

No row of h asks for another row. So every thread takes some rows through all the layers by itself, and what it made in
one layer lies in its own cache when it comes to the next; to fetch 50 kB from another core takes 5 µs, a third of the
product. The next layer's weights, half of which another core has moved, are asked for meanwhile. On the way back it is
the same, with gₗ the gradient of what layer l makes before its ReLU:

    gₗ₋₁ = gₗ Wₗ where hₗ₋₁ > 0, else 0

Only the weights' gradients add over all rows. They come last, and threads share them by layers:

    ∂Wₗ = gₗᵀ hₗ₋₁,   ∂bₗ = Σ over the rows of gₗ

Every product is the one that `gemm.py` does for a layer alone, and so is each number to the last bit. The reading copy
is a loop over `functional.linear_relu`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyqnn.kernels.addresses import PLAIN, axes, length, numbers_at, objects_at, plain
from tinyqnn.kernels.board import opened
from tinyqnn.kernels.gemm import SMALL, SMALL_DEPTH, TILE_ROWS, column_sums, multiply_small, pack_small
from tinyqnn.kernels.jit import ByLetter, aligned, get_num_threads, jit, scratch, share
from tinyqnn.kernels.seats import RANGE
from tinyqnn.kernels.simd import whole_vectors
from tinyqnn.kernels.turns import again, finish, leave, take

__all__ = ["Layers", "backward", "forward"]

Array = np.ndarray

FEW = 400_000  # multiplications that one thread has done before a second would help
PARTS = 2  # of a layer's outputs, when threads share gradients of weights

# The letter of both kernels: layers; by their `id`, the input, a tuple of all weights and all biases, and None; the
# input's rows, rows of a strip; more arrays by their `id`, and a tuple of the gradients of weights and of biases, or 0
# if they are not wanted; and from SIZES on the sizes from x to y.
LAYERS, X, PARAMETERS, NONE, ROWS, STRIP, HIDDEN, Y, KEPT, GRAD_X, GRADIENTS, SIZES = range(12)


@jit
def _look_over(letter, array, float32):
    """Fill in the sizes; multiplications for each row, or −1 if this is not for one call, and the hidden outputs."""
    x, layers, sizes, work, outputs = letter[X], letter[LAYERS], letter[SIZES:], 0, 0
    parameters = objects_at(letter[PARAMETERS], 2 * layers)
    if not plain(x, array, float32) or axes(x) != 2:
        return -1, 0
    rows, n_in = length(x, 0), length(x, 1)
    letter[ROWS] = rows
    for layer in range(layers + 1):
        sizes[layer] = n_in
        if not 0 < n_in <= SMALL_DEPTH:
            return -1, 0
        if layer < layers:
            w, b = parameters[layer], parameters[layers + layer]
            if not plain(w, array, float32) or axes(w) != 2 or length(w, 1) != n_in:
                return -1, 0
            n_out = length(w, 0)
            if b != letter[NONE] and (not plain(b, array, float32) or axes(b) != 1 or length(b, 0) != n_out):
                return -1, 0
            if rows * n_in * n_out >= SMALL:
                return -1, 0
            work, outputs, n_in = work + n_in * n_out, outputs + n_out, n_out
    return (work, outputs - n_in) if 0 < rows <= SMALL_DEPTH else (-1, 0)


class Layers:
    """An input (n, in) and the linear layers that it goes through, looked over.

    fit   are they contiguous float32, each layer fits the next, and all are so small that one call pays?

    >>> x = np.zeros((2, 3))
    >>> Layers(x, [np.zeros((4, 3)), np.zeros((1, 4))], [None, None]).fit  # float64
    False
    """

    def __init__(self, x: Array, weights: Sequence[Array], biases: Sequence[Array | None]) -> None:
        self.x, self.weights, self.biases = x, weights, biases
        self.parameters = (*weights, *biases)
        self.letter = np.zeros(SIZES + len(weights) + 1, np.int64)
        self.letter[:ROWS] = len(weights), id(x), id(self.parameters), id(None)
        work, self.hidden = _look_over(self.letter, *PLAIN)
        self.fit = work >= 0
        if self.fit:  # a thread shall take whole tiles of rows, and the first, who begins earlier, rather more
            threads = 1 if len(x) * work < FEW else get_num_threads()
            self.letter[STRIP] = size = -(-len(x) // (threads * TILE_ROWS)) * TILE_ROWS
            self.strips = -(-len(x) // size)

    def __reduce__(self) -> Any:
        return Layers, (self.x, self.weights, self.biases)  # copies are elsewhere


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
    size, rows, layers, sizes = letter[STRIP], letter[ROWS], letter[LAYERS], letter[SIZES:][: letter[LAYERS] + 1]
    weights = objects_at(letter[PARAMETERS], 2 * layers)
    biases = weights[layers:]
    x, y = numbers_at(letter[X], rows * sizes[0]), numbers_at(letter[Y], rows * sizes[layers])
    hidden, none, one = numbers_at(letter[HIDDEN], rows * sizes[1:layers].sum()), np.int64(0), np.int64(1)
    zeros, room, strip = np.zeros(SMALL_DEPTH, np.float32), _room(sizes, rows), take(seat)
    while strip >= 0:
        first, last = strip * size, min(strip * size + size, rows)
        h, begin = x[first * sizes[0] : last * sizes[0]], 0
        for layer in range(layers):
            n_in, n_out, relu = sizes[layer], sizes[layer + 1], layer + 1 < layers
            made = (hidden[begin:] if relu else y)[first * n_out : last * n_out]
            next_weights = numbers_at(weights[layer + 1], n_out * sizes[layer + 2]) if relu else y[:0]
            bias = zeros if biases[layer] == letter[NONE] else numbers_at(biases[layer], n_out)
            pack_small(numbers_at(weights[layer], n_in * n_out), one, n_in, n_in, n_out, room)
            multiply_small(h, n_in, one, last - first, n_in, room, none, n_out, bias, relu, made, next_weights)
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
        next_weights = numbers_at(weights[layer - 1], sizes[layer - 1] * n_in) if layer > 1 else g[:0]
        pack_small(numbers_at(weights[layer], n_in * n_out), n_in, one, n_out, n_in, room)
        multiply_small(back, n_out, one, last - first, n_out, room, none, n_in, zeros, False, made, next_weights)
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
    multiply_small(back[first:], one, n_out, last - first, rows, room, none, n_in, zeros, False, made, g[:0])
    column_sums(first, last, back, n_out, numbers_at(gb[layer], n_out))


@ByLetter
def _backward(at, told):
    """First all rows, then all weights, and a second thread is there for both."""
    seat, letter = opened(at, told)
    size, rows, layers, sizes = letter[STRIP], letter[ROWS], letter[LAYERS], letter[SIZES:][: letter[LAYERS] + 1]
    weights, gw = objects_at(letter[PARAMETERS], layers), objects_at(letter[GRADIENTS], 2 * layers)
    of_all, zeros = rows * sizes[1:layers].sum(), np.zeros(SMALL_DEPTH, np.float32)
    x, g = numbers_at(letter[X], rows * sizes[0]), numbers_at(letter[Y], rows * sizes[layers])
    hidden, kept = numbers_at(letter[HIDDEN], of_all), numbers_at(letter[KEPT], of_all)
    gx = numbers_at(letter[GRAD_X], rows * sizes[0]) if letter[GRAD_X] else zeros[:0]
    room, mine, strip = _room(sizes, rows), seat[RANGE], take(seat)
    while strip >= 0:
        first, last = strip * size, min(strip * size + size, rows)
        _back_through_rows(first, last, rows, sizes, weights, room, zeros, hidden, g, kept, gx)
        strip = take(seat)
    if letter[GRADIENTS]:
        weights_seat, ready = again(seat, mine, PARTS * layers), np.int64(-1)
        item = take(weights_seat)
        while item >= 0:
            layer, part = item // PARTS, item % PARTS
            _back_to_weights(layer, part, layer != ready, rows, sizes, room, zeros, x, hidden, g, kept, gw, gw[layers:])
            ready, item = layer, take(weights_seat)
        finish(weights_seat)
    leave(seat)


def forward(layers: Layers) -> tuple[Array, Array]:
    """The result (n, out) of layers that `fit`, and all hidden outputs, for `backward`.

    >>> one = np.ones((1, 1), np.float32)
    >>> forward(Layers(-one, [one, one], [None, one[0]]))
    (array([[1.]], dtype=float32), array([0.], dtype=float32))
    """
    rows = len(layers.x)
    hidden, y = np.empty(rows * layers.hidden, np.float32), np.empty((rows, len(layers.weights[-1])), np.float32)
    layers.letter[HIDDEN], layers.letter[Y] = id(hidden), id(y)
    share(_forward, layers.strips, layers.letter)
    return y, hidden


def backward(
    g: Array, layers: Layers, hidden: Array, need_x: bool = True, need_w: bool = True
) -> tuple[Array | None, list[Array], list[Array]]:
    """Gradients of x, of every weight and of every bias, from that of the result, g (n, out).

    >>> one = np.ones((1, 1), np.float32)
    >>> backward(one, Layers(one, [one, one], [None, None]), np.float32([2]))
    (array([[1.]], dtype=float32), [array([[1.]], dtype=float32), array([[2.]], dtype=float32)], \
[array([1.], dtype=float32), array([1.], dtype=float32)])
    """
    letter, g, kept = layers.letter, np.ascontiguousarray(g), scratch(len(hidden))
    gx = np.empty_like(layers.x) if need_x else None
    gw = [np.empty_like(w) for w in layers.weights] if need_w else []
    gb = [np.empty(len(w), np.float32) for w in gw]
    gradients = (*gw, *gb)
    letter[HIDDEN:SIZES] = id(hidden), id(g), id(kept), id(gx) if need_x else 0, id(gradients) if need_w else 0
    share(_backward, layers.strips, letter)
    return gx, gw, gb
