"""Where the eight schemes put their levels on bell-shaped numbers, and how many numbers go to each level.

python figures/tutorial_03_levels.py       four seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page
from matplotlib.ticker import PercentFormatter

import tinyqnn as tq
from tinyqnn.picture import GREY, LIGHT, RED

NAMES = {
    "B-1": "Binary", "T-2": "Ternary", "Q-2": "Quaternary", "F-3": "FixedQ",
    "R-3": "ResQ", "Z-3": "ZoomQ", "C-3": "ClipQ", "P-3": "PotQ",
}  # fmt: skip


def main() -> None:
    told = page("03")
    bell = told["bell"]
    density, edges = np.histogram(bell, bins=np.linspace(-4.6, 4.6, 70), density=True)

    with beside(__file__, 8, 4.4) as figure:
        axes = figure.subplots(2, 4, sharex=True, sharey=True)
        for ax, (notation, name) in zip(axes.flat, NAMES.items()):
            values = tq.quant.scheme(notation).quantize(bell)
            levels, counts = np.unique(values, return_counts=True)
            ax.stairs(density, edges, fill=True, color=LIGHT)
            ax.stairs(density, edges, color=GREY, linewidth=0.8)
            ax.vlines(levels, 0, counts / len(bell), color=RED, linewidth=3)
            ax.plot(levels, counts / len(bell), "o", color=RED, markersize=5)
            ax.set_title(f"{notation}  {name}")
            lost = told["error"](bell, values)
            ax.text(0.98, 0.95, f"{lost:.1f} %\nlost", transform=ax.transAxes, ha="right", va="top")
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            ax.set(xlim=(-4.6, 4.6), ylim=(0, 0.72), xticks=[-4, -2, 0, 2, 4])
            ax.grid(False)
        figure.supxlabel("value, in standard deviations", fontsize=10)
        figure.supylabel("numbers on a level", fontsize=10)


if __name__ == "__main__":
    main()
