"""Convolutions of codes against the sum over taps in 64-bit integers."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn.kernels import (
    BinaryGemm,
    BitSerialGemm,
    Int8Gemm,
    IntConv2d,
    jit,
    reference,
    tiled,
    tiledconv,
    tiles,
    using,
)
from tinyqnn.kernels.requantize import Stairs, max_codes, staircase
from tinyqnn.kernels.signbits import SignBits

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
MAKERS = {
    "signs": (BinaryGemm, lambda c: c, 2),
    "bytes": (Int8Gemm, lambda c: c, 256),
    "mid-rise": (lambda w: BitSerialGemm(w, 3, "midrise", 3, "midrise"), lambda c: 2 * c + 1, 8),
    "two's complement": (lambda w: BitSerialGemm(w, 2, "signed", 2, "signed"), lambda c: c, 4),
}


def draw(rng, levels, shape):
    return rng.choice([-1, 1], shape) if levels == 2 else rng.integers(-levels // 2, levels // 2, shape)


@given(
    st.sampled_from(sorted(MAKERS)), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([1, 2, 3, 65]), st.integers(1, 3),
    st.tuples(st.integers(5, 9), st.integers(5, 9)), pairs, pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
@example("signs", 1, 1, 65, 3, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), False, 0)
@example("bytes", 2, 1, 65, 3, (7, 18), (3, 3), (1, 1), (1, 1), (1, 1), False, 0)
@example("mid-rise", 3, 2, 1, 1, (7, 8), (3, 3), (2, 2), (1, 1), (1, 1), False, 0)  # depthwise
def test_convolutions_of_codes_are_exact(name, n, groups, c, o, size, kernel, stride, padding, dilation, masked, seed):
    make, value, levels = MAKERS[name]
    rng = np.random.default_rng(seed)
    x, w = draw(rng, levels, (n, groups * c, *size)), draw(rng, levels, (groups * o, c, *kernel))
    with patch.object(tiles, "allowed", lambda: False) if masked else nullcontext():
        y = IntConv2d(w, make, stride, padding, dilation, groups)(x)
    expected = reference.conv2d(value(x), value(w), None, stride, padding, dilation, groups)
    assert y.dtype == np.int32
    assert np.array_equal(y, expected)


def test_resq_filters_give_one_image_for_each_sign(rng):
    x, w = rng.choice([-1, 1], (2, 3, 6, 5)), rng.integers(0, 4, (7, 3, 3, 3))
    y = IntConv2d(w, lambda g: BitSerialGemm(g, 2, "residual", 1, "binary"), padding=1)(x)
    for i in range(2):
        signs = 2 * (w >> (1 - i) & 1) - 1
        assert np.array_equal(y[i], reference.conv2d(x, signs, None, padding=(1, 1)))


def test_what_comes_out_is_channels_last_and_goes_in_without_a_copy(rng):
    conv = IntConv2d(rng.choice([-1, 1], (8, 8, 3, 3)), Int8Gemm, padding=1)
    y = conv(rng.choice([-1, 1], (2, 8, 5, 5)))
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_images_and_filters_that_do_not_fit_are_refused(rng):
    w = rng.choice([-1, 1], (4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"expected images \(N, 3, H, W\)"):
        IntConv2d(w, BinaryGemm)(np.ones((1, 4, 5, 5)))
    with pytest.raises(ValueError, match="smaller than the filter"):
        IntConv2d(w, BinaryGemm)(np.ones((1, 3, 2, 5)))
    with pytest.raises(ValueError, match="a multiple of groups"):
        IntConv2d(w, BinaryGemm, groups=3)
    with pytest.raises(ValueError, match="stride and dilation from 1"):
        IntConv2d(w, BinaryGemm, stride=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("make", [Int8Gemm, lambda w: Int8Gemm(w, midrise=True), SignBits, BinaryGemm])
@pytest.mark.parametrize("edges", [1, 3, 15])
def test_codes_are_those_of_the_sums(rng, make, edges, masked):
    """Up the stairs in one pass, or sums first: the same; for images of any width, and for matrices."""
    stairs = Stairs(
        np.sort(rng.integers(-60, 60, (edges, 37)), 0).astype(np.int32),
        rng.integers(-20, 20, 37).astype(np.int8),
        rng.choice([-1, 1], 37).astype(np.int8),
    )
    w, x = rng.choice([-1, 1], (37, 5, 3, 3)), rng.choice([-1, 1], (9, 5, 6, 7)).astype(np.int8)
    with patch.object(tiles, "allowed", lambda: False) if masked else nullcontext():
        conv, gemm = IntConv2d(w, make, padding=1), make(w.reshape(37, -1))
    y = conv(x)
    rows = np.ascontiguousarray(y.transpose(0, 2, 3, 1)).reshape(-1, 37)
    codes = conv.to_codes(x, stairs)
    assert codes.dtype == np.int8
    assert np.array_equal(codes.transpose(0, 2, 3, 1).reshape(-1, 37), staircase(rows, *stairs))
    packed = gemm.pack(x[:, :, :3, :3].reshape(9, -1))
    assert np.array_equal(gemm.to_codes(packed, stairs), staircase(gemm.multiply(packed), *stairs))


@given(st.integers(1, 20), st.integers(1, 70), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_midrise_codes_stand_for_odd_numbers(n, c, unsigned, masked, seed):
    rng = np.random.default_rng(seed)
    low = 0 if unsigned else -64
    w, x = rng.integers(-128, 128, (3, c, 3, 3)), rng.integers(low, low + 128, (n, c, 4, 5))
    x = x.astype([np.int64, np.uint8 if unsigned else np.int8][seed % 2])
    with patch.object(tiles, "allowed", lambda: False) if masked else nullcontext():
        conv = IntConv2d(w, lambda w: Int8Gemm(w, unsigned, midrise=True), padding=1)
    assert np.array_equal(conv(x), reference.conv2d(2 * x.astype(np.int64) + 1, w, None, padding=(1, 1)))
    with pytest.raises(ValueError, match="activations: expected whole numbers from"):
        conv(np.full((1, c, 4, 5), 64 if not unsigned else 128, x.dtype))


@given(
    st.integers(1, 9), st.tuples(st.integers(3, 40), st.integers(3, 40)), st.sampled_from([1, 4, 65]),
    st.sampled_from([1, 17, 100]), pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)), st.integers(1, 300),
    st.booleans(), st.integers(0, 1000),
)  # fmt: skip
@example(1, (40, 40), 65, 100, (1, 1), (1, 1), 20, True, 0)  # strips
@example(9, (3, 5), 4, 17, (1, 1), (1, 1), 40, False, 0)  # several images an item, and pieces of w
@example(2, (9, 3), 1, 1, (1, 2), (1, 0), 1, True, 0)  # fewer rows than a tile has
def test_images_are_shared_out_in_strips_and_in_groups(n, size, c, o, stride, padding, few, midrise, seed):
    rng, before = np.random.default_rng(seed), jit.get_num_threads()
    w, x = rng.integers(-128, 128, (o, c, 3, 3)), rng.integers(-64, 64, (n, c, *size)).astype(np.int8)
    tiledconv.plan.cache_clear()
    try:
        with patch.multiple(tiledconv, FEW=few, MANY=2 * few), patch.multiple(tiled, PAYS=1, CACHED=1 << 16):
            for threads in (1, 2):
                jit.set_num_threads(threads)
                y = IntConv2d(w, lambda w: Int8Gemm(w, midrise=midrise), stride, padding)(x)
                numbers = x.astype(int) * (2 if midrise else 1) + midrise
                assert np.array_equal(y, reference.conv2d(numbers, w, None, stride, padding))
    finally:
        jit.set_num_threads(before)
        tiledconv.plan.cache_clear()


def test_plans_cover_every_image_once():
    for n, size in ((1, (5, 5)), (3, (70, 9)), (40, (4, 4)), (7, (33, 33))):
        plan = tiledconv.plan(n, size, 1, 100, (3, 3), (1, 1), (1, 1), (1, 1))
        assert plan.items % plan.strips == 0
        assert plan.fewest * plan.items <= n * size[0] * size[1] <= len(plan.places) * plan.items


@pytest.mark.parametrize("threads", [1, 2])
def test_many_images_are_shared_out(rng, threads):
    before = jit.get_num_threads()
    w, x = rng.integers(-128, 128, (20, 6, 3, 3)), rng.integers(-128, 128, (19, 6, 5, 6))
    try:
        jit.set_num_threads(threads)
        y = IntConv2d(w, Int8Gemm, stride=2)(x)
    finally:
        jit.set_num_threads(before)
    assert np.array_equal(y, reference.conv2d(x, w, None, stride=(2, 2)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_the_largest_of_four_pixels(rng, dtype):
    x = rng.integers(0, 256, (3, 6, 7, 5)).astype(np.uint8).view(dtype).transpose(0, 3, 1, 2)
    found = max_codes(x, (2, 2), (2, 2), (0, 0), 0)
    with using("reference"):
        assert np.array_equal(found, max_codes(x, (2, 2), (2, 2), (0, 0), 0))
