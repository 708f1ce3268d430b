"""What does each pixel show? An encoder that looks far without losing the place, and a guess for every pixel.

DeepLabV3's way with MobileNetV2 (Holistic §5.1): after a certain block the picture is not made smaller any more. Where
a stride of 2 would stand, the 3×3 convolutions that follow look at every second pixel instead, later at every fourth.
So they see as far as they would have, and the map keeps its size. No spatial pyramid follows, as in the paper.
"""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.models.mobilenet import InvertedResidual, conv_bn_relu
from tinyqnn.tensor import Tensor

# Expansion, channels in units of the width, blocks, stride, dilation.
STAGES = ((1, 1, 1, 1, 1), (6, 1, 2, 2, 1), (6, 2, 2, 1, 2), (6, 3, 2, 1, 4))
OUTPUT_STRIDE = 4


class Segmenter(nn.Module):
    """(N, channels, H, W) -> (N, classes, H, W), scores for every pixel; H and W are multiples of 4.

    width   channels of the first stage

    >>> model = Segmenter(width=4, classes=6)
    >>> model(Tensor(np.zeros((2, 3, 16, 16), np.float32))).shape
    (2, 6, 16, 16)
    """

    def __init__(
        self, width: int = 8, channels: int = 3, classes: int = 6, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        if width < 1 or classes < 2:
            raise ValueError(f"width is 1 or more and classes 2 or more, got {width} and {classes}")
        layers: list[nn.Module] = [conv_bn_relu(channels, width, 3, 2, rng=rng)]
        n = width
        for expansion, times, blocks, stride, dilation in STAGES:
            for number in range(blocks):
                layers.append(
                    InvertedResidual(n, times * width, stride if number == 0 else 1, expansion, rng, dilation)
                )
                n = times * width
        self.encoder = nn.Sequential(*layers, conv_bn_relu(n, 8 * width, 1, rng=rng))
        self.classifier = nn.Conv2d(8 * width, classes, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % OUTPUT_STRIDE or x.shape[3] % OUTPUT_STRIDE:
            raise ValueError(f"height and width must be multiples of {OUTPUT_STRIDE}, got {x.shape}")
        coarse = self.classifier(self.encoder(x))  # (N, classes, H/4, W/4)
        across = bilinear(x.shape[3] // OUTPUT_STRIDE, OUTPUT_STRIDE)
        down = bilinear(x.shape[2] // OUTPUT_STRIDE, OUTPUT_STRIDE)
        return Tensor(down) @ (coarse @ Tensor(across.T.copy()))


def bilinear(size: int, times: int) -> np.ndarray:
    """The matrix (times · size, size) that makes a row of numbers `times` as long, on straight lines between them.

    >>> bilinear(2, 2).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    places = np.clip((np.arange(size * times) + 0.5) / times - 0.5, 0, size - 1)  # where new pixels lie among the old
    weight = np.maximum(1 - np.abs(places[:, None] - np.arange(size)), 0)
    return weight.astype(np.float32)
