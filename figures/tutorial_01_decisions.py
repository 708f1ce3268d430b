"""What the small network of tutorial 1 decides over the plane, with float weights and with rounded ones.

python figures/tutorial_01_decisions.py       two seconds
"""

from __future__ import annotations

import numpy as np
from drawing import BLUE, GREY, ORANGE, figure, page, plain, save
from matplotlib.colors import ListedColormap


def main() -> None:
    told = page("01")
    value, network = told["Value"], told["network"]
    points, labels = told["points"], told["labels"]
    line = np.linspace(-2.7, 2.7, 241)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)

    drawn, axes = figure(10, 3.1, 1, 4)
    for ax, bits in zip(axes, (None, 8, 4, 2)):
        parameters = told["parameters"] if bits is None else told["rounded"](bits)
        decided = network(value(plane), parameters).data.reshape(len(line), -1) > 0
        ax.contourf(line, line, decided, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#fbe3d4", "#a9cfe6"]))
        ax.contour(line, line, decided, levels=[0.5], colors=GREY, linewidths=1)
        for label, colour, marker in ((0, ORANGE, "o"), (1, BLUE, "s")):
            ax.plot(*points[labels == label].T, marker, color=colour, markersize=2.2)
        plain(ax)
        ax.set_aspect("equal")
        name = "float weights" if bits is None else f"{bits} bits, {2**bits - 1} levels"
        ax.set_title(name)
        ax.set_xlabel(f"{told['right'](parameters)} right")
    save(drawn, __file__)


if __name__ == "__main__":
    main()
