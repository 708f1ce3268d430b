"""How wide should a step be for bell-shaped numbers? λ answers: the scale, in standard deviations, of least error.

For x ~ N(0, 1) and a codebook α·m₀ < α·m₁ < … on the positive side, mirrored on the negative one, the error

    D(α) = E[(x − Q(x))²] = 2 Σᵢ ∫ (x − α mᵢ)² φ(x) dx      over the cell α·eᵢ ≤ x ≤ α·eᵢ₊₁

is a sum of closed forms, because φ and Φ are: ∫ φ = Φ,  ∫ x φ = −φ,  ∫ x² φ = Φ − x φ. λ_b = argmin D (AutoQNN §3.1,
where the numbers were lost). The tables are this file's output, solved when first asked for and then remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache


@lru_cache
def clip_lambda(bits: int) -> float:
    """λ of ClipQ: levels ½, 1½, 2½, … with edges halfway between them.

    >>> [round(clip_lambda(bits), 4) for bits in (1, 2, 3, 4)]
    [1.5958, 0.9957, 0.586, 0.3352]
    """
    return _argmin(lambda alpha: distortion(alpha, *clip_cells(bits)))


@lru_cache
def pot_lambda(bits: int) -> float:
    """λ of PotQ: levels ½, 2, 4, 8, … with edges at √2, 2√2, 4√2, … where the rounded log2 changes.

    No list of these was published. Quadrature of D on every cell, which shares nothing with the closed forms here, has
    its minima at 0.73790, 0.26954 and 0.032803 for 2, 3 and 4 bits.

    >>> [float(f"{pot_lambda(bits):.4g}") for bits in (2, 3, 4)]
    [0.7379, 0.2695, 0.0328]
    """
    return _argmin(lambda alpha: distortion(alpha, *pot_cells(bits)))


def clip_cells(bits: int) -> tuple[list[float], list[float]]:
    """Positive levels of ClipQ and the edges of their cells, for α = 1."""
    half = 2 ** (bits - 1)
    return [k + 0.5 for k in range(half)], [*[float(k) for k in range(half)], math.inf]


def pot_cells(bits: int) -> tuple[list[float], list[float]]:
    """Positive levels of PotQ and the edges of their cells, for α = 1."""
    half = 2 ** (bits - 1)
    return [0.5, *[2.0**n for n in range(1, half)]], [0.0, *[2.0 ** (n - 0.5) for n in range(1, half)], math.inf]


def distortion(alpha: float, levels: Sequence[float], edges: Sequence[float]) -> float:
    """D(α) for x ~ N(0, 1): the mean squared error of the codebook ±α·levels with cells between α·edges.

    >>> round(distortion(1.5958, *clip_cells(1)), 4)
    0.3634
    """
    total, below = 0.0, _integrals(0.0)
    for level, edge in zip(levels, edges[1:]):
        above = _integrals(alpha * edge)
        zeroth, first, second = [b - a for a, b in zip(below, above)]
        value = alpha * level
        total += second - 2 * value * first + value * value * zeroth
        below = above
    return 2 * total


def _integrals(x: float) -> tuple[float, float, float]:
    """∫ φ, ∫ t φ and ∫ t² φ from 0 to x, up to constants."""
    if x == math.inf:
        return 0.5, 0.0, 0.5
    density = math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    mass = 0.5 * math.erf(x / math.sqrt(2))
    return mass, -density, mass - x * density


def _argmin(f: Callable[[float], float]) -> float:
    """The minimum of f on (0, 4]: the best of a coarse grid, then golden sections around it."""
    grid = [4.0 * 2 ** (-i / 4) for i in range(40)]
    best = min(range(1, len(grid) - 1), key=lambda i: f(grid[i]))
    lo, hi = grid[best + 1], grid[best - 1]
    ratio = (math.sqrt(5) - 1) / 2
    a, b = hi - ratio * (hi - lo), lo + ratio * (hi - lo)
    fa, fb = f(a), f(b)
    while hi - lo > 1e-9 * hi:
        if fa < fb:
            hi, b, fb = b, a, fa
            a = hi - ratio * (hi - lo)
            fa = f(a)
        else:
            lo, a, fa = a, b, fb
            b = lo + ratio * (hi - lo)
            fb = f(b)
    return (lo + hi) / 2
