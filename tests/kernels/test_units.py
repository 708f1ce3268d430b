"""A quantized factor is short numbers times a unit: found for every scheme, checked on every number, exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn.kernels import conv, gemm, reference, thirdconv, thirdgemm, thirdgrad, tiles, units, use_reference
from tinyqnn.kernels.jit import get_num_threads, set_num_threads
from tinyqnn.quant import scheme

ONE_SCALE = ["B-1", "T-2", "Q-2", "F-2", "F-8", "C-2", "C-3", "C-8", "P-2", "P-4", "U-2", "U-8"]
SEVERAL = ["Z-3", "R-2", "R-3"]
needs_tiles = pytest.mark.skipif(use_reference() or not tiles.allowed(), reason="no tiles here")


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def images(n, c, h, w, seed=0):
    return normal((n, h, w, c), seed).transpose(0, 3, 1, 2)


def quantized(x, notation="C-3"):
    """Quantized, in the same memory order."""
    return scheme(notation).quantize(x)


def is_short(x):
    return not (np.asarray(x, np.float32).view(np.int32) & 0xFFFF).any()


@pytest.mark.parametrize("notation", ONE_SCALE)
@given(size=st.integers(4000, 40_000), log_scale=st.integers(-30, 30), seed=st.integers(0, 99))
def test_every_scheme_of_one_scale_has_a_unit(notation, size, log_scale, seed):
    x = quantized(normal(size, seed) * np.float32(2.0**log_scale), notation)
    u = units.unit(x)
    assert u.dtype == np.float32
    assert 1 <= u < 2
    numbers = np.array([units.nearest_short(number) for number in x[:500] / u], np.float32)
    assert is_short(numbers)
    np.testing.assert_array_equal(numbers * u, x[:500])


@pytest.mark.parametrize("notation", SEVERAL)
def test_schemes_of_several_scales_have_none(notation):
    assert units.unit(quantized(normal(5000), notation)) == units.THIRDS


@given(seed=st.integers(0, 1000), size=st.integers(16, 5000))
def test_numbers_that_nobody_quantized_have_none(seed, size):
    assert units.unit(normal(size, seed)) == units.THIRDS
    assert units.unit(np.maximum(normal(size, seed), 0)) == units.THIRDS


@given(p=st.integers(1, 255), q=st.integers(1, 255), log=st.integers(-20, 20), u=st.floats(1, 2, width=32))
def test_two_small_multiples_of_a_number_have_a_common_measure(p, q, log, u):
    u = np.float32(u)
    assert units.have_measure(float(u * np.float32(p)), float(-u * np.float32(q) * np.float32(2.0**log)))


def test_zeros_and_whole_numbers_have_the_unit_1():
    assert units.unit(np.zeros(3000, np.float32)) == 1
    assert units.unit(np.random.default_rng(0).integers(-256, 257, 3000).astype(np.float32)) == 1


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, np.finfo(np.float32).max, 1e-45])
def test_any_number_may_be_looked_at(bad):
    """Without a warning."""
    units.unit(np.array([1.5, bad, 3.0], np.float32))
    units.unit(np.array([bad, bad], np.float32))


GEOMETRY = ((1, 1), (1, 1))


def three(x, w, gy, b=None):
    of = conv if x.dtype == np.float32 else reference
    return (of.conv2d(x, w, b, *GEOMETRY), of.conv2d_grad_input(gy, w, x.shape, *GEOMETRY),
            of.conv2d_grad_weight(gy, x, w.shape, *GEOMETRY))  # fmt: skip


@pytest.fixture
def tried(monkeypatch):
    """The units of x and of w with which convolutions and products were tried."""
    found = []

    def noted(module, name, which):
        function = getattr(module, name)

        def call(*args):
            found.append(tuple([bool(args[i]) for i in which]))
            return function(*args)

        monkeypatch.setattr(module, name, call)

    noted(thirdconv, "_images", (3, 5))
    noted(thirdgrad, "_grad_with", (4,))
    return found


@needs_tiles
def test_a_quantized_step_is_made_of_one_product_and_twice_three(tried):
    x, w, gy = quantized(images(3, 32, 8, 8)), quantized(normal((32, 32, 3, 3), 1)), images(3, 32, 8, 8, 2)
    three(x, w, gy)
    assert tried == [(True, True), (False, True), (True,)]


@needs_tiles
@pytest.mark.parametrize(("rows", "depth", "way"), [(400, 200, "_blocks"), (64, 2000, "_in_stretches")])
def test_a_product_of_quantized_matrices_is_one_of_short_numbers(monkeypatch, rows, depth, way):
    found, function = [], getattr(thirdgemm, way)
    monkeypatch.setattr(thirdgemm, way, lambda *args: found.append(args) or function(*args))
    a, b = quantized(normal((rows, depth))), quantized(normal((depth, 64), 1))
    gemm.matmul(a, b)
    (args,) = found  # the first try
    of_a, of_b = (args[5], args[7]) if way == "_blocks" else args[2]
    assert (of_a, of_b) == (units.unit(a.reshape(-1)), units.unit(b.reshape(-1)))
    assert of_a * of_b > 0


@needs_tiles
@pytest.mark.parametrize("which", ["x", "w"])
def test_nobody_has_to_be_believed(tried, which):
    """One number that nobody looked at is something else: the same results, to the last bit, as without a unit."""
    x, w, gy = quantized(images(3, 32, 12, 12)), quantized(normal((32, 32, 3, 3), 1)), images(3, 32, 12, 12, 2)
    {"x": x[2, 31], "w": w[31, 31]}[which][-1, -1] *= np.float32(1.01)
    found = three(x, w, gy)
    assert (False, True) in tried or (True, False) in tried
    x64, w64, gy64 = (array.astype(np.float64) for array in (x, w, gy))
    for y, exact, room in zip(found, three(x64, w64, gy64), three(abs(x64), abs(w64), abs(gy64))):
        assert np.all(np.abs(y - exact) <= 1e-6 * room)


@needs_tiles
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("which", ["x", "w"])
def test_a_quantized_factor_with_a_number_that_is_none_goes_the_ordinary_way(monkeypatch, bad, which):
    x, w, gy = quantized(images(3, 32, 12, 12)), quantized(normal((32, 32, 3, 3), 1)), images(3, 32, 12, 12, 2)
    {"x": x[2, 31], "w": w[31, 31]}[which][-1, -1] = bad
    found = three(x, w, gy)
    monkeypatch.setattr(thirdconv, "pays", lambda *sizes: False)
    for y, expected in zip(found, three(x, w, gy)):
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


@needs_tiles
@pytest.mark.parametrize("largest", [1, 7, 256])
def test_sums_of_whole_numbers_are_exact(largest):
    rng = np.random.default_rng(0)
    x = rng.integers(-largest, largest + 1, (2, 9, 9, 24)).astype(np.float32).transpose(0, 3, 1, 2)
    w = rng.integers(-8, 9, (20, 24, 3, 3)).astype(np.float32)
    expected = reference.conv2d(x.astype(np.float64), w.astype(np.float64), None, *GEOMETRY)
    np.testing.assert_array_equal(conv.conv2d(x, w, None, *GEOMETRY), expected)
    a, b, y = x.reshape(-1, 108), w.reshape(-1, 108), np.empty((36, 40), np.float32)
    assert thirdgemm.matmul(a, b.T, np.arange(40, dtype=np.float32), y)
    np.testing.assert_array_equal(y, a @ b.T + np.arange(40))


@needs_tiles
def test_no_result_depends_on_the_number_of_threads():
    x, w, gy = quantized(images(20, 32, 9, 9)), quantized(normal((48, 32, 3, 3), 1)), images(20, 48, 9, 9, 2)
    before, found = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(three(x, w, gy, normal(48)))
    finally:
        set_num_threads(before)
    for others in found[1:]:
        for one, other in zip(found[0], others):
            np.testing.assert_array_equal(one, other)
