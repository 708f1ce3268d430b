"""FixedQ: fixed-point numbers. The step is a power of two, so that scaling is a shift, and the largest number fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Params, Quantizer, nonzero


class FixedQ(Quantizer):
    """F-b, 2 to 8 bits (AutoQNN §3.1; made for uniform data).

    codebook    α·k,  k = −2^(b−1) … 2^(b−1) − 1;   α = 2^(⌊log2 max|x|⌋ − (b − 2))
    encode      x̂ = clip(⌊x/α + ½⌋, −2^(b−1), 2^(b−1) − 1)
    decode      Q(x) = α·x̂
    gradient    plain straight-through: 1 everywhere

    The exponent is read off the floating-point number and never computed as a logarithm, so exact powers of two are
    exact. An average of scales (frozen activations) is rounded to the nearest power of two. A tensor of zeros has α = 0
    and stays zeros; so does one whose α would be smaller than the smallest number of its dtype.

    Corner cases, for α = 1 and 3 bits. Ties go up; just below a power of two the largest positive code is clipped:

    >>> from tinyqnn.quant.card import card
    >>> card(FixedQ(bits=3), [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 3.0, 3.75, -3.75, -9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.0      1
        -0.0     0    0.0      1
         0.5     1    1.0      1
        -0.5     0    0.0      1
         1.5     2    2.0      1
        -1.5    -1   -1.0      1
         3.0     3    3.0      1
        3.75     3    3.0      1
       -3.75    -4   -4.0      1
        -9.0    -4   -4.0      1
    >>> FixedQ(bits=3).quantize(np.zeros(3)).tolist(), FixedQ(bits=3).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [6.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([-3.0, -0.2, 0.6, 1.0], requires_grad=True)
    >>> y = FixedQ(bits=3)(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist()
    ([-3.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])

    Differs from the released code: codes are clipped to b bits (there up to 2^b + 1 levels), and a tensor of zeros
    gives zeros (there NaN).
    """

    letter = "F"
    widths = range(2, 9)

    def measure(self, x: Array) -> dict[str, Any]:
        top = np.abs(x).max()
        if not np.isfinite(top):
            return {"scale": top}  # and is refused
        exponent = np.frexp(top)[1] - 1  # ⌊log2 top⌋: frexp's fraction lies in [½, 1)
        return {"scale": np.ldexp(np.sign(top), exponent - (self.bits - 2))}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.floor(x / nonzero(scale) + 0.5), self.alphabet[0], self.alphabet[-1])

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * codes

    def settle(self, params: Params) -> Params:
        """The power of two nearest to an average of scales, by ratio.

        >>> FixedQ(bits=3).settle({"scale": np.array([0.7, 0.75, 1.0, 1.4, 1.5])})["scale"].tolist()
        [0.5, 1.0, 1.0, 1.0, 2.0]
        """
        scale = params["scale"]
        fraction, exponent = np.frexp(scale)
        return {"scale": np.ldexp(np.sign(scale), exponent - (fraction < np.sqrt(0.5))).astype(scale.dtype)}

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.5, 0.0, self.alphabet[0], self.alphabet[-1])
