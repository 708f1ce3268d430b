"""Float32 products on tile registers: three short numbers are the whole one, their products are float32 products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn.kernels import gemm, reference, thirdgemm, tiles, use_reference
from tinyqnn.kernels.jit import get_num_threads, set_num_threads
from tinyqnn.quant import ClipQ, Ternary

pytestmark = pytest.mark.skipif(use_reference() or not tiles.allowed(), reason="no tiles here")

SIZES = st.integers(16, 120)
QUANTIZERS = [lambda x: x, ClipQ(3).quantize, Ternary().quantize]  # float32 is in thirds, the others have a unit


def numbers(shape, seed, spread=0):
    """Normal numbers, of very different sizes if asked."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, spread + 1, shape)).astype(np.float32)


def multiply(a, b, bias=None):
    """`thirdgemm.matmul`, into memory that held something else."""
    out = np.full((a.shape[0], b.shape[1]), 7e7, np.float32)
    finite = thirdgemm.matmul(a, b, np.zeros(b.shape[1], np.float32) if bias is None else bias, out)
    return out, finite


@given(rows=st.integers(16, 70), depth=st.integers(1, 100), left=st.booleans(), seed=st.integers(0, 99))
def test_the_thirds_of_a_number_add_up_to_it_exactly(rows, depth, left, seed):
    x = numbers((rows, depth), seed, spread=40)
    panels, unit = thirdgemm.cut(x if left else x.T, left)
    assert unit == 0
    steps = -(-depth // 32)
    short = (panels.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(-1, steps, 3, 16, 16, 2)
    if not left:  # a row of a right factor's tile is a pair of k, of a left one's a row of x
        short = short.swapaxes(3, 4)
    parts = short.transpose(2, 0, 3, 1, 4, 5).reshape(3, -1, 32 * steps)
    found = np.zeros((3, rows, 32 * steps), np.float32)
    for panel in range(-(-rows // 16)):
        first = min(16 * panel, rows - 16)
        found[:, first : first + 16] = parts[:, 16 * panel : 16 * panel + 16]
    high, middle, low = found.astype(np.float64)
    np.testing.assert_array_equal((high + middle + low)[:, :depth], x)
    np.testing.assert_array_equal(found[:, :, depth:], 0)
    assert np.all(np.abs(middle) <= 2.0**-8 * np.abs(high))
    assert np.all(np.abs(low) <= 2.0**-8 * np.abs(middle))


@given(
    m=SIZES, k=st.integers(1, 700), n=SIZES, ta=st.booleans(), tb=st.booleans(), of_a=st.sampled_from(QUANTIZERS),
    of_b=st.sampled_from(QUANTIZERS), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_product_is_as_exact_as_one_of_float32(m, k, n, ta, tb, of_a, of_b, seed):
    a, b = numbers((k, m) if ta else (m, k), seed, spread=8), numbers((n, k) if tb else (k, n), seed + 1, spread=8)
    a, b = of_a(a), of_b(b)
    a, b, bias = a.T if ta else a, b.T if tb else b, numbers(n, seed + 2)
    y, finite = multiply(a, b, bias)
    assert finite
    exact, size = reference.matmul(a.astype(float), b.astype(float), bias.astype(float)), np.abs(a) @ np.abs(b)
    assert np.max(np.abs(y - exact) / (size + np.abs(bias))) <= (8 + k**0.5) * 2.0**-24


def test_one_product_of_two_numbers_keeps_23_bits():
    """No sum that averages errors away: k = 1, over all sizes of the bits that are left out."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(1 << 23, 1 << 24, 512).astype(np.float32) for _ in range(2))
    y, _ = multiply(a[:, None], b[None])
    exact = np.outer(a.astype(float), b.astype(float))
    assert np.max(np.abs(y / exact - 1)) <= 2.0**-23


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("shape", [(200, 300, 100), (100, 300, 200), (64, 4096, 64)], ids=str)
@pytest.mark.parametrize("which", ["left", "right"])
def test_a_number_that_is_not_finite_goes_the_ordinary_way(bad, shape, which):
    m, k, n = shape
    a, b = numbers((m, k), 0), numbers((k, n), 1)
    (a if which == "left" else b)[17, 33] = bad
    assert not multiply(a, b)[1]
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_allclose(gemm.matmul(a, b), expected, rtol=1e-3, atol=1e-3)


def test_numbers_too_large_to_be_rounded_go_the_ordinary_way():
    few, eye = 1 - np.random.default_rng(0).random((16, 32), np.float32) / 1024, np.eye(32, dtype=np.float32)
    a = few * np.finfo(np.float32).max
    assert not multiply(a, eye)[1]
    y, finite = multiply(a * np.float32(0.99), eye)
    assert finite
    np.testing.assert_allclose(y, a * np.float32(0.99), rtol=2.0**-23)


def test_no_number_is_written_outside_the_result():
    a, b, room = numbers((37, 50), 0), numbers((50, 45), 1), np.full(3 + 37 * 45 + 70, 5.0, np.float32)
    thirdgemm.matmul(a, b, np.zeros(45, np.float32), room[3 : 3 + 37 * 45].reshape(37, 45))
    np.testing.assert_array_equal(np.delete(room, slice(3, 3 + 37 * 45)), 5)


@pytest.mark.parametrize("shape", [(900, 300, 400), (300, 200, 900), (96, 3000, 64)], ids=str)
def test_a_product_does_not_depend_on_the_number_of_threads(shape):
    (m, k, n), before = shape, get_num_threads()
    a, b = numbers((m, k), 0), numbers((k, n), 1)
    found = []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(multiply(a, b)[0])
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_large_products_of_matmul_are_made_on_tiles(monkeypatch):
    made = []
    monkeypatch.setattr(thirdgemm, "_in_blocks", lambda *args: made.append(args) or True)
    gemm.matmul(numbers((256, 256), 0), numbers((256, 256), 1))
    assert len(made) == 1
    gemm.matmul(numbers((16, 16), 0), numbers((16, 16), 1))
    assert len(made) == 1
