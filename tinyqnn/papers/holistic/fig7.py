"""Figure 7: MobileNetV2 on CIFAR-10 made narrower, in 2 bits

The first strides of 2 are 1, as in the paper. PACT stands behind every ReLU; what flows into a block has passed none
and stays float. The paper shows curves without numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyqnn.models import MobileNetV2
from tinyqnn.papers.claims import Claim, Finding, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic import _cifar as cifar

VERSION = 2  # PACT's first bounds are those of activations in training


@dataclass(frozen=True)
class Config:
    """One width multiplier."""

    width: float
    size: str = "small"
    seed: int = 0


SIZES = {
    "smoke": replace(cifar.SMOKE, pictures=64),
    "small": replace(cifar.SMALL, pictures=3000),
    "paper": cifar.PAPER,
}
WIDTHS = {"smoke": (0.05,), "small": (0.125, 0.5), "paper": (0.25, 0.35, 0.5, 0.75, 1.0)}


def cells(scale: str) -> list[Config]:
    seeds = 1 if scale == "smoke" else 3
    return [Config(width, scale, seed) for seed in range(seeds) for width in WIDTHS[scale]]


def run(config: Config, report: Report) -> dict[str, Any]:
    size = SIZES[config.size]
    return cifar.compare(lambda rng: MobileNetV2(config.width, dropout=0.0, rng=rng), size, config.seed, report)


def loss(cells: Sequence[Cell], seed: int, width: float, mode: str) -> float:
    """Points of accuracy that quantization costs at a width."""
    for cell in cells:
        if (cell.config.width, cell.config.seed) == (width, seed):
            return cell.result["accuracy"]["float"] - cell.result["accuracy"][mode]
    raise LookupError(f"MobileNetV2 of width {width}, seed {seed}")


def _narrow_suffers(cells: Sequence[Cell]) -> Finding:
    narrow, wide = (end(WIDTHS[cells[0].config.size]) for end in (min, max))
    seeds = sorted({cell.config.seed for cell in cells})
    return decide([loss(cells, s, narrow, "A2") - loss(cells, s, wide, "A2") for s in seeds])


def _activations_cost_more(cells: Sequence[Cell]) -> Finding:
    narrow = min(WIDTHS[cells[0].config.size])
    seeds = sorted({cell.config.seed for cell in cells})
    return decide([loss(cells, s, narrow, "A2") - loss(cells, s, narrow, "W2") for s in seeds])


CLAIMS = (
    Claim(
        "holistic.fig7.narrow-suffers",
        "A narrow MobileNetV2 loses more by 2-bit activations than a wide one.",
        _narrow_suffers,
    ),
    Claim(
        "holistic.fig7.activations-cost-more",
        "A narrow MobileNetV2 loses more by 2-bit activations than by 2-bit weights.",
        _activations_cost_more,
    ),
)


def table(cells: list[Cell]) -> str:
    lines = [cifar.NOTE, cifar.described(SIZES[cells[0].config.size]), "", cifar.header("width")]
    for width in dict.fromkeys(cell.config.width for cell in cells):
        lines.append(cifar.row(f"× {width}", [cell.result for cell in cells if cell.config.width == width]))
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    axes = figure.subplots()
    widths = sorted({cell.config.width for cell in cells})
    cifar.lines(axes, {width: [cell.result for cell in cells if cell.config.width == width] for width in widths})
    axes.set(xlabel="width multiplier of MobileNetV2", ylabel="accuracy on the test pictures (%)")
    axes.legend()
