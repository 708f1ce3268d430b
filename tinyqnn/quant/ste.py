"""A staircase has slope 0 almost everywhere; to train through it, we pretend on the way back that it was a ramp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyqnn.kernels import use_reference
from tinyqnn.tensor import Function, Node

if TYPE_CHECKING:
    from tinyqnn.quant.base import Params, Quantizer

Array = np.ndarray

_KERNEL_PAYS = 1024  # elements; below, NumPy is as fast as a compiled kernel, and needs no compiling


def kernel_pays(x: Array) -> bool:
    """Is `x` an array for the compiled kernels (float32, and not a small one)?"""
    return x.size >= _KERNEL_PAYS and x.dtype == np.float32 and not use_reference()


class StraightThrough(Function):
    """Forwards Q(x); backwards the gradient as if Q were not there, everywhere or between two limits.

    The straight-through estimator (STE) puts the line that the staircase climbs in its place:

        plain      ∂Q/∂x = 1
        clipped    ∂Q/∂x = 1 if lo ≤ x ≤ hi else 0        lo, hi the lowest and the highest value of the codebook

    Both ends pass. The test is made on x itself and not on the rounded code: after rounding, every saturated element
    would sit exactly on the bound, and whether all of them learn or none would hang on `<` or `≤`. On x the rule is
    that of `clip(x, lo, hi)`, and a value that is already quantized always passes.

    >>> from tinyqnn.quant import ClipQ
    >>> from tinyqnn.tensor import Tensor
    >>> x = Tensor([0.1, -0.2, 5.0], requires_grad=True)
    >>> StraightThrough.apply(x, quantizer=ClipQ(2), params={"scale": np.float32(1.0)}).sum().backward()
    >>> x.grad.tolist()
    [1.0, 1.0, 0.0]
    """

    @staticmethod
    def forward(ctx: Node, x: Array, *, quantizer: Quantizer, params: Params) -> Array:
        limits = quantizer.limits(**params)
        if limits is None or not ctx.needs_input_grad[0]:
            ctx.save(None)
            return quantizer._quantized(x, params)
        values, inside = quantizer._quantized_with_marks(x, params, *limits)
        ctx.save(inside)  # a byte an element, where x is four
        return values

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (inside,) = ctx.saved
        return grad if inside is None else keep(grad, inside, ctx.take_grad(0))


def keep(grad: Array, inside: Array, plus: Array | None = None) -> Array:
    """`grad` where `inside`, else 0, in the memory order of `inside`; and `plus`.

    >>> keep(np.ones(2), np.array([True, False])).tolist()
    [1.0, 0.0]
    """
    if kernel_pays(grad) and grad.strides == tuple([grad.itemsize * step for step in inside.strides]):
        from tinyqnn.kernels import quantize as kernel

        if plus is None or (plus.strides, plus.dtype) == (grad.strides, grad.dtype):
            return kernel.keep(grad, inside, plus)
    out = np.zeros_like(inside, grad.dtype)
    np.copyto(out, grad, where=inside)
    return out if plus is None else np.add(out, plus, out=out)


def pass_inside(grad: Array, x: Array, low: Array, high: Array) -> Array:
    """`grad` where low ≤ x ≤ high, else 0.

    >>> pass_inside(np.ones(3), np.array([-1.0, 1.0, 1.5]), np.array(-1.0), np.array(1.0)).tolist()
    [1.0, 1.0, 0.0]
    """
    if low.ndim == 0 and kernel_pays(x):
        from tinyqnn.kernels import quantize as kernel

        return kernel.pass_inside(grad, x, low, high)
    return np.where((low <= x) & (x <= high), grad, grad.dtype.type(0))
