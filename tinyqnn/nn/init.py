"""First values for weights, as PyTorch draws them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn import random
from tinyqnn.nn.module import Parameter


def uniform(
    shape: tuple[int, ...], bound: float, rng: np.random.Generator | None, dtype: Any = np.float32
) -> Parameter:
    """A parameter drawn from U(−bound, bound).

    >>> bool((abs(uniform((100,), 0.1, np.random.default_rng(0)).data) <= 0.1).all())
    True
    """
    rng = random.default_rng() if rng is None else rng
    return Parameter(rng.uniform(-bound, bound, shape).astype(dtype))


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator | None, dtype: Any = np.float32) -> Parameter:
    """A parameter drawn from N(0, std²)."""
    rng = random.default_rng() if rng is None else rng
    return Parameter(rng.normal(0, std, shape).astype(dtype))


def fan_in(shape: tuple[int, ...]) -> int:
    """How many inputs one output sums over: the product of all axes of the weight but the first.

    >>> fan_in((16, 3, 5, 5))
    75
    """
    return math.prod(shape[1:])
