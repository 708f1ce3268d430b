"""The solved constants: λ of ClipQ and PotQ, and the least-squares step of Uniform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinyqnn as tq
from tinyqnn.quant import uniform
from tinyqnn.quant.lambdas import clip_cells, clip_lambda, distortion, pot_cells, pot_lambda

PUBLISHED_CLIP = {1: 1.5958, 2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}
BY_QUADRATURE_POT = {2: 0.737899, 3: 0.269542, 4: 0.0328034}  # Gauss–Legendre on every cell, 60 points each


@pytest.mark.parametrize("bits", range(1, 9))
def test_clip_lambda_equals_the_published_constant_to_four_digits(bits):
    assert round(clip_lambda(bits), 4) == PUBLISHED_CLIP[bits]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_pot_lambda_is_the_minimum_found_by_quadrature(bits):
    assert pot_lambda(bits) == pytest.approx(BY_QUADRATURE_POT[bits], rel=3e-6)


@pytest.mark.parametrize(
    ("solve", "cells", "bits"),
    [(clip_lambda, clip_cells, b) for b in range(1, 9)] + [(pot_lambda, pot_cells, b) for b in (2, 3, 4)],
)
def test_lambda_is_a_stationary_minimum_and_the_least_one(solve, cells, bits):
    best = solve(bits)

    def error(alpha: float) -> float:
        return distortion(alpha, *cells(bits))

    h = 1e-4 * best
    curvature = (error(best + h) - 2 * error(best) + error(best - h)) / h**2
    slope = (error(best + h) - error(best - h)) / (2 * h)
    assert curvature > 0
    assert abs(slope / curvature) < 1e-4 * best  # Newton would move λ by less than its fourth digit
    assert all(error(alpha) >= error(best) for alpha in np.geomspace(0.003, 4, 100))


@pytest.mark.parametrize("q", [tq.quant.scheme(name) for name in ("C-1", "C-3", "P-2", "P-4")], ids=repr)
def test_distortion_is_the_mean_squared_error_of_the_quantizer_on_normal_numbers(q):
    x = np.linspace(-9, 9, 400_001)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    cells = clip_cells(q.bits) if q.letter == "C" else pot_cells(q.bits)
    for alpha in (0.05, 0.4, 1.3):
        error = ((x - q.quantize(x, {"scale": alpha})) ** 2 * density).sum()
        assert error == pytest.approx(distortion(alpha, *cells), rel=1e-4)


FORMS = [
    tq.quant.Uniform(bits=2), tq.quant.Uniform(bits=2, levels=4), tq.quant.Uniform(bits=3),
    tq.quant.Uniform(bits=2, signed=False), tq.quant.Uniform(bits=3, levels=8),
]  # fmt: skip


def squared_error(q, x, step):
    return float(((x - q.quantize(x, {"scale": step})) ** 2).sum())


@given(values=st.lists(st.sampled_from([0.0, 0.1, -0.3, 0.5, 1.0, -1.0, 2.5, -4.0, 7.3, 30.0]), min_size=1, max_size=3))
@example(values=[1.0, 1.0, 4.0])
@example(values=[0.5, -0.5])
def test_uniform_step_is_the_least_squares_one_by_trying_all_codes(values):
    for q in FORMS:
        uniform_step_is_the_least_squares_one(q, values)


def uniform_step_is_the_least_squares_one(q, values):
    x = np.array(values)
    levels = q.codebook({"scale": 1.0})
    best = float((x**2).sum())
    for codes in itertools.product(levels.tolist(), repeat=len(values)):
        c = np.array(codes)
        if (c**2).sum() > 0:
            step = max(float(x @ c) / float(c @ c), 0.0)
            best = min(best, float(((x - step * c) ** 2).sum()))
    found = squared_error(q, x, float(q.fit(x)["scale"]))
    assert found <= best * (1 + 1e-9) + 1e-18


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("data", ["normal", "laplace", "cauchy", "uniform", "two lumps"])
def test_uniform_step_of_many_numbers_is_the_best_of_a_fine_grid(bits, data, rng):
    n = 40_000
    x = {
        "normal": rng.standard_normal(n),
        "laplace": rng.laplace(size=n),
        "cauchy": rng.standard_cauchy(n),
        "uniform": rng.uniform(-1, 1, n),
        "two lumps": np.where(rng.random(n) < 0.9, 0.01, 1.0) * rng.normal(5, 0.1, n),
    }[data]
    q = tq.quant.Uniform(bits=bits)
    step = float(q.fit(x)["scale"])
    found = squared_error(q, x, step)
    top = np.abs(x).max()
    rivals = np.concatenate([step * np.linspace(0.9, 1.1, 41), np.geomspace(top / 2**bits / 1e3, 2 * top, 200)])
    assert found <= min(squared_error(q, x, rival) for rival in rivals) * (1 + 1e-6)


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40), st.sampled_from([1, 3, 7]))
def test_the_alternation_is_as_good_as_going_through_all_codes(values, top_level):
    w = np.sort(np.array(values))
    if w[-1] == 0:
        return
    levels = np.arange(top_level + 1.0)
    edges, rises, squares = levels[1:] - 0.5, np.diff(levels), np.diff(levels**2)

    def error(step: float) -> float:
        codes = np.clip(np.floor(w / w[-1] / step + 0.5), 0, top_level)
        return float(((w / w[-1] - step * codes) ** 2).sum())

    args = (w, float(w[-1]), levels, edges, rises, squares)
    slack = 1e-3 * float(((w / w[-1]) ** 2).sum())  # few numbers have many local minima
    assert error(uniform._alternation(*args)) <= error(uniform._best_of_all(*args)) + slack


def test_binarys_scale_is_the_least_squares_one(rng):
    x = rng.standard_normal(500)
    codes, params = tq.quant.Binary().encode(x)
    assert params["scale"] == pytest.approx(float(x @ codes) / len(x), rel=1e-14)


def test_every_bit_of_resq_takes_the_square_of_its_scale_off_the_mean_squared_residual(rng):
    x = rng.standard_normal(500)
    before = float((x**2).mean())
    for bits in range(1, 9):
        q = tq.quant.ResQ(bits=bits)
        params = q.fit(x)
        after = float(((x - q.quantize(x, params)) ** 2).mean())
        assert after == pytest.approx(before - float(params["scale"][-1]) ** 2, rel=1e-9)
        before = after
