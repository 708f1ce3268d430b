"""Table 1, CIFAR-10, and figure 2: VGG-16 in float, 8 bits, a mixture that DFQ finds, and binary

VGG-16's thirteen convolutions at an eighth of their width, on a part of the training images, for few epochs (Config
says how many); far from the paper's 84.8 %, so that directions and gaps count. All four start from one float network
and are trained on, the float one as well, for as many epochs as DFQ's search and retraining take together.
θ is the float one's validation loss then, and `slack`. The images of this copy of CIFAR-10 went through JPEG.

Figure 2 is the memory of each layer before and after: the picture below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import data, random
from tinyqnn.papers.claims import Claim, decide
from tinyqnn.papers.dfq._cells import policy_of, scored, splits, trained
from tinyqnn.papers.dfq._vgg16 import VGG16
from tinyqnn.papers.dfq.table1_mnist import accuracy_of, rows, searches
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.dfq import dfq

PAPER: dict[str, tuple[float, float]] = {
    "float": (1, 84.80),
    "8-bit": (4, 84.07),
    "ours": (30, 83.06),
    "binary": (32, 81.56),
}
SIZE = (9.0, 4.5)


@dataclass(frozen=True)
class Config:
    """One seed: a float network and its three quantized forms."""

    seed: int
    data: str = "cifar10"
    width: int = 8
    train: int = 5_000
    valid: int = 1_500
    test: int = 5_000
    batch_size: int = 50
    epochs: int = 6
    search_epochs: int = 2
    retrain_epochs: int = 6
    widen: int = 0
    lr: float = 3e-3
    quantized_lr: float = 2e-3
    alpha_lr: float = 0.05
    slack: float = 0.1


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(seed, "noise-cifar10", 2, 100, 50, 50, 25, 1, 1, 1) for seed in range(3)]
    if scale == "small":
        return [Config(seed) for seed in range(3)]
    return [Config(seed, "cifar10", 64, 45_000, 5_000, 10_000, 128, 200, 100, 50) for seed in range(5)]


def run(config: Config, report: Report) -> dict[str, Any]:
    """{method: {accuracy, compression, layers, …}}, the bound and the course of the search."""
    rng = random.manual_seed(config.seed)
    own = np.random.default_rng((config.seed, 1))
    train, valid, test, source = splits(config.data, config.train, config.valid, config.test, own)
    model = VGG16(config.width, rng=rng)
    trained(model, train, config.epochs, config.lr, config.batch_size, config.seed, data.crop_and_flip)
    found: dict[str, Any] = {}
    epochs = config.search_epochs + (1 + config.widen) * config.retrain_epochs
    for name, scheme in (("float", "float"), ("8-bit", "C-8"), ("binary", "B-1")):
        policy = policy_of(model, train, scheme)
        network = policy.apply(model, train.inputs(slice(0, 2)))
        trained(network, train, epochs, config.quantized_lr, config.batch_size, config.seed, data.crop_and_flip)
        found[name] = scored(policy, network, valid, test)
        report(f"{name}: {found[name]}")
    theta = found["float"]["valid_loss"] + config.slack
    ours = dfq(
        model, train, valid, theta=theta, bits=(1, 8), epochs=config.search_epochs,
        retrain_epochs=config.retrain_epochs, widen=config.widen, lr=config.quantized_lr, alpha_lr=config.alpha_lr,
        equal_steps=False,
        batch_size=config.batch_size, augment=data.crop_and_flip, seed=config.seed, folder=report.folder, resume=True,
        progress=False,
    )  # fmt: skip
    found["ours"] = scored(ours, ours.model, valid, test)
    report(f"ours: {found['ours']}\n{ours.verdict}\n{ours.history}")
    return {
        **found, "theta": theta, "keeps_bound": ours.keeps_bound, "tried": list(ours.tried),
        "history": list(ours.history), "note": source.note,
    }  # fmt: skip


def saved_in_the_middle(cell: Cell) -> float:
    """Compression of the middle third of the layers over that of all others, by their weights."""
    layers = cell.result["ours"]["layers"]
    third = len(layers) // 3
    middle = range(third, len(layers) - third)

    def times(chosen: list[int]) -> float:
        bits = sum(layers[i][1] * (1 if layers[i][2] == "B-1" else 8) for i in chosen)
        return 32 * sum(layers[i][1] for i in chosen) / bits

    return times(list(middle)) - times([i for i in range(len(layers)) if i not in middle])


CLAIMS = (
    Claim(
        "dfq.table1_cifar10.close-to-binary",
        "On CIFAR-10 the network that the search finds is nearly as small as the binary one: 30 times smaller than "
        "float32 or more, where binary is 32 times.",
        lambda cells: decide([c.result["ours"]["compression"] for c in cells], at_least=29.999, unit="×"),
    ),
    Claim(
        "dfq.table1_cifar10.above-binary",
        "On CIFAR-10 the network that the search finds is more accurate than the binary one.",
        lambda cells: decide(list(accuracy_of(cells, "ours") - accuracy_of(cells, "binary"))),
    ),
    Claim(
        "dfq.table1_cifar10.far-above-binary",
        "On CIFAR-10 the network that the search finds is at least 1.5 points more accurate than the binary one.",
        lambda cells: decide(list(accuracy_of(cells, "ours") - accuracy_of(cells, "binary")), at_least=1.5),
    ),
    Claim(
        "dfq.table1_cifar10.eight-bits",
        "On CIFAR-10 8-bit weights cost at most 1 point.",
        lambda cells: decide(
            list(1 - (accuracy_of(cells, "float") - accuracy_of(cells, "8-bit"))), unit="points of room"
        ),
    ),
    Claim(
        "dfq.table1_cifar10.middle-layers",
        "Figure 2: the search saves memory especially in the middle: the middle third of the layers is compressed more "
        "than the others.",
        lambda cells: decide([saved_in_the_middle(cell) for cell in cells], unit="×"),
    ),
)


def table(cells: list[Cell]) -> str:
    c = cells[0].config
    note = cells[0].result["note"]
    return (
        f"{rows(cells, PAPER)}\n\n"
        f"VGG-16 of width {c.width} (the paper's: 64), {c.train:,} training, {c.valid:,} validation and {c.test:,} "
        f"test images, shifted and flipped, {c.epochs} epochs in float, {c.search_epochs} of search and "
        f"{c.retrain_epochs} after it, {len(cells)} seeds. A small scale.\n"
        f"{note}\n\n{searches(cells)}"
    )


def draw(cells: list[Cell], figure: Any) -> None:
    """Figure 2: kilobytes of each layer in float32 and in the network that was found, mean over the seeds."""
    from tinyqnn import picture

    axes = figure.subplots()
    layers = cells[0].result["ours"]["layers"]
    places = np.arange(len(layers))
    before = np.array([count * 4 / 1024 for _, count, _ in layers])
    after = np.array(
        [
            np.mean([n * (1 if scheme == "B-1" else 8) / 8 / 1024 for n, scheme in found])
            for found in zip(*[[(n, s) for _, n, s in cell.result["ours"]["layers"]] for cell in cells])
        ]
    )
    axes.bar(places - 0.2, before, 0.4, color=picture.GREY, label="float32")
    axes.bar(places + 0.2, after, 0.4, color=picture.BLUE, label="found by DFQ (mean of the seeds)")
    for place, count, kept in zip(places, before, after):
        axes.annotate(f"{count / kept:.0f}×", (place + 0.2, kept), ha="center", va="bottom", fontsize=8)
    axes.set(yscale="log", ylabel="kB of weights", title="Memory of each layer before and after")
    axes.set_xticks(places, labels=[name for name, _, _ in layers], rotation=60)
    axes.legend()
