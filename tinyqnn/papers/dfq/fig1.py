"""Figure 1: accuracy against compression; DFQ for a series of bounds, uniform widths, and random policies

The paper's dotted line is uniform quantization, and a search ought to lie above it: more accurate at the same size.
Here a network of three convolutions, so thin that bits matter, reads MNIST (a part of it, see Config), because a point
costs seconds there.

DFQ runs for several bounds θ (the float network's validation loss, times a factor), once between 1 and 8 bits, as in
the paper, and once among all widths 1 … 8, as the paper announces. For each policy that it finds a random one is drawn
from all widths 1 … 8, of the same size: not larger, and at most 3 % smaller. All start from one float network and are
trained alike, the float one as well, in two pieces, each with a rate that falls along a cosine: as long as DFQ
searches, and as long as it trains what it has found. The seeds are 3 to 10: on 0, 1 and 100 it was seen that a search
needs its full share of training afterwards, and with three seeds nothing about its worth was decided.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import nn, random
from tinyqnn.papers.claims import Claim, Finding, decide
from tinyqnn.papers.dfq._cells import mean, policy_of, scored, splits, trained
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.dfq import candidates, dfq
from tinyqnn.search.policy import Policy
from tinyqnn.tensor import Array

VERSION = 3  # all are trained in the same two pieces, and no random policy is larger than what it stands beside
SIZE = (9.0, 4.5)
WIDTHS = tuple(range(1, 9))


@dataclass(frozen=True)
class Config:
    """One seed: a float network, uniform widths, searches for a series of bounds, random policies of their sizes."""

    seed: int
    data: str = "mnist"
    width: int = 6
    train: int = 3_000
    valid: int = 1_500
    test: int = 10_000
    batch_size: int = 50
    epochs: int = 5
    search_epochs: int = 3
    retrain_epochs: int = 6
    widen: int = 0
    lr: float = 5e-3
    quantized_lr: float = 3e-3
    alpha_lr: float = 0.05
    factors: tuple[float, ...] = (1.1, 1.5, 2.2)
    uniform: tuple[int, ...] = (1, 2, 3, 4, 8)


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [
            Config(seed, "noise-mnist", 2, 100, 50, 50, 25, 1, 1, 1, 0, factors=(1.0,), uniform=(1, 8))
            for seed in range(3)
        ]
    if scale == "small":
        return [Config(seed) for seed in range(3, 11)]
    return [
        Config(seed, train=55_000, valid=5_000, epochs=20, search_epochs=20, retrain_epochs=20) for seed in range(5)
    ]


def network(width: int, rng: np.random.Generator) -> nn.Module:
    """(N, 1, 28, 28) -> (N, 10): three 3×3 convolutions with batch norm, ReLU and pooling, and a linear layer."""
    layers: list[nn.Module] = []
    for n, m in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(n, m, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(m), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 3 * 3, 10, rng=rng))


def random_policy(policy: Policy, rng: np.random.Generator, within: float = 0.03) -> Policy:
    """Another policy, as large as `policy` or a little smaller: widths out of 1 … 8, all that fit equally likely.

    Where no other is of that size, as beside the smallest of all, it is the policy itself.
    """
    weights = policy.of_role("weights")
    sizes = np.array([choice.elements for choice in weights])
    own = [choice.bits for choice in weights]
    all_widths = np.array(list(itertools.product(WIDTHS, repeat=len(sizes))))  # (8^layers, layers)
    size, wanted = all_widths @ sizes, sizes @ own
    fitting = (size <= wanted) & (size >= (1 - within) * wanted)
    others = fitting & (all_widths != own).any(axis=1)
    drawn = rng.choice(np.flatnonzero(others if others.any() else fitting))
    notations = candidates(WIDTHS)
    return policy.changed({c.vertex: notations[bits - 1] for c, bits in zip(weights, all_widths[drawn])})


def run(config: Config, report: Report) -> dict[str, Any]:
    """Lists of points {accuracy, compression, …}: uniform, and for each set of widths search and random."""
    rng = random.manual_seed(config.seed)
    own = np.random.default_rng((config.seed, 1))
    train, valid, test, _ = splits(config.data, config.train, config.valid, config.test, own)
    model = network(config.width, rng)
    trained(model, train, config.epochs, config.lr, config.batch_size, config.seed)
    example = train.inputs(slice(0, 2))

    def fixed(policy: Policy) -> dict[str, Any]:
        quantized = policy.apply(model, example)
        for epochs in (config.search_epochs, (1 + config.widen) * config.retrain_epochs):
            trained(quantized, train, epochs, config.quantized_lr, config.batch_size, config.seed)
        return scored(policy, quantized, valid, test)

    found: dict[str, Any] = {"float": fixed(policy_of(model, train, "float"))}
    float_loss = found["float"]["valid_loss"]
    found["uniform"] = [fixed(policy_of(model, train, candidates(WIDTHS)[bits - 1])) for bits in config.uniform]
    for name, bits in (("1, 8", (1, 8)), ("1 … 8", WIDTHS)):
        searched, drawn = [], []
        for factor in config.factors:
            policy = dfq(
                model, train, valid, theta=factor * float_loss, bits=bits, epochs=config.search_epochs,
                retrain_epochs=config.retrain_epochs, widen=config.widen, lr=config.quantized_lr,
                alpha_lr=config.alpha_lr,
                batch_size=config.batch_size, seed=config.seed, progress=False,
            )  # fmt: skip
            bound = {"theta": policy.theta, "keeps_bound": policy.keeps_bound, "factor": factor}
            searched.append({**scored(policy, policy.model, valid, test), **bound})
            drawn.append(fixed(random_policy(Policy(policy.choices, policy.floats), own)))
            report(f"{name}, θ = {factor} × float: {searched[-1]}\n  random: {drawn[-1]}")
        found[name] = {"search": searched, "random": drawn}
    return found


def at(points: list[dict[str, Any]], times: float) -> float:
    """The accuracy of a series of points at a compression, between them on a straight line in log compression."""
    xs = np.log([point["compression"] for point in points])
    order = np.argsort(xs)
    return float(np.interp(np.log(times), xs[order], np.array([point["accuracy"] for point in points])[order]))


def _over_uniform(cell: Cell, name: str) -> float:
    """Mean over the bounds: the search's accuracy minus that of uniform widths at the same compression."""
    points = cell.result[name]["search"]
    return float(np.mean([p["accuracy"] - at(cell.result["uniform"], p["compression"]) for p in points]))


