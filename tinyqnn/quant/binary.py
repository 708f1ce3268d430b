"""Binary: keep the sign, and one magnitude for all."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer
from tinyqnn.quant.measure import mean_abs


class Binary(Quantizer):
    """B-1, 1 bit (AutoQNN §3.1, after XNOR-Net).

    codebook    −α, α;   α = E|x|, which is the least-squares scale for these signs
    encode      x̂ = +1 if x > 0 else −1
    decode      Q(x) = α·x̂
    gradient    plain straight-through: 1 everywhere

    The codes are −1 and 1; there is no 0. A tensor of zeros has α = 0 and stays zeros; one element becomes itself.

    Corner cases, for α = 1. Zero of either sign goes to −1:

    >>> from tinyqnn.quant.card import card
    >>> card(Binary(), [0.0, -0.0, 5e-324, 1.0, -1.0, 9.0, -9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0    -1   -1.0      1
        -0.0    -1   -1.0      1
      5e-324     1    1.0      1
         1.0     1    1.0      1
        -1.0    -1   -1.0      1
         9.0     1    1.0      1
        -9.0    -1   -1.0      1
    >>> Binary().quantize(np.zeros(3)).tolist(), Binary().quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [7.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([-3.0, -1.0, 0.0, 2.0], requires_grad=True)
    >>> y = Binary()(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist()
    ([-1.5, -1.5, -1.5, 1.5], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: sign(0) is −1, as the paper says (there 0, which makes a third level).
    """

    letter = "B"
    widths = range(1, 2)

    def codes_of_width(self) -> Array:
        return np.array([-1, 1], np.int8)

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": mean_abs(x)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return sign(x)

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * codes + 0.0  # + 0.0 makes 0.0 of −0.0

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.signs(scale.reshape(1))


def sign(x: Array) -> Array:
    """The papers' sign: +1 if x > 0 else −1. `np.sign` would make a third value of 0.

    >>> sign(np.array([0.5, 0.0, -0.0, -2.0])).tolist()
    [1.0, -1.0, -1.0, -1.0]
    """
    return np.where(x > 0, x.dtype.type(1), x.dtype.type(-1))
