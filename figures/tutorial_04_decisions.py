"""What four networks decide over the plane: float, rounded afterwards, trained with slope 0, trained straight through.

python figures/tutorial_04_decisions.py       eight seconds
"""

from __future__ import annotations

import numpy as np
from drawing import BLUE, GREY, ORANGE, figure, page, plain, save
from matplotlib.colors import ListedColormap

from tinyqnn import Tensor


def main() -> None:
    told = page("04")
    points, labels = told["half_rings"]
    line = np.linspace(-2.7, 2.7, 241)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    float_, honest, straight = {}, {"on_weights": told["honest"]}, {"on_weights": told["straight"]}

    drawn, axes = figure(10, 3.3, 1, 4)
    for ax, (title, parameters, how) in zip(
        axes,
        (
            ("float weights", told["floats"][2], float_),
            ("rounded to 2 bits\nafterwards", told["floats"][2], straight),
            ("2 bits, trained with\nthe true derivative", told["stuck"][2], honest),
            ("2 bits, trained\nstraight through", told["learned"][2], straight),
        ),
    ):
        logits = told["network"](Tensor(plane), parameters, **how).data
        decided = (logits[:, 1] > logits[:, 0]).reshape(len(line), -1)
        ax.contourf(line, line, decided, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#fbe3d4", "#a9cfe6"]))
        ax.contour(line, line, decided, levels=[0.5], colors=GREY, linewidths=1)
        for label, colour, marker in ((0, ORANGE, "o"), (1, BLUE, "s")):
            ax.plot(*points[labels == label].T, marker, color=colour, markersize=2.2)
        plain(ax)
        ax.set_aspect("equal")
        ax.set_title(title)
        ax.set_xlabel(f"{told['right'](parameters, told['half_rings'], **how)} % right")
    save(drawn, __file__)


if __name__ == "__main__":
    main()
