"""A product of eight signs by counting, and a row of 2-bit codes as two planes.

python figures/tutorial_11_counting.py       a second
"""

from __future__ import annotations

from typing import Any

import numpy as np
from drawing import beside, page, plain
from matplotlib.patches import Rectangle

from tinyqnn.picture import BLUE, GREY, INK, LIGHT


def row(axes: Any, y: float, name: str, values: Any, dark: Any, end: str = "") -> None:
    """A row of cells; dark ones are blue."""
    axes.text(-0.25, y, name, ha="right", va="center")
    for k, (value, is_dark) in enumerate(zip(values, dark)):
        colour, ink = (BLUE, "white") if is_dark else (LIGHT, INK)
        axes.add_patch(Rectangle((k + 0.04, y - 0.38), 0.92, 0.76, facecolor=colour))
        axes.text(k + 0.5, y, f"{value}", ha="center", va="center", color=ink)
    axes.text(len(values) + 0.35, y, end, va="center")


def signs(axes: Any, w: Any, x: Any) -> None:
    """w, x, their bits, what differs, the count."""
    name = np.array(["+1", "−1"])
    bits = [(v < 0).astype(int) for v in (w, x)]
    differ = bits[0] ^ bits[1]
    for y, (label, values, dark, end) in enumerate(
        (
            ("w", name[bits[0]], bits[0], ""),
            ("x", name[bits[1]], bits[1], ""),
            ("bits of w", bits[0], bits[0], ""),
            ("bits of x", bits[1], bits[1], ""),
            ("differ", differ, differ, f"D = {differ.sum()}"),
        )
    ):
        row(axes, -y - 0.5 * (y > 1) - 0.5 * (y > 3), label, values, dark, end)
    told = f"Σ w·x  =  K − 2D  =  {len(w)} − 2·{differ.sum()}  =  {len(w) - 2 * differ.sum()}"
    axes.text(0.04, -6.2, told, fontsize=12, va="center", weight="bold")
    axes.set(xlim=(-2.6, 10.4), ylim=(-6.9, 0.8))
    axes.set_title("signs: exclusive or, and count")
    plain(axes)


def planes(axes: Any, codes: Any) -> None:
    """A row of signed codes over its planes."""
    row(axes, 0, "codes", [str(c).replace("-", "−") for c in codes], codes * 0)
    for i, weight in enumerate(("1 ×", "−2 ×")):
        bits = codes >> i & 1
        row(axes, -1.5 - i, weight, bits, bits)
    axes.text(-1.2, -4.2, "four planes meet in pairs:", va="center")
    axes.text(-1.2, -5.2, "Σ w·x = Σ p·q·count(W and X)", va="center")
    axes.text(-1.2, -6.2, "2 bits × 2 bits = 4 counts", va="center", weight="bold", fontsize=12)
    axes.set(xlim=(-1.9, 4.9), ylim=(-6.9, 0.8))
    axes.set_title("codes of two bits: planes")
    plain(axes)
    axes.axvline(-1.75, color=GREY, linewidth=0.8)


def main() -> None:
    told = page("11")
    with beside(__file__, 8, 3.5) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
        signs(left, told["w"], told["x"])
        planes(right, told["codes"])


if __name__ == "__main__":
    main()
