"""What the small network of tutorial 1 decides over the plane, with float weights and with rounded ones.

python figures/tutorial_01_decisions.py       two seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page, plain
from matplotlib.colors import ListedColormap

from tinyqnn.picture import BLUE, GREY, RED


def main() -> None:
    told = page("01")
    value, network = told["Value"], told["network"]
    points, labels = told["points"], told["labels"]
    line = np.linspace(-2.7, 2.7, 241)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)

    with beside(__file__, 8, 2.6) as figure:
        for axes, bits in zip(figure.subplots(1, 4), (None, 8, 4, 2)):
            parameters = told["parameters"] if bits is None else told["rounded"](bits)
            decided = network(value(plane), parameters).data.reshape(len(line), -1) > 0
            axes.contourf(line, line, decided, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#fbe3d4", "#a9cfe6"]))
            axes.contour(line, line, decided, levels=[0.5], colors=GREY, linewidths=1)
            for label, colour, marker in ((0, RED, "o"), (1, BLUE, "s")):
                axes.plot(*points[labels == label].T, marker, color=colour, markersize=1.8)
            plain(axes)
            axes.set_aspect("equal")
            axes.set_title("float weights" if bits is None else f"{bits} bits, {2**bits - 1} levels")
            axes.set_xlabel(f"{told['right'](parameters)} right")


if __name__ == "__main__":
    main()