def _over_random(cell: Cell, name: str) -> float:
    pairs = zip(cell.result[name]["search"], cell.result[name]["random"])
    return float(np.mean([ours["accuracy"] - other["accuracy"] for ours, other in pairs]))


def _keeps(cells: list[Cell]) -> Finding:
    """Parts of all searches whose retrained network keeps θ, minus one half: one number a seed."""
    parts = [
        np.mean([point["keeps_bound"] for name in ("1, 8", "1 … 8") for point in cell.result[name]["search"]])
        for cell in cells
    ]
    return decide([float(part) for part in parts], at_least=0.5, unit="of the searches")


def _follows(cells: list[Cell]) -> Finding:
    """Log-compression of the loosest bound over that of the tightest."""
    ratios = []
    for cell in cells:
        points = [cell.result[name]["search"] for name in ("1, 8", "1 … 8")]
        ratios.append(float(np.mean([np.log2(p[-1]["compression"] / p[0]["compression"]) for p in points])))
    return decide(ratios, unit="doublings")


CLAIMS = (
    Claim(
        "dfq.fig1.above-uniform",
        "At the same compression, networks of 1- and 8-bit layers that the search finds are more accurate than uniform "
        "widths (on a line between them), on the mean over the bounds.",
        lambda cells: decide([_over_uniform(cell, "1, 8") for cell in cells]),
    ),
    Claim(
        "dfq.fig1.above-random",
        "Networks that the search between 1 and 8 bits finds are more accurate than random policies of the same size.",
        lambda cells: decide([_over_random(cell, "1, 8") for cell in cells]),
    ),
    Claim(
        "dfq.fig1.all-widths-above-uniform",
        "At the same compression, networks that the search among all widths 1 to 8 finds are more accurate than "
        "uniform widths, on the mean over the bounds.",
        lambda cells: decide([_over_uniform(cell, "1 … 8") for cell in cells]),
    ),
    Claim(
        "dfq.fig1.all-widths-above-random",
        "Networks that the search among all widths 1 to 8 finds are more accurate than random policies of the same "
        "size.",
        lambda cells: decide([_over_random(cell, "1 … 8") for cell in cells]),
    ),
    Claim(
        "dfq.fig1.keeps-bound",
        "After retraining, most of the networks that were searched for keep their bound.",
        _keeps,
    ),
    Claim(
        "dfq.fig1.bound-commands",
        "The looser the bound, the smaller the network: the loosest bound compresses more than the tightest.",
        _follows,
    ),
)


