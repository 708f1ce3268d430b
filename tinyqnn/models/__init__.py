"""The papers' networks, each in a file of its own, and `create` to have one by name."""

from __future__ import annotations

import difflib
import re

import numpy as np

from tinyqnn.models.fcdnn import FCDNN
from tinyqnn.models.lenet import LeNet
from tinyqnn.models.lstm import LanguageModel
from tinyqnn.models.mobilenet import MobileNetV2
from tinyqnn.models.resnet import ResNet
from tinyqnn.models.resnet_imagenet import ImageNetResNet
from tinyqnn.models.segmentation import Segmenter
from tinyqnn.models.separable import Separable
from tinyqnn.models.text_classifier import TextClassifier
from tinyqnn.models.vgg import VGGLike
from tinyqnn.nn import Module

__all__ = [
    "FCDNN",
    "ImageNetResNet",
    "LanguageModel",
    "LeNet",
    "MobileNetV2",
    "ResNet",
    "Segmenter",
    "Separable",
    "TextClassifier",
    "VGGLike",
    "create",
]

NOTATIONS = {
    "lenet": "LeNet-5; lenet-bn with batch norm",
    "separable": "two depthwise-separable convolutions (DFQ); separable-WIDTH",
    "vgg": "VGG-like (AutoQNN); vgg-WIDTH, 64 in the paper",
    "resnet20": "ResNet of depth 20 and width 16; resnetDEPTH-WIDTH",
    "mobilenet": "MobileNetV2 for 32×32; mobilenet-WIDTH, a multiplier such as 0.5",
    "fcdnn": "fully connected (Holistic); fcdnn-WIDTH-DEPTH",
    "lstm": "language model; lstm-HIDDEN",
}


def create(
    name: str, channels: int = 1, classes: int = 10, in_features: int = 2, rng: np.random.Generator | None = None
) -> Module:
    """A network from its short name: "lenet", "vgg-32", "resnet20-16", "fcdnn-128-3", "separable-32", "lstm-300".

    channels      of the images; `in_features` takes their place for "fcdnn"
    classes       how many outputs: classes, or words

    Raises ValueError naming what there is.

    >>> type(create("resnet20-8", channels=3)).__name__
    'ResNet'
    """
    kind = re.match(r"[a-z]*", name.lower())[0]  # type: ignore[index]
    if multiplier := re.fullmatch(r"mobilenet(?:-(\d+(?:\.\d+)?))?", name.lower()):
        return MobileNetV2(float(multiplier[1] or 1), channels, classes, rng=rng)
    sizes = [int(number) for number in re.findall(r"\d+", name)]
    if re.fullmatch(r"lenet-bn|[a-z]+\d*(-\d+)*", name.lower()):
        first = sizes[0] if sizes else None
        if kind == "lenet" and not sizes:
            return LeNet(channels, classes, name.lower() == "lenet-bn", rng)
        if kind == "separable" and len(sizes) <= 1:
            return Separable(first or 32, channels, classes, rng)
        if kind == "vgg" and len(sizes) <= 1:
            return VGGLike(first or 64, channels, classes, rng=rng)
        if kind == "resnet" and len(sizes) <= 2:
            return ResNet(first or 20, sizes[1] if len(sizes) > 1 else 16, channels, classes, rng)
        if kind == "fcdnn" and len(sizes) <= 2:
            return FCDNN(first or 128, sizes[1] if len(sizes) > 1 else 3, in_features, classes, rng=rng)
        if kind == "lstm" and len(sizes) <= 1:
            return LanguageModel(classes, first or 300, first or 300, rng=rng)
    close = difflib.get_close_matches(name.lower(), NOTATIONS, n=1)
    raise ValueError(
        f"there is no model {name!r}"
        + (f"; did you mean {close[0]!r}?" if close else "")
        + "\nmodels: "
        + "\n        ".join(f"{key:<10} {text}" for key, text in NOTATIONS.items())
    )
