"""Scenes drawn on the spot: figures on a textured ground, and for every pixel the name of what it shows.

A stand-in for street and room pictures where segmentation is learned: some figures are large, some are thin, they lie
on top of each other, and neither their colour nor their texture tells what they are. Only the shape does.

    0 ground   1 disc   2 square   3 triangle   4 ring (thin)   5 bar (thin)

Every figure is a condition on the pixel's place (u, v) in the figure's own turned frame, in units of its size:
disc u² + v² < 1; square |u|, |v| < 0.85; triangle; ring 0.7² < u² + v² < 1; bar |u| < 1.4, |v| < 0.16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Split

CLASSES = ("ground", "disc", "square", "triangle", "ring", "bar")
COLOURS = np.array(
    [[0.5, 0.5, 0.5], [0.9, 0.3, 0.2], [0.2, 0.8, 0.3], [0.3, 0.3, 0.9], [0.9, 0.8, 0.2], [0.7, 0.2, 0.8]]
)
HINT = 0.5  # how much of a figure's colour is its class's
MEAN, STD = (0.5, 0.5, 0.5), (0.22, 0.22, 0.22)


def load(
    rng: np.random.Generator | None = None, train: int = 1500, test: int = 500, side: int = 32, figures: int = 4
) -> Dataset:
    """`train` + `test` pictures (N, 3, side, side), bytes, and answers (N, side, side), a class number a pixel.

    rng       draws them; without one, everybody gets the same scenes
    figures   at most so many in a picture, at least one

    >>> data = load(train=4, test=2)
    >>> data.train.x.shape, data.train.y.shape, data.classes[5]
    ((4, 3, 32, 32), (4, 32, 32), 'bar')
    """
    if min(train, test, figures) < 1 or side < 8:
        raise ValueError(
            f"train, test and figures are 1 or more and side 8 or more, got {train}, {test}, {figures} and {side}"
        )
    rng = np.random.default_rng(3) if rng is None else rng
    drawn = [draw(rng, side, figures) for _ in range(train + test)]
    images = np.stack([image for image, _ in drawn])
    labels = np.stack([label for _, label in drawn])
    parts = [Split(images[part], labels[part], MEAN, STD) for part in (slice(train), slice(train, None))]
    return Dataset("scenes", parts[0], parts[1], CLASSES)


def draw(rng: np.random.Generator, side: int, figures: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One scene: a picture (3, side, side) and its labels (side, side).

    >>> image, label = draw(np.random.default_rng(0), 16, 2)
    >>> image.shape, label.shape, image.dtype.name
    ((3, 16, 16), (16, 16), 'uint8')
    """
    y, x = np.mgrid[:side, :side] + 0.5
    picture = texture(rng, x, y)
    label = np.zeros((side, side), np.int64)
    for _ in range(rng.integers(1, figures + 1)):
        kind = int(rng.integers(1, len(CLASSES)))
        size = side * rng.uniform(0.14, 0.3)
        angle = rng.uniform(0, 2 * np.pi)
        dx, dy = x - rng.uniform(0.15, 0.85) * side, y - rng.uniform(0.15, 0.85) * side
        u = (np.cos(angle) * dx + np.sin(angle) * dy) / size
        v = (np.cos(angle) * dy - np.sin(angle) * dx) / size
        inside = _inside(kind, u, v)
        picture = np.where(inside, texture(rng, x, y, kind), picture)
        label[inside] = kind
    noisy = picture + rng.normal(0, 0.03, picture.shape)
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8), label


def texture(rng: np.random.Generator, x: NDArray, y: NDArray, kind: int = 0) -> NDArray:
    """Stripes of a random direction and colour on a colour, random but for the hint: (3, side, side), about 0 to 1."""
    direction, period = rng.uniform(0, 2 * np.pi), rng.uniform(3, 12)
    wave = np.sin((x * np.cos(direction) + y * np.sin(direction)) * 2 * np.pi / period + rng.uniform(0, 6))
    colour, strength = rng.uniform(0.1, 0.9, (3, 1, 1)), rng.uniform(-0.12, 0.12, (3, 1, 1))
    if kind:
        colour = HINT * COLOURS[kind].reshape(3, 1, 1) + (1 - HINT) * colour
    return colour + strength * wave


def _inside(kind: int, u: NDArray, v: NDArray) -> NDArray[np.bool_]:
    radius = np.hypot(u, v)
    if kind == 1:
        return radius < 1
    if kind == 2:
        return np.maximum(np.abs(u), np.abs(v)) < 0.85
    if kind == 3:  # three half planes, each 0.55 away from the middle
        return np.max([u * np.cos(a) + v * np.sin(a) for a in (0.0, 2 * np.pi / 3, 4 * np.pi / 3)], axis=0) < 0.55
    if kind == 4:
        return (radius < 1) & (radius > 0.7)
    return (np.abs(u) < 1.4) & (np.abs(v) < 0.16)
