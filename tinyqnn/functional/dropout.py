"""Dropout: in training, each value is left out with probability p, so that none is relied upon too much."""

from __future__ import annotations

import numpy as np

from tinyqnn import random
from tinyqnn.tensor import Array, Function, Node, Tensor


class Dropout(Function):
    """y = x · m / (1 − p), m = 0 with probability p, else 1; in evaluation y = x."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, p: float, training: bool, rng: np.random.Generator | None) -> Array:
        if not training or p == 0:
            ctx.save(None)
            return x
        rng = random.default_rng() if rng is None else rng
        mask = np.empty_like(x)  # in x's own memory order
        flat = mask.ravel(order="K")
        flat[:] = rng.random(x.size, np.float32) >= p
        if p < 1:
            flat *= x.dtype.type(1 / (1 - p))
        if not np.shares_memory(flat, mask):
            mask = flat.reshape(x.shape)
        ctx.save(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (mask,) = ctx.saved
        return grad if mask is None else grad * mask


def dropout(input: Tensor, p: float = 0.5, training: bool = True, rng: np.random.Generator | None = None) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 − p), so that the mean stays.

    >>> dropout(Tensor([1.0, 2.0]), p=0.5, training=False).data.tolist()
    [1.0, 2.0]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, between 0 and 1, got {p}")
    return Dropout.apply(input, p=p, training=training, rng=rng)
