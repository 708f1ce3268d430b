"""How long does a training step take, here and in PyTorch on the same cores?

    tinyqnn bench training              our step times, split by operation (see `roofline.py`)
    tinyqnn bench training --vs torch   and PyTorch's, side by side

Every network is timed twice: one training step, and one evaluation of the same batch, forward alone.

Each engine runs in a process of its own, and the two take turns step by step, so that neither the other's threads nor
a busy minute of the machine count for one side only. A process keeps the memory it began with, and with that its pace:
an evaluation in PyTorch may take twice as long in one as in the next. So beside PyTorch each engine is started three
times, and its quickest start counts.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn import models, optim
from tinyqnn.models import mobilenet
from tinyqnn.tensor import Array, Tensor, no_grad


@dataclass(frozen=True)
class Case:
    """A network and a batch for it."""

    name: str
    title: str
    model: str
    batch: tuple[int, ...]  # shape of the input
    classes: int


CASES = {
    case.name: case
    for case in (
        Case("resnet20", "ResNet-20, 16 wide, batch 128", "resnet20-16", (128, 3, 32, 32), 10),
        Case("vgg", "VGG-like, 64 wide, batch 64", "vgg-64", (64, 3, 32, 32), 10),
        Case("mobilenet", "MobileNetV2-like × 0.5, batch 64", "mobilenet-0.5", (64, 3, 32, 32), 10),
        Case("lstm", "LSTM 300, 10,000 words, batch 20 × 35", "lstm-300", (35, 20), 10_000),
        Case("fcdnn", "FCDNN 128-8, batch 100", "fcdnn-128-8", (100, 2), 2),
    )
}


STARTS = 3  # of each engine, to be compared


@dataclass
class Measured:
    """Seconds of every step of one engine, and the most memory its process ever held; the medians of all its starts."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    starts: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def our_step(case: Case, evaluation: bool = False) -> Callable[[], float]:
    """A function that trains our network for one step, or only evaluates it, and returns the loss."""
    rng = np.random.default_rng(0)
    model = models.create(case.model, 3, case.classes, rng=rng)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = _batch(case)

    def loss_of_batch() -> Tensor:
        logits = model(Tensor(x))
        if isinstance(logits, tuple):  # a language model returns its state as well
            logits = logits[0].reshape(-1, case.classes)
        return F.cross_entropy(logits, y)

    def step() -> float:
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    @no_grad()
    def evaluate() -> float:
        return float(loss_of_batch())

    model.train(not evaluation)
    return evaluate if evaluation else step


