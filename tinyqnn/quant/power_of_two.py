"""PotQ: magnitudes that are powers of two, dense near 0 and sparse far out; multiplying by one is a shift."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero
from tinyqnn.quant.binary import sign
from tinyqnn.quant.lambdas import pot_lambda
from tinyqnn.quant.measure import sd

# The smallest numbers of each dtype that are not below √2: |x/α| ≥ √2·2^k is then exact about where log2 rounds up.
_SQRT2 = {np.dtype(np.float32): np.float32(1.4142137), np.dtype(np.float64): np.float64(1.4142135623730951)}


class PotQ(Quantizer):
    """P-b, 2 to 4 bits (AutoQNN §3.1; made for log-normal data).

    codebook    ±α·{½, 2, 4, 8, … 2^(2^(b−1) − 1)};   α = λ_b · sd(x), λ_b of least error on N(0, 1)
    encode      n = clip(round(log2 |x/α|), 0, 2^(b−1) − 1);  the code is n for positive x, −1 − n for others
    decode      Q(x) = ±α·2^(n − [n = 0])
    gradient    plain straight-through: 1 everywhere

    1 is not among the magnitudes: the paper puts ½ in its place, nearer to the many numbers around 0. `log2` is rounded
    by comparing with √2·2^k, so no logarithm is computed. There is no 0 in the codebook: zeros become −α/2 as the
    papers' sign has it, unless all of x is zero. A constant tensor, and so a tensor of one element, has sd 0, hence
    α = 0 and Q(x) = 0.

    Corner cases, for α = 1 and 3 bits. The edges are √2·2^k, which no floating-point number is:

    >>> from tinyqnn.quant.card import card
    >>> card(PotQ(bits=3), [0.0, -0.0, 1.0, -1.0, 1.4142, 1.4143, 5.65, 5.66, 9.0, -99.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0    -1   -0.5      1
        -0.0    -1   -0.5      1
         1.0     0    0.5      1
        -1.0    -1   -0.5      1
      1.4142     0    0.5      1
      1.4143     1    2.0      1
        5.65     2    4.0      1
        5.66     3    8.0      1
         9.0     3    8.0      1
       -99.0    -4   -8.0      1
    >>> PotQ(bits=3).quantize(np.zeros(3)).tolist(), PotQ(bits=3).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [0.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor(np.array([-3.0, -0.2, 0.4, 1.0]), requires_grad=True)
    >>> y = PotQ(bits=2)(x); y.sum().backward()
    >>> y.data.round(3).tolist(), x.grad.tolist()
    ([-2.261, -0.565, 0.565, 0.565], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: λ is the optimum (there 0.9, 0.4, 0.03), and zeros are one of the 2^b levels (there
    a level of its own, so 2^b + 1 of them).
    """

    letter = "P"
    widths = range(2, 5)

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": pot_lambda(self.bits) * sd(x)}

    def edges(self, dtype: np.dtype) -> Array:
        """Where round(log2) steps to 1, 2, …: √2, 2√2, 4√2, …"""
        return _SQRT2[dtype] * np.exp2(np.arange(2 ** (self.bits - 1) - 1)).astype(dtype)

    def to_codes(self, x: Array, scale: Array) -> Array:
        u = np.abs(x / nonzero(scale))
        n = np.zeros_like(u)
        for edge in self.edges(x.dtype):
            n += u >= edge
        return np.where((x > 0) & (scale > 0), n, -1 - n)  # a scale of 0 sends everything to one code

    def to_values(self, codes: Array, scale: Array) -> Array:
        n = np.where(codes >= 0, codes, -1 - codes)
        return scale * (sign(codes + 0.5) * np.exp2(n - (n == 0))) + 0.0  # + 0.0 makes 0.0 of −0.0

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.power_of_two(scale, self.edges(np.dtype(np.float32)))
