"""The two functions that squash a gate's sum, without a call and without a branch, so that loops fill whole vectors.

    σ(x) = e / (1 + e)      for x < 0,   1 / (1 + e) else,   e = e^−|x|: nothing overflows
    tanh |x| = t / (t + 2)  with t = e^2|x| − 1; then the sign of x

t must be right where it is small, so the 1 is not taken from e^2|x| but left out of its series:

    e^y = 2^n · e^r         as in `exponential.py`, |r| ≤ ½ ln 2
    t = 2^n · s + (2^n − 1),   s = e^r − 1 = r + r²/2! + … + r⁷/7!

Nothing cancels: where n = 0, t is s, and else 2^n − 1 ≥ 1 and s > −0.3. Both results are off by less than two and a
half units of float32's last place; −0 stays −0, ±inf give the ends, NaN stays NaN.

In compiled code alone. Every LSTM here has its gates from these two, whether its steps are walked by one loop, one by
one, or on packed codes, so that all of them have the same bits.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import math

import numpy as np

from tinyqnn.kernels.exponential import exp, power_of_two, reduced
from tinyqnn.kernels.jit import jit

__all__ = ["sigmoid", "tanh"]

ONE, TWO = np.float32(1), np.float32(2)
FLAT = np.float32(9.5)  # from here on tanh is 1 in float32


@jit(error_model="numpy")
def sigmoid(x):
    """1 / (1 + e^−x) of a float32."""
    e = exp(-abs(x))
    return (e if x < np.float32(0) else ONE) / (ONE + e)


@jit(error_model="numpy", fastmath={"contract"})
def tanh(x):
    """tanh x of a float32."""
    size = abs(x)
    size = FLAT if size > FLAT else size
    n, s = reduced(size + size)
    power = power_of_two(n)
    t = power * s + (power - ONE)
    return np.float32(math.copysign(t / (t + TWO), x))
