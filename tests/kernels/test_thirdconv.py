"""Convolutions on tile registers give what the float64 twin gives, whatever the geometry."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tinyqnn.kernels import conv, reference, thirdconv, thirdgrad, tiles, use_reference
from tinyqnn.kernels.jit import get_num_threads, set_num_threads
from tinyqnn.quant import ClipQ, Ternary

pytestmark = pytest.mark.skipif(use_reference() or not tiles.allowed(), reason="no tiles here")

PAIRS = st.tuples(st.integers(1, 2), st.integers(1, 2))
QUANTIZERS = [lambda x: x, ClipQ(3).quantize, Ternary().quantize]  # float32 is in thirds, the others have a unit
MARGINS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@pytest.fixture(autouse=True)
def always_on_tiles(monkeypatch):
    """Small convolutions too."""
    monkeypatch.setattr(thirdconv, "pays", lambda plan, groups, c_in, c_out: groups == 1 and min(c_in, c_out) >= 16)


def images(rng, n, c, h, w):
    return np.ascontiguousarray(rng.standard_normal((n, h, w, c), dtype=np.float32)).transpose(0, 3, 1, 2)


def three(x, w, b, gy, *geometry):
    """y, gx and gw, by `conv` in float32 or by the twin in float64."""
    of = conv if x.dtype == np.float32 else reference
    return (of.conv2d(x, w, b, *geometry), of.conv2d_grad_input(gy, w, x.shape, *geometry),
            of.conv2d_grad_weight(gy, x, w.shape, *geometry))  # fmt: skip


@given(
    n=st.integers(1, 5), c=st.integers(16, 40), o=st.integers(16, 50), size=st.tuples(*[st.integers(1, 35)] * 2),
    kernel=st.tuples(*[st.integers(1, 4)] * 2), stride=PAIRS, padding=MARGINS, dilation=PAIRS,
    of_x=st.sampled_from(QUANTIZERS), of_w=st.sampled_from(QUANTIZERS), seed=st.integers(0, 99),
)  # fmt: skip
@example(  # one row of pixels two apart
    n=1, c=16, o=16, size=(1, 3), kernel=(1, 5), stride=(1, 2), padding=(0, 2), dilation=(1, 1), of_x=QUANTIZERS[0],
    of_w=QUANTIZERS[0], seed=0,
)  # fmt: skip
def test_every_convolution_is_as_exact_as_one_of_float32(
    n, c, o, size, kernel, stride, padding, dilation, of_x, of_w, seed
):
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel)))
    rng, geometry = np.random.default_rng(seed), (stride, padding, dilation)
    x, w, b = images(rng, n, c, *size), rng.standard_normal((o, c, *kernel), dtype=np.float32), np.arange(o, dtype="f4")
    x, w = of_x(x), of_w(w)
    gy = images(rng, n, o, *reference.conv2d_output_size(size, kernel, *geometry))
    exact = three(*(array.astype(np.float64) for array in (x, w, b, gy)), *geometry)
    room = three(*(np.abs(array).astype(np.float64) for array in (x, w, b, gy)), *geometry)
    for found, expected, size_of_sum in zip(three(x, w, b, gy, *geometry), exact, room):
        assert np.all(np.abs(found - expected) <= 1e-6 * size_of_sum)


def test_it_is_tiles_that_did_the_work(monkeypatch):
    """A step of 32 → 32 channels asks for tiles three times, and is content with what it gets."""
    answers = []

    def noted(function):
        def call(*args):
            answers.append(function(*args))
            return answers[-1]

        return call

    monkeypatch.setattr(thirdconv, "correlate", noted(thirdconv.correlate))
    monkeypatch.setattr(thirdgrad, "grad_weight", noted(thirdgrad.grad_weight))
    rng = np.random.default_rng(0)
    x, w = images(rng, 3, 32, 8, 8), rng.standard_normal((32, 32, 3, 3), dtype=np.float32)
    three(x, w, None, images(rng, 3, 32, 8, 8), (1, 1), (1, 1))
    assert len(answers) == 3
    assert all(answer is True or answer.shape == (32, 32, 9) for answer in answers)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("where", ["x", "w", "gy"])
def test_numbers_that_are_not_finite_go_the_ordinary_way(monkeypatch, bad, where):
    rng = np.random.default_rng(0)
    x, w, gy = images(rng, 2, 16, 9, 9), rng.standard_normal((16, 16, 3, 3), dtype=np.float32), images(rng, 2, 16, 9, 9)
    {"x": x, "w": w, "gy": gy}[where][1, 5, 0, 0] = bad
    found = three(x, w, None, gy, (1, 1), (1, 1))
    monkeypatch.setattr(thirdconv, "pays", lambda *sizes: False)
    for which, y, expected in zip(["y", "gx", "gw"], found, three(x, w, None, gy, (1, 1), (1, 1))):
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected), which)
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [8, 20])
def test_no_result_depends_on_the_number_of_threads(size):
    rng, before, found = np.random.default_rng(0), get_num_threads(), []
    x, w = images(rng, 20, 32, size, size), rng.standard_normal((48, 32, 3, 3), dtype=np.float32)
    gy = images(rng, 20, 48, size, size)
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(three(x, w, None, gy, (1, 1), (1, 1)))
    finally:
        set_num_threads(before)
    for others in found[1:]:
        for one, other in zip(found[0], others):
            np.testing.assert_array_equal(one, other)


def test_filters_too_few_for_tiles_go_the_ordinary_way(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(thirdconv, "correlate", None)  # calling it would fail
    rng = np.random.default_rng(0)
    conv.conv2d(images(rng, 1, 3, 8, 8), rng.standard_normal((16, 3, 3, 3), dtype=np.float32))
    conv.conv2d(images(rng, 1, 32, 8, 8), rng.standard_normal((32, 32, 1, 1), dtype=np.float32))


@pytest.mark.parametrize(("c", "o"), [(16, 160), (160, 16), (130, 200)])
def test_filters_of_one_pixel_are_products_of_matrices(c, o):
    rng = np.random.default_rng(0)
    x, w, b = images(rng, 3, c, 9, 20), rng.standard_normal((o, c, 1, 1), dtype=np.float32), np.arange(o, dtype="f4")
    gy = images(rng, 3, o, 9, 20)
    exact = three(*(array.astype(np.float64) for array in (x, w, b, gy)))
    room = three(*(np.abs(array).astype(np.float64) for array in (x, w, b, gy)))
    for found, expected, size_of_sum in zip(three(x, w, b, gy), exact, room):
        assert found.shape == expected.shape
        assert np.all(np.abs(found - expected) <= 1e-6 * size_of_sum)
