"""Table 1: what the ImageNet ResNets cost, counted

Parameters, multiply-accumulates and sizes are counted from the traced networks; nothing is trained. Top-1 accuracies
are the paper's, and stand there as such. First and last layer stay float, as in the runs that the paper follows, and
2-bit weights have four levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import graph, quant
from tinyqnn.papers.claims import Claim, Finding, exact
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic._networks import TABLE_1, ImageNetRow


@dataclass(frozen=True)
class Config:
    """One network; `image` is the side of the picture that its operations are counted for."""

    depth: int
    width: int
    image: int = 224
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(18, 90, image=32)]
    return [Config(row.depth, row.width) for row in TABLE_1]


def listed(config: Config) -> ImageNetRow:
    """The row of the paper for a cell."""
    return next(row for row in TABLE_1 if (row.depth, row.width) == (config.depth, config.width))


def run(config: Config, report: Report) -> dict[str, Any]:
    model = listed(config).model(np.random.default_rng(config.seed))
    parameters = sum(p.size for p in model.parameters())
    picture = np.zeros((1, 3, config.image, config.image), np.float32)
    weights = quant.Uniform(bits=2, levels=4)
    quantized = graph.generate(model, picture, weights=weights, activations="PACT-2", keep=("first", "last"))
    cost = graph.cost(quantized)
    report(f"{parameters} parameters")
    return {
        "parameters": parameters,
        "operations": sum(cost.operations_by_width.values()),
        "operations_w2a2": cost.operations_by_width["W2A2"],
        "float32_bytes": cost.float32_bytes,
        "w2_bytes": cost.bytes,
    }


def _worst(cells: Sequence[Cell], ours: str, theirs: str, unit: float) -> float:
    """The largest difference from the paper, relative to the paper's number."""
    return max(
        abs(cell.result[ours] / unit / getattr(row, theirs) - 1) for cell in cells for row in [listed(cell.config)]
    )


def _counts(cells: list[Cell]) -> Finding:
    worst = max(abs(cell.result["parameters"] / 1e6 - listed(cell.config).millions) for cell in cells)
    return exact(worst < 0.1, worst, "million apart at most")


def _operations(cells: list[Cell]) -> Finding:
    worst = _worst(cells, "operations", "operations", 1e9)
    return exact(worst <= 0.05, 100 * worst, "% at most")


CLAIMS = (
    Claim(
        "holistic.table1.parameters", "Each network of table 1 has the parameters it lists, to 0.1 million.", _counts
    ),
    Claim("holistic.table1.operations", "Each needs the operations it lists, within 5 %.", _operations),
)


def table(cells: list[Cell]) -> str:
    lines = [
        "                      parameters (M)    operations (G)   of them   megabytes        top-1, paper (%)",
        "network   width       paper   here      paper   here     at W2A2   float32   W2     float   W2A2",
    ]
    for cell in cells:
        row, found = listed(cell.config), cell.result
        share = 100 * found["operations_w2a2"] / found["operations"]
        lines.append(
            f"{row.name:<9} {row.width:>5}      {row.millions:6.1f} {found['parameters'] / 1e6:6.1f}     "
            f"{row.operations:6.1f} {found['operations'] / 1e9:6.1f}     {share:5.1f} %   "
            f"{found['float32_bytes'] / 1e6:7.1f} {found['w2_bytes'] / 1e6:5.1f}     "
            f"{row.top1:5.1f}  {row.top1_w2a2:5.1f}"
        )
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """The paper's accuracies of each network, float and 2-bit, above the sizes counted here."""
    from tinyqnn import picture

    axes = figure.subplots()
    rows = [listed(cell.config) for cell in cells]
    floor = 68.0
    for place, row in enumerate(rows):
        axes.plot([place, place], [max(row.top1_w2a2, floor), row.top1], color=picture.GREY, zorder=1)
        if row.top1_w2a2 < floor:
            axes.annotate(f"down to {row.top1_w2a2:.1f}", (place, floor + 0.2), ha="center", color=picture.RED)
    for number, (label, values) in enumerate(
        (("float", [row.top1 for row in rows]), ("W2A2", [row.top1_w2a2 for row in rows]))
    ):
        axes.plot(values, **picture.line(number) | {"linestyle": ""}, label=f"{label}, as the paper reports it")
    names = [
        f"{row.name}\nwidth {row.width}\n{cell.result['float32_bytes'] / 1e6:.0f} MB\n"
        f"{cell.result['w2_bytes'] / 1e6:.1f} MB"
        for row, cell in zip(rows, cells)
    ]
    axes.set_xticks(range(len(rows)), names)
    axes.set(ylim=(floor, 79), ylabel="top-1 accuracy (%)")
    axes.set_xlabel("network, and its size in float32 and with 2-bit weights, counted here")
    axes.legend(loc="upper left")
