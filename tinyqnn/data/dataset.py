"""A data set is two piles of examples: one to learn from, one that is looked at only to keep the score.

Images keep the bytes they were stored with. A network never sees those: it sees (pixel / 255 − mean) / std in
float32, computed for one batch at a time, so that CIFAR-10 costs 184 MB of memory and not 737.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def channels_last(images: NDArray) -> NDArray:
    """The same (N, C, H, W) array with each pixel's channels side by side in memory; copies only if it has to.

    >>> channels_last(np.zeros((2, 3, 4, 5), np.uint8)).strides
    (60, 1, 15, 3)
    """
    pixels = images.transpose(0, 2, 3, 1)
    # By way of one flat row, because NumPy lets an axis of length 1 keep whatever stride it had.
    return np.ascontiguousarray(pixels).reshape(-1).reshape(pixels.shape).transpose(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples `x` and their answers `y`, checked once and then left alone.

    x  images (N, C, H, W), bytes or floats, channels-last in memory whatever came in; or vectors (N, D), floats; or
       token numbers (N, L), integers
    y  labels (N,), integers from 0; or real targets, floats, one row an example
    mean, std  one number a channel on the scale where white is 1; only for images stored as bytes (default: 0 and 1)

    Raises ValueError when x and y differ in length, when there is no example, or when a float is NaN or infinite.

    >>> pixels = np.full((2, 1, 2, 2), 255, np.uint8)
    >>> split = Split(pixels, [0, 1], mean=(0.5,), std=(0.25,))
    >>> len(split), split.inputs().dtype.name, split.inputs()[0, 0].tolist()
    (2, 'float32', [[2.0, 2.0], [2.0, 2.0]])
    """

    x: NDArray
    y: NDArray
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        x, y = _array("x", self.x), _array("y", self.y)
        if x.ndim < 2:
            raise ValueError(f"x: expected one row an example, (N, D) or (N, C, H, W), got shape {x.shape}; reshape it")
        if y.ndim < 1 or len(x) != len(y):
            raise ValueError(f"x and y: expected as many answers as examples, got x {x.shape} and y {y.shape}")
        if len(x) == 0:
            raise ValueError("x: a split needs at least one example, got none")
        if x.ndim == 4:
            x = channels_last(x)
        if y.dtype.kind != "f":
            y = y.astype(np.int64, copy=False)
            if y.min() < 0:
                raise ValueError(f"y: labels count from 0, got {int(y.min())} at index {int(y.argmin())}")
        pixels = x.ndim == 4 and x.dtype == np.uint8
        if not pixels and (self.mean is not None or self.std is not None):
            raise ValueError(
                f"mean, std: only for images stored as uint8 (N, C, H, W), got {x.dtype} {x.shape}; "
                "normalize x yourself and leave them out"
            )
        if pixels:
            channels = x.shape[1]
            mean = tuple(float(m) for m in (self.mean if self.mean is not None else [0.0] * channels))
            std = tuple(float(s) for s in (self.std if self.std is not None else [1.0] * channels))
            if len(mean) != channels or len(std) != channels:
                raise ValueError(
                    f"mean, std: expected {channels} numbers each, one a channel, got {len(mean)} and {len(std)}"
                )
            if not all(np.isfinite(mean)) or not all(np.isfinite(std)) or min(std) <= 0:
                raise ValueError(f"mean, std: expected finite numbers and std > 0, got mean {mean}, std {std}")
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: ArrayLike) -> Split:
        """The examples at `indices` (integers), as a split of their own."""
        indices = np.asarray(indices)
        return Split(pick(self.x, indices), self.y[indices], self.mean, self.std)

    def inputs(self, indices: NDArray | slice | None = None) -> NDArray:
        """What a network sees of the examples at `indices` (all by default): float images channels-last, or x as it
        is."""
        return self.normalize(pick(self.x, slice(None) if indices is None else indices))

    def normalize(self, x: NDArray) -> NDArray:
        """Bytes (N, C, H, W) -> (x / 255 − mean) / std, float32, channels-last. Anything but uint8 images is
        returned as it is."""
        if self.mean is None or self.std is None or x.dtype != np.uint8:
            return x
        n, c, h, w = x.shape
        std = np.asarray(self.std)
        scale = np.tile(1.0 / (255.0 * std), h * w).astype(np.float32)  # (H·W·C,), so that NumPy's inner loop is long
        shift = np.tile(-np.asarray(self.mean) / std, h * w).astype(np.float32)
        rows = channels_last(x).transpose(0, 2, 3, 1).reshape(n, h * w * c)  # (N, C, H, W) -> (N, H·W·C), no copy
        out = np.multiply(rows, scale, dtype=np.float32)
        out += shift
        return out.reshape(n, h, w, c).transpose(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A `train` and a `test` split of the same kind, the names of the classes, and what ought to be said of them.

    note        what a result obtained from this copy has to mention ("pixels differ from the official files …"), or ""
    source      the folder it was read from, "" if it was made on the spot
    vocabulary  for text: the word behind each token number

    >>> points = Split([[0.0, 1.0], [2.0, 3.0]], [0, 1])
    >>> print(Dataset("mine", train=points, test=points, classes=("left", "right")))
    mine: 2 training and 2 test examples of shape (2,), 2 classes
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    note: str = ""
    source: str = ""
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise ValueError(
                f"{self.name}: training examples have shape {self.train.x.shape[1:]}, "
                f"test examples {self.test.x.shape[1:]}; they must agree"
            )
        object.__setattr__(self, "classes", tuple(self.classes))
        for part, split in (("train", self.train), ("test", self.test)):
            if self.classes and split.y.dtype.kind == "i" and split.y.max() >= len(self.classes):
                where = int(split.y.argmax())
                raise ValueError(
                    f"{self.name}: {part} label {int(split.y.max())} at index {where}, but there are only "
                    f"{len(self.classes)} classes (labels 0 … {len(self.classes) - 1})"
                )

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test examples "
            f"of shape {self.train.x.shape[1:]}"
            + (f", {len(self.classes)} classes" if self.classes else "")
            + (f", from {self.source}" if self.source else "")
            + (f" ({self.note})" if self.note else "")
        )


