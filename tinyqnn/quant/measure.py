"""What the schemes measure on a tensor: the mean magnitude and the standard deviation, to the last digit.

Sums run in float64 over float32 numbers, and with twice float64's digits over float64 ones, so that the result does
not depend on the order of the elements or on the memory layout.
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
        return _rescaled(x, lambda y: wide_sum(np.abs(y)) / y.size)
    if kernel_pays(x):
        from tinyqnn.kernels import measure as kernel

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
        from tinyqnn.kernels import measure as kernel

        return kernel.sd(x)
    return _sd_shifted(x)


def is_finite(x: Array) -> bool:
    """Is no number NaN or Inf? Neither is their standard deviation then, for float64 knows every float32's square.

    >>> is_finite(np.array([1.0, 3e38])), is_finite(np.array([1.0, np.inf]))
    (True, False)
    """
    return math.isfinite(sd(x)) if kernel_pays(x) else bool(np.isfinite(x).all())


def _sd_shifted(x: Array) -> float:
    """One pass over float32 numbers: with d = x − x₀, the variance is E[d²] − (E d)².

    x₀ is a member of the sample, so (x₀ − E x)² ≤ n · variance: the subtraction costs at most a factor n of float64's
    1e-16, and none of float32's digits, however far the mean is from 0.
    """
    d = x.astype(np.float64) - float(x.flat[0])
    mean = float(d.sum()) / x.size
    return math.sqrt(max(float((d * d).sum()) / x.size - mean * mean, 0.0))


def _sd_exact(x: Array) -> float:
    """Two passes, as the definition says; the rounded mean of a constant need not be that constant."""
    if x.min() == x.max():
        return 0.0
    d = x - wide_sum(x) / x.size
    return math.sqrt(wide_sum(d * d) / x.size)


def wide_sum(y: Array) -> float:
    """Σ y for |y| ≤ 4 in about twice float64's digits.

    Each number is cut into a whole multiple of 2⁻³⁰, one of 2⁻⁶⁰ and a rest. A million whole numbers below 2³³ add up
    without any rounding, so only the rests' sum depends on the order, in digits that are far below float64's last.

    >>> wide_sum(np.array([1.0, 2.0**-53, 2.0**-53])) == 1 + 2.0**-52
    True
    """
    y, totals = y.ravel(order="K"), []
    for start in range(0, y.size, 2**20):
        part = y[start : start + 2**20] * 2.0**30
        high = np.rint(part)
        part = (part - high) * 2.0**30
        middle = np.rint(part)
        totals += [float(high.sum()) * 2.0**-30, float(middle.sum()) * 2.0**-60]
        totals += [float((part - middle).sum()) * 2.0**-60]
    return math.fsum(totals)


def _rescaled(x: Array, measure: Callable[[Array], float]) -> float:
    """`measure` on x / 2ᵉ, with 2ᵉ near max|x|, so that no square leaves float64's range; times 2ᵉ."""
    top = float(np.abs(x).max())
    if top == 0.0 or not math.isfinite(top):
        return top
    exponent = math.frexp(top)[1]
    return math.ldexp(measure(np.ldexp(x, -exponent)), exponent)
