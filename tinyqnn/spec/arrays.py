"""Arrays that quantizers stumble over, and how to make one that does as small as it can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from tinyqnn.tensor import Array

_LATTICE = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5)  # simple numbers, the simplest first
_WORTH_A_LOOK = (
    0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -3.0, 7.0, 13.0, 0.1, -0.001, 1024.0, 1e30, -1e-30, 1e-45, 5e-324
)  # fmt: skip


def hard(dtypes: tuple[type, ...] = (np.float64, np.float32)) -> Iterator[Array]:
    """The same arrays every time: single numbers, then the classic corner cases."""
    for value in _LATTICE:
        yield np.array([value], dtypes[0])
    for dtype in dtypes:
        tiny, top = float(np.finfo(dtype).smallest_subnormal), 1e30
        corners: list[list[float]] = [
            [-0.0, 0.0, -0.0], [7.0, 13.0], [-7.0, 13.0], [2.0**-13, -(2.0**15)], [1e-20, 1.0, -1.0], [top, -top, 0.0],
            [1.0, 1.75, -1.75, 0.25], [3.0, 1.0, 1.0, -1.0], [9.0, 0.0, 0.0, 0.0, 0.25, -0.25], [tiny, -tiny, 0.0],
            [tiny * 1024, -tiny, tiny * 7], [2.5] * 5, [1e6, 1e6 + 0.0625, 1e6 - 0.0625],
            [float(k) for k in range(-8, 9)],
            [0.0, *(k + 0.5 for k in range(8)), 8.0], [5.39, 10.01],
            [0.0, 0.1, 1.0, 1.0, 2.0], [1.75, 1.0, 0.0, -1.0, -1.75],
            [0.5 * k for k in range(-16, 17)], [0.25 * k for k in range(40)],
        ]  # fmt: skip
        for corner in corners:
            yield np.array(corner, dtype)
    yield np.arange(12.0, dtype=dtypes[0]).reshape(3, 4).T
    yield np.arange(-6.0, 6.0, dtype=dtypes[0])[::2]


def draw(rng: np.random.Generator, dtypes: tuple[type, ...] = (np.float64, np.float32)) -> Array:
    """One at random: bells, heavy tails, ties, lumps, constants; huge, tiny, mixed scales; with gaps, transposed."""
    size, dtype = int(rng.choice([1, 2, 3, 5, 8, 12, 40, 300])), dtypes[rng.integers(len(dtypes))]
    kind = rng.integers(8)
    if kind == 0:
        x = rng.standard_normal(size)
    elif kind == 1:
        x = rng.standard_cauchy(size)
    elif kind == 2:
        x = rng.integers(-16, 17, size).astype(np.float64)
    elif kind == 3:
        x = rng.integers(-64, 65, size) / 16
    elif kind == 4:
        x = rng.choice(_WORTH_A_LOOK, size)
    elif kind == 5:
        x = np.abs(rng.laplace(size=size))
    elif kind == 6:
        x = np.full(size, rng.standard_normal())
    else:
        x = rng.standard_normal(size) * np.exp2(rng.integers(-20, 20, size))
    x = np.clip(x * rng.choice([1.0, 1.0, 1.0, 1.0, 1e-30, 1e28, 1e-41]), -1e30, 1e30).astype(dtype)
    layout = rng.integers(5)
    if layout == 0 and size % 2 == 0:
        x = x.reshape(2, -1).T
    elif layout == 1:
        x = np.repeat(x, 2)[::2]
    return x


def shrink(x: Array, fails: Callable[[Array], bool], patience: int = 4000) -> Array:
    """The simplest array found for which `fails` is still true, within `patience` questions.

    First every short array of simple numbers is tried, in order; then elements are left out, and the others made
    rounder one by one, all equal ones together, and all at once, until nothing helps.

    >>> shrink(np.array([[17.3, -4.1], [0.7, 88.0]]), lambda x: bool((x > 5).any())).tolist()
    [6.0]
    """
    asked = 0

    def try_(y: Array) -> bool:
        nonlocal asked
        asked += 1
        return asked <= patience and y.size > 0 and bool(np.isfinite(y).all()) and fails(y)

    for size in (1, 2, 3):
        for values in itertools.product(_LATTICE, repeat=size):
            if size <= x.size and try_(np.array(values)):
                return np.array(values)
    asked = 0
    for plain in (x.reshape(-1).astype(np.float64), x.reshape(-1).copy(), np.ascontiguousarray(x)):
        if try_(plain):
            x = plain
            break
    if x.ndim > 1:
        return x
    better = True
    while better and asked < patience:
        better = False
        for simpler in _simpler(x):
            if np.isfinite(simpler).all() and _cost(simpler) < _cost(x) and try_(simpler):
                x, better = simpler, True
                break
    return x


def _simpler(x: Array) -> Iterator[Array]:
    """Candidates that might be simpler than x, the boldest first."""
    chunk = len(x) // 2
    while chunk:
        for start in range(0, len(x), chunk):
            yield np.delete(x, slice(start, start + chunk))
        chunk //= 2
    for value in np.unique(x):
        for simple in _rounder(float(value)):
            yield np.where(x == value, x.dtype.type(simple), x)
    for i, value in enumerate(x.tolist()):
        for simple in _rounder(value):
            y = x.copy()
            y[i] = simple
            yield y
    sizes = np.abs(x[x != 0])
    for factor in (sizes.max(initial=0), sizes.min(initial=np.inf)):
        if 0 < factor < np.inf:
            with np.errstate(over="ignore", under="ignore"):
                scaled = [x / factor, np.ldexp(x, -int(np.frexp(factor)[1])), np.round(x / factor, 2)]
            yield from scaled
    yield np.round(x)
    yield np.sort(x)


def _rounder(value: float) -> Iterator[float]:
    """Simpler numbers in the place of one."""
    yield from (0.0, 1.0, -1.0, 2.0, 3.0, 0.5)
    yield abs(value)
    yield from (float(np.round(value, digits)) for digits in (0, 1, 2, 3))
    if abs(value) > 1:
        yield float(np.trunc(value) - np.sign(value))
        yield float(np.trunc(value / 2))


def _cost(x: Array) -> tuple[float, ...]:
    """What is less, is simpler: fewer numbers, then fewer digits, then smaller and positive ones, then their order."""
    digits = sum(len(f"{abs(v):g}" if float(f"{v:g}") == v else repr(v)) for v in x.tolist())
    magnitude = float(sum(abs(np.log2(abs(v))) if v else 0.0 for v in x.tolist()))
    disorder = float((np.diff(x) < 0).sum())
    return (len(x), digits, float(np.signbit(x).sum()), float((x != 0).sum()), magnitude, disorder)
