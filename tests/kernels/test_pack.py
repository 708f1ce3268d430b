"""Codes, planes and words: what goes in comes out, and the compiled packing is the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn.kernels import pack

seeds = st.integers(0, 1000)


@given(st.integers(1, 8), st.integers(1, 200), seeds, st.booleans())
def test_codes_come_back_from_planes_and_words(bits, n, seed, signed):
    low = -(2 ** (bits - 1)) if signed else 0
    codes = np.random.default_rng(seed).integers(low, low + 2**bits, (3, n))
    words = pack.pack_words(pack.to_planes(codes, bits))
    assert words.shape == (bits, 3, pack.words_of(n))
    assert np.array_equal(pack.from_planes(pack.unpack_words(words, n), signed), codes)


def test_the_first_code_is_in_the_lowest_bit():
    bits = np.zeros(130, int)
    bits[[0, 65, 129]] = 1
    assert pack.pack_words(bits).tolist() == [1, 2, 2]


@given(st.integers(1, 40), st.integers(1, 200), st.lists(st.integers(0, 7), min_size=1, max_size=8), seeds)
def test_compiled_packing_is_the_plain_one(rows, count, planes, seed):
    codes = np.random.default_rng(seed).integers(-128, 128, (rows, count)).astype(np.int8)
    size = rows * pack.words_of(count)
    words = np.zeros(len(planes) * size, np.uint64)
    pack.pack_rows(codes, planes, np.arange(rows) * pack.words_of(count), words, size)
    expected = np.stack([pack.pack_words(codes >> plane & 1) for plane in planes])
    assert np.array_equal(words, expected.reshape(-1))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float32, np.float64])
def test_signs_of_every_dtype_are_packed_alike(rng, dtype):
    x = rng.choice([-1, 1], (5, 131))
    words = np.zeros(5 * 3, np.uint64)
    pack.pack_signs(x.astype(dtype), np.arange(5) * 3, words)
    assert np.array_equal(words, pack.pack_words(x < 0).reshape(-1))


@pytest.mark.parametrize("wrong", [0, 2, -3, 127])
def test_what_is_no_sign_is_refused_wherever_it_stands(rng, wrong):
    for place in (0, 63, 64, 130):
        for dtype in (np.int8, np.float32):
            x = rng.choice([-1, 1], (5, 131)).astype(dtype)
            x[3, place] = wrong
            with pytest.raises(ValueError, match=r"1"):
                pack.pack_signs(x, np.arange(5) * 3, np.zeros(15, np.uint64))


def test_codes_outside_of_the_alphabet_are_named():
    with pytest.raises(ValueError, match=r"weights: expected whole numbers from -2 to 1, got -2 … 2"):
        pack.as_bytes(np.array([-2, 2]), -2, 1, "weights")
    with pytest.raises(ValueError, match="fractions"):
        pack.as_bytes(np.array([0.5]), -2, 1, "weights")
    with pytest.raises(TypeError, match="bool"):
        pack.as_bytes(np.array([True]), -2, 1, "weights")


def test_bytes_keep_their_bits():
    assert pack.as_bytes(np.array([200, 255]), 0, 255, "x").view(np.uint8).tolist() == [200, 255]
    assert pack.as_bytes(np.array([-128, 127], np.int64), -128, 127, "x").tolist() == [-128, 127]
