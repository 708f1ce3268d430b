"""A tile of a product in registers; and how fast a product gets, from three loops to the kernel.

    python figures/tutorial_16_steps.py               draw tutorial_16_steps.json as it is, four seconds
    python figures/tutorial_16_steps.py --measure     measure first, half a minute on one core

The functions that are measured are those of the page.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if "--measure" in sys.argv:  # one core for everybody; libraries read this when they are loaded
    os.environ.update(dict.fromkeys(("TINYQNN_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"))

import numpy as np
from drawing import beside, page, plain, record
from matplotlib.patches import Rectangle

from tinyqnn.picture import BLUE, GREY, INK, LIGHT, RED

SIZE, ROUNDS = 512, 12
NAMES = {
    "dots": "three loops,\na y after the other",
    "rows": "loops exchanged,\na row after the other",
    "tiles": "tiles of 4 × one\nregister",
    "kernel": "the kernel: larger\ntiles, panels, blocks",
    "one line": "NumPy's\n@",
}


def measure() -> dict[str, Any]:
    """The best of many calls of each way, taken in turns, in multiplications and additions a second."""
    from tinyqnn.provenance import environment

    ways, rng = page("16")["ways"], np.random.default_rng(0)
    a, b = (rng.normal(size=(SIZE, SIZE)).astype(np.float32) for _ in range(2))
    y, best = np.empty((SIZE, SIZE), np.float32), dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way(a, b, y)
            best[name] = min(best[name], time.perf_counter() - started)
    speed = {name: 2 * SIZE**3 / seconds for name, seconds in best.items()}
    return {"environment": environment(), "size": SIZE, "threads": 1, "operations_per_second": speed}


def tile(axes: Any) -> None:
    """y = a @ b with one tile, one column piece and one row piece marked."""

    def box(x: float, y: float, width: float, height: float, colour: str) -> None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white"))

    box(0, 0, 5, 8, LIGHT)  # a
    box(5.6, 8.6, 10, 5, LIGHT)  # b
    box(5.6, 0, 10, 8, LIGHT)  # y
    box(0, 3, 5, 3, "#cccccc")
    box(8.6, 8.6, 4, 5, "#cccccc")
    for k in range(3):
        box(2, 3 + k, 1, 1, BLUE)
    for j in range(4):
        box(8.6 + j, 10.6, 1, 1, RED)
        for i in range(3):
            box(8.6 + j, 3 + i, 1, 1, INK)
    for x, y, text in ((0.3, 7.2, "a"), (5.9, 12.8, "b"), (5.9, 7.2, "y")):
        axes.text(x, y, text, weight="bold")
    axes.text(2.5, 2.2, "r numbers", color=BLUE, ha="center", va="center")
    axes.text(10.6, 12.4, "c numbers", color=RED, ha="center", va="center")
    axes.text(10.6, 2.2, "r·c sums in registers", ha="center", va="center")
    axes.set(xlim=(-0.2, 15.8), ylim=(-0.2, 13.8), title="step k of a tile")
    axes.set_aspect("equal")
    plain(axes)


def bars(axes: Any, results: dict[str, Any]) -> None:
    """Operations a second, a bar a way."""
    speed = results["operations_per_second"]
    place = range(len(NAMES))
    values = [speed[name] / 1e9 for name in NAMES]
    axes.barh(place, values, color=[GREY if name == "one line" else BLUE for name in NAMES])
    for y, value in zip(place, values):
        axes.annotate(f"{value:.3g} ", (value, y), va="center", ha="right", color="white")
    axes.set(xscale="log", xlim=(0.03, 400), yticks=place, yticklabels=list(NAMES.values()))
    axes.set_xlabel("10⁹ operations a second, one core")
    axes.grid(False)
    axes.invert_yaxis()
    axes.set_title(f"float32, {results['size']} × {results['size']}, measured")


def main() -> None:
    path = Path(__file__).with_suffix(".json")
    if "--measure" in sys.argv:
        record(__file__, measure())
    results = json.loads(path.read_text(encoding="utf-8"))
    with beside(__file__, 8, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        tile(left)
        bars(right, results)


if __name__ == "__main__":
    main()
