"""Three of the five mistakes of tutorial 14: the staircase that was claimed, the one there is, the input that tells.

python figures/tutorial_14_mistakes.py       a second
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from drawing import beside

import tinyqnn as tq
from tinyqnn.picture import BLUE, GREY, RED

Array = np.ndarray


def forgot_the_clip(x: Array) -> Array:
    step = 2.0 ** (np.ceil(np.log2(np.abs(x).max())) - 2)
    return step * np.round(x / step)


def rounded_the_exponent_up(x: Array) -> Array:
    step = 2.0 ** (np.ceil(np.log2(np.abs(x).max())) - 2)
    return step * np.clip(np.round(x / step), -4, 3)


def rounds_ties_to_even(x: Array) -> Array:
    step = 2.0 ** (np.floor(np.log2(np.abs(x).max())) - 1)
    return step * np.clip(np.round(x / step), -4, 3)


def stairs(axes: Any, q: Callable[[Array], Array], top: float, look: dict[str, Any]) -> None:
    """Q over −top … top, for arrays whose largest number is `top`."""
    grid = np.linspace(-top, top, 4001) + 1e-9
    values = q(np.append(grid.clip(-top, top), top))[:-1]
    jumps = np.flatnonzero(np.diff(values))
    starts, stops = [0, *jumps + 1], [*jumps, len(grid) - 1]
    label = look.pop("label")
    for start, stop in zip(starts, stops):
        axes.plot(grid[[start, stop]], values[[start, stop]], solid_capstyle="butt", **look, label=label)
        label = None


def main() -> None:
    claimed = tq.quant.scheme("F-3").quantize
    panels = (
        ("no clip: nine levels", forgot_the_clip, np.array([7.5])),
        ("⌈log₂⌉ for ⌊log₂⌋: 1 → ¾", rounded_the_exponent_up, np.array([1.0])),
        ("ties to even: ½ → 0", rounds_ties_to_even, np.array([0.5, 2.0])),
    )
    with beside(__file__, 8, 3.2) as figure:
        for axes, (title, q, x) in zip(figure.subplots(1, 3), panels):
            top = float(np.abs(x).max())
            stairs(axes, claimed, top, {"color": GREY, "linewidth": 6, "alpha": 0.5, "label": "F-3"})
            stairs(axes, q, top, {"color": BLUE, "linewidth": 2, "label": "mine"})
            axes.plot(x[:1], q(x)[:1], "o", markersize=13, markerfacecolor="none", markeredgecolor=RED,
                      markeredgewidth=2, label="the witness")  # fmt: skip
            axes.set(title=title, xlabel="x", xlim=(-1.1 * top, 1.13 * top))
            axes.set_ylim(-1.3 * top, 1.3 * top)
            axes.locator_params(nbins=5)
        figure.axes[0].set_ylabel("Q(x)")
        figure.axes[0].legend(loc="upper left")


if __name__ == "__main__":
    main()
