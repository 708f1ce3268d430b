"""The gradient rule of every scheme, at the boundary above all; PACT's clip; the gradient of the bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quant_tensors import EDGES, MAIN, tensors

import tinyqnn as tq
from tinyqnn.kernels import using
from tinyqnn.quant.learned_bits import RelaxedQuantize, bits_gradient, quantize_with_bits
from tinyqnn.quant.ste import kernel_pays

CLIPPED = [q for q in MAIN + EDGES if q.letter in ("C", "PACT") or (q.letter == "U" and not q.signed)]
PLAIN = [q for q in MAIN if q not in CLIPPED]


def gradient(q, x, params=None, grad=None):
    leaf = tq.Tensor(x, requires_grad=True)
    y = q(leaf, params)
    y.backward(np.ones_like(y.data) if grad is None else grad)
    return leaf.grad


@given(x=tensors(), seed=st.integers(0, 9))
def test_plain_straight_through_passes_the_gradient_everywhere(x, seed):
    grad = np.random.default_rng(seed).standard_normal(x.shape).astype(x.dtype)
    for q in PLAIN:
        np.testing.assert_array_equal(gradient(q, x, grad=grad), grad, err_msg=repr(q))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("q", CLIPPED, ids=repr)
def test_clipped_straight_through_passes_on_the_codebook_both_ends_included_and_not_a_hair_beyond(q, dtype):
    params = {"scale": np.array(0.3, dtype)}
    book = q.codebook(params)
    lo, hi = book[0], book[-1]
    beyond = [np.nextafter(lo, dtype(-np.inf)), np.nextafter(hi, dtype(np.inf)), 3 * hi + 1, -3 * hi - 1]
    x = np.array([*book, *beyond], dtype)
    grad = np.arange(1, len(x) + 1).astype(dtype)
    wanted = np.where(np.arange(len(x)) < len(book), grad, 0)
    np.testing.assert_array_equal(gradient(q, x, params, grad), wanted)
    big = np.tile(x, 6000 // len(x) + 1)  # large enough for the compiled kernel
    np.testing.assert_array_equal(gradient(q, big, params, np.resize(grad, big.size)), np.resize(wanted, big.size))


@pytest.mark.parametrize("q", CLIPPED, ids=repr)
def test_what_is_quantized_already_always_passes(q):
    x = np.random.default_rng(1).standard_normal(200).astype(np.float32) * 3
    params = q.fit(x)
    np.testing.assert_array_equal(gradient(q, q.quantize(x, params), params), np.ones(200))


def test_clipq_limits_are_those_of_this_call():
    q = tq.quant.ClipQ(bits=2)
    q.fit(np.array([100.0, -100.0]))
    x = np.array([-1.0, -0.2, 0.2, 1.0, 3.0])
    top = 1.5 * q.fit(x)["scale"]
    np.testing.assert_array_equal(gradient(q, x), np.abs(x) <= top)


def test_per_channel_clips_each_channel_at_its_own_limits():
    x = np.stack([np.linspace(-1, 1, 50), np.linspace(-100, 100, 50)])
    whole = gradient(tq.quant.ClipQ(bits=2, axis=0), x)
    for channel, row in zip(x, whole):
        np.testing.assert_array_equal(row, gradient(tq.quant.ClipQ(bits=2), channel))
    assert 0 < whole[0].sum() < 50


def test_a_nan_in_a_gradient_that_is_clipped_does_not_come_through():
    grad = np.array([1.0, np.nan])
    found = gradient(tq.quant.ClipQ(bits=2), np.array([0.0, 9.0]), {"scale": 1.0}, grad)
    np.testing.assert_array_equal(found, [1.0, 0.0])


def test_the_shared_leaf_gets_both_gradients():
    x = tq.Tensor(np.array([-0.5, 0.5, 0.25]), requires_grad=True)
    q = tq.quant.ClipQ(bits=4)
    (q(x) + q(x)).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * gradient(q, x.data))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 8, 20, 20)])  # by NumPy and by the kernel
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)])  # the shortcut's gradient as x in memory, or not
def test_around_a_quantizer_a_shortcuts_gradient_is_added_to_its_own(shape, axes, rng):
    q, params = tq.quant.ClipQ(3), {"scale": np.float32(0.3)}
    x, grad = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    over = np.ascontiguousarray(grad.transpose(np.argsort(axes))).transpose(axes)
    leaf = tq.Tensor(x, requires_grad=True)
    inside = leaf * 1.0
    quantized, way_around = q(inside, params), inside * 1.0
    (quantized * tq.Tensor(grad) + way_around * tq.Tensor(over)).sum().backward()
    np.testing.assert_array_equal(leaf.grad, gradient(q, x, params, grad) + over)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pact_gives_every_gradient_to_x_or_to_the_clip_and_never_to_both(bits):
    x = np.array([-1.0, -0.0, 0.0, 0.5, np.nextafter(2.0, 0), 2.0, np.nextafter(2.0, 3), 5.0])
    grad = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
    pact = tq.quant.PACT(bits=bits, clip=2.0)
    leaf = tq.Tensor(x, requires_grad=True)
    pact(leaf).backward(grad)
    np.testing.assert_array_equal(leaf.grad, [0, 2, 4, 8, 16, 0, 0, 0])
    assert pact.clip.grad == 32 + 64 + 128


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=9), st.floats(0.5, 6, width=16), st.integers(1, 8))
def test_pact_is_the_papers_formula(values, a, bits):
    x = np.array(values)
    y = 0.5 * (np.abs(x) - np.abs(x - a) + a)
    levels = 2**bits - 1
    wanted = np.floor(y * levels / a + 0.5) * a / levels
    got = tq.quant.PACT(bits=bits, clip=a).quantize(x)
    away_from_ties = np.abs((y * levels / a) % 1 - 0.5) > 1e-9
    np.testing.assert_allclose(got[away_from_ties], wanted[away_from_ties], rtol=1e-12, atol=1e-12)


def test_pacts_penalty_is_the_square_of_its_clip_and_pulls_it_down():
    pact = tq.quant.PACT(bits=3, clip=5.0)
    penalty = pact.penalty()
    penalty.backward()
    assert penalty.item() == 25.0
    assert pact.clip.grad == 10.0
    assert [name for name, _ in pact.named_parameters()] == ["clip"]


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=12), st.floats(1, 8), st.integers(0, 9),
)  # fmt: skip
def test_the_gradient_of_the_bits_is_the_slope_of_the_relaxed_quantizer(values, bits, seed):
    """The surrogate holds f(x/α) − x/α, the rounding error in steps, and lets α follow b: Q̃(b) = x + α(b)·error."""
    x = np.array(values)
    span = x.max() - x.min()
    grad = np.random.default_rng(seed).standard_normal(len(x))
    if span == 0:
        return

    def step(b: float) -> float:
        return span / (2**b - 1)

    error = np.floor(x / step(bits) + 0.5) - x / step(bits)
    h = 1e-6
    slope = ((x + step(bits + h) * error) - (x + step(bits - h) * error)) @ grad / (2 * h)

    b, leaf = tq.Tensor(np.array(bits), requires_grad=True), tq.Tensor(x, requires_grad=True)
    q = RelaxedQuantize.apply(leaf, b)
    q.backward(grad)
    np.testing.assert_allclose(q.data, x + step(bits) * error, atol=1e-12)
    np.testing.assert_allclose(b.grad, slope, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(leaf.grad, grad)


def test_the_gradient_of_the_bits_is_the_papers_equation_5():
    x, q = np.array([1.0, -2.0]), np.array([0.75, -2.5])
    for b in (1.0, 2.5, 8.0):
        wanted = math.log(2) * 2**b / (2**b - 1) * (x - q)
        np.testing.assert_allclose(bits_gradient(x, q, b), wanted, rtol=1e-15)


def test_relaxed_quantizer_of_a_constant_is_the_constant():
    b = tq.Tensor(np.array(3.0), requires_grad=True)
    q = RelaxedQuantize.apply(tq.Tensor(np.full(3, 2.5)), b)
    q.sum().backward()
    assert q.data.tolist() == [2.5] * 3
    assert b.grad == 0


@pytest.mark.parametrize(("real", "used"), [(2.4999, 2), (2.5, 3), (-1.0, 1), (8.7, 8)])
def test_learned_bits_are_used_rounded_and_kept_within_the_scheme(real, used):
    x = np.random.default_rng(0).standard_normal(50)
    b, leaf = tq.Tensor(np.array(real), requires_grad=True), tq.Tensor(x, requires_grad=True)
    y = quantize_with_bits("C", leaf, b)
    y.sum().backward()
    fixed = tq.quant.ClipQ(bits=used)
    np.testing.assert_array_equal(y.data, fixed.quantize(x))
    np.testing.assert_array_equal(leaf.grad, gradient(fixed, x))
    if real > 0:
        np.testing.assert_allclose(b.grad, bits_gradient(x, y.data, real).sum(), rtol=1e-12)


def test_per_channel_limits_serve_large_tensors_too():
    x = np.random.default_rng(3).standard_normal((3, 5000)).astype(np.float32) * np.array(
        [[1], [10], [100]], np.float32
    )
    whole = gradient(tq.quant.ClipQ(bits=2, axis=0), x)
    for channel, row in zip(x, whole):
        np.testing.assert_array_equal(row, gradient(tq.quant.ClipQ(bits=2), channel))


def test_for_its_gradient_a_quantizer_keeps_at_most_a_byte_an_element():
    leaf = tq.Tensor(np.array([0.5, 1.0, 9.0]), requires_grad=True)
    plain, clipped = tq.quant.FixedQ(bits=3)(leaf), tq.quant.ClipQ(bits=3)(leaf, {"scale": np.array(1.0)})
    assert plain._node[0].saved == (None,)
    (inside,) = clipped._node[0].saved
    assert inside.dtype == bool
    assert inside.tolist() == [True, True, False]


def test_kernels_are_for_large_float32_arrays_and_not_for_the_reference():
    large = np.zeros(10_000, np.float32)
    with using("compiled"):
        assert kernel_pays(large)
        assert not kernel_pays(large.astype(np.float64))
        assert not kernel_pays(large[:100])
    with using("reference"):
        assert not kernel_pays(large)
