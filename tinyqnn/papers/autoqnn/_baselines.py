"""What a search has to beat at equal size: spare bits by sensitivity, and policies drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyqnn import quant
from tinyqnn.data.dataset import Split
from tinyqnn.nn import Module
from tinyqnn.quant import SCHEMES
from tinyqnn.search import Policy
from tinyqnn.search.qss import NOT_AFTER_RELU
from tinyqnn.tensor import Tensor
from tinyqnn.train import evaluate

ROLES = ("weights", "activations")


def raised(policy: Policy, vertex: str) -> Policy | None:
    """The policy with one bit more at a vertex; None if its scheme has no such width.

    >>> from tinyqnn import graph, nn
    >>> model = graph.generate(nn.Linear(2, 1), np.eye(2), weights="P-3", activations="T-2")
    >>> raised(Policy.of(model), "quant.linear_weight")["quant.linear_weight"].scheme
    'P-4'
    >>> raised(Policy.of(model), "quant.linear_input") is None
    True
    """
    choice = policy[vertex]
    if choice.letter is None or choice.bits + 1 not in SCHEMES[choice.letter].widths:
        return None
    return policy.changed({vertex: f"{choice.letter}-{choice.bits + 1}"})


def fits(policy: Policy, budget: float) -> bool:
    """Are both averages within the budget?"""
    return all(policy.average_bits(role) <= budget for role in ROLES)


def drawn(policy: Policy, budget: float, rng: np.random.Generator) -> Policy:
    """A random scheme for every vertex at 2 bits, then single bits at random places while they fit."""
    chosen = {}
    for choice in policy:
        letters = [name for name, page in SCHEMES.items() if name in "TQFRZCP" and 2 in page.widths]
        if choice.role == "activations":
            letters = [name for name in letters if name not in NOT_AFTER_RELU]
        chosen[choice.vertex] = f"{rng.choice(letters)}-2"
    policy = policy.changed(chosen)
    names = [choice.vertex for choice in policy]
    for _ in range(20 * len(names)):
        more = raised(policy, str(rng.choice(names)))
        if more is not None and fits(more, budget):
            policy = more
    return policy


def sensitivities(model: Module, policy: Policy, train: Split, calibration: Sequence[Tensor]) -> Mapping[str, Any]:
    """vertex -> bits -> the loss on `train` when that vertex alone is quantized with so many bits."""
    alone = policy.changed({"*": "float"})
    found: dict[str, dict[int, float]] = {}
    for choice in policy:
        assert choice.letter is not None
        found[choice.vertex] = {}
        for bits in range(2, 9):
            if bits in SCHEMES[choice.letter].widths:
                qmodel = alone.changed({choice.vertex: f"{choice.letter}-{bits}"}).apply(model, calibration[0])
                quant.calibrate(qmodel, calibration)
                found[choice.vertex][bits] = evaluate(qmodel, train).loss
    return found


def greedy(policy: Policy, losses: Mapping[str, Any], budget: float) -> Policy:
    """From `policy` on, a bit more wherever it lowers the loss most for each bit of size, while it fits."""
    while True:
        gains = {}
        for choice in policy:
            more = raised(policy, choice.vertex)
            if more is not None and fits(more, budget):
                bits = choice.bits
                gains[choice.vertex] = (losses[choice.vertex][bits] - losses[choice.vertex][bits + 1]) / choice.elements
        best = max(gains, key=lambda vertex: gains[vertex], default=None)
        if best is None or gains[best] <= 0:
            return policy
        policy = raised(policy, best) or policy
