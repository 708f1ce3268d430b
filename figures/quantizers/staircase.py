"""A scheme in one picture: the staircase, under it the gradient that goes back, beside them the numbers at the edges.

Everything is asked of the scheme itself: edges are found by bisection, dots are filled where the edge belongs. So that
edges are numbers that a computer has, parameters are rounded to multiples of 1/1024; PotQ's √2 is none all the same.

    python figures/quantizers/clip.py       a second; the others likewise
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import Tensor, picture
from tinyqnn.quant import Quantizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from drawing import beside, record


def jumps(f: Any, grid: np.ndarray) -> list[tuple[float, float]]:
    """Between which neighbouring numbers f changes its value: (last of the old, first of the new)."""
    found = []
    values = f(grid)
    for i in np.flatnonzero(values[1:] != values[:-1]):
        low, high, before = grid[i], grid[i + 1], values[i]
        for _ in range(1200):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            low, high = (middle, high) if f(np.array([middle]))[0] == before else (low, middle)
        found.append((float(low), float(high)))
    return found


def gradient(q: Quantizer, x: np.ndarray, params: Any) -> np.ndarray:
    """∂Q/∂x at each x, with parameters held; PACT's with its clip learning."""
    leaf = Tensor(x, requires_grad=True)
    y = q(leaf) if not q.sees_data else q(leaf, params)
    y.backward(np.ones_like(x))
    return np.zeros_like(x) if leaf.grad is None else leaf.grad


def draw(source: str, q: Quantizer, title: str, span: float = 4.0, x: np.ndarray | None = None) -> None:
    """The picture of `q`, with the parameters of numbers that are as normal as can be (or of `x`)."""
    from statistics import NormalDist

    if x is None:
        x = np.array([NormalDist().inv_cdf((i + 0.5) / 1001) for i in range(1001)])
        x = x / x.std()
    params = {name: np.round(value * 1024) / 1024 for name, value in q.fit(x).items()}
    grid = np.linspace(-span, span, 4001) + 1.234567e-7  # no grid point on an edge by chance
    with beside(source, 8, 4.6) as made:
        spec = made.add_gridspec(2, 2, height_ratios=(3, 1), width_ratios=(3, 1.75))
        top, below, right = made.add_subplot(spec[0, 0]), made.add_subplot(spec[1, 0]), made.add_subplot(spec[:, 1])
        made.suptitle(title)
        top.plot([-span, span], [-span, span], color=picture.GREY, linewidth=0.8, linestyle=":")
        top.annotate("Q = x", (-0.7 * span, -0.95 * span), color=picture.GREY, fontsize=9)
        rows = steps(top, lambda v: q.quantize(v, params), grid, picture.BLUE)
        steps(below, lambda v: gradient(q, v, params), grid, picture.RED)
        top.set(ylabel="Q(x)", xlim=(-span, span), xticklabels=[])
        below.set(
            ylabel="∂Q/∂x", xlabel="x, in standard deviations", xlim=(-span, span), ylim=(-0.25, 1.35), yticks=[0, 1]
        )
        limits = q.limits(**params)
        shown = " ".join(f"{name} = {np.round(value, 4).tolist()}" for name, value in params.items())
        lines = [f"{q.notation}: {shown}" if len(shown) < 26 else q.notation, ""]
        lines += [f"{'edge x':>9} {'below':>8} {'at x':>8} {'above':>8}"]
        few = rows if len(rows) <= 14 else [*rows[:6], None, *rows[-6:]]
        lines += [_line(row) for row in few]
        lines += ["", "gradient: 1 everywhere" if limits is None else f"gradient: 1 for {float(limits[0]):.4f} ≤ x"]
        if limits is not None:
            lines += [f"          and x {'<' if not q.sees_data else '≤'} {float(limits[1]):.4f}, else 0"]
        right.axis("off")
        right.text(0, 1, "\n".join(lines), family="monospace", fontsize=8, va="top", transform=right.transAxes)
        numbers = {"scheme": repr(q), "params": {k: np.asarray(v).tolist() for k, v in params.items()},
                  "edges": [dict(zip(("x", "below", "at", "above"), _plain(row))) for row in rows],
                  "gradient_limits": None if limits is None else [float(v) for v in limits]}  # fmt: skip
        record(source, numbers)


def _plain(row: tuple[float, float, float, float]) -> list[float | None]:
    """A row as JSON wants it."""
    return [None if np.isnan(value) else value for value in row]


def span_of(grid: np.ndarray) -> float:
    """The largest number of a grid."""
    return float(np.abs(grid).max())


def _line(row: tuple[float, float, float, float] | None) -> str:
    """A row of the table of edges."""
    if row is None:
        return f"{'…':>9}"
    at = f"{'–':>8}" if np.isnan(row[2]) else f"{row[2]:8.4f}"
    return f"{row[0] + 0.0:9.4f} {row[1]:8.4f} {at} {row[3]:8.4f}"


def steps(axes: Any, f: Any, grid: np.ndarray, colour: str) -> list[tuple[float, float, float, float]]:
    """Draw a staircase with filled dots where an edge belongs and hollow ones where not; return its edges."""
    found = jumps(f, grid)
    starts, stops = [grid[0], *(high for _, high in found)], [*(low for low, _ in found), grid[-1]]
    rows = []
    for start, stop in zip(starts, stops):
        value = f(np.array([0.5 * (start + stop)]))[0]
        axes.plot([start, stop], [value, value], color=colour, linewidth=2)
    many = len(found) > 40
    for low, high in found:
        below, above = (float(f(np.array([v]))[0]) for v in (low, high))
        edge = round(high * 2**20) / 2**20  # x + ½ is rounded, so the jump may come one number early
        exact = abs(edge - high) <= 4e-16 * max(1, abs(high), span_of(grid))
        edge = edge if exact else high
        at = float(f(np.array([edge]))[0]) if exact else float("nan")
        if not many:
            axes.plot([edge] * 2, [below, above], color=colour, linewidth=0.6, linestyle=":")
            for value in (below, above):
                face = colour if value == at else "white"
                axes.plot([edge], [value], "o", ms=4.5, markerfacecolor=face, markeredgecolor=colour, zorder=3)
        rows.append((edge, below, at, above))
    return rows
