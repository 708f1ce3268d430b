"""Residual networks for small images: each block learns what to add to its input.

Three kinds of blocks (Holistic figure 4), side by side:

    basic        relu(x + bn(conv(relu(bn(conv(x))))))              the sum goes through the ReLU
    preact       x + conv(relu(bn(conv(relu(bn(x))))))              the sum goes on as it is
    depthwise    x + bn(conv(relu(bn(depthwise(relu(bn(conv(x)))))))   MobileNetV2's, six times wider inside
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyqnn import nn
from tinyqnn.models.mobilenet import InvertedResidual
from tinyqnn.tensor import Tensor

EXPANSION = 6  # of the depthwise block (Sandler et al. 2018)


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
        y = nn.conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        return nn.conv_norm_relu(self.conv2, self.bn2, self.relu, y, plus=lambda: self.shortcut(x))


class PreActivationBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))): the way through all blocks is free of ReLUs (He et al. 2016).

    Where shapes differ a 1×1 convolution fits relu(bn(x)) in the place of x.
    """

    def __init__(self, n: int, m: int, stride: int = 1, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n)
        self.conv1 = nn.Conv2d(n, m, 3, stride, 1, bias=False, rng=rng)
        self.bn2 = nn.BatchNorm2d(m)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1, bias=False, rng=rng)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if stride != 1 or n != m:
            self.shortcut = nn.Conv2d(n, m, 1, stride, bias=False, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.norm_relu(self.bn1, self.relu, x)
        if self.shortcut is not None:
            x = self.shortcut(y)
        return x + self.conv2(nn.conv_norm_relu(self.conv1, self.bn2, self.relu, y))


def _depthwise(n: int, m: int, stride: int = 1, rng: np.random.Generator | None = None) -> InvertedResidual:
    return InvertedResidual(n, m, stride, EXPANSION, rng)


# What makes a block, and how many convolutions on the way count towards the depth.
BLOCKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "basic": (BasicBlock, 2),
    "preact": (PreActivationBlock, 2),
    "depthwise": (_depthwise, 3),
}


class ResNet(nn.Module):
    """The CIFAR ResNet: (N, channels, H, W) -> (N, classes), three stages of n blocks and width, 2·, 4·width.

    depth   6n + 2 for blocks "basic" and "preact", 9n + 2 for "depthwise"
    width   channels of the first stage

    Holistic table 5 lists such networks of about a million parameters.

    >>> model = ResNet(depth=20, width=16)
    >>> sum(p.size for p in model.parameters())
    272474
    >>> round(sum(p.size for p in ResNet(depth=32, width=24, block="preact").parameters()) / 1e6, 2)
    1.05
    """

    def __init__(
        self,
        depth: int = 20,
        width: int = 16,
        channels: int = 3,
        classes: int = 10,
        rng: np.random.Generator | None = None,
        block: str = "basic",
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"block is one of {', '.join(BLOCKS)}, got {block!r}")
        make, layers = BLOCKS[block]
        blocks, rest = divmod(depth - 2, 3 * layers)
        if blocks < 1 or rest:
            fitting = ", ".join(str(3 * layers * n + 2) for n in range(1, 7))
            raise ValueError(
                f"a ResNet of {block} blocks has depth {3 * layers}n + 2 ({fitting}, …) and a width of 1 or more, "
                f"got {depth}"
            )
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False, rng=rng)
        # A pre-activation block begins with a batch norm of its own, and the last one leaves one to be made up for.
        self.bn1 = nn.BatchNorm2d(4 * width if block == "preact" else width)
        self.relu = nn.ReLU()
        self.block = block
        n = width
        for stage in range(3):
            m = width * 2**stage
            first = make(n, m, stride=1 if stage == 0 else 2, rng=rng)
            self.add_module(
                f"layer{stage + 1}", nn.Sequential(first, *(make(m, m, rng=rng) for _ in range(blocks - 1)))
            )
            n = m
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(n, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        if self.block == "preact":
            x = self.conv1(x)
        else:
            x = nn.conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        if self.block == "preact":
            x = nn.norm_relu(self.bn1, self.relu, x)
        return self.fc(self.flatten(self.pool(x)))
