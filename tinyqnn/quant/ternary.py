"""Ternary: small numbers become 0, the others keep their sign and share one magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero
from tinyqnn.quant.measure import mean_abs
from tinyqnn.quant.ste import kernel_pays


class Ternary(Quantizer):
    """T-2, 2 bits (AutoQNN §3.1, after TWN; made for normal data).

    codebook    −α, 0, α;   α = Σ x·x̂ / Σ |x̂|, the mean magnitude of what is kept
    encode      x̂ = clip(⌊x/Δ + ½⌋, −1, 1),   Δ = 1.4 · E|x|: magnitudes below 0.7 · E|x| become 0
    decode      Q(x) = α·x̂
    gradient    plain straight-through: 1 everywhere

    The parameters are the scale α and the step Δ. Three of the four codes of 2 bits are used. A tensor of zeros has
    α = Δ = 0 and stays zeros; one element becomes itself.

    Corner cases, for α = 3 and Δ = 2. At the thresholds ±Δ/2 the floor goes up: +Δ/2 is kept, −Δ/2 becomes 0:

    >>> from tinyqnn.quant.card import card
    >>> card(Ternary(), [0.0, -0.0, 1.0, -1.0, -1.25, 2.0, 9.0, -9.0], scale=3.0, step=2.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.0      1
        -0.0     0    0.0      1
         1.0     1    3.0      1
        -1.0     0    0.0      1
       -1.25    -1   -3.0      1
         2.0     1    3.0      1
         9.0     1    3.0      1
        -9.0    -1   -3.0      1
    >>> Ternary().quantize(np.zeros(3)).tolist(), Ternary().quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [7.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([-3.0, -0.5, 0.25, 1.0], requires_grad=True)
    >>> y = Ternary()(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist()
    ([-2.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: a tensor of zeros gives zeros (there NaN).
    """

    letter = "T"
    widths = range(2, 3)
    parameter_names = ("scale", "step")

    def codes_of_width(self) -> Array:
        return np.array([-1, 0, 1], np.int8)

    def measure(self, x: Array) -> dict[str, Any]:
        step = np.asarray(1.4 * mean_abs(x), x.dtype)
        return {"scale": self._mean_kept(x, step), "step": step}

    def _mean_kept(self, x: Array, step: Array) -> float:
        """The mean magnitude of what does not become 0."""
        if kernel_pays(x):
            from tinyqnn.kernels import measure as kernel

            return kernel.mean_abs_kept(x, step)
        kept = x[self.to_codes(x, scale=step, step=step) != 0]
        return mean_abs(kept) if kept.size else 0.0

    def to_codes(self, x: Array, scale: Array, step: Array) -> Array:
        return np.clip(np.floor(x / nonzero(step) + 0.5), -1, 1)

    def to_values(self, codes: Array, scale: Array, step: Array) -> Array:
        return scale * codes

    def compiled(self, scale: Array, step: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.5, 0.0, -1, 1, step)
