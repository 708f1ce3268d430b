"""e^x without a call: a power of two that is written into the exponent's bits, times a short series.

    e^x = 2^n · e^r      n = ⌊x / ln 2 + ½⌋,   r = x − n · ln 2,   |r| ≤ ½ ln 2
    e^r = 1 + r + r²/2! + … + r⁷/7!            the next term is below 6·10⁻⁹

There is no branch and no table in it, so a loop over these is done in whole vectors, which the C library's function
does not allow. The result is off by one and a half units of float32's last place at most. In compiled code alone.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from tinyqnn.kernels.jit import jit

__all__ = ["exp", "power_of_two", "reduced"]

PER_LN_2 = np.float32(1 / np.log(2))
# ln 2 in two parts: n · HIGH is exact, because HIGH has few digits.
HIGH = np.float32(355 / 512)
LOW = np.float32(np.log(2) - 355 / 512)
SERIES = tuple([np.float32(1 / np.prod(np.arange(1.0, k + 1))) for k in range(8)])


@jit
def power_of_two(n):
    """2ⁿ for −126 ≤ n ≤ 127."""
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@jit(fastmath={"contract"})
def reduced(x):
    """n and s with e^x = 2^n · (1 + s), |s| < ½, for |x| up to about 100; s is right to its own last place."""
    whole = np.floor(x * PER_LN_2 + np.float32(0.5))
    r = (x - whole * HIGH) - whole * LOW
    series = SERIES[7]
    for k in (6, 5, 4, 3, 2):
        series = series * r + SERIES[k]
    return np.int32(whole), series * (r * r) + r


@jit(fastmath={"contract"})
def exp(x):
    """e^x of a float32; 0 and inf where it does not fit, NaN of NaN."""
    x = np.float32(-104) if x < np.float32(-104) else x
    x = np.float32(89) if x > np.float32(89) else x
    n, s = reduced(x)
    half = n >> np.int32(1)  # in two steps: the smallest results are below 2⁻¹²⁶
    return (s + np.float32(1)) * power_of_two(half) * power_of_two(n - half)
