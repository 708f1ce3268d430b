"""A digit, what four windows make of it, and how the gradient fades on its way back through thirty steps.

python figures/tutorial_02_window_and_state.py       three seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page, plain

from tinyqnn.data import glyphs
from tinyqnn.picture import BLUE, GREY, RED

WINDOWS = {
    "below − above": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "right − left": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "across": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    "middle − around": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
}


def main() -> None:
    told = page("02")
    digit = glyphs.load(train=20, test=10).train.x[4, 0].astype(float)

    with beside(__file__, 8, 3.4) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1.3, 1))
        grid = left.add_gridspec(2, 3, width_ratios=(1.2, 1, 1))
        whole = left.add_subplot(grid[:, 0])
        whole.imshow(digit, cmap="gray_r")
        whole.set_title("a digit")
        plain(whole)
        for place, (name, window) in enumerate(WINDOWS.items()):
            axes = left.add_subplot(grid[place // 2, 1 + place % 2])
            answer = told["slide"](digit, np.array(window, float))
            top = np.abs(answer).max()
            axes.imshow(answer, cmap="gray", vmin=-top, vmax=top)
            axes.set_title(name, fontsize=10)
            plain(axes)

        axes = right.subplots()
        looks = {"plain": (GREY, "s", ":"), "LSTM": (RED, "^", "--"), "LSTM, open": (BLUE, "o", "-")}
        for name, make in told["made"].items():
            steps = told["arriving"](make(np.random.default_rng(1)))
            colour, marker, line = looks[name]
            back = np.arange(len(steps))[::-1]
            axes.plot(back, steps / steps[-1], line, marker=marker, color=colour, markersize=4, label=name)
        axes.set_yscale("log")
        axes.set(xlabel="steps back", ylabel="gradient, relative to the last step", title="what arrives from the end")
        axes.legend(loc="lower left")


if __name__ == "__main__":
    main()
