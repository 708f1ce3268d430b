"""The error over a real number of bits, and how the widths of eight tensors are learned.

python figures/tutorial_10_widths.py       ten seconds
"""

from __future__ import annotations

from typing import Any

import numpy as np
from drawing import beside, page

from tinyqnn import picture
from tinyqnn.picture import BLUE, GREY, INK


def course(axes: Any, told: dict[str, Any], role: str) -> None:
    """Learned widths of one kind in the first run, the largest tensor darkest."""
    found = told["found"][0]
    choices = sorted(found.of_role(role), key=lambda choice: -choice.elements)
    for number, choice in enumerate(choices):
        line = [point[choice.vertex] for point in found.course]
        look = picture.line(number) | {"linewidth": 3.2 - 0.6 * number}
        axes.plot(line, **look, markersize=6, label=f"{choice.elements:,}")
    axes.axvline(4.5, color=GREY, linewidth=1, linestyle=":")
    axes.text(4.6, 1.35, "whole", color=INK)
    axes.text(4.4, 1.35, "learned", color=INK, ha="right")
    axes.set(title=role, xlabel="epoch", ylim=(1.2, 6.6), xlim=(-0.2, 6.2), yticks=range(2, 6))
    axes.set_xticks(range(7))
    axes.legend(title="how many numbers", ncols=2, loc="upper left", fontsize=9, handlelength=2.6)


def main() -> None:
    told = page("10")
    with beside(__file__, 9, 3.7) as figure:
        axes = figure.subplots(1, 3, width_ratios=(1, 1.25, 1.25))
        bits = np.arange(1.5, 6.01, 0.05)
        axes[0].plot(bits, [told["error"](told["box"], b) for b in bits], color=BLUE, linewidth=2)
        whole = range(2, 7)
        axes[0].plot(whole, [told["error"](told["box"], b) for b in whole], "o", color=INK, label="whole bits")
        axes[0].plot(whole, [0.44 * 4.0 ** (4 - b) for b in whole], color=GREY, linestyle="--", label="÷ 4 a bit")
        axes[0].set(title="half bits exist", xlabel="bits", ylabel="error, %", yscale="log", xticks=range(2, 7))
        axes[0].set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
        axes[0].legend()
        for ax, role in zip(axes[1:], ("weights", "activations")):
            course(ax, told, role)
        axes[1].set_ylabel("bits")


if __name__ == "__main__":
    main()
