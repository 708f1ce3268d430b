"""PACT: activations are clipped at a, and a is learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn import nn
from tinyqnn.quant.base import Array, Params, Quantizer, nonzero, refuse_unknown
from tinyqnn.quant.ste import pass_inside
from tinyqnn.tensor import Function, Node, Tensor


class PACT(Quantizer, nn.Module):
    """PACT-b, 1 to 8 bits, for activations in the place of ReLU or after it (Holistic §3, after Choi et al. 2018).

    clip     where the learned bound `a` starts

    codebook    α·k,  k = 0 … 2^b − 1;   α = a / (2^b − 1)
    encode      y = ½(|x| − |x − a| + a), which is clip(x, 0, a);   x̂ = ⌊y/α + ½⌋
    decode      Q(x) = α·x̂
    gradient    ∂Q/∂x = 1 where 0 ≤ x < a, else 0;   ∂Q/∂a = 1 where x ≥ a, else 0

    At exactly x = a the gradient goes to a and not to x: every element teaches one of the two and none teaches both. At
    x = 0 it passes. Add `weight * pact.penalty()` = weight · a² to the loss, or a only ever grows where that helps.
    The parameters do not depend on x, so there is nothing to average; `axis` is refused. All zeros stay zeros.

    Corner cases, for a = 3 and 2 bits, frozen. Ties go up:

    >>> from tinyqnn.quant.card import card
    >>> card(PACT(bits=2, clip=3.0), [0.0, -0.0, 0.5, 2.5, 3.0, 3.25, -0.25], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.0      1
        -0.0     0    0.0      1
         0.5     1    1.0      1
         2.5     3    3.0      1
         3.0     3    3.0      1
        3.25     3    3.0      0
       -0.25     0    0.0      0
    >>> PACT(bits=2).quantize(np.zeros(3)).tolist(), PACT(bits=2, clip=6.0).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [6.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor([-3.0, 0.7, 1.4, 3.0], requires_grad=True)
    >>> pact = PACT(bits=2, clip=3.0)
    >>> y = pact(x); y.sum().backward()
    >>> y.data.tolist(), x.grad.tolist(), pact.clip.grad.item()
    ([0.0, 1.0, 1.0, 3.0], [0.0, 1.0, 1.0, 0.0], 1.0)

    Differs from released code: AutoQNN's has no PACT.
    """

    letter = "PACT"
    widths = range(1, 9)
    sees_data = False
    clip: nn.Parameter

    def __init__(self, bits: int | None = None, *, clip: float = 6.0, **unknown: Any) -> None:
        nn.Module.__init__(self)
        refuse_unknown(self, unknown, ("bits", "clip"))
        if not (np.ndim(clip) == 0 and 0 < float(clip) < np.inf):
            raise ValueError(f"PACT: clip must be a positive number, got {clip!r}")
        Quantizer.__init__(self, bits)
        self.clip = nn.Parameter(np.float32(clip))

    def codes_of_width(self) -> Array:
        return np.arange(2**self.bits).astype(np.uint8)

    def measure(self, x: Array) -> dict[str, Any]:
        a = self.clip.item()
        if not 0 < a < np.inf:
            raise ValueError(f"{self.notation}: the learned clip has become {a}; lower its learning rate or penalty")
        return {"scale": a / (2**self.bits - 1)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.floor(x / nonzero(scale) + 0.5), 0, 2**self.bits - 1)

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * codes

    def limits(self, scale: Array) -> tuple[Array, Array]:
        return 0 * scale, scale * (2**self.bits - 1)

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.5, 0.0, 0, 2**self.bits - 1)

    def __call__(self, x: Tensor, params: Params | None = None) -> Tensor:
        """Quantize a Tensor; the gradient goes to it and to `clip`. With `params` given, `clip` is not asked."""
        if params is not None or not isinstance(x, Tensor):
            return super().__call__(x, params)
        return LearnedClip.apply(x, self.clip, quantizer=self, params=self.fit(x))

    def penalty(self) -> Tensor:
        """a², the L2 penalty without its weight."""
        return self.clip * self.clip

    def __repr__(self) -> str:
        return f"PACT(bits={self.bits}, clip={self.clip.item():g})"


class LearnedClip(Function):
    """Q(x) with gradients to x below the clip and to the clip above it."""

    @staticmethod
    def forward(ctx: Node, x: Array, a: Array, *, quantizer: PACT, params: Params) -> Array:
        ctx.save(x, np.asarray(a, x.dtype))
        return quantizer._quantized(x, params)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, Array]:
        x, a = ctx.saved
        grad_x = pass_inside(grad, x, np.zeros_like(a), np.nextafter(a, np.zeros_like(a)))  # the number before a: x < a
        return grad_x, np.asarray(grad[x >= a].sum(dtype=np.float64))
