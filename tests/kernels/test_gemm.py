"""The compiled matrix product against NumPy's in float64."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn.kernels import gemm, jit, use_reference

TOLERANCE = 1e-5  # of the sum of absolute products


def operand(rng, rows, cols, layout):
    """(rows, cols) float32: contiguous, a transposed view, or every second column of a wider matrix."""
    if layout == "transposed":
        return rng.normal(size=(cols, rows)).astype(np.float32).T
    if layout == "strided":
        return rng.normal(size=(rows, 2 * cols)).astype(np.float32)[:, ::2]
    return rng.normal(size=(rows, cols)).astype(np.float32)


def assert_product(y, a, b):
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    assert y.shape == (len(a), b.shape[1])
    assert (abs(y - wide_a @ wide_b) <= TOLERANCE * (abs(wide_a) @ abs(wide_b))).all()


layouts = st.sampled_from(["contiguous", "transposed", "strided"])


@given(st.integers(1, 40), st.integers(1, 400), st.integers(1, 150), layouts, layouts, st.integers(0, 1000))
@example(1, 1, 1, "contiguous", "contiguous", 0)
@example(20, 300, 1200, "contiguous", "transposed", 0)
@example(500, 700, 33, "transposed", "contiguous", 0)  # several blocks of rows and of k
@example(37, 3, 65, "contiguous", "transposed", 0)  # fewer numbers of k than lanes
@example(12, 600, 90, "contiguous", "transposed", 0)  # a first factor that is smaller than the second
@example(1100, 330, 300, "transposed", "transposed", 0)  # a tall result
@example(500, 650, 1300, "contiguous", "transposed", 0)  # a wide one, whose second factor is packed as it is used
@example(250, 330, 1650, "transposed", "contiguous", 0)
@example(300, 2000, 270, "contiguous", "contiguous", 0)  # a tall one, likewise
@example(290, 2000, 270, "transposed", "transposed", 0)
def test_products_in_every_layout_equal_numpys_in_float64(rows, depth, cols, layout_a, layout_b, seed):
    rng = np.random.default_rng(seed)
    a, b = operand(rng, rows, depth, layout_a), operand(rng, depth, cols, layout_b)
    assert_product(gemm.matmul(a, b), a, b)
    assert_product(gemm.matmul(a, gemm.pack(b)), a, b)


def test_the_number_of_threads_does_not_change_a_bit(rng):
    a, b = operand(rng, 300, 400, "contiguous"), operand(rng, 400, 130, "transposed")
    large = operand(rng, 400, 1400, "transposed")
    before, found = jit.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            jit.set_num_threads(threads)
            found.append([gemm.matmul(a, right).tobytes() for right in (b, large)])
    finally:
        jit.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_where_the_sum_is_cut_does_not_change_a_bit(rng, layout):
    a, b = operand(rng, 130, 77, "contiguous"), operand(rng, 77, 300, layout)
    assert len({gemm.matmul(a, gemm.pack(b, step)).tobytes() for step in (None, 1, 20, 36, 77, 100)}) == 1
    assert_product(gemm.matmul(a, gemm.pack(b, 20)), a, b)


@pytest.mark.skipif(use_reference(), reason="NumPy adds in an order of its own")
@pytest.mark.parametrize(("depth", "cols"), [(330, 1650), (2000, 270)])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_when_a_factor_is_packed_does_not_change_a_bit(rng, depth, cols, layout):
    a, b = operand(rng, 300, depth, "contiguous"), operand(rng, depth, cols, layout)
    assert b.size >= gemm.LARGE
    with patch.object(gemm.thirdgemm, "pays", lambda *sizes: False):  # on tiles, sums are cut elsewhere
        np.testing.assert_array_equal(gemm.matmul(a, b), gemm.matmul(a, gemm.pack(b)))


@pytest.mark.parametrize("rows", [3, 200])
def test_the_product_is_written_into_out(rng, rows):
    a, b = operand(rng, rows, 64, "contiguous"), operand(rng, 64, 100, "contiguous")
    out = np.full((rows, 100), np.nan, np.float32)
    assert gemm.matmul(a, b, out=out) is out
    assert_product(out, a, b)


def test_float64_stays_float64(rng):
    a, b = rng.normal(size=(70, 80)), rng.normal(size=(80, 90))
    np.testing.assert_array_equal(gemm.matmul(a, b), a @ b)


def test_a_sum_of_nothing_is_zero():
    packed = gemm.pack(np.zeros((0, 5), np.float32))
    np.testing.assert_array_equal(gemm.matmul(np.zeros((4, 0), np.float32), packed), np.zeros((4, 5)))


def test_shapes_and_outputs_that_do_not_fit_are_refused():
    a, b = np.zeros((4, 5), np.float32), gemm.pack(np.zeros((6, 7), np.float32))
    with pytest.raises(ValueError, match=r"same K, got \(4, 5\) and \(6, 7\)"):
        gemm.matmul(a, b)
    with pytest.raises(ValueError, match="expected out"):
        gemm.matmul(np.zeros((4, 6), np.float32), b, out=np.zeros((7, 4), np.float32).T)


@pytest.mark.skipif(use_reference(), reason="NumPy has its own way with the padding")
def test_numbers_that_are_not_finite_stay_in_their_row_and_column(rng):
    a, b = np.ones((100, 60), np.float32), np.ones((60, 70), np.float32)
    a[3, 5] = np.inf
    b[5, 69] = np.nan
    y = gemm.matmul(a, b)
    assert np.isinf(y[3, :69]).all()
    assert np.isnan(y[:, 69]).all()
    assert np.isfinite(np.delete(y[:, :69], 3, axis=0)).all()


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (70, 80), (70, 83), (700, 90)])
def test_the_bias_is_added_to_every_row_once(rng, rows, cols, layout):
    a, b = operand(rng, rows, 600, "contiguous"), operand(rng, 600, cols, layout)
    bias = rng.normal(size=2 * cols).astype(np.float32)[::2]
    y = gemm.matmul(a, b, bias)
    np.testing.assert_allclose(y, a.astype(np.float64) @ b + bias, rtol=1e-4, atol=1e-4)
    empty = gemm.matmul(np.zeros((4, 0), np.float32), gemm.pack(np.zeros((0, cols), np.float32)), bias)
    np.testing.assert_array_equal(empty, np.tile(bias, (4, 1)))


@pytest.mark.parametrize(("rows", "n_out", "n_in"), [(100, 128, 128), (7, 2, 33), (600, 5, 16), (3, 40, 1)])
def test_a_linear_layers_gradients_equal_their_float64_twins(rng, rows, n_out, n_in):
    g, x, w = (
        operand(rng, rows, n_out, "contiguous"),
        operand(rng, rows, n_in, "contiguous"),
        operand(rng, n_out, n_in, "contiguous"),
    )
    gx, gw, gb = gemm.linear_grad(g, x, w)
    assert_product(gx, g, w)
    assert_product(gw, g.T, x)
    np.testing.assert_allclose(gb, g.astype(np.float64).sum(axis=0), rtol=1e-5, atol=1e-4)
    gx, gw, gb = gemm.linear_grad(g, x, w, need_x=False)
    assert gx is None
    assert_product(gw, g.T, x)
    assert gemm.linear_grad(g, x, w, need_w=False)[1] is None


@pytest.mark.parametrize(("rows", "n_out", "n_in"), [(100, 128, 128), (7, 2, 33), (600, 5, 16), (3, 40, 1), (0, 4, 3)])
def test_a_layer_with_its_relu_gives_the_same_bits_in_one_call_and_in_parts(rng, rows, n_out, n_in):
    x, w, g = (operand(rng, *shape, "contiguous") for shape in ((rows, n_in), (n_out, n_in), (rows, n_out)))
    bias = rng.standard_normal(n_out).astype(np.float32)
    x[:1], bias[:2] = np.nan, 0
    plain, y = gemm.linear(x, w, bias), gemm.linear(x, w, bias, relu=True)
    np.testing.assert_array_equal(plain, gemm.matmul(x, w.T, bias))
    np.testing.assert_array_equal(y, np.maximum(plain, 0))
    x[:1] = 0
    for got, wanted in zip(gemm.linear_grad(g, x, w, y), gemm.linear_grad(np.where(y > 0, g, 0), x, w)):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_biass_gradient_is_added_up_row_after_row(rng, rows):
    g = rng.normal(size=(rows, 37)).astype(np.float32)
    expected = np.zeros(37, np.float32)
    for row in g:
        expected += row
    np.testing.assert_array_equal(gemm.linear_grad(g, g, np.ones((37, 37), np.float32))[2], expected)


def test_a_packed_factor_serves_float64_as_well(rng):
    a, b = rng.standard_normal((5, 40)), rng.standard_normal((40, 30)).astype(np.float32)
    y = gemm.matmul(a, gemm.packed(b))
    assert y.dtype == np.float64
    assert y.tobytes() == (a @ b).tobytes()
