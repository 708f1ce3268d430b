"""Where the eight schemes put their levels on bell-shaped numbers, and how many numbers go to each level.

python figures/tutorial_03_levels.py       four seconds
"""

from __future__ import annotations

import numpy as np
from drawing import GREY, LIGHT, ORANGE, figure, page, save
from matplotlib.ticker import PercentFormatter

import tinyqnn as tq

NAMES = {
    "B-1": "Binary", "T-2": "Ternary", "Q-2": "Quaternary", "F-3": "FixedQ",
    "R-3": "ResQ", "Z-3": "ZoomQ", "C-3": "ClipQ", "P-3": "PotQ",
}  # fmt: skip


def main() -> None:
    told = page("03")
    bell = told["bell"]
    density, edges = np.histogram(bell, bins=np.linspace(-4.6, 4.6, 70), density=True)

    drawn, axes = figure(10, 4.6, 2, 4, sharex=True, sharey=True)
    for ax, (notation, name) in zip(axes.flat, NAMES.items()):
        values = tq.quant.scheme(notation).quantize(bell)
        levels, counts = np.unique(values, return_counts=True)
        ax.stairs(density, edges, fill=True, color=LIGHT)
        ax.stairs(density, edges, color=GREY, linewidth=0.8)
        ax.vlines(levels, 0, counts / len(bell), color=ORANGE, linewidth=3)
        ax.plot(levels, counts / len(bell), "o", color=ORANGE, markersize=5)
        ax.set_title(f"{notation}  {name}")
        ax.text(0.98, 0.95, f"{told['error'](bell, values):.1f} %\nlost", transform=ax.transAxes, ha="right", va="top")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set(xlim=(-4.6, 4.6), ylim=(0, 0.72), xticks=[-4, -2, 0, 2, 4])
    for ax in axes[1]:
        ax.set_xlabel("value, in standard deviations")
    for ax in axes[:, 0]:
        ax.set_ylabel("numbers on a level")
    save(drawn, __file__)


if __name__ == "__main__":
    main()
