"""Is it right? Gradients held against differences, and the laws of quantizers as plain yes-or-no questions.

Nothing here needs more than NumPy and the engine, so that anyone can point it at code of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinyqnn.tensor import Array, Tensor


class GradientError(AssertionError):
    """A derivative disagrees with the differences of its function."""


def numerical_gradient(f: Callable[[], float], x: Array, eps: float = 1e-6) -> Array:
    """∂f/∂x by central differences, (f(x + ε) − f(x − ε)) / 2ε, one element after the other.

    f     a function of no arguments that reads `x`, which is changed in place and put back
    x     a float64 array

    >>> x = np.array([1.0, 2.0])
    >>> numerical_gradient(lambda: float((x * x).sum()), x).round(6).tolist()
    [2.0, 4.0]
    """
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + eps
        above = f()
        x[index] = before - eps
        below = f()
        x[index] = before
        grad[index] = (above - below) / (2 * eps)
    return grad


def gradcheck(
    f: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-7,
    rtol: float = 1e-5,
    seed: int = 0,
) -> bool:
    """Hold the gradients of `f(*inputs)` against central differences, for every input that requires one.

    f        a function of Tensors to a Tensor or a tuple of them; the same inputs must give the same outputs
    inputs   float64 Tensors: differences in float32 say nothing

    The outputs are weighted with random numbers and summed, so that every output element counts on its own.
    Returns True, or raises GradientError naming the input, the element and both values. The tolerance is
    |analytic − numerical| ≤ atol + rtol · |numerical|, and a difference can only ever make it fail.

    >>> gradcheck(lambda x: x * x, Tensor(np.array([3.0]), requires_grad=True))
    True
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [(i, x) for i, x in enumerate(inputs) if x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input has requires_grad=True, there is nothing to check")
    for i, x in checked:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck wants float64, input {i} is {x.dtype}: differences in float32 say nothing")

    def outputs() -> list[Tensor]:
        result = f(*inputs)
        return [y for y in (result if isinstance(result, tuple) else (result,)) if y.dtype.kind == "f"]

    rng = np.random.default_rng(seed)
    first = outputs()
    weights = [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in first]

    def loss() -> float:
        return sum(float((y.data * w).sum()) for y, w in zip(outputs(), weights))

    for _, x in checked:
        x.grad = None
    total = sum(((y * w).sum() for y, w in zip(first, weights)), Tensor(np.zeros(())))
    if not total.requires_grad:
        raise GradientError("the result does not depend on any input that requires a gradient")
    total.backward()
    for i, x in checked:
        analytic = np.zeros_like(x.data) if x.grad is None else x.grad
        if analytic.shape != x.shape or analytic.dtype != x.dtype:
            raise GradientError(
                f"input {i} is {x.dtype} of shape {x.shape}, its gradient {analytic.dtype} of shape {analytic.shape}"
            )
        numerical = numerical_gradient(loss, x.data, eps)
        wrong = ~(np.abs(analytic - numerical) <= atol + rtol * np.abs(numerical))
        if wrong.any():
            where = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise GradientError(
                f"input {i}, element {list(where)}: the derivative says {float(analytic[where])!r}, "
                f"differences say {float(numerical[where])!r} ({int(wrong.sum())} of {wrong.size} elements differ)"
            )
    return True
