"""σ and tanh of the gates against NumPy in float64: everywhere, at the ends, and in any place of a vector."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.kernels import jit, squash, use_reference

pytestmark = pytest.mark.skipif(use_reference(), reason="these exist in compiled code alone")


@jit.jit
def _sigmoid(x, y):
    for i in range(len(x)):
        y[i] = squash.sigmoid(x[i])


@jit.jit
def _tanh(x, y):
    for i in range(len(x)):
        y[i] = squash.tanh(x[i])


def each(kernel, x):
    y = np.empty_like(x)
    kernel(x, y)
    return y


def sigma(x):
    """σ in float64; e^−|x| cannot overflow."""
    e = np.exp(-abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@pytest.fixture(scope="module")
def numbers():
    """Every 2,003rd float32 there is, and densely where the functions bend."""
    every = np.arange(0, 2**32, 2003, dtype=np.uint32).view(np.float32)
    tiny = np.geomspace(1e-45, 1, 100_000)
    return np.concatenate([every[np.isfinite(every)], np.linspace(-12, 12, 300_001), tiny, -tiny]).astype(np.float32)


@pytest.mark.parametrize(("kernel", "exact"), [(_sigmoid, sigma), (_tanh, np.tanh)])
def test_they_are_right_to_two_and_a_half_units_of_the_last_place(numbers, kernel, exact):
    found, wanted = each(kernel, numbers), exact(numbers.astype(np.float64))
    with np.errstate(under="ignore"):
        unit = np.spacing(abs(wanted).astype(np.float32)).astype(np.float64)
    assert (abs(found - wanted) <= 2.5 * unit).all()


def test_the_ends_the_signs_of_zero_and_what_is_no_number():
    x = np.array([0.0, -0.0, 1e-45, -1e-45, 20, -20, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
    ends = np.array([0.0, -0.0, 1e-45, -1e-45, 1, -1, 1, -1, 1, -1, np.nan], np.float32)
    found = each(_tanh, x)
    np.testing.assert_array_equal(found, ends)
    np.testing.assert_array_equal(np.signbit(found[:10]), np.signbit(x[:10]))
    found = each(_sigmoid, x)
    np.testing.assert_array_equal(found[[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]], [0.5, 0.5, 0.5, 0.5, 1, 1, 0, 1, 0, np.nan])
    assert 0 < found[5] < 1e-8


def test_tanh_is_odd_and_never_beyond_one(numbers):
    y = each(_tanh, numbers)
    np.testing.assert_array_equal(each(_tanh, -numbers), -y)
    assert abs(y).max() == 1


@pytest.mark.parametrize("kernel", [_sigmoid, _tanh])
def test_a_number_has_the_same_bits_wherever_it_stands(rng, kernel):
    """Whole vectors, what is left at the end, and one alone."""
    x = (4 * rng.standard_normal(301)).astype(np.float32)
    y = each(kernel, x)
    for start, stop in ((0, 1), (3, 18), (5, 301), (17, 50)):
        np.testing.assert_array_equal(each(kernel, x[start:stop].copy()), y[start:stop])
