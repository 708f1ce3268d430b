"""How much of the numbers is lost with 2 to 8 bits: equal steps obey a law on a box, and schemes part on a bell.

python figures/tutorial_03_bits.py       four seconds
"""

from __future__ import annotations

from drawing import beside, page
from matplotlib.ticker import FuncFormatter

from tinyqnn.picture import BLUE, GREY, RED

LOOKS = {
    "F": (GREY, "s", ":", "F  FixedQ"),
    "Z": (GREY, "D", "-", "Z  ZoomQ"),
    "R": (BLUE, "^", "--", "R  ResQ"),
    "C": (BLUE, "o", "-", "C  ClipQ"),
    "U": (RED, "v", "-", "U  Uniform"),
    "P": (RED, "P", "--", "P  PotQ"),
}


def main() -> None:
    told = page("03")
    with beside(__file__, 8, 4) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        titles = ("on a box: every bit is worth 4 ×", "on a bell: schemes part")
        for ax, kind, title in zip(axes, ("box", "bell"), titles):
            for letter, (colour, marker, line, name) in LOOKS.items():
                widths = range(2, 5) if letter == "P" else range(2, 9)
                lost = told["errors"](letter, told["kinds"][kind], widths)
                ax.plot(widths, lost, line, marker=marker, color=colour, markersize=6, label=name)
            ax.set_yscale("log")
            ax.set(title=title, xlabel="bits", xticks=range(2, 9))
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes[0].set_ylabel("lost (squared error over squared size)")
        axes[0].legend(loc="lower left")


if __name__ == "__main__":
    main()
