"""A small network in one call gives, to the last bit, what its layers give one by one."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn import kernels
from tinyqnn.kernels import gemm, jit, mlp

pytestmark = pytest.mark.skipif(kernels.use_reference(), reason="the twin is the layers themselves")

TOLERANCE = 1e-5  # of the sum of absolute products


def network(sizes, biases, rng):
    weights = [rng.normal(size=(m, n)).astype(np.float32) for n, m in pairwise(sizes)]
    return weights, [rng.normal(size=m).astype(np.float32) if biases else None for m in sizes[1:]]


def layer_by_layer(x, weights, biases, g):
    """The result, and the gradients of x, weights and biases, a layer at a time."""
    last, outputs = len(weights) - 1, [x]
    for layer, (w, b) in enumerate(zip(weights, biases)):
        outputs.append(gemm.linear(outputs[-1], w, b, relu=layer < last))
    of_weights, of_biases = [], []
    for layer in range(last, -1, -1):
        y = outputs[layer + 1] if layer < last else None
        g, gw, gb = gemm.linear_grad(g, outputs[layer], weights[layer], y)
        of_weights.insert(0, gw)
        of_biases.insert(0, gb)
    return outputs[-1], g, of_weights, of_biases


def assert_same(found, expected):
    for a, b in zip([*found[:2], *found[2], *found[3]], [*expected[:2], *expected[2], *expected[3]], strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.integers(1, 120), st.lists(st.integers(1, 70), min_size=3, max_size=6), st.booleans(), st.integers(0, 999))
@example(100, [2, 128, 128, 128, 2], True, 0)
@example(1, [1, 1, 1], True, 0)
def test_one_call_equals_layer_by_layer_to_the_last_bit_on_one_thread_and_on_more(rows, sizes, biases, seed):
    rng = np.random.default_rng(seed)
    weights, offsets = network(sizes, biases, rng)
    x = rng.normal(size=(rows, sizes[0])).astype(np.float32)
    g = rng.normal(size=(rows, sizes[-1])).astype(np.float32)
    expected = layer_by_layer(x, weights, offsets, g)
    assert mlp.Layers(x, weights, offsets).fit
    few, threads = mlp.FEW, jit.get_num_threads()
    try:
        for mlp.FEW, many in ((0, 2), (0, 3), (few, threads), (0, 1)):
            jit.set_num_threads(many)
            layers = mlp.Layers(x, weights, offsets)
            y, hidden = mlp.forward(layers)
            assert_same((y, *mlp.backward(g, layers, hidden)), expected)
    finally:
        mlp.FEW = few
        jit.set_num_threads(threads)


def test_what_nobody_asks_for_is_not_computed(rng):
    weights, biases = network([3, 20, 2], True, rng)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    layers = mlp.Layers(x, weights, biases)
    y, hidden = mlp.forward(layers)
    gx, gw, gb = mlp.backward(np.ones_like(y), layers, hidden)
    assert mlp.backward(np.ones_like(y), layers, hidden, need_x=False)[0] is None
    without_weights = mlp.backward(np.ones_like(y), layers, hidden, need_w=False)
    np.testing.assert_array_equal(without_weights[0], gx)
    assert without_weights[1:] == ([], [])
    assert len(gw) == len(gb) == 2


def test_a_gradient_may_lie_in_memory_as_it_likes(rng):
    weights, biases = network([3, 20, 2], True, rng)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    layers = mlp.Layers(x, weights, biases)
    _, hidden = mlp.forward(layers)
    for g in (np.broadcast_to(np.float32(2), (7, 2)), rng.normal(size=(2, 7)).astype(np.float32).T):
        expected = mlp.backward(np.ascontiguousarray(g), layers, hidden)
        assert_same((None, *mlp.backward(g, layers, hidden)), (None, *expected))


def test_close_to_float64(rng):
    weights, biases = network([5, 90, 40, 3], True, rng)
    x = rng.normal(size=(33, 5)).astype(np.float32)
    h, size = x.astype(np.float64), abs(x.astype(np.float64))
    for layer, (w, b) in enumerate(zip(weights, biases)):
        h, size = h @ w.T.astype(np.float64) + b, size @ abs(w.T.astype(np.float64)) + abs(b)
        h = np.maximum(h, 0) if layer < 2 else h
    assert (abs(mlp.forward(mlp.Layers(x, weights, biases))[0] - h) <= TOLERANCE * size).all()


def test_nan_stays_nan_and_gets_no_gradient_through_a_relu():
    weights = [np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)]
    x = np.array([[np.nan], [1.0]], np.float32)
    layers = mlp.Layers(x, weights, [None, None])
    y, hidden = mlp.forward(layers)
    gx, _, _ = mlp.backward(np.ones_like(y), layers, hidden)
    assert np.isnan(y[0, 0])
    assert gx.tolist() == [[0.0], [1.0]]


def test_a_thousand_short_calls_that_threads_share_end_and_agree(rng):
    weights, biases = network([4, 16, 16, 3], True, rng)
    x = rng.normal(size=(8, 4)).astype(np.float32)
    few, threads = mlp.FEW, jit.get_num_threads()
    try:
        mlp.FEW, found = 0, set()
        jit.set_num_threads(2)
        for _ in range(1000):
            layers = mlp.Layers(x, weights, biases)
            y, hidden = mlp.forward(layers)
            gx, gw, gb = mlp.backward(np.ones_like(y), layers, hidden)
            found.add(b"".join(a.tobytes() for a in (y, gx, *gw, *gb)))
    finally:
        mlp.FEW = few
        jit.set_num_threads(threads)
    assert len(found) == 1


def test_a_copy_of_layers_reads_its_own_arrays(rng):
    weights, biases = network([3, 20, 2], True, rng)
    layers = mlp.Layers(rng.normal(size=(7, 3)).astype(np.float32), weights, biases)
    expected = mlp.forward(layers)[0]
    copied = pickle.loads(pickle.dumps(layers))
    weights[0][:] = 0
    np.testing.assert_array_equal(mlp.forward(copied)[0], expected)


CASES = [
    "float64", "a view", "too large", "no rows", "a vector", "another width", "another bias", "a narrow bias", "a list"
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_one_call_is_said_not_to(case, rng):
    weights, biases = network([3, 20, 2], True, rng)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    assert mlp.Layers(x, weights, biases).fit
    if case == "float64":
        weights[1] = weights[1].astype(np.float64)
    elif case == "a view":
        weights[1] = np.ascontiguousarray(weights[1].T).T
    elif case == "too large":
        x = np.zeros((gemm.SMALL, 3), np.float32)
    elif case == "a vector":
        x = x[0]
    elif case == "another width":
        x = x[:, :2].copy()
    elif case == "another bias":
        biases[0] = np.zeros(21, np.float32)
    elif case == "a narrow bias":
        biases[0] = np.zeros((20, 1), np.float32)
    elif case == "a list":
        weights[0] = weights[0].tolist()
    else:
        x = x[:0]
    assert not mlp.Layers(x, weights, biases).fit
