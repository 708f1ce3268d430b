"""Fully connected networks "width-depth" (Holistic §3): 128-3 has three weight layers, two of them 128 wide."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tinyqnn import functional as F
from tinyqnn import nn
from tinyqnn.tensor import Tensor


class FCDNN(nn.Module):
    """`depth` linear layers, the hidden ones `width` wide with ReLU after each.

    residual   add each hidden output to the next one and halve the sum: h ← ½ (h + relu(W h + b))

    Holistic §3.2: 200-4 has 81K and 128-6 has 66K parameters.

    >>> model = FCDNN(width=200, depth=4)
    >>> sum(p.size for p in model.parameters())
    81402
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 3,
        in_features: int = 2,
        classes: int = 2,
        residual: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if depth < 2 or width < 1:
            raise ValueError(
                f"FCDNN counts its output layer: depth is 2 or more and width 1 or more, got {depth}, {width}"
            )
        sizes = [in_features] + [width] * (depth - 1) + [classes]
        self.layers = nn.Sequential(*(nn.Linear(n, m, rng=rng) for n, m in pairwise(sizes)))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        h = x if x.ndim == 2 else x.flatten(1)
        layers = list(self.layers.children())
        if not self.residual:
            return nn.mlp(layers, F.relu, h)
        first, *hidden, last = layers
        h = nn.linear_relu(first, F.relu, h)
        for layer in hidden:
            h = (h + nn.linear_relu(layer, F.relu, h)) * 0.5
        return last(h)
