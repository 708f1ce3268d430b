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

from style import BLUE, GREY, figure, save

from tinyqnn.bench import training
from tinyqnn.provenance import environment


def draw(rows: list[dict[str, Any]]) -> Any:
    """Our time over PyTorch's, a bar a case; left of the line is faster."""
    made = figure(8, 0.42 * len(rows) + 1.6)
    axes = made.subplots()
    place = range(len(rows))
    axes.barh(place, [row["ratio"] for row in rows], color=[BLUE if row["ratio"] <= 1 else GREY for row in rows])
    for y, row in zip(place, rows):
        axes.annotate(f" {row['ratio']:.2f}", (row["ratio"], y), va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(yticks=place, yticklabels=[row["title"] for row in rows])
    axes.set(xlabel="our median time over PyTorch's (faster layout)")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    return made


def main() -> None:
    if sys.argv[1:] == ["--draw"]:
        record = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
        save(draw(record["cases"]), __file__)
        return
    results = training.run(list(training.CASES), True, threads=2, rounds=4)
    rows = training.record(results)
    print(training.table(results))
    save(draw(rows), __file__, {"environment": environment(), "cases": rows})


if __name__ == "__main__":
    main()