def _batch(case: Case) -> tuple[Array, Array]:
    """Random input, images channels-last in memory, and labels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(case.classes, size=int(np.prod(case.batch)) if case.name == "lstm" else case.batch[0])
    if case.name == "lstm":
        return rng.integers(case.classes, size=case.batch), labels
    x = rng.standard_normal(case.batch, dtype=np.float32)
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return x, labels


def torch_step(case: Case, channels_last: bool = False, evaluation: bool = False) -> Callable[[], float]:
    """The same network, batch and update, or evaluation, in PyTorch."""
    import torch

    torch.manual_seed(0)
    model: Any = _torch_model(case)
    x, y = (torch.from_numpy(np.ascontiguousarray(array)) for array in _batch(case))
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def loss_of_batch() -> Any:
        return torch.nn.functional.cross_entropy(model(x).reshape(-1, case.classes), y)

    def step() -> float:
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def evaluate() -> float:
        with torch.inference_mode():
            return float(loss_of_batch())

    model.train(not evaluation)
    return evaluate if evaluation else step


def _torch_model(case: Case) -> Any:
    """Our network once more, in PyTorch's layers."""
    from torch import nn as tnn

    def conv(n: int, m: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        return [tnn.Conv2d(n, m, kernel, stride, kernel // 2, groups=groups, bias=False), tnn.BatchNorm2d(m)]

    class Block(tnn.Module):
        def __init__(self, n: int, m: int, stride: int) -> None:
            super().__init__()
            self.body = tnn.Sequential(*conv(n, m, 3, stride), tnn.ReLU(), *conv(m, m, 3))
            self.shortcut = tnn.Sequential(*conv(n, m, 1, stride)) if n != m else tnn.Identity()

        def forward(self, x: Any) -> Any:
            return tnn.functional.relu(self.body(x) + self.shortcut(x))

    class Inverted(tnn.Module):
        def __init__(self, n: int, m: int, stride: int, expansion: int) -> None:
            super().__init__()
            hidden = n * expansion
            widen = [*conv(n, hidden, 1), tnn.ReLU()] if expansion != 1 else []
            self.body = tnn.Sequential(
                *widen, *conv(hidden, hidden, 3, stride, hidden), tnn.ReLU(), *conv(hidden, m, 1)
            )
            self.residual = stride == 1 and n == m

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.residual else self.body(x)

    class Words(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm = tnn.Embedding(case.classes, 300), tnn.LSTM(300, 300)
            self.decoder = tnn.Linear(300, case.classes)

        def forward(self, x: Any) -> Any:
            return self.decoder(self.lstm(self.embedding(x))[0])

    if case.name == "resnet20":
        layers = [*conv(3, 16, 3), tnn.ReLU()]
        for n, m in ((16, 16), (16, 32), (32, 64)):
            layers += [Block(n, m, m // n)] + [Block(m, m, 1) for _ in range(2)]
        return tnn.Sequential(*layers, tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(64, case.classes))
    if case.name == "vgg":
        layers = []
        for index, (n, m) in enumerate(((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256))):
            layers += [*conv(n, m, 3), tnn.ReLU()] + [tnn.MaxPool2d(2)] * (index % 2)
        layers += [tnn.Flatten(), tnn.Linear(4096, 1024, bias=False), tnn.BatchNorm1d(1024), tnn.ReLU()]
        return tnn.Sequential(*layers, tnn.Dropout(0.5), tnn.Linear(1024, case.classes))
    if case.name == "mobilenet":
        n = mobilenet.scaled(32, 0.5)
        layers = [*conv(3, n, 3), tnn.ReLU()]
        for expansion, c, blocks, stride in mobilenet.STAGES:
            m = mobilenet.scaled(c, 0.5)
            for block in range(blocks):
                layers.append(Inverted(n, m, 1 if block else stride, expansion))
                n = m
        layers += [*conv(n, 1280, 1), tnn.ReLU(), tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Dropout(0.2)]
        return tnn.Sequential(*layers, tnn.Linear(1280, case.classes))
    if case.name == "lstm":
        return Words()
    sizes = [case.batch[1]] + [128] * 7
    hidden = [layer for n, m in pairwise(sizes) for layer in (tnn.Linear(n, m), tnn.ReLU())]
    return tnn.Sequential(*hidden, tnn.Linear(128, case.classes))


def _serve(engine: str, name: str, threads: int, evaluation: bool, wire: Connection) -> None:
    """In a process of its own: make a step of `engine`, then run as many as are asked for and send back the times."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if engine == "tinyqnn":
        from tinyqnn.kernels import jit

        jit.set_num_threads(threads)
        step = our_step(CASES[name], evaluation)
    else:
        import torch

        torch.set_num_threads(threads)
        step = torch_step(CASES[name], engine.endswith("channels-last"), evaluation)
    started = time.perf_counter()
    step()
    wire.send(time.perf_counter() - started)
    for steps in iter(wire.recv, 0):
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        wire.send(seconds)
    unit = 1 if sys.platform == "darwin" else 1024
    wire.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def measure(
    name: str, engines: tuple[str, ...], threads: int = 2, rounds: int = 8, evaluation: bool = False, starts: int = 1
) -> dict[str, Measured]:
    """The quickest of so many starts of each engine, by its median step; they take turns for `rounds` rounds."""
    tries = [_started(name, engines, threads, rounds, evaluation) for _ in range(starts)]
    found = {}
    for engine in engines:
        ours = [one[engine] for one in tries]
        found[engine] = min(ours, key=lambda measured: measured.median)
        found[engine].starts = [measured.median for measured in ours]
    return found


def _started(name: str, engines: tuple[str, ...], threads: int, rounds: int, evaluation: bool) -> dict[str, Measured]:
    """Start the engines and let them take turns; each turn lasts about a fifth of a second."""
    context = multiprocessing.get_context("spawn")
    wires, processes = {}, []
    for engine in engines:
        wires[engine], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(engine, name, threads, evaluation, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
    for wire in wires.values():
        wire.recv()  # the first step, with all that is compiled in it
    steps = dict.fromkeys(wires, 3)
    for engine, wire in 2 * [*wires.items()]:  # warm up, and see how many steps make a turn: the first few are slow
        wire.send(steps[engine])
        steps[engine] = max(2, int(0.2 / statistics.median(wire.recv())))
    results = {engine: Measured() for engine in engines}
    for _ in range(rounds):
        for engine, wire in wires.items():
            wire.send(steps[engine])
            results[engine].seconds += wire.recv()
    for engine, wire in wires.items():
        wire.send(0)
        results[engine].peak_bytes = wire.recv()
    for process in processes:
        process.join()
    return results


def title(name: str) -> str:
    """What is measured under the name of a case, or of its evaluation.

    >>> title("fcdnn evaluation")
    'FCDNN 128-8, batch 100, evaluation'
    """
    case, _, evaluation = name.partition(" ")
    return CASES[case].title + (", evaluation" if evaluation else "")


HEADING = f"{'median of a step':<50} {'tinyqnn':>10} {'PyTorch':>10} {'ratio':>7} {'peak memory':>12}"


def line(name: str, engines: dict[str, Measured]) -> str:
    """The step times of a case, ours divided by the best of PyTorch's, and our memory; under `HEADING`."""
    ours = engines["tinyqnn"]
    others = [measured.median for engine, measured in engines.items() if engine != "tinyqnn"]
    best, ratio = (f"{min(others) * 1e3:.2f} ms", f"{ours.median / min(others):.2f}") if others else ("–", "–")
    memory = f"{ours.peak_bytes / 1e6:,.0f} MB"
    return f"{title(name):<50} {ours.median * 1e3:>7.2f} ms {best:>10} {ratio:>7} {memory:>12}"


def record(results: dict[str, dict[str, Measured]]) -> list[dict[str, Any]]:
    """The measurements as JSON wants them: medians and minima in seconds, memory in bytes, and the ratio."""
    rows = []
    for name, engines in results.items():
        row: dict[str, Any] = {"case": name, "title": title(name)}
        for engine, measured in engines.items():
            row[engine] = {
                "median_seconds": measured.median,
                "best_seconds": min(measured.seconds),
                "seconds_of_starts": measured.starts,
                "steps": len(measured.seconds),
                "peak_bytes": measured.peak_bytes,
            }
        others = [measured.median for engine, measured in engines.items() if engine != "tinyqnn"]
        row["ratio"] = engines["tinyqnn"].median / min(others) if others else None
        rows.append(row)
    return rows


def run(
    names: list[str],
    vs_torch: bool,
    threads: int = 2,
    rounds: int = 8,
    tell: Callable[[str, dict[str, Measured]], None] | None = None,
) -> dict[str, dict[str, Measured]]:
    """Measure the named cases (`CASES`); with `vs_torch`, against PyTorch in both of its memory layouts.

    tell   is told each case as soon as it is measured
    """
    engines: tuple[str, ...] = ("tinyqnn",)
    starts, results = STARTS if vs_torch else 1, {}
    for name in names:
        if vs_torch:
            images = len(CASES[name].batch) == 4
            engines = ("tinyqnn", "torch") + (("torch channels-last",) if images else ())
        for row, evaluation in ((name, False), (f"{name} evaluation", True)):
            results[row] = measure(name, engines, threads, rounds, evaluation, starts)
            if tell is not None:
                tell(row, results[row])
    return results


__all__ = ["CASES", "Case", "Measured", "line", "measure", "our_step", "run", "torch_step"]