def table(cells: list[Cell]) -> str:
    c = cells[0].config
    lines = ["                    compression     accuracy, %    bound kept   random policy of the size, accuracy"]

    def row(label: str, points: list[dict[str, Any]], others: list[dict[str, Any]] | None = None) -> str:
        kept = f"{sum(p['keeps_bound'] for p in points)} of {len(points)}" if others else ""
        random_ones = mean([p["accuracy"] for p in others]) if others else ""
        times = mean([p["compression"] for p in points]) + "×"
        return (
            f"{label:<18}  {times:<14}  {mean([p['accuracy'] for p in points]):<14} {kept:<12} {random_ones}".rstrip()
        )

    lines.append(row("float", [cell.result["float"] for cell in cells]))
    for number, bits in enumerate(c.uniform):
        lines.append(row(f"uniform {bits}", [cell.result["uniform"][number] for cell in cells]))
    for name in ("1, 8", "1 … 8"):
        for number, factor in enumerate(c.factors):
            points = [cell.result[name]["search"][number] for cell in cells]
            lines.append(
                row(f"DFQ {name}, θ×{factor:g}", points, [cell.result[name]["random"][number] for cell in cells])
            )
    for name in ("1, 8", "1 … 8"):
        over = mean([_over_uniform(cell, name) for cell in cells])
        lines.append(f"\nDFQ {name}: {over} points over uniform widths at the same compression, ")
        lines[-1] += f"{mean([_over_random(cell, name) for cell in cells])} over random policies"
    return "\n".join(lines) + (
        f"\n\nThree convolutions of {c.width}, {2 * c.width} and {4 * c.width} channels on MNIST, {c.train:,} "
        f"training, {c.valid:,} validation and {c.test:,} test images; {c.epochs} epochs in float, {c.search_epochs} "
        f"of search and {c.retrain_epochs} after it; mean ± sd of "
        f"{len(cells)} seeds. The paper's figure 1 is of VGG-16 on CIFAR-10 and prints no numbers."
    )


def pareto(points: list[dict[str, Any]]) -> Array:
    """Which points no other one beats in both compression and accuracy."""
    return np.array(
        [
            not any(q["compression"] >= p["compression"] and q["accuracy"] > p["accuracy"] for q in points)
            for p in points
        ]
    )


def draw(cells: list[Cell], figure: Any) -> None:
    """Every point of every seed; lines through the means of uniform widths; filled: not beaten by any of its seed."""
    from tinyqnn import picture

    axes = figure.subplots()
    kinds = [("uniform widths", picture.GREY, "o"), ("random policy", picture.ORANGE, "x")]
    kinds += [("DFQ, 1 or 8 bits", picture.BLUE, "s"), ("DFQ, 1 … 8 bits", picture.RED, "^")]
    for cell in cells:
        result = cell.result
        drawn = [p for name in ("1, 8", "1 … 8") for p in result[name]["random"]]
        series = [result["uniform"], drawn, result["1, 8"]["search"], result["1 … 8"]["search"]]
        best = iter(pareto([p for points in series for p in points]))
        for (label, colour, marker), points in zip(kinds, series):
            for point in points:
                face = colour if next(best) or marker == "x" else "white"
                style = {"color": colour, "marker": marker, "markerfacecolor": face, "linestyle": "none"}
                axes.plot(point["compression"], point["accuracy"], label=label, **style)
                label = "_"
        kinds = [("_", colour, marker) for _, colour, marker in kinds]
    uniform = [[cell.result["uniform"][i] for cell in cells] for i in range(len(cells[0].config.uniform))]
    times = [points[0]["compression"] for points in uniform]
    axes.plot(times, [np.mean([p["accuracy"] for p in points]) for points in uniform], ":", color=picture.GREY)
    axes.axhline(np.mean([cell.result["float"]["accuracy"] for cell in cells]), color=picture.INK, linestyle="--")
    axes.set(xlabel="compression of the weights", ylabel="test accuracy, %", xscale="log")
    axes.set_xticks([4, 8, 16, 32], labels=["4", "8", "16", "32"])
    axes.minorticks_off()
    axes.set_title("dashed: float; filled: on the Pareto front of its seed")
    axes.legend()
