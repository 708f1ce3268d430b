"""Batch norm after a product is a factor and an addend a channel, so the layer in front can do it.

    γ · (s·z + b − μ) / √(σ² + ε) + β  =  m · (s·z) + a        m = γ / √(σ² + ε),   a = (b − μ) · m + β

Both are computed in float64 from what the model learned, and rounded once, to the float32 that a packed model stores.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def fold(
    bias: Array | None, mean: Array, var: Array, weight: Array | None, shift: Array | None, eps: float
) -> tuple[Array, Array]:
    """The factor m and the addend a, float32.

    bias            of the layer in front, or None
    mean, var       the running averages μ and σ²
    weight, shift   γ and β, or None

    >>> [array.tolist() for array in fold(None, np.array([1.0]), np.array([3.0]), None, np.array([5.0]), 1.0)]
    [[0.5], [4.5]]
    """
    m = 1 / np.sqrt(var.astype(np.float64) + eps)
    m = m if weight is None else m * weight
    a = (0.0 if bias is None else bias.astype(np.float64)) - mean
    a = a * m if shift is None else a * m + shift
    return m.astype(np.float32), a.astype(np.float32)


def as_run(mean: Array, var: Array, weight: Array | None, shift: Array | None, eps: float) -> dict[str, Array]:
    """The three numbers a channel that `functional.batch_norm` computes with in evaluation: (x − mean)·scale + shift.

    Behind real numbers batch norm is left as the model runs it, so that its results are the same to the last bit.

    >>> as_run(np.ones(1, "f"), np.full(1, 3, "f"), None, None, 1.0)["scale"].tolist()
    [0.5]
    """
    mean = mean.astype(np.float32)
    scale = 1 / np.sqrt(var.astype(np.float32) + np.float32(eps))
    scale = scale if weight is None else scale * weight
    return {"mean": mean, "scale": scale, "shift": np.zeros_like(mean) if shift is None else shift}
