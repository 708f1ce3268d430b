"""Answers to the exercises of tutorials/01_an_autograd_engine.md."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq


def test_1_relu_agrees_with_differences_except_at_its_bend(page):
    names = page("01")
    value, worst_error = names["Value"], names["worst_error"]

    def relu(x):
        return value(np.maximum(x.data, 0), [(x, lambda g: g * (x.data > 0))])

    assert worst_error(lambda x: relu(x).mean(), value([-1.5, 0.5, 2.0])) < 1e-8
    # At 0 the differences say ½, the mean of the slopes on both sides; relu has no derivative there, and 0 is as good
    # a choice as 1. Neither is wrong: the question is.
    assert worst_error(lambda x: relu(x).mean(), value([0.0])) == pytest.approx(0.5)


def test_2_minus_and_division_need_one_new_derivative(page):
    names = page("01")
    value, worst_error = names["Value"], names["worst_error"]

    def power(x, p):
        return value(x.data**p, [(x, lambda g: g * p * x.data ** (p - 1))])

    def minus(a, b):
        return a + b * value(-1.0)

    def over(a, b):
        return a * power(b, -1)

    a, b = value([[1.0, -2.0], [3.0, 4.0]]), value([2.0, -5.0])
    assert np.array_equal(minus(a, b).data, a.data - b.data)
    assert np.allclose(over(a, b).data, a.data / b.data, rtol=1e-15)
    for f in (minus, over):
        assert worst_error(lambda a, b, f=f: f(a, b).mean(), value(a.data), value(b.data)) < 1e-8


def test_3_a_second_backward_is_wrong_here_and_refused_there(page):
    names = page("01")
    value, backward = names["Value"], names["backward"]
    x = value(3.0)
    square = x * x
    result = square * x + square
    backward(result)
    backward(result)
    # Twice 33 would be defensible. But the square still had its gradient from the first time, and paid it out again.
    assert float(x.grad) not in (33.0, 66.0)

    x = tq.Tensor(np.array(3.0), requires_grad=True)
    square = x * x
    result = square * x + square
    result.backward()
    with pytest.raises(RuntimeError, match="frees the graph"):
        result.backward()
    assert x.grad.item() == 33.0


def test_the_wrong_order_is_wrong_because_the_square_pays_twice(page):
    names = page("01")
    value, backward = names["Value"], names["backward"]
    x = value(3.0)
    square = x * x
    backward(square * x + square, pick=min)
    # First the square pays 1 · 2x = 6; then the cube pays x = 3 in (and x² = 9 to x), and the square pays (1 + 3) · 2x.
    assert float(x.grad) == 6 + 9 + (1 + 3) * 6
