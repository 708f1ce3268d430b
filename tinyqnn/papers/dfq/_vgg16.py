"""VGG-16's thirteen convolutions at any width, and one linear layer: the shape usual for images of 32×32."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor

# channels in units of the width (64 in VGG-16), 0 is 2×2 pooling
PLAN = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)


class VGG16(nn.Module):
    """(N, 3, 32, 32) -> (N, classes): 3×3 convolutions with batch norm and ReLU.

    >>> sum(p.size for p in VGG16(width=64).parameters() if p.ndim == 4)
    14710464
    """

    def __init__(self, width: int = 64, classes: int = 10, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        n, number = 3, 0
        layers: list[tuple[str, nn.Module]] = []
        for factor in PLAN:
            if factor == 0:
                layers.append((f"pool{number}", nn.MaxPool2d(2)))
                continue
            number += 1
            conv = nn.Conv2d(n, factor * width, 3, padding=1, bias=False, rng=rng)
            n = factor * width
            layers += [(f"conv{number}", conv), (f"bn{number}", nn.BatchNorm2d(n)), (f"relu{number}", nn.ReLU())]
        for name, layer in layers:
            self.add_module(name, layer)
        self.order = tuple(name for name, _ in layers)
        self.fc = nn.Linear(n, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = self._modules[name](x)
        return self.fc(x.flatten(1))
