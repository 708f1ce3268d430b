"""What the experiments on DFQ share: a float network, the same network quantized and trained on, and how it is scored.

Compression is counted as the paper counts it (its binary network is 32×, neither more nor less): over the weights of
the layers that are quantized, 32 · Σ n / Σ n · bits. `file` counts everything a file holds: scales, biases, batch norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyqnn import data, optim
from tinyqnn.data import Dataset, Split
from tinyqnn.graph import generate
from tinyqnn.nn import Module
from tinyqnn.search.policy import Policy
from tinyqnn.train import Trainer, evaluate


def splits(
    name: str, train: int, valid: int, test: int, rng: np.random.Generator
) -> tuple[Split, Split, Split, Dataset]:
    """A part of the training data to learn from, another for the bound, and the first `test` test examples.

    name   "mnist", "cifar10"; "noise-mnist", "noise-cifar10": random pixels of their shapes, to see the code run
    """
    source = noise(name, train + valid, test, rng) if name.startswith("noise") else data.load(name)
    assert isinstance(source, Dataset)
    drawn = rng.permutation(len(source.train))[: train + valid]
    return source.train.take(drawn[:train]), source.train.take(drawn[train:]), source.test.take(np.arange(test)), source


def noise(name: str, train: int, test: int, rng: np.random.Generator) -> Dataset:
    """Random images with random labels."""
    shape = (3, 32, 32) if name.endswith("cifar10") else (1, 28, 28)

    def split(count: int) -> Split:
        return Split(rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, 10, count))

    return Dataset(name, split(train), split(test), note="random pixels")


def trained(
    network: Module, train: Split, epochs: int, lr: float, batch_size: int, seed: int, augment: Any = None
) -> Module:
    """The network itself, after Adam with a rate that falls along a cosine."""
    trainer = Trainer(
        network,
        optim.Adam(network.parameters(), lr=lr),
        schedule=optim.CosineAnnealingLR(max(epochs, 1)),
        batch_size=batch_size,
        augment=augment,
        seed=seed,
    )
    trainer.fit(train, None, epochs, progress=False)
    return network


def policy_of(model: Module, train: Split, weights: str | Mapping[str, str]) -> Policy:
    """The policy of fixed schemes: one for all weights, or {vertex of a weight: scheme}."""
    policy = Policy.of(generate(model, train.inputs(slice(0, 2))))
    schemes = (
        dict.fromkeys((c.vertex for c in policy.of_role("weights")), weights) if isinstance(weights, str) else weights
    )
    return policy.changed(schemes)


def compression(policy: Policy) -> float:
    """32 · Σ n / Σ n · bits over all weights of expensive layers."""
    weights = policy.of_role("weights")
    return 32 * sum(c.elements for c in weights) / sum(c.elements * c.bits for c in weights)


def scored(policy: Policy, network: Module, valid: Split, test: Split) -> dict[str, Any]:
    """How good and how large a quantized network is; `layers` are [name, weights, scheme]."""
    return {
        "accuracy": 100 * (evaluate(network, test).accuracy or 0.0),
        "valid_loss": evaluate(network, valid).loss,
        "compression": compression(policy),
        "file": policy.compression,
        "layers": [[c.feeds, c.elements, c.scheme] for c in policy.of_role("weights")],
    }


def mean(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds.

    >>> mean([1.0, 2.0, 3.0])
    '2.00 ± 1.00'
    """
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"
