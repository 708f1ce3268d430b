r"""How would the result change with a bit more? The width becomes a real number with a gradient.

A scheme that covers a range R with b bits has the step α = R / (2^b − 1). Real b is no harder than whole b:

    Q(x; b) = α · f(x/α),  f rounds                                                                 AutoQNN eq. (4)

    ∂Q/∂α = f(x/α) − x/α = (Q − x)/α                      straight through f: ∂f(u)/∂u = 1
    ∂α/∂b = −R · ln2 · 2^b / (2^b − 1)² = −ln2 · 2^b/(2^b − 1) · α
    ∂Q/∂b = ln2 · 2^b/(2^b − 1) · (x − Q)                                                           AutoQNN eq. (5)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Params, Quantizer
from tinyqnn.quant.notation import SCHEMES
from tinyqnn.quant.ste import pass_inside
from tinyqnn.tensor import Function, Node, Tensor


def bits_gradient(x: Array, q: Array, bits: float) -> Array:
    """∂Q/∂b for each element, from x, its quantized value and the real width b (AutoQNN eq. (5)).

    >>> bits_gradient(np.array([1.0]), np.array([0.5]), 1.0).round(4).tolist()
    [0.6931]
    """
    return (x - q) * x.dtype.type(math.log(2) * 2**bits / (2**bits - 1))


class RelaxedQuantize(Function):
    """Q(x; b) = α·⌊x/α + ½⌋ with α = (max x − min x) / (2^b − 1), for any real b > 0 (AutoQNN eq. (4)).

    The gradient goes straight through to x, and to b by eq. (5). R counts as a constant.

    >>> b = Tensor(np.array(1.5), requires_grad=True)
    >>> RelaxedQuantize.apply(Tensor(np.array([-1.0, 0.2, 1.0])), b).sum().backward()
    >>> round(b.grad.item(), 4)
    0.2144
    """

    @staticmethod
    def forward(ctx: Node, x: Array, bits: Array) -> Array:
        step = (x.max() - x.min()) / x.dtype.type(2 ** float(bits) - 1)
        q = step * np.floor(x / step + x.dtype.type(0.5)) if step > 0 else x.copy()
        ctx.save(x, q, float(bits))
        return q

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, Array]:
        x, q, bits = ctx.saved
        return grad, np.asarray(np.vdot(grad, bits_gradient(x, q, bits)))


class LearnedWidth(Function):
    """A scheme at the width `bits` rounded to; backwards its own rule to x, and eq. (5) to the real `bits`."""

    @staticmethod
    def forward(ctx: Node, x: Array, bits: Array, *, quantizer: Quantizer, params: Params) -> Array:
        q = quantizer._quantized(x, params)
        ctx.save(x, q, float(bits), quantizer.limits(**params))
        return q

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, Array]:
        x, q, bits, limits = ctx.saved
        grad_x = grad if limits is None else pass_inside(grad, x, *limits)
        return grad_x, np.asarray(np.sum(grad * bits_gradient(x, q, bits), dtype=np.float64))


def quantize_with_bits(letter: str, x: Tensor, bits: Tensor, params: Params | None = None, **options: Any) -> Tensor:
    """Quantize with the scheme `letter` at a learned real width: used rounded, kept within the scheme's range.

    >>> b = Tensor(np.array(3.2), requires_grad=True)
    >>> y = quantize_with_bits("C", Tensor(np.array([-1.0, 0.2, 1.0])), b)
    >>> y.sum().backward()
    >>> y.data.round(3).tolist(), round(b.grad.item(), 4)
    ([-1.204, 0.241, 1.204], -0.0318)
    """
    widths = SCHEMES[letter].widths
    width = min(max(math.floor(bits.item() + 0.5), widths[0]), widths[-1])
    quantizer = SCHEMES[letter](width, **options)
    if params is None:
        params = quantizer.fit(x)
    return LearnedWidth.apply(x, bits, quantizer=quantizer, params=params)
