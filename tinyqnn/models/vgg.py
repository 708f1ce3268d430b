"""The VGG-like network of AutoQNN §6: six 3×3 convolutions in three stages, two linear layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor


class VGGLike(nn.Module):
    """(N, 3, 32, 32) -> (N, classes): convolutions of width, width, 2·, 2·, 4·, 4·width with batch norm, then
    16·width inputs to 1024 features and the classes, dropout ½ before the last.

    The paper's network has width 64, and an FC7 of 4096 → 1024 (papers' size sums: 2.82 bits, see `graph.cost`).

    >>> model = VGGLike(width=64)
    >>> [tuple(p.shape) for name, p in model.named_parameters() if name == "fc7.weight"]
    [(1024, 4096)]
    """

    def __init__(
        self,
        width: int = 64,
        channels: int = 3,
        classes: int = 10,
        features: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        features = 16 * width if features is None else features
        sizes = [channels, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        for number, (n, m) in enumerate(pairwise(sizes), 1):
            self.add_module(f"conv{number}", nn.Conv2d(n, m, 3, padding=1, bias=False, rng=rng))
            self.add_module(f"bn{number}", nn.BatchNorm2d(m))
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        self.fc7 = nn.Linear(4 * width * 4 * 4, features, bias=False, rng=rng)
        self.bn7 = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(0.5)
        self.fc8 = nn.Linear(features, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (32, 32):
            raise ValueError(f"VGGLike wants images of 32×32 pixels, got {x.shape}")
        for number in range(1, 7):
            x = nn.conv_norm_relu(getattr(self, f"conv{number}"), getattr(self, f"bn{number}"), self.relu, x)
            if number % 2 == 0:
                x = self.pool(x)  # 32 -> 16 -> 8 -> 4
        x = nn.norm_relu(self.bn7, self.relu, self.fc7(self.flatten(x)))
        return self.fc8(self.dropout(x))
