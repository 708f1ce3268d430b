"""Tables 2 and 3, figure 5: a network that names every pixel, in few bits, with the cyclic rate and the Lipschitz term

The paper segments photographs of PASCAL VOC with MobileNetV2 and DeepLabV3. Here the scenes are generated
(`data/scenes.py`) and the network is small (`models/segmentation.py`), so mIOU is not the paper's; gains and losses are
held against each other. Retraining follows a polynomial rate; the cyclic rate has a tenth of its first rate as base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyqnn import optim
from tinyqnn.data import Split, scenes
from tinyqnn.models import Segmenter
from tinyqnn.nn import Module
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic._retrain import KeepsBoundsUp, groups, quantized
from tinyqnn.tensor import Tensor, no_grad
from tinyqnn.train import Lipschitz, Trainer

VERSION = 2  # PACT's first bounds are those of activations in training

SETTINGS: dict[str, tuple[int | None, int | None]] = {
    "W2": (2, None), "A2": (None, 2), "W4": (4, None), "A4": (None, 4),
    "8/8": (8, 8), "6/6": (6, 6), "4/4": (4, 4), "3/3": (3, 3),
}  # fmt: skip
BASELINE, CLR, L_R, BOTH = "retrain", "CLR", "L_R", "L_R + CLR"
METHODS: dict[str, tuple[str, ...]] = dict.fromkeys(SETTINGS, (BASELINE, L_R, BOTH))
METHODS |= {"W2": (BASELINE,), "A2": (BASELINE,), "W4": (BASELINE, CLR, L_R), "A4": (BASELINE, CLR, L_R)}
PAPER = {
    "W4": {BASELINE: 73.63, CLR: 74.15, L_R: 73.22},
    "A4": {BASELINE: 74.79, CLR: 74.71, L_R: 74.99},
    "8/8": {BASELINE: 76.56, L_R: 76.34, BOTH: 76.46},
    "6/6": {BASELINE: 75.79, L_R: 76.23, BOTH: 76.40},
    "4/4": {BASELINE: 71.16, L_R: 71.93, BOTH: 72.56},
    "3/3": {BASELINE: 59.64, L_R: 59.85, BOTH: 60.74},
}
PAPER_FLOAT = 76.97
SIZE = (10.0, 11.0)


@dataclass(frozen=True)
class Config:
    """One seed: a float network, and all its quantized copies."""

    width: int = 8
    scenes: int = 500
    test: int = 500
    epochs: int = 40
    retrain_epochs: int = 4
    cycles: int = 2
    settings: tuple[str, ...] = tuple(SETTINGS)
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(2, 32, 8, 1, 1, 1, ("A2", "W4", "3/3"))]
    if scale == "paper":  # our set at full length; the paper's is another
        return [Config(32, 10000, 1449, 60, 30, 5, seed=seed) for seed in range(3)]
    return [Config(seed=seed) for seed in range(3)]


def fit(model: Module, train: Split, epochs: int, lr: float, schedule: optim.Schedule, seed: int, hooks: Any) -> None:
    optimizer = optim.SGD(groups(model, 5e-4), lr=lr, momentum=0.9)
    trainer = Trainer(
        model,
        optimizer,
        schedule=schedule,
        batch_size=16,
        clip_norm=5.0,
        seed=seed,
        hooks=[KeepsBoundsUp(), *hooks],
    )
    trainer.fit(train, epochs=epochs, progress=False)


def predicted(model: Module, split: Split) -> NDArray[np.int64]:
    """The class of every pixel: (N, H, W)."""
    model.eval()
    with no_grad():
        parts = [model(Tensor(split.inputs(slice(i, i + 64)))).data for i in range(0, len(split), 64)]
    return np.concatenate(parts).argmax(axis=1)


def mean_iou(found: NDArray, right: NDArray, classes: int) -> float:
    """In per cent: of the pixels that either calls a class, how many both do; the mean over the classes there are.

    >>> mean_iou(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)  # ½ and ⅔
    58.33...
    """
    shares = []
    for label in range(classes):
        either = (found == label) | (right == label)
        if either.any():
            shares.append(((found == label) & (right == label)).sum() / either.sum())
    return float(100 * np.mean(shares))


def run(config: Config, report: Report) -> dict[str, Any]:
    data = scenes.load(train=config.scenes, test=config.test)
    classes = len(data.classes)
    model = Segmenter(config.width, classes=classes, rng=np.random.default_rng(config.seed))
    fit(model, data.train, config.epochs, 0.1, optim.PolynomialLR(config.epochs, 0.9), config.seed, [])
    maps = {"float": predicted(model, data.test)}
    found: dict[str, Any] = {"float": mean_iou(maps["float"], data.test.y, classes)}
    report(f"float {found['float']:.2f}")

    rate = 0.02
    cyclic = optim.DiscreteCyclicLR(step_size=1 / 8)  # an epoch is a cycle
    down = optim.PolynomialLR(config.retrain_epochs, 0.9)
    examples = data.train.inputs(slice(128))
    for setting in config.settings:
        found[setting] = {}
        for start, tuned, hooks in ((BASELINE, CLR, []), (L_R, BOTH, [Lipschitz(1e-4)])):
            asked = METHODS[setting]
            if start not in asked and tuned not in asked:
                continue
            copy = quantized(model, examples, *SETTINGS[setting])
            fit(copy, data.train, config.retrain_epochs, rate, down, config.seed + 1, hooks)
            last = predicted(copy, data.test)
            if start in asked:
                found[setting][start] = mean_iou(last, data.test.y, classes)
            if start == BASELINE and setting in ("W2", "A2"):
                maps[setting] = last
            if tuned in asked:
                fit(copy, data.train, config.cycles, rate / 10, cyclic, config.seed + 2, hooks)
                found[setting][tuned] = mean_iou(predicted(copy, data.test), data.test.y, classes)
        report(f"{setting}: " + ", ".join(f"{name} {value:.2f}" for name, value in found[setting].items()))
    shown = range(min(6, config.test)) if config.seed == 0 else range(0)
    return {"miou": found, "maps": {name: ["".join(map(str, m[i].ravel())) for i in shown] for name, m in maps.items()}}


def gains(cells: Sequence[Cell], setting: str, method: str) -> list[float]:
    """What a method brings over plain retraining, seed by seed."""
    return [cell.result["miou"][setting][method] - cell.result["miou"][setting][BASELINE] for cell in cells]


def _helps_low_bits(cells: Sequence[Cell]) -> Finding:
    return all_of([decide(gains(cells, setting, BOTH)) for setting in ("6/6", "4/4", "3/3")])


CLAIMS = (
    Claim(
        "holistic.table3.clr-helps-weights",
        "Fine-tuning with the cyclic rate makes a network with 4-bit weights better (table 2).",
        lambda cells: decide(gains(cells, "W4", CLR)),
    ),
    Claim(
        "holistic.table3.lipschitz-helps-activations",
        "The Lipschitz term makes a network with 4-bit activations better (table 2).",
        lambda cells: decide(gains(cells, "A4", L_R)),
    ),
    Claim(
        "holistic.table3.lipschitz-hurts-weights",
        "The Lipschitz term makes a network with 4-bit weights worse (table 2).",
        lambda cells: decide([-gain for gain in gains(cells, "W4", L_R)]),
    ),
    Claim(
        "holistic.table3.both-help-low-bits",
        "Lipschitz term and cyclic rate together make networks of 6, 4 and 3 bits better (table 3).",
        _helps_low_bits,
    ),
    Claim(
        "holistic.table3.lipschitz-hurts-8-bits",
        "The Lipschitz term makes a network of 8 bits worse (table 3).",
        lambda cells: decide([-gain for gain in gains(cells, "8/8", L_R)]),
    ),
)


def table(cells: list[Cell]) -> str:
    floats = [cell.result["miou"]["float"] for cell in cells]
    lines = [
        "mIOU in %, mean ± standard deviation over the seeds; here on generated scenes, in the paper on PASCAL VOC.",
        "",
        f"{'bits':<8}{'method':<12}{'here':>13}{'gain':>13}{'paper':>9}{'gain':>8}",
        f"{'float':<20}{_spread(floats):>13}{'':>13}{PAPER_FLOAT:>9.2f}",
    ]
    for setting in cells[0].config.settings:
        for method in METHODS[setting]:
            values = [cell.result["miou"][setting][method] for cell in cells]
            line = f"{setting:<8}{method:<12}{_spread(values):>13}"
            line += f"{'' if method == BASELINE else _spread(gains(cells, setting, method)):>13}"
            if setting in PAPER:
                theirs = PAPER[setting][method]
                line += f"{theirs:>9.2f}"
                line += "" if method == BASELINE else f"{theirs - PAPER[setting][BASELINE]:>+8.2f}"
            lines.append(line.rstrip())
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f} ±{np.std(values, ddof=1) if len(values) > 1 else 0:.2f}"


def draw(cells: list[Cell], figure: Any) -> None:
    """As figure 5: scenes, what is right, and what the float, the W2 and the A2 network say."""
    from matplotlib.colors import ListedColormap

    from tinyqnn import picture

    cell = next(cell for cell in cells if cell.result["maps"]["float"])
    config, maps = cell.config, cell.result["maps"]
    data = scenes.load(train=config.scenes, test=config.test)
    colours = ListedColormap(["#f2f2f2", picture.BLUE, picture.RED, picture.GREEN, picture.ORANGE, picture.INK])
    names = [name for name in ("float", "W2", "A2") if name in maps]
    count = len(maps["float"])
    grid = figure.subplots(count, 2 + len(names), squeeze=False)
    for number, row in enumerate(grid):
        images = [data.test.x[number].transpose(1, 2, 0), data.test.y[number]]
        side = data.test.y.shape[-1]
        images += [np.array(list(maps[name][number]), dtype=int).reshape(side, side) for name in names]
        for place, (axes, image) in enumerate(zip(row, images)):
            options = {} if place == 0 else {"cmap": colours, "vmin": 0, "vmax": len(data.classes) - 1}
            axes.imshow(image, interpolation="nearest", **options)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            if number == 0:
                titles = ["scene", "right", *(f"{name}: mIOU {_of(cell, name):.0f} %" for name in names)]
                axes.set_title(titles[place], fontsize=10)


def _of(cell: Cell, name: str) -> float:
    value = cell.result["miou"][name]
    return value if name == "float" else value[BASELINE]
