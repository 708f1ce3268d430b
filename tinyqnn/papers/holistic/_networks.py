"""The networks that Holistic lists in tables 1 and 5, with what it says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyqnn.models import ImageNetResNet, ResNet
from tinyqnn.nn import Module


@dataclass(frozen=True)
class ImageNetRow:
    """A row of table 1: parameters in millions, operations in billions, top-1 accuracies in per cent."""

    depth: int
    width: int
    blocks: tuple[int, ...]
    millions: float
    operations: float
    top1: float
    top1_w2a2: float

    @property
    def name(self) -> str:
        return f"ResNet{self.depth}"

    @property
    def bottleneck(self) -> bool:
        """Three convolutions a block in the place of two; the depth tells."""
        return self.depth == 3 * sum(self.blocks) + 2

    def model(self, rng: np.random.Generator | None = None) -> ImageNetResNet:
        return ImageNetResNet(self.blocks, self.width, self.bottleneck, rng=rng)


TABLE_1 = (  # those that the authors trained; two more rows quote others' results for the same networks
    ImageNetRow(34, 64, (3, 4, 6, 3), 21.8, 3.7, 73.6, 70.5),
    ImageNetRow(18, 90, (2, 2, 2, 2), 22.8, 3.5, 72.6, 70.2),
    ImageNetRow(26, 70, (3, 3, 3, 3), 21.4, 3.3, 73.0, 70.6),
    ImageNetRow(50, 64, (3, 4, 6, 3), 25.6, 4.1, 76.3, 72.7),
    ImageNetRow(44, 72, (3, 4, 5, 2), 25.0, 4.6, 75.5, 73.4),
    ImageNetRow(101, 64, (3, 4, 23, 3), 44.6, 7.9, 77.5, 20.1),
    ImageNetRow(50, 85, (3, 4, 6, 3), 44.2, 7.2, 77.2, 73.7),
)


@dataclass(frozen=True)
class CifarRow:
    """A row of table 5: parameters in millions, test accuracies in per cent."""

    block: str
    depth: int
    width: int
    millions: float
    float_: float
    w2: float
    a2: float
    w2a2: float

    def model(self, rng: np.random.Generator | None = None) -> Module:
        return ResNet(self.depth, self.width, rng=rng, block=self.block)


TABLE_5 = (
    CifarRow("basic", 8, 59, 1.05, 93.26, 92.83, 92.58, 92.32),
    CifarRow("basic", 14, 40, 1.10, 93.62, 93.51, 93.30, 93.11),
    CifarRow("basic", 20, 31, 1.03, 94.14, 93.57, 92.94, 92.65),
    CifarRow("basic", 32, 24, 1.06, 94.24, 93.71, 92.42, 91.84),
    CifarRow("basic", 44, 20, 1.04, 94.27, 93.91, 91.40, 90.69),
    CifarRow("basic", 56, 18, 1.09, 93.58, 93.46, 90.58, 89.77),
    CifarRow("preact", 8, 59, 1.05, 93.10, 92.75, 91.89, 91.03),
    CifarRow("preact", 14, 40, 1.10, 94.14, 93.85, 92.44, 91.81),
    CifarRow("preact", 20, 31, 1.03, 94.25, 93.82, 92.42, 91.81),
    CifarRow("preact", 32, 24, 1.06, 94.07, 93.89, 91.51, 89.03),
    CifarRow("preact", 44, 20, 1.04, 94.31, 94.04, 90.58, 86.26),
    CifarRow("preact", 56, 18, 1.09, 93.96, 93.83, 88.45, 85.45),
    CifarRow("depthwise", 29, 38, 1.11, 93.64, 93.28, 93.38, 92.33),
    CifarRow("depthwise", 38, 32, 1.08, 93.65, 93.47, 92.93, 92.57),
    CifarRow("depthwise", 56, 26, 1.11, 94.27, 94.02, 91.70, 90.61),
    CifarRow("depthwise", 74, 22, 1.08, 93.94, 93.71, 90.50, 89.88),
    CifarRow("depthwise", 110, 18, 1.13, 94.43, 94.39, 88.75, 87.47),
)
