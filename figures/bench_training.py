"""Step times here and in PyTorch, side by side; what quantizers and a search add to ours; and the first step of all.

    python figures/bench_training.py          a few minutes; wants PyTorch, and a machine that does nothing else
    python figures/bench_training.py --draw   the picture once more, from the figures of last time

Writes bench_training.json (every figure, with versions and processor), bench_training.txt and bench_training.png beside
this file, and the README's block.
Blue bars are cases in which we are faster.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from drawing import beside, record, show

from tinyqnn.bench import first, quantizing, training
from tinyqnn.kernels import tiles
from tinyqnn.picture import BLUE, GREY, INK
from tinyqnn.provenance import environment


def draw(source: str, rows: list[dict[str, Any]]) -> None:
    """Our time over PyTorch's, a bar a case; left of the line is faster. Written beside the script `source`."""
    with beside(source, 8, 0.4 * len(rows) + 1.2) as figure:
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


def tell(results: dict[str, Any]) -> str:
    """The figures as a text, for pages: medians, in milliseconds, and the most memory, in MB."""
    machine, starts = results["environment"], len(results["cases"][0]["tinyqnn"].get("seconds_of_starts", []))
    of = f" of the quickest of {starts} starts" if starts > 1 else ""
    six = "large products of float32 are six of bfloat16 on tile registers"
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, PyTorch {machine['versions']['torch']}; medians{of}",
        f"here {six if results['tiles'] else 'are no tile registers'}",
        "",
        f"{'':<53}{'tinyqnn':>9}{'PyTorch':>10}{'ratio':>7}{'memory':>14}",
    ]
    for row in results["cases"]:
        others = [row[engine] for engine in ("torch", "torch channels-last") if engine in row]
        theirs = min(others, key=lambda other: other["median_seconds"])
        ours, memory = row["tinyqnn"], f"{row['tinyqnn']['peak_bytes'] / 1e6:.0f} : {theirs['peak_bytes'] / 1e6:.0f} MB"
        times = f"{1000 * ours['median_seconds']:>6.1f} ms{1000 * theirs['median_seconds']:>7.1f} ms"
        lines.append(f"{row['title']:<53}{times}{row['ratio']:>7.2f}{memory:>14}")
    lines += ["", quantizing.table(results["quantizing"])] if "quantizing" in results else []
    steps = results.get("first_steps", {})
    lines += ["", first.HEADING, *(first.line(name, seconds) for name, seconds in steps.items())] if steps else []
    return "\n".join(lines) + "\n"


def main(source: str) -> None:
    """Measure, unless `--draw` was asked for, and write everything beside the script `source`."""
    if sys.argv[1:] != ["--draw"]:
        measured = training.run(list(training.CASES), True, threads=2, rounds=4)
        searched = {name: quantizing.record(quantizing.measure(name)) for name in quantizing.NAMES}
        results = {"tiles": tiles.allowed(), "cases": training.record(measured), "quantizing": searched}
        results["first_steps"] = {name: first.measure(name) for name in training.CASES}
        record(source, {"environment": environment(), **results})
    show(source, partial(draw, source), tell)


if __name__ == "__main__":
    main(__file__)
