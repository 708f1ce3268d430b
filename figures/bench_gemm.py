"""How fast products of codes are, next to what this processor can do at most: a roofline.

    python figures/bench_gemm.py              draw bench_gemm.json as it is, a second
    python figures/bench_gemm.py --measure    measure first (`tinyqnn bench gemm`, `gemv` and `layer` in one), minutes;
                                              `--measure layer gemv` these alone (gemm, gemv, layer, choice, calls)

Writes bench_gemm.png and bench_gemm.txt beside this file, the block of tutorial 11 that shows the text, and the
picture of tutorial 12.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import blocks
import tutorial_12_shifts
from drawing import beside

from tinyqnn.picture import BLUE, GREEN, GREY, ORANGE, RED

HERE = Path(__file__).parent
LOOKS = {
    "binary": ("1 bit", BLUE, "o"),
    "bitserial": ("bit planes", GREEN, "D"),
    "int8": ("bytes", RED, "s"),
    "shift": ("shifts", ORANGE, "v"),
}


PARTS = ("gemm", "gemv", "layer", "choice", "calls")


def measure(parts: list[str]) -> None:
    """Write bench_gemm.json, of which the parts not named stay as they were; `measured` says where each is from."""
    from tinyqnn.bench import gemm
    from tinyqnn.provenance import environment

    path = HERE / "bench_gemm.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    groups = [part for part in parts if part != "calls"]
    results = gemm.run(groups, rounds=16) if groups else {"host": before["host"], "cases": []}
    kept = [row for row in before["cases"] if row["group"] not in groups]
    rows = sorted(results["cases"] + kept, key=lambda row: PARTS.index(row["group"]))
    calls = gemm.first_calls() if "calls" in parts else before["first_calls"]
    here = {"environment": environment(), "host": results["host"]}
    earlier = before.get("measured", {key: {name: before[name] for name in ("environment", "host")} for key in PARTS})
    results = {**here, "cases": rows, "first_calls": calls, "measured": {**earlier, **dict.fromkeys(parts, here)}}
    results["choices"] = gemm.choices(results)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def draw(results: dict) -> None:
    """One point a product: operations a byte moved, operations a second; lines are the processor's limits."""
    host, seen = results["host"], set()
    bandwidth, limits = host["read_bytes_per_second"], host["limits"]
    with beside(__file__, 8, 5) as figure:
        axes = figure.subplots()
        for name, colour, dash in (("bits", BLUE, "--"), ("bytes", RED, ":")):
            limit = limits[name]
            axes.plot([1, limit / bandwidth, 1e5], [bandwidth / 1e9, limit / 1e9, limit / 1e9], dash, color=colour)
            told = f"the limit of {name}: {limit / 1e9:,.0f}"
            axes.text(9e4, limit / 1e9 * 1.1, told, color=colour, ha="right", va="bottom")
        axes.text(18, 7 * bandwidth / 1e9, f"memory: {bandwidth / 1e9:.0f} GB/s", rotation=42)
        for row in results["cases"]:
            if row["group"] == "choice" or row["kernel"] == "chosen":
                continue
            name, colour, marker = LOOKS[row["kernel"]]
            x, face = row["operations"] / row["bytes"], "white" if row["group"] == "layer" else colour
            look = {"markeredgecolor": colour, "markerfacecolor": face, "markersize": 6, "linestyle": ""}
            speed = row["operations"] / row["seconds"]["tinyqnn"]["best"] / 1e9
            axes.plot(x, speed, marker=marker, label=None if name in seen else name, **look)
            seen.add(name)
            if "numpy" in row["seconds"]:
                speed = row["operations"] / row["seconds"]["numpy"]["best"] / 1e9
                label = None if "numpy" in seen else "NumPy float32, the same shapes"
                seen.add("numpy")
                axes.plot(x, speed, "x", color=GREY, markersize=6, label=label)
        axes.set(xscale="log", yscale="log", xlim=(1, 1e5), ylim=(1, None))
        axes.set_xlabel("operations a byte of packed factors and result (a product and a sum are two)")
        axes.set_ylabel("10⁹ operations a second")
        processor = results["environment"]["processor"]
        axes.set_title(
            f"products of codes (filled) and convolutions (hollow)\n{host['threads']} threads, {processor}", fontsize=10
        )
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("NumPy"))
        axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower right")


def tell(results: dict) -> str:
    """The products next to float32 ones, a line each, for a page."""
    from tinyqnn.bench import gemm

    host, machine = results["host"], results["environment"]
    wide = 12 if any(row.get("share_of_tiles") for row in results["cases"]) else 10
    lines = [
        f"{machine['processor']}, {host['threads']} threads; times as fast as float32, best calls (medians)",
        "",
        f"{'rows × K × columns':<44}{'NumPy':>13}{'PyTorch':>13}{'of limit':>{wide}}",
    ]
    for row in results["cases"]:
        if row["group"] in ("gemm", "gemv"):
            ratios = (row["ratio"].get(engine) for engine in ("numpy", "torch"))
            told = ("–" if r is None else f"{r['best']:.1f} ({r['median']:.1f})" for r in ratios)
            lines.append(f"{row['case']:<44}" + "".join(f"{text:>13}" for text in told) + f"{gemm.told(row):>{wide}}")
    return "\n".join(lines) + "\n"


def write(results: dict) -> None:
    """The same as bench_gemm.txt, and in the page that shows it."""
    (HERE / "bench_gemm.txt").write_text(tell(results), encoding="utf-8")
    blocks.write()


def main() -> None:
    if "--measure" in sys.argv:
        measure(sys.argv[sys.argv.index("--measure") + 1 :] or list(PARTS))
    results = json.loads((HERE / "bench_gemm.json").read_text(encoding="utf-8"))
    draw(results)
    write(results)
    tutorial_12_shifts.main()


if __name__ == "__main__":
    main()
