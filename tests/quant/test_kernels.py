"""The compiled kernels give the very bits of the pages, in every memory layout and with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from quant_tensors import MAIN

import tinyqnn as tq
from tinyqnn.kernels import jit, quantize, using
from tinyqnn.quant.measure import is_finite

FAST = [q for q in MAIN if type(q).compiled is not tq.quant.Quantizer.compiled]


def layouts(rng):
    x = (rng.standard_normal((5, 8, 12, 11)) * 2).astype(np.float32)
    x[0, 0, 0] = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 1e30, -1e30, 0.5, -0.5, 3.0]
    yield "NCHW", x
    yield "channels last", np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield "every other column", np.repeat(x, 2, axis=3)[..., ::2]
    yield "backwards", np.ascontiguousarray(x[::-1])[::-1]
    yield "no outliers", np.abs(x[1:]) % 3
    yield "zeros", np.zeros_like(x)


@pytest.mark.parametrize("q", FAST, ids=repr)
def test_kernels_and_pages_agree_bit_for_bit(q, rng):
    for name, x in layouts(rng):
        grad = rng.standard_normal(x.shape).astype(np.float32)
        results = []
        for kernels in ("reference", "compiled"):
            with using(kernels):
                leaf = tq.Tensor(x, requires_grad=True)
                y = q(leaf)
                y.backward(grad)
                results.append((q.fit(x), y.data, leaf.grad))
        (slow_params, slow, slow_grad), (fast_params, fast, fast_grad) = results
        assert all(np.array_equal(slow_params[key], fast_params[key]) for key in slow_params), name
        assert np.ascontiguousarray(slow).tobytes() == np.ascontiguousarray(fast).tobytes(), name
        np.testing.assert_array_equal(slow_grad, fast_grad, err_msg=name)


def test_kernels_keep_the_memory_layout(rng):
    for name, x in layouts(rng):
        if name in ("NCHW", "channels last"):
            for y in (tq.quant.ClipQ(bits=3).quantize(x), tq.quant.PotQ(bits=3).quantize(x)):
                assert y.strides == x.strides


def test_the_result_does_not_depend_on_the_number_of_threads(rng):
    x = rng.standard_normal(300_001).astype(np.float32)
    q, before = tq.quant.ClipQ(bits=3), jit.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            jit.set_num_threads(threads)
            results.append((q.fit(x)["scale"].item(), q.quantize(x).tobytes()))
    finally:
        jit.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("q", MAIN, ids=repr)
def test_nan_and_inf_in_a_large_tensor_are_found(q, bad, rng):
    x = rng.standard_normal(20_000).astype(np.float32)
    frozen = q.fit(x)
    x[12_345] = bad
    for params in (None, frozen):
        with pytest.raises(ValueError, match=r"got 1 NaN or Inf, the first at index \(12345,\)"):
            q.quantize(x, params)


def test_in_a_mixture_the_gradient_passes_on_the_limits_and_stops_right_behind_them():
    one = quantize.signs(np.ones(1, np.float32))
    low, high = np.float32(-1.5), np.float32(0.75)
    x = np.array([low, np.nextafter(low, -np.inf), high, np.nextafter(high, np.inf)], np.float32)
    limits = [(low, high), None]
    passed, _ = quantize.mix_grad(np.ones(4, np.float32), x, [one, one], limits, np.array([0.75, 0.25]))
    assert passed.tolist() == [1.0, 0.25, 1.0, 0.25]


@pytest.mark.parametrize("size", [65_536, 65_537, 200_003])
def test_what_threads_share_is_what_one_pass_gives(size, rng):
    x, grad = rng.standard_normal((2, size)).astype(np.float32)
    results = []
    for kernels in ("reference", "compiled"):
        with using(kernels):
            leaf = tq.Tensor(x, requires_grad=True)
            y = tq.quant.ClipQ(bits=2)(leaf)
            y.backward(grad)
            results.append((y.data.tobytes(), leaf.grad.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [5, 1024, 70_000])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(size, number, rng):
    for place in (0, size // 2, size - 1):
        x = rng.standard_normal(size).astype(np.float32)
        assert is_finite(x)
        x[place] = number
        assert is_finite(x) == np.isfinite(number)
