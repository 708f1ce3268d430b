"""A gradient that is too long is made shorter, its direction kept: one bad batch must not throw the parameters far."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyqnn.optim.optimizer import blocks
from tinyqnn.tensor import Array, Tensor


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients, in place, so that their common length is at most `max_norm`; returns the length before.

    norm = √ Σ g² over all elements of all gradients;  g ← g · min(1, max_norm / (norm + 1e-6)), as PyTorch's
    `clip_grad_norm_`. If the norm is NaN or infinite, the gradients are left as they are and the norm tells.

    >>> w = Tensor([1.0, 1.0], requires_grad=True)
    >>> (w * np.array([3.0, 4.0], np.float32)).sum().backward()
    >>> clip_grad_norm([w], 1.0), w.grad.round(3).tolist()
    (5.0, [0.6000000238418579, 0.800000011920929])
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is a number above 0, got {max_norm}")
    grads = [p.grad for p in ([params] if isinstance(params, Tensor) else params) if p.grad is not None]
    squares = _squares(grads)
    if squares == math.inf:  # the square of a float32 above 10¹⁹ is none
        squares = _squares(grads, np.float64)
    norm = math.sqrt(squares) if math.isfinite(squares) else squares
    factor = max_norm / (norm + 1e-6)
    if factor < 1 and math.isfinite(norm):
        for grad in grads:
            np.multiply(grad, factor, out=grad)
    return norm


def _squares(grads: Iterable[Array], dtype: Any = None) -> float:
    """Σ g², added up in `dtype`; without one, in that of the gradients."""
    total = 0.0
    for grad in grads:
        for (g,) in blocks(grad):
            g = g.ravel(order="K")
            total += float(np.einsum("i,i->", g, g, dtype=dtype))
    return total
