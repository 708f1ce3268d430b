"""What a search costs: an epoch of QSS with eight candidates over an epoch of the float network

The paper calls its searches efficient and gives no time. Here an epoch of each kind is measured on the same network,
the same random pictures and one thread: processor time as the difference between a long run and a short one, so that
what is done once does not count, and the highest memory that NumPy held beyond what was there before.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import models, optim, random, search
from tinyqnn.data.dataset import Split
from tinyqnn.nn import Module
from tinyqnn.papers.claims import Claim, Finding, exact
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search import Policy
from tinyqnn.train import Trainer

VERSION = 2  # a mixture of schemes is one compiled pass each way
TIME, MEMORY = 6.0, 2.0  # what a QSS epoch may cost, in float epochs
KINDS = ("float", "C-3", "QPL", "QSS coarse", "QSS fine")


@dataclass(frozen=True)
class Config:
    """One network; `steps` of `batch` pictures an epoch, so many epochs more in the long run than in the short one.

    Of `repeats` such differences the smaller counts.
    """

    network: str
    channels: int = 3
    side: int = 32
    batch: int = 64
    steps: int = 2
    epochs: int = 4
    repeats: int = 2
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config("lenet-bn", 1, 28, batch=8, steps=2, epochs=2, repeats=1)]
    wide = 32 if scale == "small" else 64
    return [Config("lenet-bn", 1, 28), Config(f"vgg-{wide}"), Config("resnet20-16")]


def run(config: Config, report: Report) -> dict[str, Any]:
    rng = random.manual_seed(config.seed)
    model = models.create(config.network, channels=config.channels, classes=10, rng=rng)
    count, side = config.batch * config.steps, config.side
    x = rng.normal(size=(count, config.channels, side, side)).astype(np.float32)
    split = Split(x, rng.integers(0, 10, count))
    found: dict[str, Any] = {}
    for kind in KINDS:
        train = _training(kind, model, split, config)
        train(1)  # whatever is compiled or looked up once
        seconds = []
        for _ in range(config.repeats):
            short, long = _seconds(train, 1), _seconds(train, 1 + config.epochs)
            seconds.append((long - short) / config.epochs)
        found[kind] = {"seconds": min(seconds), "bytes": _peak(train)}
        report(f"{kind}: {found[kind]['seconds']:.3f} s an epoch, {found[kind]['bytes'] / 1e6:.1f} MB")
    return {"kinds": found}


def _training(kind: str, model: Module, split: Split, config: Config) -> Callable[[int], Any]:
    """A function that trains so many epochs of one kind, from the beginning."""
    how: dict[str, Any] = {"lr": 0.01, "batch_size": config.batch, "progress": False}
    start = Policy.of(search.network.traced(model, split)[0]).changed({"*": "C-3"})
    example = split.inputs(slice(0, 8))

    def plain(trained: Module, epochs: int) -> None:
        optimizer = optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)
        Trainer(trained, optimizer, batch_size=config.batch).fit(split, None, epochs, progress=False)

    def train(epochs: int) -> None:
        if kind.startswith("QSS"):
            search.qss(model, split, epochs=epochs, fine=kind == "QSS fine", **how)
        elif kind == "QPL":
            search.qpl(model, split, epochs=epochs, settled=0, policy=start, **how)
        else:
            policy = start.changed({"*": "float"}) if kind == "float" else start
            plain(policy.apply(model, example), epochs)

    return train


def _seconds(train: Callable[[int], Any], epochs: int) -> float:
    """Processor time, which others on the machine do not lengthen much."""
    gc.collect()
    begun = time.process_time()
    train(epochs)
    return time.process_time() - begun


def _peak(train: Callable[[int], Any]) -> int:
    """The most memory in use at any time of an epoch, beyond what was in use before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        train(1)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def ratio(cell: Cell, kind: str, what: str) -> float:
    """An epoch of a kind over a float one, "seconds" or "bytes"."""
    kinds = cell.result["kinds"]
    return float(kinds[kind][what] / kinds["float"][what])


def _below(what: str, limit: float) -> Callable[[list[Cell]], Finding]:
    def decided(cells: list[Cell]) -> Finding:
        worst = max(ratio(cell, kind, what) for cell in cells for kind in ("QSS coarse", "QSS fine"))
        return exact(worst <= limit, worst, "× the float epoch at most")

    return decided


CLAIMS = (
    Claim(
        "autoqnn.search_cost.time",
        f"An epoch of QSS with eight candidates takes at most {TIME:g} times a float epoch of the same network.",
        _below("seconds", TIME),
    ),
    Claim(
        "autoqnn.search_cost.memory",
        f"It needs at most {MEMORY:g} times the memory.",
        _below("bytes", MEMORY),
    ),
)


def table(cells: list[Cell]) -> str:
    lines = ["network       epoch of       seconds   × float   megabytes   × float"]
    for cell in cells:
        for kind in KINDS:
            found = cell.result["kinds"][kind]
            name = cell.config.network if kind == "float" else ""
            lines.append(
                f"{name:<13} {kind:<12} {found['seconds']:9.3f}   {ratio(cell, kind, 'seconds'):7.2f}   "
                f"{found['bytes'] / 1e6:9.1f}   {ratio(cell, kind, 'bytes'):7.2f}"
            )
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """Time and memory over those of a float epoch."""
    from tinyqnn import picture

    for axes, (what, limit) in zip(figure.subplots(1, 2), (("seconds", TIME), ("bytes", MEMORY))):
        for number, cell in enumerate(cells):
            style = picture.line(number) | {"linestyle": ""}
            axes.plot(
                [ratio(cell, kind, what) for kind in KINDS], range(len(KINDS)), **style, label=cell.config.network
            )
        axes.axvline(limit, color=picture.GREY, linestyle=":")
        axes.set_yticks(range(len(KINDS)), KINDS)
        axes.invert_yaxis()
        axes.set(xlabel="time, float epochs" if what == "seconds" else "memory, float epochs", xlim=(0, None))
    figure.axes[0].legend(fontsize=8)
