"""What four networks decide over the plane: float, with 2-bit weights, with 2-bit activations, with both.

python figures/tutorial_05_decisions.py       ten seconds
"""

from __future__ import annotations

from drawing import beside, page, plain
from matplotlib.colors import ListedColormap

from tinyqnn.picture import GREY

TITLES = {"float": "float", "W2": "2-bit weights", "A2": "2-bit activations", "W2A2": "both"}


def main() -> None:
    told = page("05")
    networks = dict(told["families"][2])
    networks["W2A2"] = told["copy_of"](networks["float"], "U-2", bits=2)
    line, inside = told["line"], told["counted"]

    with beside(__file__, 9, 2.9) as figure:
        for axes, (name, title) in zip(figure.subplots(1, 4), TITLES.items()):
            decided = told["decided"](networks[name])
            axes.imshow(
                decided, origin="lower", extent=(line[0], line[-1], line[0], line[-1]), interpolation="nearest",
                cmap=ListedColormap(["#fbe3d4", "#2a78b5"]), alpha=0.3 + 0.7 * inside,
            )  # fmt: skip
            axes.contour(line, line, inside, levels=[0.5], colors=GREY, linewidths=0.8)
            plain(axes)
            axes.set_title(title)
            moved = told["distortion"](networks[name], networks["float"])
            axes.set_xlabel(f"noise {told['noise'](networks[name]):.1f} %\ndistortion {moved:.1f} %")


if __name__ == "__main__":
    main()
