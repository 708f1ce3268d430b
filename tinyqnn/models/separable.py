"""The small MNIST network of DFQ §4: two depthwise-separable convolutions and a linear layer."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor


class SeparableBlock(nn.Module):
    """A 3×3 convolution of each channel on its own, then a 1×1 convolution across them, batch norm, ReLU, pooling."""

    def __init__(self, n: int, m: int, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(n, n, 3, padding=1, groups=n, bias=False, rng=rng)
        self.pointwise = nn.Conv2d(n, m, 1, bias=False, rng=rng)
        self.bn = nn.BatchNorm2d(m)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(self.bn(self.pointwise(self.depthwise(x)))))


class Separable(nn.Module):
    """(N, channels, 28, 28) -> (N, classes).

    stride   of the first convolution; 2, as in MobileNet, makes a quarter of the work

    >>> Separable()(Tensor(np.zeros((1, 1, 28, 28), np.float32))).shape
    (1, 10)
    """

    def __init__(
        self,
        width: int = 32,
        channels: int = 1,
        classes: int = 10,
        rng: np.random.Generator | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False, rng=rng)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.block1 = SeparableBlock(width, 2 * width, rng)
        self.block2 = SeparableBlock(2 * width, 4 * width, rng)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(4 * width, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.relu(self.bn(self.stem(x)))))
        return self.fc(self.flatten(self.pool(x)))
