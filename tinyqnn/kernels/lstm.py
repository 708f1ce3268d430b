"""An LSTM over all its steps, and backwards: each thread takes some of the sequences and never waits for the others.

A step is one small product and one walk over the gates while they are in the cache. The formulas, and the NumPy twin,
are in `tinyqnn/functional/recurrent.py`; what squashes the gates is in `squash.py`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from tinyqnn.kernels.gemm import pack, panel_width, product
from tinyqnn.kernels.jit import get_num_threads, jit, run
from tinyqnn.kernels.squash import sigmoid, tanh

__all__ = ["advance", "advance_row", "backward", "forward"]

Array = np.ndarray

CHUNK = 1 << 14  # numbers that are worth a thread


@jit(inner=True)
def _rows_times(a, base, first, last, depth, packed, cols, y):
    """Rows first … last of a (…, depth), which begins at `base`, times a matrix packed in one block, into y."""
    none, count, start, zeros = np.int64(0), last - first, np.zeros(1, np.int64), np.zeros(cols, np.float32)
    places, targets, o = np.arange(first, last) * depth, np.arange(first, last) * cols, none
    while o < cols:
        width = panel_width(cols - o)
        product(
            a, places, none, count, start, none, none + 1, base, depth, none + 1, packed, o * depth, width, zeros, o,
            none, False, y, targets, o, min(width, cols - o), packed, none, none, False,
        )  # fmt: skip
        o += width


@jit(error_model="numpy")
def advance_row(a, c, c_new, h):
    """One step of one sequence: the sums a (4·hidden,) become the gates i, f, g, o; writes c_new and h (hidden,)."""
    hidden = len(c)
    i, f, g, o = a[:hidden], a[hidden : 2 * hidden], a[2 * hidden : 3 * hidden], a[3 * hidden :]
    for j in range(2 * hidden):
        a[j] = sigmoid(a[j])
    for j in range(hidden):
        g[j] = tanh(g[j])
    for j in range(hidden):
        o[j] = sigmoid(o[j])
    for j in range(hidden):
        c_new[j] = f[j] * c[j] + i[j] * g[j]
    for j in range(hidden):
        h[j] = o[j] * tanh(c_new[j])


@jit
def _advance(first, last, a, c, c_new, h):
    for n in range(first, last):
        advance_row(a[n], c[n], c_new[n], h[n])


def advance(a: Array, c: Array, c_new: Array, h: Array) -> None:
    """One step from the gates' sums a (N, 4·hidden), see `functional/recurrent.py`. All arrays float32, contiguous.

    >>> a, c = np.zeros((1, 4), np.float32), np.ones((1, 1), np.float32)
    >>> advance(a, c, c, np.empty_like(c))
    >>> c.item()
    0.5
    """
    run(lambda first, last: _advance(first, last, a, c, c_new, h), len(a), max(CHUNK // a.shape[1], 1))


@jit
def _forward(first, last, gates, bias, packed, outputs, cells):
    steps, batch, hidden = gates.shape[0], gates.shape[1], outputs.shape[2]
    sums = np.empty((batch, 4 * hidden), np.float32)
    for t in range(steps):
        _rows_times(
            outputs.reshape(-1), t * batch * hidden, first, last, hidden, packed, 4 * hidden, sums.reshape(-1)
        )  # fmt: skip
        for n in range(first, last):
            a, more = gates[t, n], sums[n]
            for j in range(4 * hidden):
                a[j] = (a[j] + bias[j]) + more[j]
            advance_row(a, cells[t, n], cells[t + 1, n], outputs[t + 1, n])


def forward(gates: Array, bias: Array, weight_hh: Array, outputs: Array, cells: Array) -> None:
    """Step after step, in place: h and c of step t + 1 from those of step t. All arrays float32 and contiguous.

    gates            (T, N, 4·hidden): the inputs' share of the sums on entry, the gates i, f, g, o after σ and tanh
    bias             (4·hidden,)
    weight_hh        (4·hidden, hidden)
    outputs, cells   (T + 1, N, hidden), of which [0] is given

    >>> outputs, cells = np.zeros((2, 1, 1), np.float32), np.ones((2, 1, 1), np.float32)
    >>> forward(np.zeros((1, 1, 4), np.float32), np.zeros(4, np.float32), np.ones((4, 1), np.float32), outputs, cells)
    >>> cells[1].item(), round(outputs[1].item(), 4)
    (0.5, 0.2311)
    """
    packed, batch = pack(weight_hh.T, weight_hh.shape[1]).data, gates.shape[1]
    run(
        lambda first, last: _forward(first, last, gates, bias, packed, outputs, cells),
        batch,
        -(-batch // get_num_threads()),
    )


@jit(error_model="numpy")
def _backward(first, last, grad_y, grad_h, grad_c, gates, cells, packed, grad_gates):
    steps, batch, hidden = grad_y.shape
    one, tanh_c = np.float32(1), np.empty(hidden, np.float32)
    for t in range(steps - 1, -1, -1):
        for n in range(first, last):
            a, grad_a, c, c_new = gates[t, n], grad_gates[t, n], cells[t, n], cells[t + 1, n]
            i, f, g, o = a[:hidden], a[hidden : 2 * hidden], a[2 * hidden : 3 * hidden], a[3 * hidden :]
            grad_i, grad_f = grad_a[:hidden], grad_a[hidden : 2 * hidden]
            grad_g, grad_o = grad_a[2 * hidden : 3 * hidden], grad_a[3 * hidden :]
            dy, dh, dc = grad_y[t, n], grad_h[n], grad_c[n]
            for j in range(hidden):
                tanh_c[j] = tanh(c_new[j])
            for j in range(hidden):
                dh[j] += dy[j]
            for j in range(hidden):
                dc[j] += dh[j] * o[j] * (one - tanh_c[j] * tanh_c[j])
                grad_o[j] = dh[j] * tanh_c[j] * (o[j] * (one - o[j]))
            for j in range(hidden):
                grad_i[j] = dc[j] * g[j] * (i[j] * (one - i[j]))
                grad_g[j] = dc[j] * i[j] * (one - g[j] * g[j])
            for j in range(hidden):
                grad_f[j] = dc[j] * c[j] * (f[j] * (one - f[j]))
                dc[j] *= f[j]
        _rows_times(
            grad_gates.reshape(-1), t * batch * 4 * hidden, first, last, 4 * hidden, packed, hidden,
            grad_h.reshape(-1),
        )  # fmt: skip


def backward(
    grad_y: Array, grad_h: Array, grad_c: Array, gates: Array, cells: Array, weight_hh: Array
) -> tuple[Array, Array, Array]:
    """The same steps from the last to the first: gradients of the gates' sums and of the state before the first step.

    grad_y           (T, N, hidden), of all outputs
    grad_h, grad_c   (N, hidden), of the state after the last step
    gates, cells     as `forward` left them

    >>> gates, cells, none = np.full((1, 1, 4), 0.5, np.float32), np.zeros((2, 1, 1), np.float32), np.zeros((1, 1))
    >>> grads = backward(np.ones((1, 1, 1), np.float32), none, none, gates, cells, np.ones((4, 1), np.float32))
    >>> [grad.tolist() for grad in grads]
    [[[[0.0625, 0.0, 0.1875, 0.0]]], [[0.25]], [[0.25]]]
    """
    grad_y = np.ascontiguousarray(grad_y, np.float32)
    grad_h, grad_c = np.array(grad_h, np.float32, order="C"), np.array(grad_c, np.float32, order="C")
    grad_gates, packed, batch = np.empty_like(gates), pack(weight_hh, len(weight_hh)).data, gates.shape[1]
    run(
        lambda first, last: _backward(first, last, grad_y, grad_h, grad_c, gates, cells, packed, grad_gates),
        batch,
        -(-batch // get_num_threads()),
    )
    return grad_gates, grad_h, grad_c
