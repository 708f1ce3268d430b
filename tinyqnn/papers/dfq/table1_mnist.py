"""Table 1, MNIST: two depthwise-separable layers in float, 8 bits, a mixture that DFQ finds, and binary

The network is `models.separable` with 40 channels after its first convolution: there one of the two 3×3 layers in front
may have 8 bits at 28×. It learns from a part of the training images, for few epochs (Config says how many); the test
images are all 10,000. All four start from one float network and are trained on, the float one as well, for as many
epochs as DFQ's search and its retrainings may take together. θ is the float one's validation loss then, and `slack`.
Learning rates were tried out on another seed.

Where the network that the search ends with breaks the bound, one layer may take the next width (`widen`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import models, random
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.dfq._cells import mean, policy_of, scored, splits, trained
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.dfq import dfq
from tinyqnn.tensor import Array

PAPER: dict[str, tuple[float, float]] = {
    "float": (1, 98.66),
    "8-bit": (4, 98.48),
    "ours": (28, 98.20),
    "binary": (32, 96.34),
}
SIZE = (9.0, 4.0)


@dataclass(frozen=True)
class Config:
    """One seed: a float network and its three quantized forms."""

    seed: int
    data: str = "mnist"
    width: int = 40
    train: int = 10_000
    valid: int = 2_000
    test: int = 10_000
    batch_size: int = 50
    epochs: int = 6
    search_epochs: int = 2
    retrain_epochs: int = 2
    widen: int = 1
    lr: float = 1e-2
    quantized_lr: float = 5e-3
    alpha_lr: float = 0.05
    slack: float = 0.03


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(seed, "noise-mnist", 4, 100, 50, 50, 25, 1, 1, 1) for seed in range(3)]
    if scale == "small":
        return [Config(seed) for seed in range(3)]
    return [
        Config(seed, train=55_000, valid=5_000, epochs=20, search_epochs=10, retrain_epochs=10) for seed in range(5)
    ]


def run(config: Config, report: Report) -> dict[str, Any]:
    """{method: {accuracy, compression, …}}, the bound and the course of the search."""
    rng = random.manual_seed(config.seed)
    train, valid, test, _ = splits(
        config.data, config.train, config.valid, config.test, np.random.default_rng((config.seed, 1))
    )
    model = models.create(f"separable-{config.width}", rng=rng)
    trained(model, train, config.epochs, config.lr, config.batch_size, config.seed)
    found: dict[str, Any] = {}
    for name, scheme in (("float", "float"), ("8-bit", "C-8"), ("binary", "B-1")):
        policy = policy_of(model, train, scheme)
        network = policy.apply(model, train.inputs(slice(0, 2)))
        epochs = config.search_epochs + (1 + config.widen) * config.retrain_epochs
        trained(network, train, epochs, config.quantized_lr, config.batch_size, config.seed)
        found[name] = scored(policy, network, valid, test)
        report(f"{name}: {found[name]}")
    theta = found["float"]["valid_loss"] + config.slack
    ours = dfq(
        model, train, valid, theta=theta, bits=(1, 8), epochs=config.search_epochs,
        retrain_epochs=config.retrain_epochs, widen=config.widen, lr=config.quantized_lr, alpha_lr=config.alpha_lr,
        equal_steps=False,
        batch_size=config.batch_size, seed=config.seed, folder=report.folder, resume=True, progress=False,
    )  # fmt: skip
    found["ours"] = scored(ours, ours.model, valid, test)
    report(f"ours: {found['ours']}\n{ours.verdict}\n{ours.history}")
    return {
        **found,
        "theta": theta,
        "keeps_bound": ours.keeps_bound,
        "tried": list(ours.tried),
        "history": list(ours.history),
    }


def accuracy_of(cells: list[Cell], method: str) -> Array:
    """Test accuracy of a method, a number a seed."""
    return np.array([cell.result[method]["accuracy"] for cell in cells])


def _small(cells: list[Cell]) -> Finding:
    return decide([cell.result["ours"]["compression"] for cell in cells], at_least=28, unit="×")


def _near_float(cells: list[Cell]) -> Finding:
    return decide(list(0.5 - (accuracy_of(cells, "float") - accuracy_of(cells, "ours"))), unit="points of room")


def _above_binary(cells: list[Cell]) -> Finding:
    return decide(list(accuracy_of(cells, "ours") - accuracy_of(cells, "binary")))


def _eight_bits(cells: list[Cell]) -> Finding:
    return decide(list(0.5 - (accuracy_of(cells, "float") - accuracy_of(cells, "8-bit"))), unit="points of room")


CLAIMS = (
    Claim(
        "dfq.table1_mnist.compression",
        "On MNIST the scheme that the search finds makes the weights more than 28 times smaller than float32.",
        _small,
    ),
    Claim(
        "dfq.table1_mnist.near-float",
        "On MNIST the network that the search finds is at most 0.5 points less accurate than the float network.",
        _near_float,
    ),
    Claim(
        "dfq.table1_mnist.above-binary",
        "On MNIST the network that the search finds is more accurate than the binary network.",
        _above_binary,
    ),
    Claim(
        "dfq.table1_mnist.all-at-once",
        "On MNIST the search finds a network more than 28 times smaller, at most 0.5 points below float, and above "
        "binary.",
        lambda cells: all_of([_small(cells), _near_float(cells), _above_binary(cells)]),
    ),
    Claim(
        "dfq.table1_mnist.eight-bits",
        "On MNIST 8-bit weights cost at most 0.5 points.",
        _eight_bits,
    ),
)


def rows(cells: list[Cell], paper: dict[str, tuple[float, float]]) -> str:
    """Our numbers beside the paper's."""
    lines = ["weights   accuracy here, %   compression   whole file   paper: accuracy   compression"]
    for method, (times, accuracy) in paper.items():
        by = [cell.result[method] for cell in cells]
        lines.append(
            f"{method:<8}  {mean([r['accuracy'] for r in by]):<17}  "
            f"{mean([r['compression'] for r in by]) + '×':<12}  {np.mean([r['file'] for r in by]):.1f}×"
            f"{accuracy:>21.2f}{times:>13}×"
        )
    return "\n".join(lines)


