"""Figure 8 and table 5: three kinds of blocks, deep and narrow or shallow and wide, at one number of parameters

The paper's networks have about a million parameters; those of scale `small` about fifty thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyqnn.models import ResNet
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic import _cifar as cifar
from tinyqnn.papers.holistic._networks import TABLE_5

VERSION = 2  # PACT's first bounds are those of activations in training


@dataclass(frozen=True)
class Config:
    """One network: a kind of block, and a depth and width that make up the budget."""

    block: str
    depth: int
    width: int
    size: str = "small"
    seed: int = 0


SIZES = {"smoke": replace(cifar.SMOKE, pictures=64), "small": cifar.SMALL, "paper": cifar.PAPER}
NETWORKS: dict[str, list[tuple[str, int, int]]] = {
    "smoke": [("basic", 8, 2), ("preact", 8, 2), ("depthwise", 11, 2)],
    "small": [(block, *shape) for block in ("basic", "preact") for shape in ((8, 13), (26, 6))]
    + [("depthwise", 11, 20), ("depthwise", 29, 8)],
    "paper": [(row.block, row.depth, row.width) for row in TABLE_5],
}


def cells(scale: str) -> list[Config]:
    seeds = 1 if scale == "smoke" else 3
    return [Config(*network, scale, seed) for seed in range(seeds) for network in NETWORKS[scale]]


def run(config: Config, report: Report) -> dict[str, Any]:
    size = SIZES[config.size]
    return cifar.compare(
        lambda rng: ResNet(config.depth, config.width, rng=rng, block=config.block), size, config.seed, report
    )


def accuracy(cells: Sequence[Cell], seed: int, network: tuple[str, int, int], mode: str) -> float:
    for cell in cells:
        c = cell.config
        if (c.block, c.depth, c.width, c.seed) == (*network, seed):
            return cell.result["accuracy"][mode]
    raise LookupError(f"{network[0]} blocks, depth {network[1]}, width {network[2]}, seed {seed}")


def ends(cells: Sequence[Cell], block: str) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """The shallowest and the deepest network of a block."""
    found = [network for network in NETWORKS[cells[0].config.size] if network[0] == block]
    return min(found, key=lambda n: n[1]), max(found, key=lambda n: n[1])


def loss(cells: Sequence[Cell], seed: int, network: tuple[str, int, int], mode: str) -> float:
    return accuracy(cells, seed, network, "float") - accuracy(cells, seed, network, mode)


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.config.seed for cell in cells})


def _deep_loses_more(cells: Sequence[Cell]) -> Finding:
    findings = []
    for block in ("basic", "preact"):
        shallow, deep = ends(cells, block)
        findings.append(decide([loss(cells, s, deep, "A2") - loss(cells, s, shallow, "A2") for s in _seeds(cells)]))
    return all_of(findings)


def _wide_wins(cells: Sequence[Cell]) -> Finding:
    shallow, deep = ends(cells, "basic")
    return decide([accuracy(cells, s, shallow, "W2A2") - accuracy(cells, s, deep, "W2A2") for s in _seeds(cells)])


def _depthwise_resists(cells: Sequence[Cell]) -> Finding:
    (_, basic), (_, depthwise) = ends(cells, "basic"), ends(cells, "depthwise")
    return decide([loss(cells, s, basic, "A2") - loss(cells, s, depthwise, "A2") for s in _seeds(cells)])


def _preact_suffers(cells: Sequence[Cell]) -> Finding:
    (_, basic), (_, preact) = ends(cells, "basic"), ends(cells, "preact")
    return decide([loss(cells, s, preact, "A2") - loss(cells, s, basic, "A2") for s in _seeds(cells)])


CLAIMS = (
    Claim(
        "holistic.fig8.deep-loses-more",
        "At equal parameters a deep and narrow network loses more by 2-bit activations than a shallow and wide one "
        "(basic and pre-activation blocks).",
        _deep_loses_more,
    ),
    Claim(
        "holistic.fig8.wide-wins-at-2-bits",
        "At equal parameters, with basic blocks and 2 bits for weights and activations, the shallow and wide network "
        "is the better one.",
        _wide_wins,
    ),
    Claim(
        "holistic.fig8.depthwise-resists",
        "A deep network of depthwise blocks loses less by 2-bit activations than one of basic blocks about as deep.",
        _depthwise_resists,
    ),
    Claim(
        "holistic.fig8.preact-suffers",
        "A deep network of pre-activation blocks loses more by 2-bit activations than one of basic blocks (table 5).",
        _preact_suffers,
    ),
)


def table(cells: list[Cell]) -> str:
    lines = [cifar.NOTE, cifar.described(SIZES[cells[0].config.size]), "", cifar.header("network")]
    for block, depth, width in NETWORKS[cells[0].config.size]:
        found = [c.result for c in cells if (c.config.block, c.config.depth, c.config.width) == (block, depth, width)]
        if found:
            lines.append(cifar.row(f"{block} {depth}, width {width}", found))
    lines += ["", "The paper's table 5, one run each", cifar.header("network")]
    for row in TABLE_5:
        scores = {"float": row.float_, "W2": row.w2, "A2": row.a2, "W2A2": row.w2a2}
        listed = {"parameters": round(row.millions * 1e6), "accuracy": scores}
        lines.append(cifar.row(f"{row.block} {row.depth}, width {row.width}", [listed]).replace(" ±0.0", "     "))
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    panels = figure.subplots(1, 3, sharey=True)
    for axes, block in zip(panels, ("basic", "preact", "depthwise")):
        shapes = [(depth, width) for kind, depth, width in NETWORKS[cells[0].config.size] if kind == block]
        found = {
            f"{depth}\nwidth {width}": [
                c.result for c in cells if (c.config.block, c.config.depth, c.config.width) == (block, depth, width)
            ]
            for depth, width in shapes
        }
        cifar.lines(axes, {name: results for name, results in found.items() if results})
        axes.margins(x=0.35)
        axes.set(title=f"{block} blocks", xlabel="depth")
    panels[0].set_ylabel("accuracy on the test pictures (%)")
    panels[0].legend()
