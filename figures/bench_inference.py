"""How long packed networks take to answer, beside float32 and ONNX Runtime's 8 bits.

    python figures/bench_inference.py          two minutes; wants PyTorch, onnx and onnxruntime, and a quiet machine
    python figures/bench_inference.py --draw   the picture once more, from the figures of last time

Writes bench_inference.json (every figure, with versions and processor), bench_inference.txt and bench_inference.png
beside this file, and the block of tutorial 13.
"""

from __future__ import annotations

import sys
from typing import Any

from drawing import beside, record, show

from tinyqnn.bench import inference
from tinyqnn.picture import BLUE, GREEN, GREY, INK, ORANGE, RED
from tinyqnn.provenance import environment

ENGINES = {  # key: (name, colour)
    "numpy": ("NumPy float32", GREY),
    "float": ("tinyqnn float32", ORANGE),
    "torch": ("PyTorch float32", BLUE),
    "torch channels-last": ("PyTorch float32, channels-last", GREEN),
    "onnxruntime": ("ONNX Runtime, 8 bits", RED),
}


def draw(rows: list[dict[str, Any]]) -> None:
    """How many times as long each of the others takes; right of the line packed is faster."""
    with beside(__file__, 8, 0.22 * sum(len(row["times"]) + 1 for row in rows) + 1.6) as figure:
        axes, y, ticks, seen = figure.subplots(), 0, [], set()
        for row in rows:
            ticks.append(y + (len(row["times"]) - 1) / 2)
            for engine, (name, colour) in ENGINES.items():
                if engine in row["times"]:
                    times = row["times"][engine]
                    axes.barh(y, times, height=0.9, color=colour, label=None if name in seen else name)
                    axes.annotate(f" {times:.1f}", (times, y), va="center", fontsize=9)
                    seen.add(name)
                    y += 1
            y += 1
        axes.axvline(1, color=INK, linewidth=1)
        axes.set(yticks=ticks, yticklabels=[row["title"].replace(", batch", ",\nbatch") for row in rows])
        axes.set_xlabel("times as long as the packed network (medians)")
        axes.grid(False)
        axes.invert_yaxis()
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)


def tell(results: dict[str, Any]) -> str:
    """The figures as a text, for pages: median milliseconds, and (times as long as packed)."""
    machine, rows = results["environment"], results["cases"]
    heads = {"numpy": "NumPy", "float": "float", "torch": "PyTorch", "torch channels-last": "ch.-last"}
    heads["onnxruntime"] = "ONNX int8"
    lines = [
        f"{machine['processor']}, {rows[0]['threads']} threads; median milliseconds (times as long as packed)",
        "",
        f"{'':<34}{'packed':>9}" + "".join(f"{head:>14}" for head in heads.values()),
    ]
    for row in rows:
        times = {engine: f"{row['seconds'][engine]['median'] * 1e3:.3g} ({row['times'][engine]:.1f})"
                 for engine in row["times"]}  # fmt: skip
        packed = row["seconds"]["packed"]["median"] * 1e3
        lines.append(f"{row['title']:<34}{packed:>9.3g}" + "".join(f"{times.get(e, '–'):>14}" for e in heads))
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:] != ["--draw"]:
        rows = inference.run(list(inference.CASES), "all", threads=2, rounds=8)
        record(__file__, {"environment": environment(), "cases": rows})
    show(__file__, draw, tell)


if __name__ == "__main__":
    main()
