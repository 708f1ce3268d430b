"""ResQ: quantize to a sign and a scale, then quantize what is left over in the same way, once for every bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer
from tinyqnn.quant.binary import sign
from tinyqnn.quant.measure import mean_abs
from tinyqnn.quant.ste import kernel_pays


class ResQ(Quantizer):
    """R-b, 1 to 8 bits (AutoQNN §3.1; made for uniform data).

    codebook    Σᵢ ±αᵢ, all 2^b choices of the signs;   αᵢ = E|rᵢ|
    encode      r₁ = x;  for i = 1 … b:  sᵢ = +1 if rᵢ > 0 else −1,  rᵢ₊₁ = rᵢ − αᵢ·sᵢ
    decode      Q(x) = Σᵢ αᵢ·sᵢ
    gradient    plain straight-through: 1 everywhere

    A code is the b signs as bits of one number, the first sign first: 0b101 means +α₁ − α₂ + α₃. Its order is that of
    the signs, not of the values. The scale is a vector (b,). Every step takes E[r²] down by αᵢ². A tensor of zeros has
    scales 0 and stays zeros; one element becomes itself.

    Two laws do *not* hold. Not idempotent: [3, 1, 1, −1] goes to other values when quantized again. Not monotone where
    α₁ < α₂ + …, which heavy tails bring about: +α₁ − α₂ then lies below −α₁ + α₂.

    Corner cases, for scales 2 and 1. A residual of 0 has sign −1:

    >>> from tinyqnn.quant.card import card
    >>> card(ResQ(bits=2), [0.0, -0.0, 0.5, 2.0, 2.5, -2.0, -1.5, 9.0, -9.0], scale=[2.0, 1.0])
           x  code   Q(x)  dQ/dx
         0.0     1   -1.0      1
        -0.0     1   -1.0      1
         0.5     2    1.0      1
         2.0     2    1.0      1
         2.5     3    3.0      1
        -2.0     0   -3.0      1
        -1.5     1   -1.0      1
         9.0     3    3.0      1
        -9.0     0   -3.0      1
    >>> ResQ(bits=2).quantize(np.zeros(3)).tolist(), ResQ(bits=2).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [7.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([3.0, 1.0, 1.0, -1.0], requires_grad=True)
    >>> y = ResQ(bits=2)(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist()
    ([2.25, 0.75, 0.75, -0.75], [1.0, 1.0, 1.0, 1.0])
    >>> ResQ(bits=2).quantize(y.data).tolist()
    [1.6875, 0.5625, 0.5625, -0.5625]

    Differs from the released code: frozen activations keep the scale of each step (there the mean residual *after* the
    step, so that evaluation differs from training).
    """

    letter = "R"
    widths = range(1, 9)
    parameter_ndim = 1

    def codes_of_width(self) -> Array:
        return np.arange(2**self.bits).astype(np.uint8)

    def measure(self, x: Array) -> dict[str, Any]:
        scales: list[Array] = []
        if kernel_pays(x):
            from tinyqnn.kernels import measure as kernel

            for _ in range(self.bits):
                scales.append(np.asarray(kernel.mean_abs_rest(x, np.array(scales, np.float32)), np.float32))
            return {"scale": np.array(scales)}
        for _ in range(self.bits):
            scales.append(np.asarray(mean_abs(x), x.dtype))
            x = x - scales[-1] * sign(x)
        return {"scale": np.array(scales)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        codes = np.zeros_like(x)
        for alpha in scale:
            codes = 2 * codes + (x > 0)
            x = x - alpha * sign(x)
        return codes

    def to_values(self, codes: Array, scale: Array) -> Array:
        values = np.zeros_like(codes)
        for i, alpha in enumerate(scale):
            bit = codes.astype(np.int64) >> (self.bits - 1 - i) & 1
            values = values + alpha * (2 * bit - 1).astype(codes.dtype)
        return values

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.signs(scale)
