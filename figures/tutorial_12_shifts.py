"""The levels of P-3 with their shifts, and how long a product with one row takes over the bytes of its weights.

python figures/tutorial_12_shifts.py       a second; the times are those of bench_gemm.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from drawing import beside

import tinyqnn as tq
from tinyqnn.picture import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, RED

LOOKS = {
    "1 bit": (BLUE, "o", "1 bit\ncounted"),
    "2 bits": (GREEN, "D", "2 bits\ncounted"),
    "shifts": (ORANGE, "v", "4 bits\nshifted"),
    "bytes": (RED, "s", "8 bits\nmultiplied"),
}


def levels(axes: Any) -> None:
    """P-3 on a bell."""
    bell = np.random.default_rng(3).normal(size=100_000)
    density, edges = np.histogram(bell, bins=np.linspace(-3.5, 3.5, 60), density=True)
    axes.stairs(density, edges, fill=True, color=LIGHT)
    p3 = tq.quant.scheme("P-3")
    params = p3.fit(bell)
    for code in p3.alphabet:
        value = float(p3.decode(np.array([code]), params)[0])
        n = int(code if code >= 0 else -1 - code)
        axes.plot([value, value], [0, 0.42], color=ORANGE, linewidth=2)
        if n:
            axes.text(value, 0.425, f"{'' if code >= 0 else '−'}{2**n}", ha="center", va="bottom")
    axes.text(0, 0.455, "±½", ha="center", va="bottom")
    axes.set(xlabel="weight, in standard deviations", yticks=[], ylim=(0, 0.51), title="P-3: α times ½, 2, 4, 8")
    axes.grid(False)
    axes.spines["left"].set_visible(False)


def times(axes: Any, results: dict[str, Any]) -> None:
    """Milliseconds over megabytes of weights, for one row."""
    rows = [row for row in results["cases"] if row["group"] == "gemv"]
    _, k, n = rows[0]["shape"]
    size = {row["name"]: k * n * row["bits"][0] / 8e6 for row in rows}
    for row in rows:
        colour, marker, name = LOOKS[row["name"]]
        y = row["seconds"]["tinyqnn"]["best"] * 1e3
        axes.plot(size[row["name"]], y, marker, color=colour, markersize=9)
        place = {"xytext": (-9, 4), "ha": "right"} if row["name"] == "2 bits" else {"xytext": (9, -4)}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(name, (size[row["name"]], y), textcoords="offset points", bbox=box, **{"va": "center", **place})
    x, y = 4e-6 * k * n, min(row["seconds"]["numpy"]["best"] for row in rows) * 1e3
    axes.plot(x, y, "X", color=INK, markersize=9)
    axes.annotate("float32\nNumPy", (x, y), xytext=(0, -9), textcoords="offset points", va="top", ha="center")
    line = np.array([1.0, 130.0])
    axes.plot(line, line * 1e9 / results["host"]["read_bytes_per_second"], ":", color=GREY, label="reading the bytes")
    fastest = min(row["seconds"]["tinyqnn"]["best"] for row in rows) * 1e3
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(1, 150),
        ylim=(0.5 * fastest, None),
        xlabel="bytes of the weights (MB)",
        ylabel="time of a product (ms)",
    )
    axes.set_xticks([2, 4, 8, 16, 67], ["2", "4", "8", "17", "67"])
    axes.set_xticks([], minor=True)
    axes.set_title(f"one row × {k} × {n}, measured")
    axes.legend(loc="upper left")


def main() -> None:
    results = json.loads((Path(__file__).parent / "bench_gemm.json").read_text(encoding="utf-8"))
    with beside(__file__, 8, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        levels(left)
        times(right, results)


if __name__ == "__main__":
    main()
