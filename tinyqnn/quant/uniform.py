"""Uniform: equal steps, and of all steps the one with the least squared error on the very numbers at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant.base import Array, Quantizer, nonzero, refuse_unknown


class Uniform(Quantizer):
    """U-b, 2 to 8 bits, unsigned from 1 (Holistic eq. (1); the step after Hwang & Sung 2014).

    signed     True for weights; False after ReLU
    levels     signed only: 2^b − 1 (the default, with 0 in the middle) or 2^b (an even number, ±½Δ in the middle):
               at 2 bits the three-level and the four-level form

    codebook    Δ·k,        k = −(2^(b−1) − 1) … 2^(b−1) − 1         signed, 2^b − 1 levels
                Δ·(k + ½),  k = −2^(b−1) … 2^(b−1) − 1               signed, 2^b levels
                Δ·k,        k = 0 … 2^b − 1                          unsigned
    encode      x̂ = clip(⌊x/Δ + ½⌋, first k, last k);  ⌊x/Δ⌋ where the levels are even
    decode      Q(x) = Δ·x̂;  Δ·(x̂ + ½) where the levels are even
    gradient    signed: plain straight-through, 1 everywhere (Holistic eq. (4): the update goes to the float weights)
                unsigned: clipped, 1 where 0 ≤ x ≤ Δ·(2^b − 1), both ends included, else 0

    Δ minimises ‖x − Q(x)‖², see `least_squares_step`; the parameter is called `scale`. A tensor of zeros has Δ = 0 and
    stays zeros; one element becomes itself (unsigned: if it is not negative).

    Corner cases, for Δ = 1: three levels, four levels, unsigned. Ties go up:

    >>> from tinyqnn.quant.card import card
    >>> card(Uniform(bits=2), [0.0, -0.0, 0.5, -0.5, -0.75, 1.0, 9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.0      1
        -0.0     0    0.0      1
         0.5     1    1.0      1
        -0.5     0    0.0      1
       -0.75    -1   -1.0      1
         1.0     1    1.0      1
         9.0     1    1.0      1
    >>> card(Uniform(bits=2, levels=4), [0.0, -0.0, 1.0, -1.0, 1.5, -9.0], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.5      1
        -0.0     0    0.5      1
         1.0     1    1.5      1
        -1.0    -1   -0.5      1
         1.5     1    1.5      1
        -9.0    -2   -1.5      1
    >>> card(Uniform(bits=2, signed=False), [0.0, -0.0, 0.5, 3.0, 3.25, -0.25], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.0      1
        -0.0     0    0.0      1
         0.5     1    1.0      1
         3.0     3    3.0      1
        3.25     3    3.0      0
       -0.25     0    0.0      0
    >>> Uniform(bits=2).quantize(np.zeros(3)).tolist(), Uniform(bits=2).quantize(np.array([7.0])).tolist()
    ([0.0, 0.0, 0.0], [7.0])

    Value and gradient:

    >>> from tinyqnn import Tensor
    >>> x = Tensor(np.array([-3.0, -0.2, 0.4, 1.0]), requires_grad=True)
    >>> y = Uniform(bits=3)(x); y.sum().backward()
    >>> y.data.round(3).tolist(), x.grad.tolist()
    ([-3.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0])

    Differs from released code: there is none.
    """

    letter = "U"
    widths = range(1, 9)
    signed: bool
    levels: int

    def __init__(
        self, bits: int | None = None, *, signed: bool = True, levels: int | None = None, axis: int | None = None,
        **unknown: Any,
    ) -> None:  # fmt: skip
        refuse_unknown(self, unknown, ("bits", "signed", "levels", "axis"))
        width = self._checked_width(bits)
        if signed and width == 1:
            raise ValueError("Uniform: bits must be a whole number from 2 to 8 when signed, got 1; Binary has 1 bit")
        self.signed = bool(signed)
        allowed = (2**width - 1, 2**width) if signed else (2**width,)
        self.levels = allowed[0] if levels is None else levels
        if self.levels not in allowed:
            known = " or ".join(map(str, allowed))
            raise ValueError(f"Uniform: levels must be {known} at {width} bits, got {levels!r}")
        super().__init__(bits, axis=axis)

    def codes_of_width(self) -> Array:
        if not self.signed:
            return np.arange(self.levels).astype(np.uint8)
        return (np.arange(self.levels) - self.levels // 2).astype(np.int8)

    @property
    def _lift(self) -> float:
        """½ where no level is 0."""
        return 0.5 if self.signed and self.levels % 2 == 0 else 0.0

    def measure(self, x: Array) -> dict[str, Any]:
        if not np.isfinite(x.min()):
            return {"scale": np.nan}  # and is refused; below 0 the unsigned form would not see it
        magnitudes = np.abs(x) if self.signed else np.maximum(x, 0)
        positive = self.alphabet[self.alphabet >= 0] + self._lift
        return {"scale": least_squares_step(magnitudes.ravel(), positive)}

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.floor(x / nonzero(scale) + (0.5 - self._lift)), self.alphabet[0], self.alphabet[-1])

    def to_values(self, codes: Array, scale: Array) -> Array:
        return scale * (codes + self._lift)

    def limits(self, scale: Array) -> tuple[Array, Array] | None:
        return None if self.signed else (0 * scale, scale * int(self.alphabet[-1]))

    def compiled(self, scale: Array) -> Any:
        from tinyqnn.kernels import quantize as kernel

        return kernel.affine(scale, 0.0, 0.5 - self._lift, self._lift, self.alphabet[0], self.alphabet[-1])

    def __repr__(self) -> str:
        form = "" if self.signed else ", signed=False"
        form += f", levels={self.levels}" if self._lift else ""
        return super().__repr__()[:-1] + form + ")"


def least_squares_step(magnitudes: Array, levels: Array) -> float:
    """The Δ of least Σ (w − Δ·m)², where every magnitude w ≥ 0 takes its nearest level m out of m₀ < m₁ < … ≥ 0.

    For given codes the best step is Δ = A/B with A = Σ w·m, B = Σ m², and leaves Σ w² − A²/B. Hwang & Sung alternate:
    codes from Δ, Δ from codes. No round makes the error larger and there are finitely many codes, so that ends, though
    perhaps in a local minimum. Therefore:

    - where n · (levels − 1) is small, or there are only two magnitudes, all codes that any Δ can bring about are gone
      through: as Δ falls, one w after another steps up one level, and A and B are running sums over these steps;
    - else the alternation starts from the best steps of a fine grid. With w sorted and summed up once, a round is one
      binary search a level.

    >>> least_squares_step(np.array([1.0, 1.0, 4.0]), np.array([0.0, 1.0]))
    4.0
    """
    w = np.sort(magnitudes).astype(magnitudes.dtype, copy=False)
    if not np.isfinite(w[-1]):
        return float(w[-1])
    if w[-1] == 0:
        return 0.0
    top = float(w[-1])
    rises, squares = np.diff(levels), np.diff(levels**2)
    edges = (levels[1:] + levels[:-1]) / 2  # w takes level k from Δ·edges[k − 1] on
    if len(edges) == 1 or w.size * len(edges) <= 2**16:
        step = _best_of_all(w, top, levels, edges, rises, squares)
    else:
        step = _alternation(w, top, levels, edges, rises, squares)
    return step * top


def _best_of_all(w: Array, top: float, levels: Array, edges: Array, rises: Array, squares: Array) -> float:
    """Go through the codes of every Δ from ∞ down to 0; in units of `top`."""
    n = len(w)
    w = w[::-1].astype(np.float64) / top
    w = w[w > 0]  # zeros stay on the lowest level
    order: Any = slice(None) if len(edges) == 1 else np.argsort(-w[:, None] / edges, axis=None, kind="stable")
    a = levels[0] * w.sum() + np.cumsum((w[:, None] * rises).ravel()[order])
    b = levels[0] ** 2 * n + np.cumsum(np.broadcast_to(squares, (len(w), len(squares))).ravel()[order])
    if levels[0] > 0:  # the codes before the first step
        a, b = np.append(a, levels[0] * w.sum()), np.append(b, levels[0] ** 2 * n)
    best = int(np.argmax(a * a / b))
    return float(a[best] / b[best])


def _alternation(w: Array, top: float, levels: Array, edges: Array, rises: Array, squares: Array) -> float:
    """Codes from Δ, Δ from codes, until they stay; from the best peaks of a grid; in units of `top`."""
    sums = np.concatenate([[0.0], np.cumsum(w, dtype=np.float64)]) / top
    n, total = w.size, float(sums[-1])

    def least_squares(steps: Array) -> tuple[Array, Array, Array]:
        """For each step: how many w lie below each edge, and A and B of these codes."""
        below = np.searchsorted(w, (steps[:, None] * edges * top).astype(w.dtype))  # (steps, levels − 1)
        a = levels[0] * total + ((total - sums[below]) * rises).sum(axis=1)
        b = levels[0] ** 2 * n + ((n - below) * squares).sum(axis=1)
        return below, a, b

    def error_removed(steps: Array) -> Array:
        _, a, b = least_squares(steps.ravel())
        return (a * a / np.maximum(b, 1e-300)).reshape(steps.shape)

    lowest = min(0.5 * total / n / levels[-1], 0.5 / edges[0])
    steps = np.geomspace(1 / edges[0], lowest, max(128, 4096 // len(edges)))
    score = np.concatenate([[-1.0], error_removed(steps), [-1.0]])
    peaks = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] >= score[2:]))
    peaks = peaks[np.argsort(-score[1 + peaks])[:4]]
    high, low = steps[np.maximum(peaks - 1, 0)], steps[np.minimum(peaks + 1, len(steps) - 1)]
    for _ in range(8):  # every round cuts the interval around a peak to a quarter
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 9)
        best = error_removed(grid).argmax(axis=1)
        rows = np.arange(len(peaks))
        low, steps, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, best], grid[rows, np.minimum(best + 1, 8)]
    codes = None
    while True:
        below, a, b = least_squares(steps)
        settled = (np.abs(a / b - steps) <= 2.0**-24 * steps).all()  # float32 could not tell them apart
        if settled or (codes is not None and (below == codes).all()):
            winner = int(np.argmax(a * a / b))
            return float(a[winner] / b[winner])
        codes, steps = below, a / b
