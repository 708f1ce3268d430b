"""LeNet-5: two convolutions and three linear layers, the network that digits are usually tried on first."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor


class LeNet(nn.Module):
    """(N, channels, 28, 28) -> (N, classes), with ReLU and max pooling.

    >>> model = LeNet()
    >>> sum(p.size for p in model.parameters())
    61706
    """

    def __init__(self, channels: int = 1, classes: int = 10, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2, rng=rng)
        self.conv2 = nn.Conv2d(6, 16, 5, rng=rng)
        self.fc1 = nn.Linear(16 * 5 * 5, 120, rng=rng)
        self.fc2 = nn.Linear(120, 84, rng=rng)
        self.fc3 = nn.Linear(84, classes, rng=rng)
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (28, 28):
            raise ValueError(f"LeNet wants images of 28×28 pixels, got {x.shape}; take vgg or resnet20 for other sizes")
        x = self.pool(self.relu(self.conv1(x)))  # (N, 1, 28, 28) -> (N, 6, 14, 14)
        x = self.pool(self.relu(self.conv2(x)))  # -> (N, 16, 5, 5)
        x = self.relu(self.fc1(self.flatten(x)))  # -> (N, 120)
        return self.fc3(self.relu(self.fc2(x)))
