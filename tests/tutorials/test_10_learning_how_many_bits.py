"""Answers to the exercises of tutorials/10_learning_how_many_bits.md."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn.graph import average_bits
from tinyqnn.quant.learned_bits import bits_gradient
from tinyqnn.search import LearnedBits

TRAINING = ("floats", "glyphs")


def test_1_an_absolute_value_reaches_the_target_and_trembles_there(page):
    names = page("10", skip=TRAINING)
    rng = np.random.default_rng(1)
    tensors, ruler = [rng.uniform(-1, 1, 1000) for _ in range(3)], names["ruler"]
    widths, above = np.full(3, 4.0), []
    for _ in range(800):
        toll = 10 * np.sign(widths.mean() - 4) / 3  # as strong however small the distance
        wish = [
            200 * felt * np.mean((q - x) * bits_gradient(x, q, b)) / np.mean(x**2)
            for x, felt, b in zip(tensors, (1, 4, 16), widths)
            for q in [ruler(x, b)]
        ]
        widths = widths - 0.02 * (np.array(wish) + toll)
        above.append(widths.mean() - 4)
    _, square = names["share"](tensors, (1, 4, 16))
    last = np.array(above[-200:])
    assert last.min() < 0 < last.mean() < 0.06 < 0.08 < square - 4
    assert (np.diff(np.sign(last)) != 0).sum() > 20  # it crosses the target again and again
    assert np.diff(widths).round(1).min() > 0.7  # and the law of step 3 is the same


@pytest.mark.parametrize("bits", [1, 2.5, 4, 8])
def test_2_without_a_price_the_wish_never_turns_round(rng, page, bits):
    for x in (rng.normal(size=50), rng.laplace(size=7), rng.uniform(-1, 1, 1000)):
        q = page("10", skip=TRAINING)["ruler"](x, bits)
        assert np.sum(2 * (q - x) * bits_gradient(x, q, bits)) <= 0


def test_2_the_widths_stop_where_the_scheme_ends(rng):
    vertex = LearnedBits(tq.quant.WeightQuantizer("P-2"))
    x = tq.Tensor(rng.normal(size=500))
    vertex.bits.data[...] = 2
    for _ in range(200):
        vertex.bits.grad = None
        ((vertex(x) - x) ** 2).mean().backward()
        assert vertex.bits.grad < 0
        vertex.bits.data -= 0.5 * vertex.bits.grad
    assert vertex.bits.item() > 4  # the number goes on,
    assert vertex.width == 4  # but PotQ has 2 to 4 bits


def test_3_one_large_layer_is_the_average():
    channels = (3, 64, 64, 128, 128, 256, 256)
    sizes = [9 * n * m for n, m in itertools.pairwise(channels)] + [4096 * 1024]
    widths = [7, 8, 6, 6, 7, 5, 2]
    assert round(average_bits(widths, sizes), 2) == 2.82
    richer = [*(width + 2 for width in widths[:6]), 2]
    assert round(average_bits(richer, sizes), 2) == 3.25
    assert sizes[6] / sum(sizes) > 0.75
