"""ResNets for large images: the picture shrinks to a quarter before the first block, and four groups follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyqnn import nn
from tinyqnn.models.mobilenet import conv_bn_relu
from tinyqnn.tensor import Tensor


def _shortcut(n: int, m: int, stride: int, rng: np.random.Generator | None) -> nn.Module:
    """x itself, or a 1×1 convolution where shapes differ."""
    if stride == 1 and n == m:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(n, m, 1, stride, bias=False, rng=rng), nn.BatchNorm2d(m))


class Plain(nn.Module):
    """relu(x + two 3×3 convolutions), as in ResNet18 and 34: (N, n, H, W) -> (N, width, H / stride, W / stride)."""

    grows = 1

    def __init__(self, n: int, width: int, stride: int, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.first = conv_bn_relu(n, width, 3, stride, rng=rng)
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False, rng=rng), nn.BatchNorm2d(width))
        self.relu, self.shortcut = nn.ReLU(), _shortcut(n, width, stride, rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.last(self.first(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(x + 1×1, 3×3 and 1×1 convolutions), four times wider outside than inside, as in ResNet50 and deeper."""

    grows = 4

    def __init__(self, n: int, width: int, stride: int, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.first = conv_bn_relu(n, width, 1, rng=rng)
        self.middle = conv_bn_relu(width, width, 3, stride, rng=rng)
        self.last = nn.Sequential(nn.Conv2d(width, 4 * width, 1, bias=False, rng=rng), nn.BatchNorm2d(4 * width))
        self.relu, self.shortcut = nn.ReLU(), _shortcut(n, 4 * width, stride, rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.last(self.middle(self.first(x))) + self.shortcut(x))


class ImageNetResNet(nn.Module):
    """(N, channels, H, W) -> (N, classes), four groups of `blocks` blocks, `width` channels doubled at each group.

    bottleneck   three convolutions a block (depth 3 Σ blocks + 2) in the place of two (2 Σ blocks + 2)

    Holistic table 1: ResNet34 is [3, 4, 6, 3] and has 21.8 million parameters.

    >>> model = ImageNetResNet([3, 4, 6, 3])
    >>> model.depth, round(sum(p.size for p in model.parameters()) / 1e6, 1)
    (34, 21.8)
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: int = 64,
        bottleneck: bool = False,
        channels: int = 3,
        classes: int = 1000,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1 or width < 1:
            raise ValueError(f"blocks: four groups of one or more blocks and a width above 0, got {blocks}, {width}")
        block = Bottleneck if bottleneck else Plain
        self.depth = (3 if bottleneck else 2) * sum(blocks) + 2
        stem = nn.Conv2d(channels, width, 7, 2, 3, bias=False, rng=rng)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        groups: list[nn.Module] = []
        n = width
        for group, count in enumerate(blocks):
            for number in range(count):
                inside = width * 2**group
                groups.append(block(n, inside, 2 if group > 0 and number == 0 else 1, rng))
                n = inside * block.grows
        self.blocks = nn.Sequential(*groups)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(n, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.pool(self.blocks(self.stem(x)))))
