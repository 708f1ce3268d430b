"""Tables 3 and 4: learned widths beside fixed ones at 4, 3 and 2 bits, on two small networks

The paper puts PotQ on the weights and ClipQ on the activations of AlexNet and ResNet18, learns the widths for
averages of 2, 3 and 4 bits, and sets that beside what others reach on ImageNet with the same bits everywhere. Here a
VGG-like and a ResNet of eight channels see a part of CIFAR-10 (a copy that went through JPEG), and the others are
PotQ with ClipQ and ClipQ alone, with the same bits everywhere. The first and the last layer stay float, as in the
paper.

A role's learned average may exceed its target by a tenth of a bit. PotQ has 2 to 4 bits: at an average of 4 all weights
have 4, as in the paper's table 2, and at 2 there is that tenth to give away.

Every policy, learned or fixed, is put into the same float network of its seed and retrained alike: a search only
chooses, its own epochs come on top. FP32 is that network trained on for as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import graph, search
from tinyqnn.papers.autoqnn import _pictures as pictures
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.train import evaluate

VERSION = 2  # widths are moved by Adam, made whole by what the vertices wish, and ClipQ behind a ReLU keeps 2 bits
KEEP = ("first", "last")
NETWORKS = ("vgg-8", "resnet8-8")
WIDTHS = (2, 3, 4)
KINDS = ("learned", "P/C", "C/C")
PAPER = {  # AutoQNN's own top-1 accuracies in table 3, and of the methods with the same bits on both sides the best
    "AlexNet": {"FP32": 60.01, "learned": {2: 59.75, 3: 61.85, 4: 62.63}, "others": {2: 58.10, 3: 61.30, 4: 62.00}},
    "ResNet18": {"FP32": 69.60, "learned": {2: 68.84, 3: 69.88, 4: 70.36}, "others": {2: 67.10, 3: 69.70, 4: 70.10}},
}


@dataclass(frozen=True)
class Config:
    """One policy of one seed. `kind` is "FP32", "learned", "P/C" or "C/C"; `bits` the average or the fixed width."""

    network: str
    kind: str
    bits: int = 32
    train: int = 3_000
    test: int = 4_000
    epochs: int = 12
    search_epochs: int = 3
    retrain_epochs: int = 5
    seed: int = 0


def cells(scale: str) -> list[Config]:
    sizes: dict[str, Any] = {}
    networks, seeds = NETWORKS, range(3)
    if scale == "smoke":
        sizes = {"train": 128, "test": 64, "epochs": 1, "search_epochs": 1, "retrain_epochs": 1}
        return [Config("vgg-1", "FP32", **sizes), Config("vgg-1", "learned", 3, **sizes)]
    if scale == "paper":
        sizes = {"train": 0, "test": 0, "epochs": 150, "search_epochs": 60, "retrain_epochs": 60}
        networks = ("vgg-64", "resnet20-16")
    kinds = [("FP32", 32), *((kind, bits) for kind in KINDS for bits in WIDTHS)]
    return [Config(network, *kind, seed=seed, **sizes) for kind in kinds for network in networks for seed in seeds]


def run(config: Config, report: Report) -> dict[str, Any]:
    task = pictures.Task(
        "cifar10", config.network, config.train, config.test, config.epochs, 0.05, config.retrain_epochs, 0.02,
        augment=True,
    )  # fmt: skip
    train, test, note = task.split()
    model, floating = pictures.float_network(task, config.seed, train, test, report)
    result: dict[str, Any] = {"note": note, "float": floating}
    if config.kind == "FP32":
        qmodel = graph.generate(model, pictures.examples(task, train)[0])
    elif config.kind == "learned":
        start = pictures.uniform(model, task, train, f"P-{config.bits}/C-{config.bits}", KEEP)
        found = search.qpl(
            start, train, target_bits=config.bits, epochs=config.search_epochs, settled=0, lr=task.retrain_lr,
            weight_decay=task.weight_decay, seed=config.seed, progress=False,
            checkpoint=report.folder / "search.npz", resume=True, **task.options(config.search_epochs),
        )  # fmt: skip
        qmodel = pictures.follow(model, task, train, found)
    else:
        schemes = "/".join(f"{letter}-{config.bits}" for letter in config.kind.split("/"))
        qmodel = pictures.uniform(model, task, train, schemes, KEEP)
    result |= pictures.told(search.Policy.of(qmodel))
    pictures.retrained(qmodel, task, config.seed, train, None)
    result["accuracy"] = float(evaluate(qmodel, test).accuracy or 0.0)
    report(f"{config.kind} {config.bits}: float {floating:.4f}, retrained {result['accuracy']:.4f}")
    return result


def accuracies(cells: list[Cell], network: str, kind: str, bits: int = 32) -> dict[int, float]:
    """seed -> accuracy in per cent."""
    return {
        cell.config.seed: 100 * cell.result["accuracy"]
        for cell in cells
        if (cell.config.network, cell.config.kind, cell.config.bits) == (network, kind, bits)
    }


def _gaps(cells: list[Cell], network: str, better: tuple[str, int], worse: tuple[str, int]) -> list[float]:
    first, second = accuracies(cells, network, *better), accuracies(cells, network, *worse)
    return [first[seed] - second[seed] for seed in sorted(first)]


def _networks(cells: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.config.network for cell in cells))


def _over_fixed(bits: int) -> Any:
    """On each network against both of the fixed ones."""

    def decided(cells: list[Cell]) -> Finding:
        return all_of(
            [
                decide(_gaps(cells, network, ("learned", bits), (kind, bits)), note=f"against {kind} on {network}")
                for network in _networks(cells)
                for kind in ("P/C", "C/C")
            ]
        )

    return decided


def _close(cells: list[Cell]) -> Finding:
    return all_of(
        [
            decide([2 - gap for gap in _gaps(cells, network, ("FP32", 32), ("learned", 2))], unit="points to spare")
            for network in _networks(cells)
        ]
    )


def _each_bit(cells: list[Cell]) -> Finding:
    return all_of(
        [decide(_gaps(cells, network, ("learned", 4), ("learned", 2)), note=network) for network in _networks(cells)]
    )


CLAIMS = (
    *(
        Claim(
            f"autoqnn.table3.over-fixed-{bits}",
            f"At {bits} bits on average, learned widths of PotQ weights and ClipQ activations are more accurate than "
            f"{bits} bits everywhere, on both networks, be the weights PotQ or ClipQ.",
            _over_fixed(bits),
        )
        for bits in WIDTHS
    ),
    Claim(
        "autoqnn.table3.two-bits",
        "With learned widths of 2 bits on average both networks lose less than 2 points (0.26 and 0.76 in the paper).",
        _close,
    ),
    Claim(
        "autoqnn.table3.four-over-two",
        "Learned widths of 4 bits on average are more accurate than of 2, on both networks.",
        _each_bit,
    ),
)


def _mean(values: list[float]) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):6.2f} ± {spread:4.2f}" if values else f"{'':13}"


def table(cells: list[Cell]) -> str:
    note, networks = cells[0].result["note"], _networks(cells)
    lines = ["the paper, ImageNet, top-1 (%)"]
    for network, row in PAPER.items():
        lines.append(f"  {network:<10} float {row['FP32']:.2f}")
        for bits in WIDTHS:
            ours, others = row["learned"][bits], row["others"][bits]  # type: ignore[index]
            lines.append(f"    {bits} bits   AutoQNN P-{bits}/C-{bits} {ours:.2f}   best of the others {others:.2f}")
    lines += ["", f"here, a part of CIFAR-10{': ' * bool(note)}{note}; accuracy (%), mean ± sd of the seeds"]
    for network in networks:
        lines.append(f"  {network:<10} FP32 {_mean(list(accuracies(cells, network, 'FP32').values()))}")
        for bits in WIDTHS:
            shown = []
            for kind in KINDS:
                values = list(accuracies(cells, network, kind, bits).values())
                if values:
                    name = "learned" if kind == "learned" else "/".join(f"{k}-{bits}" for k in kind.split("/"))
                    shown.append(f"{name} {_mean(values)}")
            averages = [c.result["bits"] for c in cells
                        if (c.config.network, c.config.kind, c.config.bits) == (network, "learned", bits)]  # fmt: skip
            if averages:
                w, a = np.mean(averages, axis=0)
                shown[0] += f" at {w:.2f}/{a:.2f}"
            if shown:
                lines.append(f"    {bits} bits   " + "   ".join(shown))
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """Accuracy over the bits, a panel a network; bars are the spread of the seeds."""
    from tinyqnn import picture

    names = {"learned": "P and C, learned widths", "P/C": "P and C, fixed", "C/C": "C, fixed"}
    panels = figure.subplots(1, len(_networks(cells)), sharey=False, squeeze=False)[0]
    for axes, network in zip(panels, _networks(cells)):
        for number, kind in enumerate(KINDS):
            points = [(bits, list(accuracies(cells, network, kind, bits).values())) for bits in WIDTHS]
            points = [(bits, values) for bits, values in points if values]
            if points:
                x = [bits + 0.04 * (number - 1) for bits, _ in points]
                means = [np.mean(values) for _, values in points]
                spreads = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in points]
                axes.errorbar(x, means, spreads, **picture.line(number + 1), capsize=3, label=names[kind])
        floats = list(accuracies(cells, network, "FP32").values())
        axes.axhline(np.mean(floats), color=picture.INK, linewidth=1, linestyle=":", label="float")
        axes.set(title=network, xlabel="bits of weights and of activations", xticks=list(WIDTHS))
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(fontsize=8)
