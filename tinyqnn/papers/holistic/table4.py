"""Table 4: what the Lipschitz term and the cyclic rate bring a 2-bit ResNet, over depth

    float              the network that all others start from
    2-bit              weights and activations in 2 bits, retrained
    2-bit, longer      the same, trained on at its last rate for as many epochs as the next row has more
    2-bit (L_R + CLR)  retrained with 1e-4 · L_R (eq. (8)), then fine-tuned with the cyclic rate (figure 11)

The paper does not have the third row; without it one could not tell the methods from the longer training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyqnn import optim
from tinyqnn.models import ResNet
from tinyqnn.papers.claims import Claim, Finding, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic import _cifar as cifar
from tinyqnn.train import Lipschitz

VERSION = 2  # PACT's first bounds are those of activations in training

METHODS = ("float", "2-bit", "2-bit, longer", "2-bit (L_R + CLR)")
PAPER = {  # depth: as METHODS; the third is not in the paper
    20: (92.42, 89.36, None, 89.68),
    32: (92.99, 90.00, None, 90.60),
    56: (93.67, 89.13, None, 90.24),
    110: (94.07, 83.71, None, 87.77),
}


@dataclass(frozen=True)
class Config:
    """One depth."""

    depth: int
    width: int
    size: str = "small"
    seed: int = 0


SIZES = {"smoke": replace(cifar.SMOKE, pictures=64), "small": cifar.SMALL, "paper": cifar.PAPER}
NETWORKS = {
    "smoke": ((8, 2),),
    "small": ((8, 8), (14, 8), (26, 8)),
    "paper": tuple((depth, 16) for depth in PAPER),
}
TUNING = {"smoke": (1, 0.125), "small": (4, 0.5), "paper": (40, 1.0)}  # epochs of fine-tuning, and of one rate


def cells(scale: str) -> list[Config]:
    seeds = 1 if scale == "smoke" else 3
    return [Config(depth, width, scale, seed) for seed in range(seeds) for depth, width in NETWORKS[scale]]


def run(config: Config, report: Report) -> dict[str, Any]:
    size, seed = SIZES[config.size], config.seed
    train = cifar.pictures(size).train
    model = ResNet(config.depth, config.width, rng=np.random.default_rng(seed))
    cifar.pretrain(model, size, seed)
    found = {"float": cifar.accuracy(model, size)}

    epochs, step = TUNING[config.size]
    base = size.lr / 1000  # 1e-4, the last rate of the retraining here
    plain = cifar.retrain(model, size, "W2A2", seed)
    found["2-bit"] = cifar.accuracy(plain, size)
    cifar.fit(plain, train, size, epochs, base, (), 0.0, seed + 2)
    found["2-bit, longer"] = cifar.accuracy(plain, size)

    both = cifar.retrain(model, size, "W2A2", seed, hooks=[Lipschitz(1e-4)])
    cyclic = optim.DiscreteCyclicLR(step)
    cifar.fit(both, train, size, epochs, base, (), 0.0, seed + 2, [Lipschitz(1e-4)], cyclic)
    found["2-bit (L_R + CLR)"] = cifar.accuracy(both, size)
    for method, value in found.items():
        report(f"{method}: {value:.2f} %")
    return {"accuracy": found}


def gain(cells: Sequence[Cell], seed: int, depth: int, over: str) -> float:
    """Points that L_R and CLR bring at a depth."""
    for cell in cells:
        if (cell.config.depth, cell.config.seed) == (depth, seed):
            return cell.result["accuracy"]["2-bit (L_R + CLR)"] - cell.result["accuracy"][over]
    raise LookupError(f"depth {depth}, seed {seed}")


def _depths(cells: Sequence[Cell]) -> list[int]:
    return [depth for depth, _ in NETWORKS[cells[0].config.size]]


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.config.seed for cell in cells})


def _helps(cells: Sequence[Cell]) -> Finding:
    depths = _depths(cells)
    return decide([float(np.mean([gain(cells, s, depth, "2-bit") for depth in depths])) for s in _seeds(cells)])


def _more_than_longer(cells: Sequence[Cell]) -> Finding:
    depths = _depths(cells)
    return decide([float(np.mean([gain(cells, s, depth, "2-bit, longer") for depth in depths])) for s in _seeds(cells)])


def _helps_deep_more(cells: Sequence[Cell]) -> Finding:
    shallow, deep = min(_depths(cells)), max(_depths(cells))
    return decide([gain(cells, s, deep, "2-bit") - gain(cells, s, shallow, "2-bit") for s in _seeds(cells)])


CLAIMS = (
    Claim(
        "holistic.table4.helps",
        "The Lipschitz term and the cyclic rate make 2-bit ResNets better, on average over the depths.",
        _helps,
    ),
    Claim(
        "holistic.table4.more-than-longer",
        "They make them better than the same retraining continued for as many epochs.",
        _more_than_longer,
    ),
    Claim(
        "holistic.table4.helps-deep-more",
        "They help the deepest network more than the shallowest.",
        _helps_deep_more,
    ),
)


def table(cells: list[Cell]) -> str:
    lines = [cifar.NOTE, cifar.described(SIZES[cells[0].config.size]), ""]
    depths = _depths(cells)
    lines.append(f"{'here: ResNet depth':<20}" + "".join(f"{depth:>13}" for depth in depths))
    for method in METHODS:
        line = f"{method:<20}"
        for depth in depths:
            values = [cell.result["accuracy"][method] for cell in cells if cell.config.depth == depth]
            line += f"{cifar.spread(values):>13}"
        lines.append(line)
    lines += ["", f"{'paper: ResNet depth':<20}" + "".join(f"{depth:>13}" for depth in PAPER)]
    for number, method in enumerate(METHODS):
        values = [row[number] for row in PAPER.values()]
        lines.append(f"{method:<20}" + "".join(f"{'–' if v is None else format(v, '.2f'):>13}" for v in values))
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    from tinyqnn import picture

    axes = figure.subplots()
    depths = _depths(cells)
    for number, method in enumerate(METHODS):
        values = [[c.result["accuracy"][method] for c in cells if c.config.depth == depth] for depth in depths]
        means = [np.mean(each) for each in values]
        spreads = [np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in values]
        axes.errorbar(range(len(depths)), means, spreads, capsize=3, label=method, **picture.line(number))
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set(xlabel="depth of the ResNet", ylabel="accuracy on the test pictures (%)")
    axes.legend()
