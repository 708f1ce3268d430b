"""MobileNetV2: widen by a cheap 1×1 convolution, look around channel by channel, narrow again, and add what came in."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Tensor

# Expansion, channels, blocks, stride of the first block (Sandler et al. 2018, table 2); the first strides are 1 here,
# for images of 32×32.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def scaled(channels: int, width: float) -> int:
    """width · channels as a multiple of 8, at least 8 and at least nine tenths of what was asked for.

    >>> scaled(24, 0.5), scaled(320, 0.5)
    (16, 160)
    """
    asked = channels * width
    rounded = max(8, int(asked + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * asked else rounded


def conv_bn_relu(
    n: int,
    m: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    rng: np.random.Generator | None = None,
    dilation: int = 1,
) -> nn.Sequential:
    """(N, n, H, W) -> (N, m, H / stride, W / stride), normalised and not negative.

    >>> len(conv_bn_relu(3, 8, 3))
    3
    """
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(n, m, kernel, stride, padding, dilation, groups=groups, bias=False, rng=rng)
    return nn.Sequential(conv, nn.BatchNorm2d(m), nn.ReLU())


class InvertedResidual(nn.Module):
    """1×1 to `expansion` times as many channels, 3×3 depthwise, 1×1 back; the input is added where shapes allow.

    With `dilation` d the 3×3 looks at every d-th pixel around, and so d times as far.
    """

    def __init__(
        self,
        n: int,
        m: int,
        stride: int,
        expansion: int,
        rng: np.random.Generator | None = None,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        hidden = n * expansion
        layers: list[nn.Module] = [conv_bn_relu(n, hidden, 1, rng=rng)] if expansion != 1 else []
        layers.append(conv_bn_relu(hidden, hidden, 3, stride, hidden, rng, dilation))
        layers += [nn.Conv2d(hidden, m, 1, bias=False, rng=rng), nn.BatchNorm2d(m)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and n == m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """(N, channels, H, W) -> (N, classes), with every number of channels times `width`; torchvision's parameter names.

    ReLU takes the place of ReLU6, whose ceiling was meant for 8-bit numbers: here a quantizer sets its own.

    >>> sum(p.size for p in MobileNetV2(width=0.5).parameters())
    700490
    """

    def __init__(
        self,
        width: float = 1.0,
        channels: int = 3,
        classes: int = 10,
        dropout: float = 0.2,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"the width multiplier is above 0, got {width}")
        n = scaled(32, width)
        layers: list[nn.Module] = [conv_bn_relu(channels, n, 3, rng=rng)]
        for expansion, c, blocks, first_stride in STAGES:
            m = scaled(c, width)
            for block in range(blocks):
                layers.append(InvertedResidual(n, m, first_stride if block == 0 else 1, expansion, rng))
                n = m
        last = scaled(1280, max(width, 1.0))
        self.features = nn.Sequential(*layers, conv_bn_relu(n, last, 1, rng=rng))
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.pool(self.features(x))))
