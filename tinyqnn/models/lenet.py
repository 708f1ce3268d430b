"""LeNet-5: two convolutions and three linear layers, the network that digits are usually tried on first."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor


class LeNet(nn.Module):
    """(N, channels, 28, 28) -> (N, classes), with ReLU and max pooling.

    batch_norm   normalise what each layer but the last puts out. Quantizers like it: what flows into them keeps its
                 mean and spread whatever the weights do

    >>> sum(p.size for p in LeNet().parameters())
    61706
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        batch_norm: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        bias = not batch_norm  # batch norm has a shift of its own
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2, bias=bias, rng=rng)
        self.bn1 = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(6, 16, 5, bias=bias, rng=rng)
        self.bn2 = nn.BatchNorm2d(16) if batch_norm else nn.Identity()
        self.fc1 = nn.Linear(16 * 5 * 5, 120, bias=bias, rng=rng)
        self.bn3 = nn.BatchNorm1d(120) if batch_norm else nn.Identity()
        self.fc2 = nn.Linear(120, 84, bias=bias, rng=rng)
        self.bn4 = nn.BatchNorm1d(84) if batch_norm else nn.Identity()
        self.fc3 = nn.Linear(84, classes, rng=rng)
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (28, 28):
            raise ValueError(f"LeNet wants images of 28×28 pixels, got {x.shape}; take vgg or resnet20 for other sizes")
        x = self.pool(self.relu(self.bn1(self.conv1(x))))  # (N, 1, 28, 28) -> (N, 6, 14, 14)
        x = self.pool(self.relu(self.bn2(self.conv2(x))))  # -> (N, 16, 5, 5)
        x = self.relu(self.bn3(self.fc1(self.flatten(x))))  # -> (N, 120)
        x = self.relu(self.bn4(self.fc2(x)))  # -> (N, 84)
        return self.fc3(x)
