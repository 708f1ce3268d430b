"""Digits drawn with a trembling pen: as good as MNIST to learn on, and made in a second without a download.

A digit is a few strokes, a stroke is a smooth curve through a handful of points. Move the points a little, bend and
slant the whole, drag a pen along it, and no two digits come out the same. The pen leaves Gaussian ink; with the ink
laid down at the points p of the curve, a pixel (x, y) gets

    density(x, y) = Σ_p w_p · exp(−(x − p_x)² / 2s²) · exp(−(y − p_y)² / 2s²),     w_p = step_p / (s·√(2π))

which is a product of two matrices, one over rows and one over columns, since a Gaussian is separable. The weights
make the density 1 along the middle of a long straight stroke, whatever the pen's width s.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Split

SIDE = 28
MEAN, STD = (0.16,), (0.31,)  # of the usual 12,000 training images, white = 1
PER_SEGMENT = 8  # ink points between two neighbouring points of a stroke
BLOCK = 250  # images drawn at once: what they need stays in the cache

# Every way of writing a digit. A stroke lists the points it passes, "x,y" in percent of a box, x to the right and y
# downwards; "|" lifts the pen. A corner is where one stroke ends and the next begins.
STYLES = (
    (0, "52,0 18,14 5,50 18,88 50,100 82,86 95,50 82,13 50,0"),
    (0, "62,4 30,10 10,48 22,90 52,98 80,80 88,42 72,8 40,8"),
    (1, "52,0 50,35 50,70 48,100"),
    (1, "28,24 42,14 56,0 | 56,0 55,35 54,70 53,100"),
    (1, "26,26 42,14 54,0 | 54,0 53,50 52,100 | 24,100 52,99 80,100"),
    (2, "10,24 28,3 62,0 86,22 74,50 40,78 8,100 | 8,100 50,97 94,98"),
    (2, "14,20 36,0 70,4 82,28 62,58 32,86 10,94 12,78 34,80 62,98 95,92"),
    (3, "12,12 42,0 78,10 78,36 42,47 | 42,47 80,54 90,80 56,100 10,90"),
    (3, "12,2 46,0 84,2 | 84,2 60,24 42,42 | 42,42 78,48 88,76 56,100 10,90"),
    (4, "34,0 24,28 10,56 | 10,56 50,56 94,52 | 72,14 68,56 64,100"),
    (4, "68,0 36,32 6,66 | 6,66 50,66 96,66 | 68,0 68,50 68,100"),
    (5, "88,2 56,0 26,2 | 26,2 20,22 18,44 | 18,44 52,36 86,52 84,84 50,100 8,90"),
    (5, "80,0 42,6 26,20 30,40 62,50 82,72 60,96 12,96"),
    (6, "74,2 40,18 16,50 16,84 48,100 82,84 78,58 48,50 20,68"),
    (6, "50,0 30,30 20,64 30,94 62,98 80,78 62,60 30,68"),
    (7, "8,4 50,3 90,0 | 90,0 62,42 40,100"),
    (7, "8,6 50,3 90,2 | 90,2 64,44 42,100 | 34,50 58,50 84,48"),
    (7, "8,16 14,2 50,6 86,2 | 86,2 60,34 50,66 48,100"),
    (8, "72,14 46,0 20,16 34,40 70,60 84,82 50,100 16,82 34,58 70,36 72,14"),
    (8, "50,46 22,30 28,6 54,0 78,16 70,38 50,46 | 50,46 16,64 20,94 52,100 84,90 82,62 50,46"),
    (9, "80,20 52,0 20,16 24,44 56,50 80,22 | 80,22 78,60 72,100"),
    (9, "82,16 50,0 18,20 30,46 64,42 82,16 | 82,16 84,60 66,94 22,96"),
)


def load(
    rng: np.random.Generator | None = None, train: int = 12_000, test: int = 2_000, difficulty: float = 1.0
) -> Dataset:
    """`train` + `test` images (N, 1, 28, 28), white on black, the ten digits about equally often.

    rng         draws them; without one, everybody gets the same images (up to the last bit of a pixel, which depends
                on the machine)
    difficulty  0 is neat handwriting, 1 the usual, 2 a scrawl

    >>> data = load(train=20, test=10)
    >>> data.train.x.shape, data.train.x.dtype.name, data.train.y[:5].tolist()
    ((20, 1, 28, 28), 'uint8', [4, 9, 6, 0, 3])
    """
    if train < 1 or test < 1:
        raise ValueError(f"train, test: expected at least 1 image each, got {train} and {test}")
    if not 0 <= difficulty <= 3:
        raise ValueError(f"difficulty: expected 0 … 3, got {difficulty}")
    rng = np.random.default_rng(28) if rng is None else rng
    first, second = (_split(count, rng, difficulty) for count in (train, test))
    return Dataset("glyphs", first, second, tuple("0123456789"))


def _split(count: int, rng: np.random.Generator, difficulty: float) -> Split:
    """The digits in turn, shuffled, and drawn."""
    labels = rng.permutation(np.arange(count) % 10)
    return Split(draw(labels, rng, difficulty), labels, MEAN, STD)


def draw(labels: NDArray, rng: np.random.Generator, difficulty: float = 1.0) -> NDArray[np.uint8]:
    """An image for each of the labels (N,), each in a style of its own; (N, 1, 28, 28), bytes."""
    labels = np.asarray(labels)
    ways = np.bincount([digit for digit, _ in STYLES], minlength=10)  # styles a digit
    first = np.concatenate([[0], np.cumsum(ways)[:-1]])
    style = first[labels] + rng.integers(0, ways[labels])
    images = np.empty((len(labels), SIDE, SIDE), np.uint8)
    for number in range(len(STYLES)):
        members = np.flatnonzero(style == number)
        for start in range(0, len(members), BLOCK):
            block = members[start : start + BLOCK]
            points, steps = _handwriting(number, len(block), rng, difficulty)
            images[block] = _ink(points, steps, rng, difficulty)
    return images[:, None]


def _handwriting(number: int, n: int, rng: np.random.Generator, difficulty: float) -> tuple[NDArray, NDArray]:
    """n versions of a style: where the ink goes, (n, P, 2) in pixels, and the lengths of the curve between (n, P)."""
    anchors, basis, pen_down = _style(number)
    d = difficulty
    moved = anchors + rng.normal(0.0, 0.026 * d, (n, *anchors.shape)).astype(np.float32)  # (n, K, 2)
    points = basis @ moved - np.float32(0.5)  # (P, K) @ (n, K, 2) -> (n, P, 2)
    # Bend: two slow waves, each moving the points along one axis as they go along the other.
    phase, height = rng.uniform(0, 2 * np.pi, (n, 1, 2)), rng.normal(0, 0.058 * d, (n, 1, 2))
    points += height.astype(np.float32) * np.sin(2.2 * np.pi * points[:, :, ::-1] + phase.astype(np.float32))
    # Size, slant, turn, place: one 2×2 matrix and a shift an image.
    turn, slant = rng.normal(0, 0.17 * d, n), rng.normal(-0.1, 0.2 * d, n)
    width, tall = rng.uniform(12 - 2.5 * d, 14 + 2 * d, n), rng.uniform(19 - 3 * d, 20 + 1 * d, n)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array(
        [[cos * width, (cos * slant - sin) * tall], [sin * width, (sin * slant + cos) * tall]], np.float32
    )
    place = ((SIDE - 1) / 2 + rng.normal(0, 1.1 * d, (n, 1, 2))).astype(np.float32)
    points = points @ matrix.transpose(2, 1, 0) + place  # row vectors: times the transpose
    steps = np.zeros(points.shape[:2], np.float32)
    steps[:, 1:] = np.sqrt(((points[:, 1:] - points[:, :-1]) ** 2).sum(axis=2)) * pen_down[1:]
    return points, steps


def _ink(points: NDArray, steps: NDArray, rng: np.random.Generator, difficulty: float) -> NDArray[np.uint8]:
    """The pen dragged along the points, then what paper and scanner add: (n, P, 2), (n, P) -> (n, 28, 28) bytes."""
    n, d = len(points), difficulty
    width = np.exp(rng.normal(-0.08, 0.25 * d, (n, 1, 1))).clip(0.55, 1.6).astype(np.float32)  # s, in pixels
    pixel = np.arange(SIDE, dtype=np.float32)[:, None]  # (28, 1)
    columns = _gauss((pixel - points[:, None, :, 0]) / width)  # (n, 28, P)
    rows = _gauss((pixel - points[:, None, :, 1]) / width)
    rows *= steps[:, None] / (width * np.float32(np.sqrt(2 * np.pi)))
    density = rows @ columns.transpose(0, 2, 1)  # (n, 28, P) @ (n, P, 28) -> (n, 28, 28)
    strength = rng.uniform(1.8 - 0.8 * d, 2.0, (n, 1, 1)).astype(np.float32).clip(0.5)
    ink = np.minimum(strength * density, 1.0)
    # A strip where the pen skipped, in some of the images: what is nearer than `half` to a line at a random angle.
    angle, offset = rng.uniform(0, np.pi, (n, 1, 1)), rng.normal(0, 5, (n, 1, 1))
    half = rng.uniform(0.5, 1.6, (n, 1, 1))
    skips = rng.random(n) < 0.38 * d
    middle = (SIDE - 1) / 2
    distance = np.abs(np.cos(angle) * (pixel.T - middle) + np.sin(angle) * (pixel - middle) - offset)[skips]
    ink[skips] *= np.clip(distance - half[skips] + 0.5, 0, 1).astype(np.float32)
    ink += (0.08 * d * rng.random((n, 1, 1), dtype=np.float32)) * rng.standard_normal(ink.shape, dtype=np.float32)
    return (255 * ink.clip(0, 1) + np.float32(0.5)).astype(np.uint8)


def _gauss(z: NDArray) -> NDArray:
    """exp(−z²/2), cut off at e⁻²⁰: what lies beyond is invisible, but numbers near zero would be slow to multiply."""
    z *= z
    z *= np.float32(-0.5)
    return np.exp(np.maximum(z, np.float32(-20.0), out=z), out=z)


@cache
def _style(number: int) -> tuple[NDArray, NDArray, NDArray]:
    """A style's points (K, 2); the matrix (P, K) that makes curves of them; 0 where a stroke begins and 1 elsewhere
    (P,)."""
    strokes = [[point.split(",") for point in stroke.split()] for stroke in STYLES[number][1].split("|")]
    anchors = np.array([point for stroke in strokes for point in stroke], np.float32) / 100
    blocks = [_spline(len(stroke)) for stroke in strokes]
    basis = np.zeros((sum(len(b) for b in blocks), len(anchors)), np.float32)
    pen_down, row, column = np.ones(len(basis), np.float32), 0, 0
    for block in blocks:
        basis[row : row + len(block), column : column + block.shape[1]] = block
        pen_down[row] = 0
        row, column = row + len(block), column + block.shape[1]
    return anchors, basis, pen_down


def _spline(k: int) -> NDArray:
    """The matrix that turns k points into a smooth curve through them (Catmull and Rom, 1974): (8·(k − 1) + 1, k)."""
    t = np.arange(PER_SEGMENT)[:, None] / PER_SEGMENT
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    matrix = np.zeros((PER_SEGMENT * (k - 1) + 1, k))
    for segment in range(k - 1):
        for i in range(4):  # the two points around, and one more on each side; ends count twice
            column = min(max(segment - 1 + i, 0), k - 1)
            matrix[segment * PER_SEGMENT : (segment + 1) * PER_SEGMENT, column] += weights[:, i]
    matrix[-1, -1] = 1.0
    return matrix
