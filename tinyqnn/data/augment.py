"""A photograph shifted by a few pixels, or seen in a mirror, still shows the same thing; networks have to be told so.

What is told here is the augmentation of the ResNet paper for CIFAR (He et al. 2015, §4.2), used by all the papers
reproduced.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def crop_and_flip(images: NDArray, rng: np.random.Generator, padding: int = 4, flip: bool = True) -> NDArray:
    """Each image is put into a frame of `padding` zeros, cut out again at a random place, and mirrored with
    probability ½.

    images (N, C, H, W), bytes or floats; the result has the same shape and type, and is channels-last in memory.

    >>> images = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> crop_and_flip(images, np.random.default_rng(0), padding=1)[0, 0].tolist()
    [[6, 5, 4], [9, 8, 7], [0, 0, 0]]
    """
    n, c, h, w = images.shape
    framed = np.zeros((n, h + 2 * padding, w + 2 * padding, c), images.dtype)
    framed[:, padding : padding + h, padding : padding + w] = images.transpose(0, 2, 3, 1)
    top, left = rng.integers(0, 2 * padding + 1, (2, n)).tolist()
    mirror = np.less(rng.random(n), 0.5) & flip
    out = np.empty((n, h, w, c), images.dtype)
    for i in range(n):
        window = framed[i, top[i] : top[i] + h, left[i] : left[i] + w]
        out[i] = window[:, ::-1] if mirror[i] else window
    return out.transpose(0, 3, 1, 2)
