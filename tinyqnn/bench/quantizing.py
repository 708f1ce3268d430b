"""What does it cost to train with quantizers on every layer, or to search for them? The same network step by step.

    tinyqnn bench quantizing

Three copies of it live in one process and take turns, so that a busy minute of the machine counts for all: float, with
one scheme in every place, and with QSS's mixture of eight candidates in every place.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from tinyqnn import functional as F
from tinyqnn import graph, models, optim
from tinyqnn.bench.training import CASES, Case, Measured, _batch
from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.search.qss import candidates_by_role, put_mixtures
from tinyqnn.tensor import Array, Tensor

NAMES = ("vgg", "resnet20")
SCHEME = "C-3"
TITLES = {"float": "float", SCHEME: f"{SCHEME} on every layer", "QSS": "QSS, eight candidates"}


def steps(case: Case) -> dict[str, Callable[[], float]]:
    """Functions that train for one step: the float network, one with `SCHEME` in every place, and QSS's."""
    x, y = _batch(case)

    def network() -> Module:
        return models.create(case.model, 3, case.classes, rng=np.random.default_rng(0))

    quantized = graph.generate(network(), x[:2], weights=SCHEME, activations=SCHEME)
    searching, states = put_mixtures(graph.generate(network(), x[:2]), candidates_by_role(None), True, (), 0)
    return {
        "float": _step(network(), x, y),
        SCHEME: _step(quantized, x, y),
        "QSS": _step(searching, x, y, list(states.values())),
    }


def _step(model: Module, x: Array, y: Array, states: Sequence[Parameter] = ()) -> Callable[[], float]:
    """A function that trains `model`, and the states of its mixtures, for one step and returns the loss."""
    model.train()
    weights = [p for p in model.parameters() if not any(p is state for state in states)]
    optimizers = [optim.SGD(weights, lr=0.01, momentum=0.9), *([optim.Adam(states, lr=0.02)] if states else [])]

    def step() -> float:
        loss = F.cross_entropy(model(Tensor(x)), y)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return float(loss)

    return step


def measure(name: str, rounds: int = 8) -> dict[str, Measured]:
    """The seconds of `rounds` turns of two steps each, after three steps to warm up."""
    each = steps(CASES[name])
    found = {kind: Measured() for kind in each}
    for step in each.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for kind, step in each.items():
            for _ in range(2):
                started = time.perf_counter()
                step()
                found[kind].seconds.append(time.perf_counter() - started)
    return found


def ratio(found: dict[str, Measured], kind: str = SCHEME) -> float:
    """A step's time in float steps: the median over turns, each against its neighbour in time."""
    return statistics.median(b / a for a, b in zip(found["float"].seconds, found[kind].seconds))


def record(found: dict[str, Measured]) -> dict[str, dict[str, float]]:
    """The medians in seconds and the ratios, as JSON wants them."""
    return {kind: {"median_seconds": m.median, "ratio": ratio(found, kind)} for kind, m in found.items()}


def table(cases: dict[str, dict[str, dict[str, float]]]) -> str:
    """What `record` recorded of each case, side by side."""
    lines = [f"{'a training step, in float steps':<40}" + "".join(f"{title:>24}" for title in TITLES.values())]
    for name, kinds in cases.items():
        cells = [f"{1000 * kinds[kind]['median_seconds']:.1f} ms" for kind in TITLES]
        cells = [f"{cell} {kinds[kind]['ratio']:7.2f}" for cell, kind in zip(cells, TITLES)]
        lines.append(f"{CASES[name].title:<40}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
