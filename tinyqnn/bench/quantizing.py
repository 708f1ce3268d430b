"""What does it cost to train with quantizers on every layer? The same network with and without, step by step in turns.

    tinyqnn bench quantizing

Both networks live in one process and take turns, so that a busy minute of the machine counts for both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from tinyqnn import functional as F
from tinyqnn import graph, models, optim
from tinyqnn.bench.training import CASES, Case, Measured, Profiler, _batch
from tinyqnn.nn import Module
from tinyqnn.tensor import Array, Tensor

NAMES = ("vgg", "resnet20")


def steps(case: Case, scheme: str = "C-3") -> tuple[Callable[[], float], Callable[[], float]]:
    """Two functions that train for one step: the float network, and one with `scheme` on every layer."""
    x, y = _batch(case)
    plain = models.create(case.model, 3, case.classes, rng=np.random.default_rng(0))
    source = models.create(case.model, 3, case.classes, rng=np.random.default_rng(0))
    quantized = graph.generate(source, x[:2], weights=scheme, activations=scheme)
    return _step(plain, x, y), _step(quantized, x, y)


def _step(model: Module, x: Array, y: Array) -> Callable[[], float]:
    """A function that trains `model` for one step and returns the loss."""
    model.train()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        loss = F.cross_entropy(model(Tensor(x)), y)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def measure(name: str, scheme: str = "C-3", rounds: int = 8) -> dict[str, Measured]:
    """The seconds of `rounds` turns of two steps each, after three steps to warm up."""
    found = {"float": Measured(), scheme: Measured()}
    pair = dict(zip(found, steps(CASES[name], scheme)))
    for step in pair.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for engine, step in pair.items():
            for _ in range(2):
                started = time.perf_counter()
                step()
                found[engine].seconds.append(time.perf_counter() - started)
    return found


def ratio(found: dict[str, Measured]) -> float:
    """The quantized step's time in float steps: the median over turns, each against its neighbour in time."""
    plain, quantized = (measured.seconds for measured in found.values())
    return statistics.median(b / a for a, b in zip(plain, quantized))


def record(found: dict[str, Measured]) -> dict[str, float]:
    """The medians in seconds and the ratio, as JSON wants them."""
    return {**{f"{engine} median_seconds": m.median for engine, m in found.items()}, "ratio": ratio(found)}


def profile(name: str, scheme: str = "C-3", count: int = 5) -> Profiler:
    """Where the quantized step's time goes, by operation."""
    _, step = steps(CASES[name], scheme)
    for _ in range(2):
        step()
    with Profiler() as profiler:
        for _ in range(count):
            step()
    return profiler


def table(results: dict[str, dict[str, Measured]], scheme: str = "C-3") -> str:
    """The step times side by side."""
    lines = [f"{'training step, median':<40} {'float':>10} {scheme + '/' + scheme:>10} {'ratio':>7}"]
    for name, found in results.items():
        plain, quantized = (f"{measured.median * 1e3:.2f} ms" for measured in found.values())
        lines.append(f"{CASES[name].title:<40} {plain:>10} {quantized:>10} {ratio(found):>7.2f}")
    return "\n".join(lines)
