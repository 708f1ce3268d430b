"""Answers to the exercises of tutorials/06_depth_width_and_noise.md."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq

SKIP = ("half_rings = ", "def after_rounding")  # the fences that take long


@pytest.fixture
def names(page):
    return page("06", skip=SKIP)


def test_1_evenly_spaced_biases_make_one_staircase_of_n_times_as_many_stairs(names):
    step, read_out = names["step"], names["read_out"]
    x = np.random.default_rng(1).normal(size=20_000)
    one_neuron = step / 12**0.5
    for n in (1, 4, 16, 64):
        biases = step * np.arange(n) / n
        error = read_out(x, biases) - x
        assert names["rms"](error) == pytest.approx(one_neuron / n, rel=0.02)  # 1/n, where chance gives 1/√n
        inside_one_stair = read_out(np.linspace(0, step, 50_000, endpoint=False), biases)
        assert len(np.unique(inside_one_stair.round(9))) in (n, n + 1)  # a stair may be cut in two by the ends


def test_2_rounding_the_branch_alone_hardly_adds_anything(names):
    relu, rounded, rms = names["relu"], names["rounded"], names["rms"]
    h = q = None
    shares = []
    for W, _ in names["bent"]:
        exact = relu((names["x"] if h is None else h) @ W)
        noisy = relu((names["x"] if q is None else q) @ W)
        noisy = rounded(noisy, 0.5 * rms(exact))
        h, q = (exact, noisy) if h is None else ((h + exact) / 2, (q + noisy) / 2)
        shares.append(rms(q - h) ** 2 / rms(h) ** 2)
    plain = names["walk"](names["bent"], names["x"], relu)[:, 0]
    assert shares[0] == pytest.approx(plain[0])
    assert max(shares) < 1.5 * shares[0]
    assert plain[9] > 6 * shares[9]


def test_3_a_layer_with_more_outputs_than_inputs_keeps_a_penalty_and_keeps_lengths_forwards(names):
    wide = np.random.default_rng(0).normal(size=(16, 48)) / 48**0.5  # (inputs, outputs)
    W = names["pulled"](wide)
    assert names["penalty"](W) == pytest.approx(48 - 16)  # WᵀW has 32 eigenvalues 0, whatever W is
    assert np.linalg.svd(W, compute_uv=False) == pytest.approx(np.ones(16))
    layer = tq.nn.Linear(16, 48).to(np.float64)
    layer.weight.data[...] = W.T
    assert tq.train.lipschitz(layer).item() == pytest.approx(32)


def test_the_size_of_all_weights_does_not_change_the_share(names):
    """To the bit, if the sizes are powers of two: each layer's step follows its signal."""
    for act in (names["linear"], names["relu"]):
        half, twice = ([(scale * W, 0) for W in names["turns"]] for scale in (0.5, 2.0))
        assert (names["walk"](half, names["x"], act)[:, 0] == names["walk"](twice, names["x"], act)[:, 0]).all()


def test_each_singular_value_goes_its_own_way(names):
    """s <- s - 4 rate s (s² - 1), as the page says of one step down the slope."""
    W, rate = names["chains"]["random"][0][0], 0.02
    s = np.linalg.svd(W, compute_uv=False)
    after = np.linalg.svd(names["pulled"](W, steps=1, rate=rate), compute_uv=False)
    assert after == pytest.approx(np.sort(s - 4 * rate * s * (s**2 - 1))[::-1])
