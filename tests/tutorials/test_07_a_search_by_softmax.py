"""Answers to the exercises of tutorials/07_a_search_by_softmax.md."""

from __future__ import annotations

import numpy as np

TRAINING = ("dfq(", "sixteen", "glyphs")


def test_1_with_a_fixed_price_of_loss_each_layer_decides_alone_and_the_bound_is_missed(page):
    names = page("07", skip=TRAINING)
    n, f, bits, softmax, down = (names[name] for name in ("n", "f", "bits", "softmax", "down"))
    reached = set()
    for price in np.geomspace(0.1, 30, 16):
        alpha = np.zeros((6, 2))
        for _ in range(800):
            v = np.outer(n / n.sum(), bits)  # of G,
            v[:, 0] += price * f  # and of λ · L
            alpha = alpha - 0.5 * down(alpha, v)
        one_bit = softmax(alpha)[:, 0]
        decided = (one_bit < 0.1) | (one_bit > 0.9)
        if decided.all():  # at a price where a layer does not care, it stays where it began
            assert np.array_equal(one_bit > 0.5, 7 * n / n.sum() > price * f)
            reached.add(round(float(f @ (one_bit > 0.5)), 2))
    assert reached <= {0.0, 0.1, 0.4, 0.9, 1.3, 1.6, 1.8}  # packed in the order of n / f, as wholes
    assert {0.4, 0.9} <= reached  # the nearest on both sides of 0.72


def test_2_the_opposite_is_not_forgiven(page):
    names = page("07", skip=TRAINING)
    settle, normal, true, noisy = (names[name] for name in ("settle", "normal", "true", "noisy"))
    assert np.allclose(normal(-7 * true), -normal(true))
    assert settle(normal(true), normal(noisy))[0] > 0.9
    assert settle(normal(-true), normal(noisy))[0] < 0.1


def test_3_another_currency_packs_others(page):
    names = page("07", skip=TRAINING)
    n, f, theta, hunt = (names[name] for name in ("n", "f", "theta", "hunt"))
    one_bit, _ = hunt(n * np.array([1, 1, 1, 1, 1, 50]), f, theta)
    assert names["p"][5, 0] < 0.05 < 0.95 < one_bit[5, 0]  # the smallest comes from last place to first
    assert set(np.flatnonzero(one_bit[:, 0] > 0.95) + 1) == {1, 3, 6}
    assert ((one_bit > 0.05) & (one_bit < 0.95)).all(axis=1).sum() == 1  # and one is cut, again
