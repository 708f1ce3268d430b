"""The LSTM over all its steps: the compiled loop against the NumPy formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, nn, no_grad
from tinyqnn.functional import recurrent
from tinyqnn.kernels import jit, use_reference, using


def through_time(shape, dtype):
    """Outputs, states and all gradients of one layer over (T, N, in, hidden)."""
    steps, batch, inputs, hidden = shape
    rng = np.random.default_rng(0)
    layer = nn.LSTM(inputs, hidden, rng=rng).to(dtype)
    given = [rng.normal(size=(steps, batch, inputs)), *rng.normal(size=(2, 1, batch, hidden))]
    x, h, c = (Tensor(array.astype(np.float32).astype(dtype), requires_grad=True) for array in given)
    y, (h_last, c_last) = layer(x, (h, c))
    ((y * rng.normal(size=y.shape).astype(dtype)).sum() + (h_last * 2 - c_last).sum()).backward()
    return [t.data for t in (y, h_last, c_last)] + [t.grad for t in (x, h, c, *layer.parameters())]


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (5, 3, 4, 20), (9, 13, 7, 33), (30, 20, 10, 64)])
def test_it_is_the_formula_in_float64_up_to_rounding(shape):
    with using("compiled"):
        found = through_time(shape, np.float32)
    with using("reference"):
        wanted = through_time(shape, np.float64)
    for single, double in zip(found, wanted, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * abs(double).max())


def test_how_many_threads_there_are_changes_no_bit():
    before, found = jit.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            jit.set_num_threads(threads)
            found.append([array.tobytes() for array in through_time((4, 8, 5, 18), np.float32)])
    finally:
        jit.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_huge_sums_saturate_and_what_is_no_number_stays_in_its_sequence():
    layer = nn.LSTM(1, 4, bias=False)
    for weight in layer.parameters():
        weight.data[...] = 1e4
    x = np.full((3, 2, 1), 1e4, np.float32)
    y, _ = layer(Tensor(x))
    np.testing.assert_allclose(y.data[:, 0, 0], np.tanh([1.0, 2.0, 3.0]), rtol=1e-6)
    x[0, 1] = np.nan
    y, _ = layer(Tensor(x))
    assert np.isfinite(y.data[:, 0]).all()
    assert np.isnan(y.data[:, 1]).all()


@pytest.mark.skipif(use_reference(), reason="a BLAS promises no such thing")
@pytest.mark.parametrize("shape", [(3, 1, 2, 1), (4, 3, 5, 37), (5, 20, 8, 64), (35, 1, 300, 100), (3, 20, 300, 100)])
def test_a_step_has_the_same_bits_alone_and_among_others(rng, shape):
    """Quantized states go step by step, and sequences of a batch may be run apart."""
    steps, batch, inputs, hidden = shape
    layer = nn.LSTM(inputs, hidden, rng=rng)
    x, *state = (rng.normal(size=(n, batch, m)).astype(np.float32) for n, m in ((steps, inputs), *2 * ((1, hidden),)))
    with no_grad():
        h, c = map(Tensor, state)
        y, last = layer(Tensor(x), (h, c))
        for t in range(steps):
            one, (h, c) = layer(Tensor(x[t : t + 1]), (h, c))
            np.testing.assert_array_equal(one.data[0], y.data[t])
    np.testing.assert_array_equal([h.data, c.data], [part.data for part in last])


def test_the_gates_of_a_step_are_those_of_the_sequence(rng):
    """`advance`, which packed networks use, and the loop over time."""
    gates, bias = rng.normal(size=(3, 5, 4 * 19)).astype(np.float32), rng.normal(size=4 * 19).astype(np.float32)
    outputs, cells = (rng.normal(size=(4, 5, 19)).astype(np.float32) for _ in range(2))
    h, c, weight = outputs.copy(), cells.copy(), np.zeros((4 * 19, 19), np.float32)
    one = gates.copy()
    recurrent.forward(gates, bias, weight, outputs, cells)
    for t in range(3):
        one[t] += bias
        recurrent.advance(one[t], c[t], c[t + 1], h[t + 1])
    for ours, theirs in ((one, gates), (h, outputs), (c, cells)):
        np.testing.assert_array_equal(ours, theirs)
