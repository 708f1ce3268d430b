"""Table 2: the average bits of the strategies that the paper's search found, counted again

Nothing is trained. The averages that table 2 and section 6.3 print follow from the bits that they list, layer by
layer, and from the sizes of the layers: b̄ = Σ nᵢ bᵢ / Σ nᵢ, eq. (6). Which sizes these are the paper does not say. For
weights nᵢ is the number of weights; for activations all but two of its averages come out if it is the size of what the
layer puts out, before pooling.

    AlexNet     without groups; conv2 … conv5, fc6, fc7: the first and the last layer stay float
    ResNet18    16 convolutions and, after the two of a stage's first block, a 1×1 projection, in the first stage too
    VGG-like    conv1 … conv6, FC7; only the last layer stays float
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinyqnn.graph import average_bits
from tinyqnn.papers.claims import Claim, Finding, exact
from tinyqnn.papers.experiment import Cell, Report

SIZE = (10.0, 5.0)


@dataclass(frozen=True)
class Config:
    """One row of the table."""

    network: str
    strategy: str
    seed: int = 0


class Row(NamedTuple):
    """Bits layer by layer, and the averages that are printed."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]
    printed: tuple[float, float]


ROWS = {
    ("AlexNet", "P-2/C-2"): Row((4, 4, 4, 4, 2, 2), (2, 2, 2, 2, 3, 3), (2.13, 2.01)),
    ("AlexNet", "P-3/C-3"): Row((4, 4, 4, 4, 3, 3), (3, 3, 4, 3, 4, 4), (3.06, 3.20)),
    ("AlexNet", "P-4/C-4"): Row((4, 4, 4, 4, 4, 4), (3, 3, 3, 5, 5, 5), (4.00, 4.05)),
    ("ResNet18", "P-2/C-2"): Row(
        (4, 3, 4, 4, 3, 3, 4, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2, 4, 2, 2),
        (3, 2, 3, 2, 2, 3, 3, 2, 2, 2, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3),
        (2.13, 2.49),
    ),
    ("ResNet18", "P-3/C-3"): Row(
        (4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 4, 3, 2),
        (4, 3, 3, 2, 2, 4, 4, 2, 2, 3, 4, 4, 2, 3, 4, 5, 6, 4, 5, 4),
        (2.94, 3.07),
    ),
    ("ResNet18", "P-4/C-4"): Row(
        (4,) * 20,
        (5, 4, 5, 3, 3, 4, 4, 3, 3, 3, 5, 6, 3, 4, 5, 7, 7, 5, 7, 6),
        (4.00, 4.08),
    ),
    ("VGG-like", "C-3/C-3"): Row((7, 8, 6, 6, 7, 5, 2), (2, 3, 3, 4, 5, 4, 6), (2.82, 3.08)),
}


def sizes(network: str) -> tuple[list[int], list[int]]:
    """Weights, and numbers put out for one picture, of each quantized layer.

    >>> sum(sizes("AlexNet")[0]), len(sizes("ResNet18")[0])
    (58236928, 20)
    """
    if network == "AlexNet":  # (in, out, kernel, side of the output)
        layers = [(96, 256, 5, 27), (256, 384, 3, 13), (384, 384, 3, 13), (384, 256, 3, 13)]
        layers += [(9216, 4096, 1, 1), (4096, 4096, 1, 1)]
    elif network == "ResNet18":
        layers, before = [], 64
        for width, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
            layers += [(before, width, 3, side), (width, width, 3, side), (before, width, 1, side)]
            layers += [(width, width, 3, side)] * 2
            before = width
    else:
        layers = [(3, 64, 3, 32), (64, 64, 3, 32), (64, 128, 3, 16), (128, 128, 3, 16)]
        layers += [(128, 256, 3, 8), (256, 256, 3, 8), (4096, 1024, 1, 1)]
    return [n * m * k * k for n, m, k, _ in layers], [m * side * side for _, m, _, side in layers]


def cells(scale: str) -> list[Config]:
    return [Config(*key) for key in list(ROWS)[: 1 if scale == "smoke" else None]]


def run(config: Config, report: Report) -> dict[str, Any]:
    row = ROWS[config.network, config.strategy]
    weights, activations = sizes(config.network)
    return {"averages": [average_bits(row.weights, weights), average_bits(row.activations, activations)]}


def _equal(cell: Cell, side: int) -> bool:
    """The same in the two decimals that are printed."""
    printed = ROWS[cell.config.network, cell.config.strategy].printed[side]
    return bool(round(cell.result["averages"][side], 2) == printed)


def _all(side: int, networks: tuple[str, ...]) -> Callable[[list[Cell]], Finding]:
    def decide(cells: list[Cell]) -> Finding:
        equal = [_equal(cell, side) for cell in cells if cell.config.network in networks]
        if not equal:
            raise LookupError("not counted")
        return exact(all(equal), sum(equal), f"of {len(equal)} averages come out")

    return decide


CLAIMS = (
    Claim(
        "autoqnn.table2.weights",
        "The average bits of weights that are printed for AlexNet, ResNet18 and VGG-like follow from the bits of their "
        "layers.",
        _all(0, ("AlexNet", "ResNet18", "VGG-like")),
    ),
    Claim(
        "autoqnn.table2.activations",
        "The average bits of activations that are printed for ResNet18 and VGG-like follow from the bits of their "
        "layers.",
        _all(1, ("ResNet18", "VGG-like")),
    ),
    Claim(
        "autoqnn.table2.activations-alexnet",
        "The average bits of activations that are printed for AlexNet follow from the bits of its layers.",
        _all(1, ("AlexNet",)),
    ),
)


def table(cells: list[Cell]) -> str:
    lines = [
        "                       weights          activations",
        "network    strategy    paper   here     paper   here",
    ]
    for cell in cells:
        row, (w, a) = ROWS[cell.config.network, cell.config.strategy], cell.result["averages"]
        marks = ["" if _equal(cell, side) else "  differs" for side in (0, 1)]
        lines.append(
            f"{cell.config.network:<10} {cell.config.strategy:<10} {row.printed[0]:6.2f}  {w:6.3f}   "
            f"{row.printed[1]:6.2f}  {a:6.3f}{''.join(marks)}"
        )
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """Bits over the layers' weights: where the numbers are, there the bits are few."""
    from tinyqnn import picture

    networks = list(dict.fromkeys(cell.config.network for cell in cells))
    panels = figure.subplots(2, len(networks), sharey="row", squeeze=False)
    for column, network in enumerate(networks):
        for side, name in enumerate(("weights", "activations")):
            axes, counts = panels[side][column], sizes(network)[side]
            for number, cell in enumerate(c for c in cells if c.config.network == network):
                bits = ROWS[network, cell.config.strategy][side]
                style = picture.line(number) | {"linestyle": "", "markersize": 11 - 3 * number}
                axes.plot(counts, bits, **style, label=cell.config.strategy)
            axes.set(xscale="log", xlabel=f"{name} in the layer", xlim=(min(counts) / 2, 2 * max(counts)))
            axes.xaxis.set_minor_formatter("")
        panels[0][column].set_title(network)
        panels[0][column].legend(fontsize=8)
    panels[0][0].set_ylabel("bits of weights")
    panels[1][0].set_ylabel("bits of activations")
