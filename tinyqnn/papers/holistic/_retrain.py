"""How every network of this paper is quantized: trained in float, given quantizers, and trained on (eqs. (2)–(4)).

weights       one step Δ a layer, of least squared error at every step (eq. (1), `quant.Uniform`)
activations   PACT in every place behind a ReLU, its bound learned with an L2 penalty; what has not passed a ReLU (the
              picture, the narrow ends of MobileNetV2's blocks) is no activation in this sense and stays float

Forward and backward pass see quantized numbers; the step goes to the float weights. The paper is silent on where PACT's
bounds start: here where the float network's activations have the least squared error, as they are while it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyqnn import graph, nn, quant
from tinyqnn.quant import PACT
from tinyqnn.tensor import Array, Tensor, no_grad
from tinyqnn.train import Hook, Trainer

MODES: dict[str, tuple[bool, bool]] = {"W2": (True, False), "A2": (False, True), "W2A2": (True, True)}
"""What is quantized: (weights, activations)."""

SAMPLE = 2**14  # numbers of an activation that its first bound is fitted to


class _Watch(nn.Module):
    """Changes nothing, and keeps a sample of what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = np.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.data.ravel()[:: max(x.size // SAMPLE, 1)]
        return x


def bounds(model: nn.Module, examples: Array, bits: int) -> dict[str, PACT]:
    """A PACT for every expensive vertex whose input is never negative, with its bound at the least squared error.

    Norms take the statistics of `examples`, as they will in training. With running averages, which fit no batch quite,
    the difference can grow from layer to layer: at the end of a MobileNetV2 activations may come out a hundred times as
    large, and with bounds from there all would be rounded to 0 in training.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> list(bounds(model, np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32), bits=2))
    ['2']
    """
    watched = graph.generate(model, examples, activations="F-8")
    for slot in watched.quantizers():
        slot.put(_Watch())
    watched.train()
    with no_grad():
        watched(Tensor(examples))
    found = {}
    for slot in watched.quantizers():
        if slot.module.seen.min() >= 0:
            step = float(quant.Uniform(bits, signed=False).fit(slot.module.seen)["scale"])
            found[slot.feeds] = PACT(bits, clip=max(step * (2**bits - 1), 1e-3))
    return found


def quantized(
    model: nn.Module, examples: Array, weights: int | None = 2, activations: int | None = 2, keep: Iterable[str] = ()
) -> graph.GraphModule:
    """A copy of a float model with quantizers in it, weights in `weights` bits and activations in `activations`.

    examples   a batch; PACT's bounds begin at what is seen of it
    keep       layers that stay float

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> q = quantized(model, np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32))
    >>> [slot.name for slot in q.quantizers()]
    ['0.quant.weight', '2.quant.input', '2.quant.weight']
    """
    pacts: Any = None if activations is None else bounds(model, examples, activations)
    scheme = None if weights is None else f"U-{weights}"
    return graph.generate(model, examples, weights=scheme, activations=pacts, keep=tuple(keep))


def groups(model: nn.Module, penalty: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """The parameters for an optimizer: PACT's bounds get `penalty` as weight decay, the others `weight_decay`.

    Holistic §5.2 retrains without L2 regularization of the weights; PACT asks for one of its bounds.
    """
    clips = [p for name, p in model.named_parameters() if name.endswith(".clip")]
    others = [p for name, p in model.named_parameters() if not name.endswith(".clip")]
    found = [{"params": others, "weight_decay": weight_decay}]
    return [*found, {"params": clips, "weight_decay": penalty}] if clips else found


class KeepsBoundsUp(Hook):
    """A learned bound that its penalty drives to 0 would end a run: after each step it is a thousandth at least."""

    def after_step(self, trainer: Trainer) -> None:
        for group in trainer.optimizer.param_groups[1:]:
            for clip in group["params"]:
                np.maximum(clip.data, 1e-3, out=clip.data)
