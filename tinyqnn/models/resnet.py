"""Residual networks for small images: each block learns what to add to its input."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), both convolutions 3×3; a 1×1 convolution fits x where shapes differ."""

    def __init__(self, n: int, m: int, stride: int = 1, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n, m, 3, stride, 1, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(m)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1, bias=False, rng=rng)
        self.bn2 = nn.BatchNorm2d(m)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n != m:
            self.shortcut = nn.Sequential(nn.Conv2d(n, m, 1, stride, bias=False, rng=rng), nn.BatchNorm2d(m))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet of depth 6n + 2: (N, 3, H, W) -> (N, classes), three stages of n blocks and width, 2·, 4·width.

    >>> model = ResNet(depth=20, width=16)
    >>> sum(p.size for p in model.parameters())
    272474
    """

    def __init__(
        self,
        depth: int = 20,
        width: int = 16,
        channels: int = 3,
        classes: int = 10,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a ResNet of basic blocks has depth 6n + 2 (8, 14, 20, 32, 44, 56, …), got {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        n = width
        for stage in range(3):
            m = width * 2**stage
            first = BasicBlock(n, m, stride=1 if stage == 0 else 2, rng=rng)
            self.add_module(
                f"layer{stage + 1}", nn.Sequential(first, *(BasicBlock(m, m, rng=rng) for _ in range(blocks - 1)))
            )
            n = m
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(n, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.fc(self.flatten(self.pool(x)))
