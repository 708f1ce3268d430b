"""Answers to the exercises of tutorials/13_same_answers_in_integers.md."""

from __future__ import annotations

import numpy as np

import tinyqnn as tq
from tinyqnn import deploy, kernels
from tinyqnn.deploy.product import Product, Window
from tinyqnn.deploy.stairs import MOST_EDGES, FloatStairs
from tinyqnn.quant.whole import Coded, terms
from tinyqnn.tensor import Observer


class Bare(tq.nn.Module):
    """The page's network, one convolution shorter."""

    def __init__(self, rng):
        super().__init__()
        self.one, self.two = (tq.nn.Conv2d(n, 8, 3, bias=False, rng=rng) for n in (1, 8))

    def forward(self, x):
        return self.two(self.one(x))


def test_1_powers_of_two_make_float32_sums_exact(rng):
    """A product of two such values is a whole number times one power of two; below 2²⁴ float32 adds those exactly."""
    x = rng.normal(size=(8, 1, 9, 9)).astype(np.float32)
    for scheme, equal in (("F-3", True), ("C-3", False)):
        qmodel = tq.graph.generate(Bare(rng), x, weights=scheme, activations=scheme).eval()
        with Observer(), tq.no_grad():
            in_float32 = qmodel(tq.Tensor(x)).data
        assert np.array_equal(deploy.pack(qmodel)(x), in_float32) == equal


def test_2_eight_bits_have_255_edges_and_are_not_compared_with(rng, monkeypatch):
    coded = Coded(tq.quant.scheme("C-8"), {"scale": np.float32(0.1)})
    stairs = FloatStairs(coded)
    assert len(stairs.edges) == 255
    assert MOST_EDGES == 2**4 - 1
    assert not stairs.few
    monkeypatch.setattr(kernels.requantize, "one_staircase", None)  # whoever compares would stop here
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(stairs(x), coded.encode(x))


def test_3_zoom_has_a_second_sum_that_the_border_changes(rng):
    """The second term is 1 × min: with weights Σ n over the window, with activations Σ m over what is not border."""
    zoom = tq.quant.scheme("Z-2")
    assert [term.constant for term in terms(Coded(zoom, zoom.fit(rng.normal(size=9))))] == [False, True]
    w, x = rng.normal(size=(1, 1, 3, 3)).astype("f"), rng.normal(size=(1, 1, 4, 4)).astype("f")
    (w_codes, w_params), (x_codes, x_params) = tq.quant.scheme("C-2").encode(w), zoom.encode(x)
    product = Product(Coded(tq.quant.scheme("C-2"), w_params, w_codes), Coded(zoom, x_params), Window(padding=(1, 1)))
    product(x_codes)
    ((constant),) = product._borders.values()
    numbers = 2 * w_codes.astype(float) + 1
    assert constant[0, 0, 1, 1] == numbers.sum()
    assert constant[0, 0, 0, 0] == numbers[0, 0, 1:, 1:].sum() != numbers.sum()
