"""Tests of the tests: a checker that never refuses is worth nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.checks import GradientError, gradcheck, numerical_gradient
from tinyqnn.tensor import Function, Tensor


class Double(Function):
    """2x with a derivative that is asked for: right if it is 2."""

    @staticmethod
    def forward(ctx, x, *, derivative):
        ctx.save(derivative)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        (derivative,) = ctx.saved
        return derivative(grad) if callable(derivative) else derivative * grad


def double(derivative):
    return lambda x: Double.apply(x, derivative=derivative)


def leaf(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(3).normal(size=shape), requires_grad=True)


def test_2_for_2_is_accepted():
    assert gradcheck(double(2.0), leaf(3)) is True


@pytest.mark.parametrize("wrong", [2.001, 1.999, 2.0001, -2.0, 0.0, np.nan, np.inf])
def test_anything_else_for_2_is_refused(wrong):
    with pytest.raises(GradientError, match=r"input 0, element \[0\]: the derivative says .* differences say"):
        gradcheck(double(wrong), leaf(3))


def test_one_wrong_element_among_many_is_found_and_named():
    def one_wrong(grad):
        grad = 2 * grad
        grad[1, 2] *= 1.001
        return grad

    with pytest.raises(GradientError, match=r"element \[1, 2\].*\(1 of 6 elements differ\)"):
        gradcheck(double(one_wrong), leaf(2, 3))


def test_a_gradient_that_is_right_only_on_the_whole_is_refused():
    """Outputs are weighted one by one, so gradients handed to the wrong neighbour do not cancel."""
    with pytest.raises(GradientError):
        gradcheck(double(lambda grad: 2 * grad[::-1]), leaf(3))
    with pytest.raises(GradientError):
        gradcheck(double(lambda grad: np.full_like(grad, 2 * grad.mean())), leaf(3))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda grad: 2 * np.abs(grad),
        lambda grad: 2 * np.abs(grad) * np.sign(grad[0]),
        lambda grad: 2 * np.abs(grad).mean() * np.sign(grad),
    ],
)
def test_the_weights_of_the_outputs_differ_in_size_and_in_sign(wrong):
    with pytest.raises(GradientError):
        gradcheck(double(wrong), leaf(8))


def test_a_refusal_says_the_same_twice():
    told = []
    for _ in range(2):
        with pytest.raises(GradientError) as refusal:
            gradcheck(double(3.0), leaf(3))
        told.append(str(refusal.value))
    assert told[0] == told[1]


def test_the_step_is_small_unless_another_is_asked_for():
    """The differences of a cube are off by the square of the step."""
    x = leaf(3)
    assert gradcheck(lambda x: x * x * x, x)
    with pytest.raises(GradientError):
        gradcheck(lambda x: x * x * x, x, eps=0.1)


def test_no_tolerance_at_all_accepts_what_is_equal():
    assert gradcheck(lambda x: x * 0, leaf(3), atol=0, rtol=0)


@pytest.mark.parametrize("wrong", [lambda grad: grad.sum(), lambda grad: grad[:2], lambda grad: grad[None]])
def test_a_gradient_of_another_shape_is_refused(wrong):
    with pytest.raises(RuntimeError, match="shape"):
        gradcheck(double(wrong), leaf(3))


def test_a_missing_gradient_is_refused():
    with pytest.raises(GradientError, match=r"the derivative says 0\.0, differences say (2|-2|1|-1|0)"):
        gradcheck(double(lambda grad: None), leaf(1))
    for nothing in (lambda x: Tensor(x.data * 2), lambda x: ()):
        with pytest.raises(GradientError, match=r"^the result does not depend on any input that requires a gradient$"):
            gradcheck(nothing, leaf(3))


def test_each_input_is_checked_and_the_wrong_one_is_named():
    with pytest.raises(GradientError, match="input 1"):
        gradcheck(lambda x, y: x * double(2.001)(y), [leaf(3), leaf(3)])


def test_each_output_is_checked():
    with pytest.raises(GradientError):
        gradcheck(lambda x: (double(2.0)(x), double(2.001)(x)), leaf(3))


def test_inputs_that_want_no_gradient_are_left_alone():
    y = Tensor(np.ones(3))
    assert gradcheck(lambda x, y: x * y, [leaf(3), y])
    assert y.grad is None


def test_float32_is_refused():
    with pytest.raises(TypeError, match="gradcheck wants float64, input 0 is float32"):
        gradcheck(double(2.0), Tensor([1.0], requires_grad=True))


def test_nothing_to_check_is_refused():
    with pytest.raises(ValueError, match=r"^gradcheck: no input has requires_grad=True, there is nothing to check$"):
        gradcheck(double(2.0), Tensor(np.ones(3)))


def test_a_result_of_a_tensor_is_no_leaf_to_check():
    with pytest.raises(ValueError, match="input 0 is itself a result"):
        gradcheck(double(2.0), leaf(3) * 2)


def test_inputs_are_put_back_as_they_were():
    x = leaf(2, 3)
    before = x.data.copy()
    gradcheck(lambda x: x * x, x)
    np.testing.assert_array_equal(x.data, before)


def test_inputs_without_axes_and_without_elements():
    assert gradcheck(lambda x: x * x, Tensor(np.array(3.0), requires_grad=True))
    assert gradcheck(lambda x: x * x, leaf(0, 2))


def test_a_shared_input_is_moved_in_both_places():
    x = leaf(3)
    assert gradcheck(lambda a, b: a * b, [x, x])


def test_a_kink_is_no_smooth_place():
    """Between ± ε the slope of |x| is neither −1 nor 1: differences say 0, which is what the derivative says at 0."""
    x = Tensor(np.array([0.0]), requires_grad=True)
    assert gradcheck(lambda x: x.abs(), x)
    with pytest.raises(GradientError):
        gradcheck(lambda x: x.clip(0, 1), x)


def test_numerical_gradient_is_exact_for_squares():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    before = x.copy()
    np.testing.assert_allclose(numerical_gradient(lambda: float((x**2).sum()), x), 2 * before, rtol=1e-8)
    np.testing.assert_array_equal(x, before)
