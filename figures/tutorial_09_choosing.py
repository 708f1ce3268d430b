"""Samples of a die at three temperatures, and how a search for three hidden schemes goes.

python figures/tutorial_09_choosing.py       ten seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page

from tinyqnn.picture import BLUE, GREY, INK, LIGHT, ORANGE


def main() -> None:
    told = page("09")
    shares = np.array([0.5, 0.3, 0.2])
    with beside(__file__, 8, 5.4) as figure:
        axes = figure.subplots(2, 3, sharey="row")
        for ax, (name, tau) in zip(axes[0], (("hot", 5.0), ("warm", 0.5), ("cold", 0.02))):
            rng = np.random.default_rng(1)
            drawn = np.array([told["sample"](np.log(shares), rng.gumbel(size=3), tau) for _ in range(30)])
            bottom = np.zeros(30)
            for column, colour in enumerate((BLUE, ORANGE, LIGHT)):
                ax.bar(np.arange(30), drawn[:, column], 1.0, bottom, color=colour, edgecolor="white", linewidth=0.3)
                bottom += drawn[:, column]
            ax.set(title=f"{name}, τ = {tau:g}", xlabel="thirty samples", xticks=[], xlim=(-0.5, 29.5), ylim=(0, 1))
            ax.grid(False)
        axes[0, 0].set_ylabel("shares of three schemes")

        course = told["numbers"].course
        for ax, (vertex, hidden) in zip(axes[1], told["hidden"].items()):
            for name in course[0][vertex]:
                if name != hidden:
                    ax.plot([point[vertex][name] for point in course], color=GREY, linewidth=1.3)
            ax.plot([point[vertex][hidden] for point in course], color=INK, linewidth=3, marker="o")
            ax.text(5, 0.82, f"hidden: {hidden}", weight="bold", ha="right", va="top")
            ax.set(title=f"weights of layer {int(vertex[0]) // 2 + 1}", xlabel="epoch", ylim=(0, 1.03))
            ax.set_xticks(range(len(course)))
        axes[1, 0].set_ylabel("probability")


if __name__ == "__main__":
    main()
