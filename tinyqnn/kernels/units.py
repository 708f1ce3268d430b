"""What is quantized is made of short numbers already: they share a unit, and what is left of each is 8 bits long.

Every value of a quantizer is a scale times a small whole number, or times a power of two. So a quantized tensor is a
unit times numbers of 8 bits, which one bfloat16 holds where a float32 takes three (`thirds.py`), and a product of two
such tensors is one product on tiles in the place of six, one of a tensor and a gradient three. The unit is multiplied
in at the end.

Nobody has to tell: the smallest number of such a tensor is its unit, or a power of two of it, and who multiplies looks
at some of the numbers. Nobody has to be believed: as the numbers are cut, each is compared with what it was, and if one
is something else, the factor is cut once more, into thirds.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import math

import numpy as np

from tinyqnn.kernels.jit import jit

__all__ = ["THIRDS", "tries", "unit", "worth"]

Array = np.ndarray

THIRDS = np.float32(0)  # stands for the unit of a factor that has none: it is cut into thirds
PLACES, RUN = 4, 256  # where numbers are looked at, and how many side by side


def unit(x: Array) -> np.float32:
    """The u, 1 ≤ u < 2, for which a vector x seems to be u times bfloat16 numbers; or THIRDS.

    >>> float(unit(np.array([1.5, -4.5, 3.0, 0.0], np.float32)))
    1.5
    >>> float(unit(np.array([0.1, 0.2001], np.float32)))  # THIRDS
    0.0
    """
    first, *others = [number for number in x[:32].tolist() if number][:8] or [1.0]
    return np.float32(_unit(x)) if all(have_measure(first, other) for other in others) else THIRDS


@jit
def _unit(x):
    """The smallest of some numbers, but for a power of two, or 1, whichever fits them all."""
    stretch = max(1, len(x) // PLACES)
    smallest = np.float32(np.inf)
    for start in range(0, len(x), stretch):
        for size in np.abs(x[start : start + RUN]):
            if 0 < size < smallest:
                smallest = size
    for u in (np.float32(2 * math.frexp(smallest)[0]), np.float32(1)):
        fits = True
        for start in range(0, len(x), stretch):
            for number in x[start : start + RUN]:
                fits &= nearest_short(number / u) * u == number
        if fits:
            return u
    return THIRDS


def have_measure(a: float, b: float) -> bool:
    """Are two numbers, but for powers of two, multiples of a third, and 255 times it at most? Euclid's algorithm.

    Nearly all pairs of float32 numbers are not, which is soon found out.

    >>> have_measure(0.3, -0.7), have_measure(0.3, 4 * 0.7), have_measure(0.3, 0.7001)
    (True, True, False)
    """
    a, b = abs(math.frexp(a)[0]), abs(math.frexp(b)[0])  # from ½ to 1
    while b > 2**-15 and a < 1:  # what is smaller is rounding
        a, b = b, abs(math.remainder(a, b))
    return a > 2**-9.5


@jit
def nearest_short(x):
    """The nearest number of 8 bits, for x up to 2¹¹¹: adding and taking off a number 2¹⁶ times as large leaves no more.

    >>> [nearest_short(np.float32(x)) for x in (1, 1.001, -257.5)]
    [1.0, 1.0, -258.0]
    """
    far = x * np.float32(2**16 + 1)
    return far - (far - x)


def tries(x: Array) -> tuple[np.float32, ...]:
    """The units to try one after the other; the last is THIRDS.

    >>> [float(u) for u in tries(np.array([1.5, -4.5], np.float32))]
    [1.5, 0.0]
    """
    found = unit(x)
    return (found, THIRDS) if found else (THIRDS,)


def worth(one: np.float32, other: np.float32) -> np.float32:
    """What a product of numbers without their units is to be multiplied by.

    >>> float(worth(np.float32(1.5), THIRDS)), float(worth(np.float32(1.5), np.float32(1.25)))
    (1.5, 1.875)
    """
    return (one or np.float32(1)) * (other or np.float32(1))
