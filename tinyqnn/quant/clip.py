"""ClipQ: equal steps around 0, as wide as serves a normal distribution best, and everything beyond is clipped."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero
from tinyqnn.quant.lambdas import clip_lambda
from tinyqnn.quant.measure import sd


class ClipQ(Quantizer):
    """C-b, 1 to 8 bits (AutoQNN §3.1; made for normal, logistic and exponential data).

    codebook    α·(k + ½),  k = −2^(b−1) … 2^(b−1) − 1;   α = λ_b · sd(x), λ_b of least error on N(0, 1)
    encode      x̂ = clip(⌊x/α⌋, −2^(b−1), 2^(b−1) − 1)
    decode      Q(x) = α·(x̂ + ½)
    gradient    clipped straight-through: 1 where −α(2^(b−1) − ½) ≤ x ≤ α(2^(b−1) − ½), both ends included, else 0

    There is no 0 in the codebook: zeros become +α/2, unless all of x is zero. A constant tensor, and so a tensor of one
    element, has sd 0, hence α = 0 and Q(x) = 0.

    Corner cases, for α = 1 and 3 bits. A number on an edge goes up; −0.0 is 0.0; the gradient ends with the codebook:

    >>> from tinyqnn.quant.card import card
    >>> card(ClipQ(bits=3), [0.0, -0.0, 1.0, -1.0, 3.5, 3.75, -3.5, -3.75, -4.0, -9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.5      1
        -0.0     0    0.5      1
         1.0     1    1.5      1
        -1.0    -1   -0.5      1
         3.5     3    3.5      1
        3.75     3    3.5      0
        -3.5    -4   -3.5      1
       -3.75    -4   -3.5      0
        -4.0    -4   -3.5      0
        -9.0    -4   -3.5      0
    >>> ClipQ(bits=3).quantize(np.zeros(3)).tolist(), ClipQ(bits=3).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [0.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor(np.array([-3.0, -0.2, 0.4, 1.0]), requires_grad=True)
    >>> y = ClipQ(bits=2)(x); y.sum().backward()
    >>> y.data.round(3).tolist(), x.grad.tolist()
    ([-2.288, -0.763, 0.763, 0.763], [0.0, 1.0, 1.0, 1.0])

    Differs from the released code: λ₁ is the optimum 1.5958 (there 1.0), the standard deviation is the population's
    (there the sample's), no 1e-7 is added to the scale, and the gradient's limits are those of this call (there of the
    call before).
    """

    letter = "C"
    widths = range(1, 9)

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": clip_lambda(self.bits) * sd(x)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.floor(x / nonzero(scale)), self.alphabet[0], self.alphabet[-1])

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * (codes + 0.5)

    def limits(self, scale: Array) -> tuple[Array, Array]:
        top = scale * (2 ** (self.bits - 1) - 0.5)
        return -top, top

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.0, 0.5, self.alphabet[0], self.alphabet[-1])
