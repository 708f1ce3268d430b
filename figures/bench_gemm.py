"""The roofline of products of codes: how fast they are, next to what this processor can do at most.

python figures/bench_gemm.py              draw figures/bench_gemm.json, as it is
python figures/bench_gemm.py --measure    measure first (`tinyqnn bench gemm`, `gemv` and `layer` in one): minutes
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
COLOURS = {"binary": "#0072b2", "bitserial": "#009e73", "int8": "#d55e00", "shift": "#cc79a7"}
NAMES = {"binary": "1 bit", "bitserial": "bit planes", "int8": "bytes", "shift": "shifts"}


def measure() -> None:
    """Write bench_gemm.json."""
    from tinyqnn.bench import gemm
    from tinyqnn.provenance import environment

    results = gemm.run(["gemm", "gemv", "layer", "choice"])
    results = {"environment": environment(), **results, "first_calls": gemm.first_calls()}
    results["choices"] = gemm.choices(results)
    (HERE / "bench_gemm.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def draw(results: dict) -> None:
    """One point a product: operations a byte moved, operations a second; lines are the processor's limits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    host, seen = results["host"], set()
    bandwidth = host["read_bytes_per_second"]
    for name, colour in (("bits", COLOURS["binary"]), ("bytes", COLOURS["int8"])):
        limit = host["limits"][name]
        axes.plot([1, limit / bandwidth, 1e5], [bandwidth / 1e9, limit / 1e9, limit / 1e9], color=colour, lw=1, ls="--")
        axes.text(9e4, limit / 1e9 * 1.06, f"limit of {name}: {limit / 1e9:,.0f}", color=colour, ha="right", fontsize=8)
    for row in results["cases"]:
        if row["group"] == "choice":
            continue
        speed = row["operations"] / row["seconds"]["tinyqnn"]["best"] / 1e9
        label = None if row["kernel"] in seen else NAMES[row["kernel"]]
        seen.add(row["kernel"])
        x = row["operations"] / row["bytes"]
        axes.plot(x, speed, "s" if row["group"] == "layer" else "o", color=COLOURS[row["kernel"]], ms=5, label=label)
        if "numpy" in row["seconds"]:
            speed = row["operations"] / row["seconds"]["numpy"]["best"] / 1e9
            label = None if "numpy" in seen else "NumPy float32, the same shapes"
            seen.add("numpy")
            axes.plot(x, speed, "x", color="0.6", ms=5, label=label)
    axes.set(xscale="log", yscale="log", xlim=(1, 1e5), ylim=(1, None))
    axes.set_xlabel("operations a byte of packed factors and result (a product and a sum are two)")
    axes.set_ylabel("10⁹ operations a second")
    threads, processor = host["threads"], results["environment"]["processor"]
    axes.set_title(
        f"Products of codes (circles) and convolutions (squares), {threads} threads, {processor}", fontsize=9
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(HERE / "bench_gemm.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    draw(json.loads((HERE / "bench_gemm.json").read_text(encoding="utf-8")))
