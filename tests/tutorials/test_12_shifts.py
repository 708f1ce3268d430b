"""Answers to the exercises of tutorials/12_shifts.md."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import kernels


def test_1_a_half_serves_the_many_numbers_around_zero_better_than_one():
    bell = np.sort(np.abs(np.random.default_rng(3).normal(size=20_000)))

    def error(levels, alpha):
        edges = alpha * (levels[1:] + levels[:-1]) / 2
        return ((bell - alpha * levels[np.searchsorted(edges, bell)]) ** 2).sum() / (bell**2).sum()

    def best(levels):
        return min(error(np.array(levels), alpha) for alpha in np.geomspace(0.1, 1, 200))

    assert best([0.5, 2.0, 4.0, 8.0]) < 0.97 * best([1.0, 2.0, 4.0, 8.0])
    # The levels nearest to 0 stand further out then, where fewer numbers are.
    with_one, with_half = (min(np.geomspace(0.1, 1, 200), key=lambda a, v=v: error(np.array(v), a))
                           for v in ([1.0, 2.0, 4.0, 8.0], [0.5, 2.0, 4.0, 8.0]))  # fmt: skip
    assert with_one * 1.0 > with_half * 0.5


def test_2_128_bytes_fit_16_bits_whatever_their_signs_and_129_do_not():
    for count, fits in ((128, True), (129, False)):
        low, high = -255 * count, 255 * count  # all numbers are 255, and all are subtracted, or all added
        assert (low >= -(2**15) and high < 2**15) == fits
    from tinyqnn.kernels import equalshifts

    assert equalshifts.MOST == 128


def test_3_the_longest_row_of_p_4():
    largest = (2**31 - 1) // (2**8 * 128)  # halves: the largest shift is 8, the largest byte −128
    kernels.ShiftGemm(np.zeros((1, largest), np.int8), bits=4)
    with pytest.raises(ValueError, match=str(largest)):
        kernels.ShiftGemm(np.zeros((1, largest + 1), np.int8), bits=4)


def test_adding_first_and_shifting_once_is_the_product_for_all_widths(page, rng):
    sign_and_shift = page("12", skip=["kernels.ShiftGemm"])["sign_and_shift"]
    for bits in (2, 3, 4):
        codes, params = (q := tq.quant.scheme(f"P-{bits}")).encode(rng.normal(size=200))
        sign, shift = sign_and_shift(codes)
        assert np.allclose(params["scale"] / 2 * sign * 2.0**shift, q.decode(codes, params), rtol=1e-15)
        assert len(np.unique(shift)) <= 2 ** (bits - 1)


def test_the_rough_count_of_gates(page):
    names = page("12", skip=["kernels.ShiftGemm"])
    # One bit by one bit is an and gate; shifting a bit by nothing or by one takes a switch for each of two places.
    assert names["multiplier"](1, 1) == 1
    assert names["shifter"](1, 1) == 2 * 3
    assert names["shifter"](8, 3) < names["multiplier"](8, 4) < names["multiplier"](8, 8)
