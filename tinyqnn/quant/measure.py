"""What the schemes measure on a tensor: the mean magnitude and the standard deviation, to the last digit.

Sums run in float64 over float32 numbers, and exactly (`math.fsum`) over float64 ones, so that the result does not
depend on the order of the elements or on the memory layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinyqnn.quant.ste import kernel_pays

Array = np.ndarray


def mean_abs(x: Array) -> float:
    """E|x|.

    >>> mean_abs(np.array([1.0, -3.0]))
    2.0
    """
    if x.dtype == np.float64:
        return _rescaled(x, lambda y: math.fsum(np.abs(y).ravel().tolist()) / y.size)
    if kernel_pays(x):
        from tinyqnn.kernels import quantize as kernel

        return kernel.mean_abs(x)
    return float(np.abs(x).sum(dtype=np.float64)) / x.size


def sd(x: Array) -> float:
    """The population's standard deviation, √E[(x − E x)²]; exactly 0 for a constant tensor.

    >>> sd(np.array([1.0, 3.0]))
    1.0
    """
    if x.dtype == np.float64:
        return _rescaled(x, _sd_exact)
    if kernel_pays(x):
        from tinyqnn.kernels import quantize as kernel

        return kernel.sd(x)
    return _sd_shifted(x)


def _sd_shifted(x: Array) -> float:
    """One pass over float32 numbers: with d = x − x₀, the variance is E[d²] − (E d)².

    x₀ is a member of the sample, so (x₀ − E x)² ≤ n · variance: the subtraction costs at most a factor n of float64's
    1e-16, and none of float32's digits, however far the mean is from 0.
    """
    d = x.astype(np.float64) - float(x.flat[0])
    mean = float(d.sum()) / x.size
    return math.sqrt(max(float((d * d).sum()) / x.size - mean * mean, 0.0))


def _sd_exact(x: Array) -> float:
    """Two passes with exact sums."""
    d = x - x.flat[0]
    d = d - math.fsum(d.ravel().tolist()) / x.size
    return math.sqrt(math.fsum((d * d).ravel().tolist()) / x.size)


def _rescaled(x: Array, measure: Callable[[Array], float]) -> float:
    """`measure` on x / 2ᵉ, with 2ᵉ near max|x|, so that no square leaves float64's range; times 2ᵉ."""
    top = float(np.abs(x).max())
    if top == 0.0 or not math.isfinite(top):
        return top
    exponent = math.frexp(top)[1]
    return math.ldexp(measure(np.ldexp(x, -exponent)), exponent)
