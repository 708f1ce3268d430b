"""Step times here and in PyTorch, side by side.

    python figures/bench_training.py          a few minutes; wants PyTorch, and a machine that does nothing else
    python figures/bench_training.py --draw   the picture once more, from the figures of last time

Writes bench_training.json (every figure, with versions and processor) and bench_training.png beside this file.
Blue bars are cases in which we are faster.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from drawing import beside, record

from tinyqnn.bench import training
from tinyqnn.picture import BLUE, GREY, INK
from tinyqnn.provenance import environment


def draw(rows: list[dict[str, Any]]) -> None:
    """Our time over PyTorch's, a bar a case; left of the line is faster."""
    with beside(__file__, 8, 0.4 * len(rows) + 1.2) as figure:
        axes = figure.subplots()
        place = range(len(rows))
        axes.barh(place, [row["ratio"] for row in rows], color=[BLUE if row["ratio"] <= 1 else GREY for row in rows])
        for y, row in zip(place, rows):
            colour = "white" if row["ratio"] <= 1 else INK
            axes.annotate(f"{row['ratio']:.2f} ", (row["ratio"], y), va="center", ha="right", color=colour)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set(yticks=place, yticklabels=[row["title"] for row in rows])
        figure.supxlabel("our median time over PyTorch's in its faster layout (blue: we are faster)", fontsize=10)
        axes.grid(False)
        axes.invert_yaxis()


def main() -> None:
    if sys.argv[1:] == ["--draw"]:
        draw(json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))["cases"])
        return
    results = training.run(list(training.CASES), True, threads=2, rounds=4)
    rows = training.record(results)
    print(training.table(results))
    draw(rows)
    record(__file__, {"environment": environment(), "cases": rows})


if __name__ == "__main__":
    main()
