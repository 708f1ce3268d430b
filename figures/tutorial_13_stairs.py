"""The staircase from whole-number sums to codes, and where the bytes of a packed file are.

python figures/tutorial_13_stairs.py       a few seconds; the numbers are those of the page
"""

from __future__ import annotations

from typing import Any

import numpy as np
from drawing import beside, page

from tinyqnn.picture import BLUE, GREY, INK, LIGHT, ORANGE, RED


def staircase(axes: Any, names: dict[str, Any]) -> None:
    """Codes over sums for two channels, one of them falling, with the edges."""
    sums = np.arange(-140, 141, dtype=np.int32)[:, None] * np.ones(2, np.int32)
    codes = names["stairs"](sums)
    for channel, (colour, shift, name) in enumerate(((BLUE, 0.0, "factor 0.013"), (ORANGE, 0.06, "factor −0.02"))):
        axes.step(sums[:, 0], codes[:, channel] + shift, where="post", color=colour, linewidth=1.8, label=name)
        for edge in names["stairs"].edges[:, channel]:
            axes.plot(edge, -2.45, "^", color=colour, markersize=6)
    axes.set(xlabel="Σ m·n, a whole number", ylabel="code of the next layer", yticks=[-2, -1, 0, 1], ylim=(-2.6, 1.4))
    axes.set_title("the code is the number of edges reached")
    axes.legend(loc="center right")


def file_bytes(axes: Any, names: dict[str, Any]) -> None:
    """The file beside the float32 weights."""
    sizes, floats = names["packed"].sizes, 4 * sum(names["weights"].values())
    left = 0
    parts = (("codes", BLUE), ("scales", ORANGE), ("floats", RED), ("header", GREY))
    for part, colour in parts:
        axes.barh(0, sizes[part] / 1e3, left=left / 1e3, color=colour, height=0.4, label=f"{part} {sizes[part]:,}")
        left += sizes[part]
    axes.barh(1, floats / 1e3, color=LIGHT, height=0.4)
    axes.annotate(f" {floats / left:.1f} times smaller", (left / 1e3, 0), va="center", color=INK)
    axes.set(yticks=[0, 1], yticklabels=["packed", "float32"], xlabel="kB")
    axes.set_title("bytes on the disk")
    axes.legend(loc="center", bbox_to_anchor=(0.5, 0.58), ncols=2)
    axes.grid(False, axis="y")
    axes.set_ylim(-0.5, 1.4)


def main() -> None:
    names = page("13")
    with beside(__file__, 8, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        staircase(left, names)
        file_bytes(right, names)


if __name__ == "__main__":
    main()
