"""An LSTM backwards over its steps: each thread takes some of the sequences and never waits for the others.

A step is one walk over the gates while they are in the cache, and one small product. The formulas, and the NumPy twin,
are in `tinyqnn/functional/recurrent.py`.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from tinyqnn.kernels.exponential import exp
from tinyqnn.kernels.gemm import pack, panel_width, product
from tinyqnn.kernels.jit import get_num_threads, jit, run

__all__ = ["backward"]

Array = np.ndarray


@jit(error_model="numpy")
def _tanh(x):
    return np.float32(1) - np.float32(2) / (np.float32(1) + exp(x + x))


@jit
def _rows_times(a, base, first, last, depth, packed, cols, y):
    """Rows first … last of a (…, depth), which begins at `base`, times the packed matrix, into y."""
    none, count, start, zeros = np.int64(0), last - first, np.zeros(1, np.int64), np.zeros(cols, np.float32)
    places, targets, o = np.arange(first, last) * depth, np.arange(first, last) * cols, none
    while o < cols:
        width = panel_width(cols - o)
        product(
            a, places, none, count, start, none, none + 1, base, depth, none + 1, packed, o * depth, width, zeros, o,
            none, y, targets, o, min(width, cols - o),
        )  # fmt: skip
        o += width


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
                tanh_c[j] = _tanh(c_new[j])
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
    grad_gates, packed, batch = np.empty_like(gates), pack(weight_hh).data, gates.shape[1]
    run(
        lambda first, last: _backward(first, last, grad_y, grad_h, grad_c, gates, cells, packed, grad_gates),
        batch,
        -(-batch // get_num_threads()),
    )
    return grad_gates, grad_h, grad_c
