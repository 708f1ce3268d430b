"""The compiled convolutions against their slow twins in float64."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn.kernels import channels, conv, jit, reference, use_reference

# float32 may differ from the float64 twin by this much of the sum of absolute products
TOLERANCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def shared_out():
    """However small they are, the convolutions of these tests are shared out."""
    with patch.object(jit, "FEW", 0):
        yield


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def arrays(seed, n, groups, c, o, size, kernel, stride, padding, dilation):
    """x, w, b, gy in float32, images channels-last; c and o are channels of one group."""
    rng = np.random.default_rng(seed)
    x = channels_last(rng.normal(size=(n, groups * c, *size)).astype(np.float32))
    w = rng.normal(size=(groups * o, c, *kernel)).astype(np.float32)
    b = rng.normal(size=groups * o).astype(np.float32)
    out = conv.conv2d_output_size(size, kernel, stride, padding, dilation)
    gy = channels_last(rng.normal(size=(n, groups * o, *out)).astype(np.float32))
    return x, w, b, gy


def assert_close(fast, twin, *operands, options):
    """|fast - twin| ≤ TOLERANCE · (the same operation on absolute values), element by element."""
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in operands]
    want = twin(*wide, *options)
    products = twin(*[abs(a) if isinstance(a, np.ndarray) else a for a in wide], *options)
    assert fast.shape == want.shape
    assert fast.dtype == np.float32
    assert (abs(fast - want) <= TOLERANCE * products).all(), f"off by {abs(fast - want).max()}"


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def geometries(draw):
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation)]
    size = (draw(st.integers(least[0], least[0] + 8)), draw(st.integers(least[1], least[1] + 8)))
    n, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    c, o = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    return n, groups, c, o, size, kernel, stride, padding, dilation


@given(geometries(), st.integers(0, 1000))
@example((1, 1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)), 0)
@example((2, 1, 3, 10, (5, 5), (3, 3), (2, 2), (1, 1), (1, 1)), 0)  # tails of channels and pixels
@example((2, 1, 16, 16, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)), 0)  # whole vectors everywhere
@example((2, 1, 20, 48, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)), 0)  # a slab of 16 channels and one of 4
@example((1, 1, 70, 100, (4, 4), (1, 1), (2, 2), (0, 0), (1, 1)), 0)  # classes of gx's pixels without any tap
@example((1, 1, 2, 2, (4, 4), (1, 1), (1, 1), (3, 3), (1, 1)), 0)  # more padding than the kernel reaches
@example((2, 1, 16, 9, (5, 32), (3, 3), (1, 1), (1, 1), (1, 1)), 0)  # pixels of one vector, 16 at a time
@example((2, 1, 8, 16, (5, 32), (3, 3), (2, 2), (1, 1), (1, 1)), 0)  # every second pixel of half a vector
@example((1, 2, 8, 8, (4, 16), (3, 3), (1, 1), (1, 1), (1, 1)), 0)  # two groups in a vector
@example((3, 5, 1, 1, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)), 0)  # depthwise
@example((3, 20, 1, 2, (6, 7), (3, 3), (2, 1), (1, 1), (1, 1)), 0)  # depthwise, two outputs a channel
@example((1, 3, 1, 1, (12, 12), (5, 4), (1, 2), (2, 2), (2, 1)), 0)  # more taps than one set of registers
def test_all_three_convolutions_equal_their_float64_twins(geometry, seed):
    *_, stride, padding, dilation = geometry
    x, w, b, gy = arrays(seed, *geometry)
    options = (stride, padding, dilation, geometry[1])
    assert_close(conv.conv2d(x, w, b, *options), reference.conv2d, x, w, b, options=options)
    gx = conv.conv2d_grad_input(gy, w, x.shape, *options)
    assert_close(gx, reference.conv2d_grad_input, gy, w, x.shape, options=options)
    gw = conv.conv2d_grad_weight(gy, x, w.shape, *options)
    assert_close(gw, reference.conv2d_grad_weight, gy, x, w.shape, options=options)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1)])
def test_the_twins_gradients_are_the_adjoints_of_the_twins_forward(rng, stride, dilation, groups):
    """Σ gy · conv(x, w) = Σ gx · x = Σ gw · w: the convolution is linear in each of its operands."""
    x, w = rng.normal(size=(2, 4, 7, 8)), rng.normal(size=(8, 4 // groups, 3, 2))
    options = (stride, (1, 2), dilation, groups)
    y = reference.conv2d(x, w, None, *options)
    gy = rng.normal(size=y.shape)
    total = np.sum(gy * y)
    np.testing.assert_allclose(np.sum(reference.conv2d_grad_input(gy, w, x.shape, *options) * x), total, rtol=1e-10)
    np.testing.assert_allclose(np.sum(reference.conv2d_grad_weight(gy, x, w.shape, *options) * w), total, rtol=1e-10)


def test_the_twin_equals_the_sum_written_out_in_loops(rng):
    x, w, b = rng.normal(size=(2, 4, 5, 6)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    y = reference.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for n, o, i, j in np.ndindex(y.shape):
        first = 2 * (o // 3)  # the first input channel of this output's group
        window = padded[n, first : first + 2, 2 * i : 2 * i + 3, j : j + 3 : 2]
        assert y[n, o, i, j] == pytest.approx(np.sum(window * w[o]) + b[o], abs=1e-12)


# Kernel, stride, groups, inputs and outputs of a group: tiles of all widths, 1×1, strides, groups, depthwise.
AFTERWARDS = [
    ((3, 3), (1, 1), 1, 16, 16),
    ((3, 3), (2, 2), 1, 20, 70),
    ((1, 1), (1, 1), 1, 24, 7),
    ((3, 3), (1, 1), 2, 8, 5),
    ((3, 3), (1, 1), 20, 1, 1),
    ((3, 3), (2, 1), 5, 1, 4),
]


@pytest.mark.parametrize("size", [(4, 4), (17, 18)])  # below and above what `channels` leaves to NumPy
@pytest.mark.parametrize(("kernel", "stride", "groups", "c", "o"), AFTERWARDS)
def test_what_is_done_while_the_images_are_near_gives_the_bits_of_doing_it_afterwards(
    kernel, stride, groups, c, o, size, rng
):
    padding = (kernel[0] // 2, kernel[1] // 2)
    x, w, b, gy = arrays(0, 9, groups, c, o, size, kernel, stride, padding, (1, 1))
    options = (stride, padding, (1, 1), groups)
    y, gx = conv.conv2d(x, w, b, *options), conv.conv2d_grad_input(gy, w, x.shape, *options)
    mean, scale, shift = rng.normal(size=(3, groups * o)).astype(np.float32)
    plus, of_x = (channels_last(rng.normal(size=a.shape).astype(np.float32)) for a in (y, x))
    for floor, more in ((0.0, plus), (0.0, None), (-np.inf, None)):
        then = channels.Affine(mean, scale, shift, floor, more)
        np.testing.assert_array_equal(conv.conv2d(x, w, b, *options, then=then), channels.affine(y, *then))
    before = of_x.copy()
    np.testing.assert_array_equal(conv.conv2d_grad_input(gy, w, x.shape, *options, plus=of_x), gx + of_x)
    np.testing.assert_array_equal(of_x, before)


@pytest.mark.parametrize("groups", [1, 6])
def test_the_number_of_threads_does_not_change_a_bit(groups):
    x, w, b, gy = arrays(0, 9, groups, 6 // groups, 12 // groups, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1))
    options = ((1, 1), (1, 1), (1, 1), groups)

    def results():
        return [
            conv.conv2d(x, w, b, *options),
            conv.conv2d_grad_input(gy, w, x.shape, *options),
            conv.conv2d_grad_weight(gy, x, w.shape, *options),
        ]

    before, found = jit.get_num_threads(), []
    try:
        for threads, few in ((1, 0), (2, 0), (3, 0), (2, 10**9)):  # the last in one range, however large
            jit.set_num_threads(threads)
            with patch.object(jit, "FEW", few):
                found.append([a.tobytes() for a in results()])
    finally:
        jit.set_num_threads(before)
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_keep_the_type_and_images_are_channels_last(rng, dtype):
    x, w = rng.normal(size=(2, 3, 5, 6)).astype(dtype), rng.normal(size=(4, 3, 3, 3)).astype(dtype)
    y = conv.conv2d(x, w, None, padding=(1, 1))
    gx = conv.conv2d_grad_input(y, w, x.shape, padding=(1, 1))
    gw = conv.conv2d_grad_weight(y, x, w.shape, padding=(1, 1))
    assert y.dtype == gx.dtype == gw.dtype == dtype
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert gx.transpose(0, 2, 3, 1).flags.c_contiguous
    assert gw.flags.c_contiguous


@pytest.mark.skipif(use_reference(), reason="the twins take any layout as it is")
def test_only_images_in_another_layout_are_copied_and_counted(rng):
    x, w = rng.normal(size=(2, 3, 5, 6)).astype(np.float32), np.ones((4, 3, 1, 1), np.float32)
    before = conv.reorders
    y = conv.conv2d(channels_last(x), w)
    conv.conv2d_grad_input(y, w, x.shape)
    conv.conv2d_grad_weight(y, channels_last(x), w.shape)
    assert conv.reorders == before
    np.testing.assert_array_equal(conv.conv2d(x, w), y)
    assert conv.reorders == before + 1


def test_no_images_give_no_images():
    x, w = np.zeros((0, 5, 5, 3), np.float32).transpose(0, 3, 1, 2), np.ones((4, 3, 3, 3), np.float32)
    y = conv.conv2d(x, w)
    assert y.shape == (0, 4, 3, 3)
    assert conv.conv2d_grad_input(y, w, x.shape).shape == x.shape
    assert not conv.conv2d_grad_weight(y, x, w.shape).any()


def test_numbers_that_are_not_finite_stay_where_they_are(rng):
    """A NaN reaches the outputs whose taps read it, and no others: padding lanes and borders are not mixed in."""
    x, w = np.ones((1, 2, 6, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)
    x[0, 1, 0, 0] = np.nan
    y = conv.conv2d(channels_last(x), w, None, padding=(1, 1))
    assert np.isnan(y[0, :, :2, :2]).all()
    assert np.isnan(y).sum() == 3 * 4
