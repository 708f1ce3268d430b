"""Ten half rings around each other, of two kinds: points in the plane, so that one can see what quantization does to
a network.

The synthetic set of "Holistic" §3.1, eqs. (5)–(7). For ring k = 0 … 4 and label l ∈ {0, 1}:

    upper half   radius 2k + 1 + l      (cos φ, sin φ) · radius,   φ = 0 … π in 100 equal steps
    lower half   radius 2k + 2 − l      the same with φ = π … 2π

so the labels take turns from the middle outwards, and are the other way round below the x-axis. These 2,000 core
points, and nine copies of each moved by Gaussian noise of σ = 0.25, are the 10,000 training points of each label. A
point of the plane belongs to the label of the nearest half ring. (The equations' figures are not in the paper's
text; radii and σ are our reading.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Split

RINGS = 5
EXTENT = 10.5  # the plane that is looked at: [−10.5, 10.5]²
SIGMA = 0.25


def load(rng: np.random.Generator | None = None, copies: int = 9, side: int = 211) -> Dataset:
    """20,000 noisy training points (N, 2), float32, and as test set the points of a side × side grid that lie within
    radius 10.5.

    rng     draws the noise; without one, everybody gets the same points
    copies  noisy copies of each core point

    >>> data = load()
    >>> data.train.x.shape, np.bincount(data.train.y).tolist(), data.test.x.shape
    ((20000, 2), [10000, 10000], (34621, 2))
    """
    if copies < 0 or side < 2:
        raise ValueError(f"copies, side: expected at least 0 and 2, got {copies} and {side}")
    rng = np.random.default_rng(1) if rng is None else rng
    core, labels = core_points()
    noise = rng.normal(0.0, SIGMA, (copies, *core.shape))
    # (copies + 1, 2000, 2) -> (N, 2)
    points = np.concatenate([core[None], core + noise]).reshape(-1, 2).astype(np.float32)
    plane = grid(side)
    plane = plane[np.hypot(*plane.T) <= EXTENT]
    train = Split(points, np.tile(labels, copies + 1))
    return Dataset("rings", train, Split(plane, nearest_label(plane)), ("0", "1"))


def core_points() -> tuple[NDArray, NDArray]:
    """The 2,000 points without noise, (2000, 2), and their labels. Holistic eqs. (5), (6)."""
    upper = np.linspace(0.0, np.pi, 100)
    points, labels = [], []
    for k in range(RINGS):
        for label in (0, 1):
            for angle, radius in ((upper, 2 * k + 1 + label), (upper + np.pi, 2 * k + 2 - label)):
                points.append(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
                labels.append(np.full(100, label))
    return np.concatenate(points), np.concatenate(labels)


def nearest_label(points: NDArray) -> NDArray[np.int64]:
    """The label of the half ring nearest to each of the points (N, 2).

    Every whole radius from 1 to 10 is taken in both halves, so the nearest one lies in the point's own half: radius
    r rounded.

    >>> nearest_label(np.array([[0.0, 1.1], [0.0, 1.9], [0.0, -1.1], [0.0, -9.8]])).tolist()
    [0, 1, 1, 0]
    """
    x, y = points.T
    radius = np.clip(np.floor(np.hypot(x, y) + 0.5), 1, 2 * RINGS).astype(np.int64)
    odd = radius % 2
    return np.where(y >= 0, 1 - odd, odd)


def grid(side: int = 211) -> NDArray[np.float32]:
    """side × side points over [−10.5, 10.5]², row by row from the top; (side², 2). For pictures of what a network
    decides.

    >>> grid(2).tolist()
    [[-10.5, 10.5], [10.5, 10.5], [-10.5, -10.5], [10.5, -10.5]]
    """
    line = np.linspace(-EXTENT, EXTENT, side)
    x, y = np.meshgrid(line, line[::-1])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