def searches(cells: list[Cell]) -> str:
    """What each search found, and what became of its bound."""
    lines = []
    for cell in cells:
        wide = [f"{name} {scheme}" for name, _, scheme in cell.result["ours"]["layers"] if scheme != "B-1"]
        lines.append(
            f"seed {cell.config.seed}: θ = {cell.result['theta']:.4f}, "
            f"validation loss {cell.result['ours']['valid_loss']:.4f}: "
            f"{'kept' if cell.result['keeps_bound'] else 'not kept'}; not binary: {', '.join(wide) or 'nothing'}"
        )
    return "\n".join(lines)


def table(cells: list[Cell]) -> str:
    c = cells[0].config
    return (
        f"{rows(cells, PAPER)}\n\n"
        f"separable-{c.width}, {c.train:,} training, {c.valid:,} validation and {c.test:,} test images, "
        f"{c.epochs} epochs in float, {c.search_epochs} of search and "
        f"{c.retrain_epochs} after it (twice where a layer is widened), {len(cells)} seeds. "
        f"A small scale: the paper gives no "
        f"numbers of epochs.\n\n{searches(cells)}"
    )


def draw(cells: list[Cell], figure: Any) -> None:
    """Left accuracy against compression; right what the searches were about: the loss and its bound, and the size."""
    from tinyqnn import picture

    left, middle, right = figure.subplots(1, 3)
    for number, method in enumerate(PAPER):
        xs = [cell.result[method]["compression"] for cell in cells]
        ys = [cell.result[method]["accuracy"] for cell in cells]
        colour, _, marker = picture.LINES[number]
        left.plot(xs, ys, color=colour, marker=marker, linestyle="none", label=method)
    left.set(xlabel="compression of the weights", ylabel="test accuracy, %", xscale="log", title="every seed")
    left.set_xticks([1, 2, 4, 8, 16, 32], labels=["1", "2", "4", "8", "16", "32"])
    left.legend()
    for number, cell in enumerate(cells):
        history = cell.result["history"]
        epochs, style = [row["epoch"] for row in history], picture.line(number)
        middle.plot(epochs, [row["valid_loss"] - cell.result["theta"] for row in history], **style)
        right.plot(epochs, [row["size"] for row in history], **style, label=f"seed {cell.config.seed}")
    middle.axhline(0, color=picture.RED, linestyle="--")
    middle.set(xlabel="epoch of the search", title="validation loss − θ")
    right.set(xlabel="epoch of the search", title="G(α), expected bits", ylim=(0, None))
    right.legend()
