"""Quaternary: two bits, four values, two on each side of 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero
from tinyqnn.quant.lambdas import clip_lambda
from tinyqnn.quant.measure import sd


class Quaternary(Quantizer):
    """Q-2, 2 bits (AutoQNN §3.1, after VecQ; made for normal data).

    codebook    −1½α, −½α, ½α, 1½α;   α = 0.9957 · sd(x), the step of least error on N(0, 1)
    encode      x̂ = clip(⌊x/α⌋, −2, 1)
    decode      Q(x) = α·(x̂ + ½)
    gradient    plain straight-through: 1 everywhere

    The values are those of ClipQ at 2 bits; the gradient is not, which passes beyond ±1½α here. Zeros become +α/2,
    unless all of x is zero; a constant tensor, and so a tensor of one element, has α = 0 and becomes 0.

    Corner cases, for α = 1. A number on an edge goes up:

    >>> from tinyqnn.quant.card import card
    >>> card(Quaternary(), [0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -1.5, -2.0, -9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.5      1
        -0.0     0    0.5      1
         1.0     1    1.5      1
        -1.0    -1   -0.5      1
         1.5     1    1.5      1
         2.0     1    1.5      1
        -1.5    -2   -1.5      1
        -2.0    -2   -1.5      1
        -9.0    -2   -1.5      1
    >>> Quaternary().quantize(np.zeros(3)).tolist(), Quaternary().quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [0.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor(np.array([-3.0, -0.2, 0.4, 1.0]), requires_grad=True)
    >>> y = Quaternary()(x); y.sum().backward()
    >>> y.data.round(3).tolist(), x.grad.tolist()
    ([-2.288, -0.763, 0.763, 0.763], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: one scale encodes and decodes (there the decoding scale is ‖x‖ / ‖x̂ + ½‖), and the
    standard deviation is the population's (there the sample's).
    """

    letter = "Q"
    widths = range(2, 3)

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": clip_lambda(2) * sd(x)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.floor(x / nonzero(scale)), -2, 1)

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * (codes + 0.5)

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.0, 0.5, -2, 1)
