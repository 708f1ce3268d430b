"""Answers to the exercises of tutorials/03_eight_ways_to_round.md."""

from __future__ import annotations

import numpy as np

import tinyqnn as tq


def test_1_a_better_threshold_than_0_7_gains_next_to_nothing(page):
    names = page("03")
    bell, error = names["bell"], names["error"]

    def ternary(threshold):
        kept = np.abs(bell) >= threshold * np.abs(bell).mean()
        alpha = np.abs(bell[kept]).mean()  # the least-squares scale of what is kept
        return error(bell, np.where(kept, alpha * np.sign(bell), 0))

    tried = np.arange(0.4, 1.2, 0.01)
    errors = [ternary(t) for t in tried]
    best = tried[int(np.argmin(errors))]
    assert np.isclose(ternary(0.7), error(bell, tq.quant.Ternary().quantize(bell)))
    assert 0.74 < best < 0.80  # 0.767 in the limit, not 0.7
    assert ternary(0.7) - min(errors) < 0.3  # points, of 19: the optimum is flat


def test_2_four_numbers_for_which_resq_is_not_monotone():
    # One number far out: α₁ = 2 is the mean, but then everybody is 2 or 6 away and α₂ = 3 is larger. Just above 0 the
    # signs are + and −, which is 2 − 3 = −1; at 0 they are − and +, which is −2 + 3 = 1.
    x = np.array([8.0, 0.1, 0.0, 0.0])
    assert not tq.checks.is_monotone(tq.quant.ResQ(bits=2), x)
    values = tq.quant.ResQ(bits=2).quantize(x)
    assert values[1] < 0 < values[2]
    assert tq.checks.is_monotone(tq.quant.ResQ(bits=2), np.array([3.0, 1.0, 1.0, -1.0]))


def test_3_rows_of_different_size_want_a_scale_each(page):
    names = page("03")
    error = names["error"]
    rng = np.random.default_rng(0)
    sizes = 10.0 ** -np.arange(4)  # rows ten times smaller each
    matrix = rng.normal(size=(4, 256)) * sizes[:, None]
    one, each = tq.quant.scheme("C-3").quantize(matrix), tq.quant.scheme("C-3", axis=0).quantize(matrix)
    assert tq.checks.equals_a_loop_over_channels(tq.quant.scheme("C-3", axis=0), tq.quant.scheme("C-3"), matrix, axis=0)
    assert error(matrix[1:], one[1:]) > 10 * error(matrix[1:], each[1:])
    # In the whole matrix the large row counts most, and even it gains: the small rows had made its scale too small.
    assert error(matrix, one) > error(matrix, each)

    # One row of a hundred is large, and one scale for all is far too small for it: the whole error falls tenfold.
    matrix = rng.normal(size=(100, 256)) * np.where(np.arange(100) == 0, 1000.0, 1.0)[:, None]
    one, each = (tq.quant.scheme("C-3", axis=axis).quantize(matrix) for axis in (None, 0))
    assert error(matrix, one) > 10 * error(matrix, each)


def test_residuals_of_a_box_are_smaller_boxes(page):
    names = page("03")
    box, error = names["kinds"]["box"], names["error"]
    for bits in (2, 3, 4):
        resq, zoom = (error(box, tq.quant.scheme(f"{letter}-{bits}").quantize(box)) for letter in "RZ")
        assert np.isclose(resq, zoom, rtol=0.01)