@dataclass(frozen=True, eq=False)
class Corpus:
    """Running text as token numbers, cut into `train`, `valid` and `test` (each a 1-D int64 array), and the words
    behind them.

    best_perplexity  e to the power of the source's true entropy a token, where that is known: no model can do better
                     in the long run

    >>> corpus = Corpus("mine", np.array([0, 1, 0]), np.array([1]), np.array([0]), vocabulary=("a", "b"))
    >>> corpus.words(corpus.train)
    'a b a'
    """

    name: str
    train: NDArray
    valid: NDArray
    test: NDArray
    vocabulary: tuple[str, ...]
    note: str = ""
    source: str = ""
    best_perplexity: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        for part in ("train", "valid", "test"):
            tokens = _array(part, getattr(self, part))
            if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                raise ValueError(
                    f"{self.name}: {part} must be one row of token numbers, got {tokens.dtype} {tokens.shape}"
                )
            if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self.vocabulary):
                raise ValueError(
                    f"{self.name}: {part} has tokens {int(tokens.min())} … {int(tokens.max())}, "
                    f"the vocabulary has 0 … {len(self.vocabulary) - 1}"
                )
            object.__setattr__(self, part, tokens.astype(np.int64, copy=False))

    def words(self, tokens: ArrayLike) -> str:
        """The text of some token numbers."""
        return " ".join(self.vocabulary[int(token)] for token in np.asarray(tokens).ravel())

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.train):,} / {len(self.valid):,} / {len(self.test):,} tokens, "
            f"{len(self.vocabulary):,} words"
            + (f", from {self.source}" if self.source else "")
            + (f" ({self.note})" if self.note else "")
        )


def validation_split(split: Split, part: float | int, rng: np.random.Generator | None = None) -> tuple[Split, Split]:
    """Lays `part` of a split aside: a fraction (0 < part < 1) or a count. Returns (the rest, what was laid aside).

    With an `rng` the examples laid aside are drawn at random, without one they are the last. Both keep the order
    they had.

    >>> rest, valid = validation_split(Split(np.eye(10), range(10)), 0.3)
    >>> rest.y.tolist(), valid.y.tolist()
    ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])
    """
    n = len(split)
    count = round(part * n) if isinstance(part, float) else int(part)
    if not 0 < count < n:
        raise ValueError(f"part: expected a fraction between 0 and 1 or a count from 1 to {n - 1}, got {part!r}")
    order = np.arange(n) if rng is None else rng.permutation(n)
    return split.take(np.sort(order[: n - count])), split.take(np.sort(order[n - count :]))


def pick(x: NDArray, indices: NDArray | slice) -> NDArray:
    """x[indices], images gathered so that they stay channels-last."""
    if x.ndim == 4:
        return x.transpose(0, 2, 3, 1)[indices].transpose(0, 3, 1, 2)
    return x[indices]


def _array(name: str, value: object) -> NDArray:
    """A numeric array; bool counts as 0 and 1; refuses text, objects, complex numbers, NaN and infinities."""
    array = np.asarray(value)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got an array of {array.dtype}; convert it first")
    if array.dtype.kind == "f":
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        # A sum is NaN or infinite as soon as one term is, and takes one pass without a temporary; then look closely.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(array.sum(dtype=np.float64))
        if suspicious:
            bad = ~np.isfinite(array)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{name}: {int(bad.sum())} of {array.size} numbers are NaN or infinite, "
                    f"the first at {first}; clean the data before training on it"
                )
    return array
