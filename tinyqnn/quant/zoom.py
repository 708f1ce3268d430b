"""ZoomQ: cut the span from the smallest to the largest number into 2^b equal cells, and answer with a cell's middle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero


class ZoomQ(Quantizer):
    """Z-b, 2 to 8 bits (AutoQNN §3.1; made for uniform and normal data).

    codebook    α·(k + ½) + min x,  k = 0 … 2^b − 1;   α = (max x − min x) / 2^b
    encode      x̂ = clip(⌊(x − min x)/α⌋, 0, 2^b − 1)
    decode      Q(x) = α·(x̂ + ½) + min x
    gradient    plain straight-through: 1 everywhere

    The parameters are the scale α and `low`, the smallest number. A constant tensor (zeros, or one element) has α = 0
    and becomes itself.

    Corner cases, for α = 1, low = −2 and 2 bits. A number on an edge goes up, the largest one stays in the last cell:

    >>> from tinyqnn.quant.card import card
    >>> card(ZoomQ(bits=2), [0.0, -0.0, -2.0, -1.0, 1.0, 2.0, 9.0, -9.0], scale=1.0, low=-2.0)
           x  code   Q(x)  dQ/dx
         0.0     2    0.5      1
        -0.0     2    0.5      1
        -2.0     0   -1.5      1
        -1.0     1   -0.5      1
         1.0     3    1.5      1
         2.0     3    1.5      1
         9.0     3    1.5      1
        -9.0     0   -1.5      1
    >>> ZoomQ(bits=2).quantize(np.zeros(3)).tolist(), ZoomQ(bits=2).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [7.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([-3.0, -0.2, 0.4, 1.0], requires_grad=True)
    >>> y = ZoomQ(bits=2)(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist()
    ([-2.5, -0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: no 1e-4 and 1e-7 in the scale, and no second clip of the values to [min x, max x].
    """

    letter = "Z"
    widths = range(2, 9)
    parameter_names = ("scale", "low")

    def codes_of_width(self) -> Array:
        return np.arange(2**self.bits).astype(np.uint8)

    def measure(self, x: Array) -> dict[str, Any]:
        low, high = float(x.min()), float(x.max())
        return {"scale": high / 2**self.bits - low / 2**self.bits, "low": low}

    def to_codes(self, x: Array, scale: Array, low: Array) -> Array:
        return np.clip(np.floor((x - low) / nonzero(scale)), 0, 2**self.bits - 1)

    def to_values(self, codes: Array, scale: Array, low: Array) -> Array:
        return scale * (codes + 0.5) + low

    def compiled(self, scale: Array, low: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, low, 0.0, 0.5, 0, 2**self.bits - 1)
