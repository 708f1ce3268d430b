"""Figure 6: ResNets on CIFAR-10, made wider and made deeper, in 2 bits

(a) width: the shallow network with more and more channels; (b) depth: the narrow one with more and more blocks. The
paper shows curves without numbers for these; what it says of them is in the claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyqnn.models import ResNet
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic import _cifar as cifar

VERSION = 2  # PACT's first bounds are those of activations in training


@dataclass(frozen=True)
class Config:
    """One ResNet of basic blocks."""

    depth: int
    width: int
    size: str = "small"
    seed: int = 0


SIZES = {"smoke": cifar.SMOKE, "small": cifar.SMALL, "paper": cifar.PAPER}
NETWORKS = {  # the widths at one depth, and the depths at one width
    "smoke": ([(8, 2)], [(8, 2)]),
    "small": ([(14, 4), (14, 8), (14, 16)], [(8, 8), (14, 8), (32, 8)]),
    "paper": (
        [(20, 16), (20, 32), (20, 48), (20, 80), (20, 160)],
        [(20, 16), (32, 16), (56, 16), (110, 16)],
    ),
}


def cells(scale: str) -> list[Config]:
    wider, deeper = NETWORKS[scale]
    networks = list(dict.fromkeys(wider + deeper))
    seeds = 1 if scale == "smoke" else 3
    return [Config(depth, width, scale, seed) for seed in range(seeds) for depth, width in networks]


def run(config: Config, report: Report) -> dict[str, Any]:
    return cifar.compare(
        lambda rng: ResNet(config.depth, config.width, rng=rng), SIZES[config.size], config.seed, report
    )


def loss(cells: Sequence[Cell], seed: int, network: tuple[int, int], mode: str) -> float:
    """Points of accuracy that quantization costs a network."""
    for cell in cells:
        if (cell.config.depth, cell.config.width, cell.config.seed) == (*network, seed):
            return cell.result["accuracy"]["float"] - cell.result["accuracy"][mode]
    raise LookupError(f"ResNet{network[0]} of width {network[1]}, seed {seed}")


def ends(cells: Sequence[Cell], which: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last network of a row of `NETWORKS`: 0 for width, 1 for depth."""
    row = NETWORKS[cells[0].config.size][which]
    return row[0], row[-1]


def _costs_more(which: int, mode: str, small: bool) -> Callable[[Sequence[Cell]], Finding]:
    """The test that the small end of a row loses more than the large one (or, not `small`, the other way round)."""

    def test(cells: Sequence[Cell]) -> Finding:
        first, last = ends(cells, which)
        sign = 1 if small else -1
        seeds = sorted({cell.config.seed for cell in cells})
        return decide([sign * (loss(cells, s, first, mode) - loss(cells, s, last, mode)) for s in seeds])

    return test


def _width_helps_both(cells: Sequence[Cell]) -> Finding:
    return all_of([_costs_more(0, mode, small=True)(cells) for mode in ("W2", "A2")])


CLAIMS = (
    Claim(
        "holistic.fig6.width-helps-both",
        "A wider ResNet loses less by 2-bit weights, and less by 2-bit activations, than a narrow one as deep.",
        _width_helps_both,
    ),
    Claim(
        "holistic.fig6.depth-helps-weights",
        "A deeper ResNet loses less by 2-bit weights than a shallow one of the same width.",
        _costs_more(1, "W2", small=True),
    ),
    Claim(
        "holistic.fig6.depth-hurts-activations",
        "A deeper ResNet loses more by 2-bit activations than a shallow one of the same width.",
        _costs_more(1, "A2", small=False),
    ),
)


def table(cells: list[Cell]) -> str:
    size = SIZES[cells[0].config.size]
    lines = [cifar.NOTE, cifar.described(size), "", cifar.header("network")]
    for network in dict.fromkeys((cell.config.depth, cell.config.width) for cell in cells):
        found = [cell.result for cell in cells if (cell.config.depth, cell.config.width) == network]
        lines.append(cifar.row(f"ResNet{network[0]}, width {network[1]}", found))
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    scale = cells[0].config.size
    panels = figure.subplots(1, 2, sharey=True)
    for axes, row, name, place in zip(panels, NETWORKS[scale], ("width", "depth"), (1, 0)):
        other = f"depth {row[0][0]}" if name == "width" else f"width {row[0][1]}"
        found = {
            network[place]: [c.result for c in cells if (c.config.depth, c.config.width) == network] for network in row
        }
        cifar.lines(axes, found)
        axes.set(xlabel=f"{name}, at {other}", title=f"({'ab'[1 - place]}) {name}")
    panels[0].set_ylabel("accuracy on the test pictures (%)")
    panels[0].legend()
