"""Answers to the exercises of tutorials/02_convolution_and_lstm.md."""

from __future__ import annotations

import numpy as np
import pytest


def test_1_with_a_stride_the_backward_is_still_the_transpose(rng):
    def slide(x, w, stride):
        k = len(w)
        height, width = ((n - k) // stride + 1 for n in x.shape)
        y = np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                y[i, j] = (x[i * stride : i * stride + k, j * stride : j * stride + k] * w).sum()
        return y

    def slide_back(grad, x, w, stride):
        grad_x, grad_w, k = np.zeros_like(x), np.zeros_like(w), len(w)
        for i in range(grad.shape[0]):
            for j in range(grad.shape[1]):
                patch = np.s_[i * stride : i * stride + k, j * stride : j * stride + k]
                grad_x[patch] += grad[i, j] * w
                grad_w += grad[i, j] * x[patch]
        return grad_x, grad_w

    x, w, g = (rng.integers(-9, 10, shape).astype(float) for shape in ((12, 15), (3, 3), (5, 7)))
    grad_x, grad_w = slide_back(g, x, w, 2)
    # ⟨Ax, g⟩ = ⟨x, Aᵀg⟩, and for a fixed image sliding is linear in the window, too.
    assert (slide(x, w, 2) * g).sum() == (x * grad_x).sum() == (w * grad_w).sum()


def test_2_the_gradient_to_the_pixels_slides_the_window_upside_down_over_a_border_of_k_minus_1(page, rng):
    names = page("02", skip=["loss.backward()"])
    x, w, g = (rng.integers(-9, 10, shape).astype(float) for shape in ((12, 15), (3, 3), (10, 13)))
    grad_x, grad_w = names["slide_back"](g, x, w)
    assert np.array_equal(grad_x, names["slide"](np.pad(g, 2), w[::-1, ::-1]))
    # And the gradient to the window slides the whole gradient over the image: nine places.
    nine = [[(x[u : u + 10, v : v + 13] * g).sum() for v in range(3)] for u in range(3)]
    assert np.array_equal(grad_w, nine)


def test_3_the_reach_is_the_product_of_the_forget_gates(page):
    names = page("02", skip=["loss.backward()"])

    def reach(keep):
        steps = names["arriving"](names["Gated"](16, np.random.default_rng(1), keep))
        return steps[0] / steps[-1]

    reaches = [reach(keep) for keep in (-2.0, 0.0, 2.0, 5.0)]
    assert reaches == sorted(reaches)
    # Wide open, c goes straight through, and what arrives is σ(keep)²⁹, one factor a step; nearly closed it is the
    # other way round, through h, that lets more through than that.
    for keep in (4.0, 5.0, 6.0):
        assert reach(keep) == pytest.approx((1 / (1 + np.exp(-keep))) ** 29, rel=0.2)
    assert reach(0.0) > 100 * 0.5**29
