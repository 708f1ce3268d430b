"""How six layers share a bound, and all sixteen ways to give four layers one or eight bits, with those that DFQ chose.

python figures/tutorial_07_sixteen.py       ten seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page

from tinyqnn.picture import BLUE, GREY, INK, LIGHT, RED


def main() -> None:
    told = page("07")
    with beside(__file__, 9, 4.1) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        order = np.argsort(-told["n"] / told["f"])
        one_bit = told["p"][order, 0]
        left.bar(range(6), one_bit, 0.8, color=BLUE, label="one bit")
        left.bar(range(6), 1 - one_bit, 0.8, one_bit, color=LIGHT, label="eight bits")
        left.set(title="in shares: one is undecided", ylabel="share", ylim=(0, 1.32), yticks=[0, 0.5, 1])
        left.set_xticks(range(6), [str(i + 1) for i in order])
        left.set_xlabel("layer, in the order of weights saved for a loss")
        left.legend(ncols=2, loc="upper center")
        left.grid(False)

        points = sorted(told["sixteen"])
        right.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color=GREY, markersize=6, label="sixteen")
        front = [point for place, point in enumerate(points) if point[1] == min(y for _, y, _ in points[: place + 1])]
        right.plot(
            [x for x, _, _ in front], [y for _, y, _ in front], color=INK, linewidth=1.2, drawstyle="steps-post",
            label="no smaller one is better",
        )  # fmt: skip
        mine = [point for point in points if point[2] in told["chosen"]]
        right.plot(
            [x for x, _, _ in mine], [y for _, y, _ in mine], "s", color=RED, markersize=10, label="the search's"
        )
        for x, y, widths in mine:
            right.annotate(f"θ = {told['chosen'][widths]}", (x, y), (9, 8), textcoords="offset points")
        right.set(title="all sixteen, trained", xlabel="bits of a weight", ylabel="validation loss")
        right.set(xlim=(0.6, 8.3), ylim=(0.53, 1.09), xticks=range(1, 9))
        right.legend(loc="upper right", ncols=2)


if __name__ == "__main__":
    main()
