"""How near our training steps come to what the processor can do, operation by operation: a roofline.

    python figures/bench_roofline.py          half a minute; wants a machine that does nothing else
    python figures/bench_roofline.py --draw   the picture once more, from the figures of last time

Writes bench_roofline.json, bench_roofline.txt and bench_roofline.png beside this file.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from drawing import beside, record, show

from tinyqnn.bench import roofline, training
from tinyqnn.bench.roofline import Roof, Spot
from tinyqnn.provenance import environment


def draw(cases: dict[str, Any]) -> None:
    """Operations a second over operations a byte, for each operation of five networks; the line is the limit."""
    over, spots = Roof(**cases["roof"]), read(cases)
    with beside(__file__, 8, 9) as figure:
        roofline.draw(spots, over, figure)


def tell(results: dict[str, Any]) -> str:
    """The tables, for pages."""
    machine, over = results["environment"], Roof(**results["cases"]["roof"])
    lines = [
        f"{machine['processor']}, {machine['threads']} threads",
        f"the limit: {over.operations / 1e9:,.0f} · 10⁹ operations a second, {over.bytes / 1e9:.0f} GB/s",
    ]
    for title, spots in read(results["cases"]).items():
        lines += ["", title, roofline.table(spots, over)]
    return "\n".join(lines) + "\n"


def read(cases: dict[str, Any]) -> dict[str, list[Spot]]:
    """The spots as they were."""
    return {title: [Spot(**spot) for spot in spots] for title, spots in cases["spots"].items()}


def main() -> None:
    if sys.argv[1:] != ["--draw"]:
        over = roofline.roof()
        found = {case.title: roofline.spots(training.our_step(case)) for case in training.CASES.values()}
        spots = {title: [asdict(spot) for spot in some] for title, some in found.items()}
        record(__file__, {"environment": environment(), "cases": {"roof": asdict(over), "spots": spots}})
    show(__file__, draw, tell)


if __name__ == "__main__":
    main()
