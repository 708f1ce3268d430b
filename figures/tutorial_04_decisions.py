"""What four networks decide over the plane: float, rounded afterwards, trained with slope 0, trained straight through.

python figures/tutorial_04_decisions.py       eight seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page, plain
from matplotlib.colors import ListedColormap

from tinyqnn import Tensor
from tinyqnn.picture import BLUE, GREY, RED


def main() -> None:
    told = page("04")
    points, labels = told["half_rings"]
    line = np.linspace(-2.7, 2.7, 241)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    honest, straight = {"on_weights": told["honest"]}, {"on_weights": told["straight"]}
    networks = (
        ("float weights", told["floats"][2], {}),
        ("rounded to 2 bits\nafterwards", told["floats"][2], straight),
        ("2 bits, trained with\nthe true derivative", told["stuck"][2], honest),
        ("2 bits, trained\nstraight through", told["learned"][2], straight),
    )

    with beside(__file__, 8, 2.8) as figure:
        for axes, (title, parameters, how) in zip(figure.subplots(1, 4), networks):
            logits = told["network"](Tensor(plane), parameters, **how).data
            decided = (logits[:, 1] > logits[:, 0]).reshape(len(line), -1)
            axes.contourf(line, line, decided, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#fbe3d4", "#a9cfe6"]))
            axes.contour(line, line, decided, levels=[0.5], colors=GREY, linewidths=1)
            for label, colour, marker in ((0, RED, "o"), (1, BLUE, "s")):
                axes.plot(*points[labels == label].T, marker, color=colour, markersize=1.8)
            plain(axes)
            axes.set_aspect("equal")
            axes.set_title(title)
            axes.set_xlabel(f"{told['right'](parameters, told['half_rings'], **how)} % right")


if __name__ == "__main__":
    main()
