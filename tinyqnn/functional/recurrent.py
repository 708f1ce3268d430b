"""LSTM: a state that is carried from word to word, and four gates that say what to keep, to add and to show.

    i = σ(W_ii x + b_ii + W_hi h + b_hi)      what to let in
    f = σ(W_if x + b_if + W_hf h + b_hf)      what to keep
    g = tanh(W_ig x + b_ig + W_hg h + b_hg)   what is offered
    o = σ(W_io x + b_io + W_ho h + b_ho)      what to show
    c ← f · c + i · g
    h ← o · tanh(c)

The four gates are rows of one matrix, in the order i, f, g, o, as in PyTorch (ONNX orders them i, o, f, c).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyqnn import kernels
from tinyqnn.functional.dropout import dropout as _dropout
from tinyqnn.functional.shape import stack
from tinyqnn.tensor import Array, Function, Node, Tensor


def advance(a: Array, c: Array, c_new: Array, h: Array) -> None:
    """One step from the gates' sums a (N, 4·hidden), which become the gates, and the cell c; writes c_new and h.

    c, c_new, h   (N, hidden)

    >>> a, c, c_new, h = np.zeros((1, 4)), np.ones((1, 1)), np.empty((1, 1)), np.empty((1, 1))
    >>> advance(a, c, c_new, h)
    >>> a.tolist(), c_new.tolist()
    ([[0.5, 0.5, 0.0, 0.5]], [[0.5]])
    """
    if _single(a, c, c_new, h):
        kernels.lstm.advance(a, c, c_new, h)
        return
    i, f, g, o = np.split(a, 4, axis=1)
    for gate in (i, f, o):
        gate[...] = 0.5 + 0.5 * np.tanh(0.5 * gate)  # σ, which cannot overflow so
    np.tanh(g, out=g)
    c_new[...] = f * c + i * g
    h[...] = o * np.tanh(c_new)


def forward(gates: Array, bias: Array, weight_hh: Array, outputs: Array, cells: Array) -> None:
    """Step after step, in place: h and c of step t + 1 from those of step t.

    gates            (T, N, 4·hidden): the inputs' share of the sums on entry, the gates i, f, g, o after σ and tanh
    bias             (4·hidden,)
    outputs, cells   (T + 1, N, hidden): h and c, of which [0] is given

    A step has the same bits alone and among others: a quantizer on h takes the sequence apart, and may change nothing.

    >>> outputs, cells = np.zeros((2, 1, 1)), np.ones((2, 1, 1))
    >>> forward(np.zeros((1, 1, 4)), np.zeros(4), np.ones((4, 1)), outputs, cells)
    >>> cells.ravel().tolist()
    [1.0, 0.5]
    """
    if _single(gates, bias, weight_hh, outputs, cells):
        kernels.lstm.forward(gates, bias, weight_hh, outputs, cells)
        return
    weight = kernels.gemm.packed(weight_hh.T)
    for t, a in enumerate(gates):
        a += bias
        a += kernels.gemm.matmul(outputs[t], weight)
        advance(a, cells[t], cells[t + 1], outputs[t + 1])


def of_inputs(x: Array, weight_ih: Array) -> Array:
    """The inputs are all known: one product for all steps, (T, N, in) -> (T, N, 4·hidden).

    Float32 products on tiles round in another way than others do. So many rows take them only if those of one step
    would: packed factors are for the other kernel.

    >>> of_inputs(np.ones((2, 1, 3)), np.ones((4, 3))).tolist()
    [[[3.0, 3.0, 3.0, 3.0]], [[3.0, 3.0, 3.0, 3.0]]]
    """
    (steps, batch, features), weight = x.shape, weight_ih.T
    if _single(x, weight_ih):
        all_pay, one_pays = (kernels.thirdgemm.pays(n * batch, features, len(weight_ih)) for n in (steps, 1))
        weight = kernels.gemm.packed(weight) if all_pay and not one_pays else weight
    return kernels.gemm.matmul(x.reshape(steps * batch, features), weight).reshape(steps, batch, len(weight_ih))


def bias_of(biases: Sequence[Array | None], size: int, dtype: np.dtype) -> Array:
    """The sum of those that are there, (size,).

    >>> bias_of((None, np.ones(2)), 2, np.dtype(float)).tolist()
    [1.0, 1.0]
    """
    return sum((bias for bias in biases if bias is not None), np.zeros(size, dtype))


def _single(*arrays: Array) -> bool:
    """Do the compiled loops serve?"""
    return all(a.dtype == np.float32 for a in arrays) and not kernels.use_reference()


def _backward(
    grad_y: Array, grad_h: Array, grad_c: Array, gates: Array, cells: Array, weight_hh: Array
) -> tuple[Array, Array, Array]:
    """The same steps from the last to the first: gradients of the gates' sums and of the state before the first step.

    grad_y           (T, N, hidden), of all outputs
    grad_h, grad_c   (N, hidden), of the state after the last step
    """
    grad_gates, weight = np.empty_like(gates), kernels.gemm.packed(weight_hh)
    for t in reversed(range(len(gates))):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        grad_h = grad_h + grad_y[t]
        tanh_c = np.tanh(cells[t + 1])
        grad_c = grad_c + grad_h * o * (1 - tanh_c * tanh_c)
        grad_i, grad_f, grad_g, grad_o = np.split(grad_gates[t], 4, axis=1)
        np.multiply(grad_c * g, i * (1 - i), out=grad_i)
        np.multiply(grad_c * cells[t], f * (1 - f), out=grad_f)
        np.multiply(grad_c * i, 1 - g * g, out=grad_g)
        np.multiply(grad_h * tanh_c, o * (1 - o), out=grad_o)
        grad_h = kernels.gemm.matmul(grad_gates[t], weight)
        grad_c = grad_c * f
    return grad_gates, grad_h, grad_c


class LSTMLayer(Function):
    """One layer over the whole sequence, as one operation."""

    @staticmethod
    def forward(
        ctx: Node,
        x: Array,
        h0: Array,
        c0: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array | None,
        bias_hh: Array | None,
    ) -> tuple[Array, Array, Array]:
        steps, batch, _ = x.shape
        hidden = weight_hh.shape[1]
        gates = of_inputs(x, weight_ih)
        bias = bias_of((bias_ih, bias_hh), 4 * hidden, gates.dtype)
        outputs, cells = np.empty((steps + 1, batch, hidden), x.dtype), np.empty((steps + 1, batch, hidden), x.dtype)
        outputs[0], cells[0] = h0, c0
        forward(gates, bias, weight_hh, outputs, cells)
        ctx.save(x, weight_ih, weight_hh, gates, outputs, cells)
        return outputs[1:], outputs[-1].copy(), cells[-1].copy()

    @staticmethod
    def backward(ctx: Node, grad_y: Array, grad_h: Array, grad_c: Array) -> tuple[Array | None, ...]:
        x, weight_ih, weight_hh, gates, outputs, cells = ctx.saved
        steps, batch, hidden = grad_y.shape
        steps_back = kernels.lstm.backward if _single(gates, outputs) else _backward
        grad_gates, grad_h, grad_c = steps_back(grad_y, grad_h, grad_c, gates, cells, weight_hh)
        flat = grad_gates.reshape(steps * batch, 4 * hidden)
        need_x, _, _, need_ih, need_hh, *need_bias = ctx.needs_input_grad
        grad_x = kernels.gemm.matmul(flat, weight_ih).reshape(x.shape) if need_x else None
        grad_ih = kernels.gemm.matmul(flat.T, x.reshape(steps * batch, x.shape[2])) if need_ih else None
        grad_hh = kernels.gemm.matmul(flat.T, outputs[:-1].reshape(steps * batch, hidden)) if need_hh else None
        bias = flat.sum(axis=0) if any(need_bias) else None
        return grad_x, grad_h, grad_c, grad_ih, grad_hh, bias, None if bias is None else bias.copy()


def lstm(
    input: Tensor,
    weights: Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]],
    hx: tuple[Tensor, Tensor] | None = None,
    dropout: float = 0.0,
    training: bool = False,
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run one or more LSTM layers over a sequence.

    input     (T, N, in): time first
    weights   for each layer (weight_ih (4·hidden, in), weight_hh (4·hidden, hidden), bias_ih, bias_hh), the biases
              (4·hidden,) or None; a layer's input is the output of the layer before
    hx        the initial state (h0, c0), each (layers, N, hidden); zeros if None
    dropout   between the layers, in training
    result    output (T, N, hidden) of the last layer, and (h, c) after the last step, each (layers, N, hidden)

    >>> w = [(Tensor(np.zeros((4, 2))), Tensor(np.zeros((4, 1))), None, None)]
    >>> output, (h, c) = lstm(Tensor(np.ones((3, 5, 2))), w)
    >>> output.shape, h.shape
    ((3, 5, 1), (1, 5, 1))
    """
    if input.ndim != 3:
        raise ValueError(f"lstm wants an input (T, N, features), got {input.shape}")
    finals: list[tuple[Tensor, Tensor]] = []
    for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(weights):
        hidden = weight_hh.shape[1]
        if weight_ih.shape != (4 * hidden, input.shape[2]):
            raise ValueError(
                f"lstm layer {layer}: expected weight_ih of shape {(4 * hidden, input.shape[2])} for an input of "
                f"{input.shape[2]} features, got {weight_ih.shape}"
            )
        others = [None if given is None else given.shape for given in (weight_hh, bias_ih, bias_hh)]
        if others[0] != (4 * hidden, hidden) or any(shape not in (None, (4 * hidden,)) for shape in others[1:]):
            raise ValueError(
                f"lstm layer {layer}: expected weight_hh of shape {(4 * hidden, hidden)} and biases of shape "
                f"{(4 * hidden,)} or None, got {others}"
            )
        if hx is None:
            zeros = np.zeros((input.shape[1], hidden), input.dtype)
            h0, c0 = Tensor(zeros), Tensor(zeros)
        else:
            if hx[0].shape != (len(weights), input.shape[1], hidden) or hx[1].shape != hx[0].shape:
                raise ValueError(
                    f"lstm: the initial state is (layers, N, hidden) = {(len(weights), input.shape[1], hidden)}, "
                    f"got {hx[0].shape} and {hx[1].shape}"
                )
            h0, c0 = hx[0][layer], hx[1][layer]
        if layer and dropout:
            input = _dropout(input, dropout, training, rng)
        input, h, c = LSTMLayer.apply(input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        finals.append((h, c))
    return input, (stack([h for h, _ in finals]), stack([c for _, c in finals]))
