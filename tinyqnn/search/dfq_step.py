"""The switch of algorithm 1: after each step of the weights one step of α, down the size or down the loss.

∇_α G          where L_valid ≤ θ   (λ = 0)       there is room: shrink
∇_α L_valid    where L_valid > θ   (λ → ∞)       too small: recover

Two things decide whether the bound commands:

L_valid is a mean, and one batch is a poor witness of it. Where few examples have most of the loss, most batches lie
below the mean: a network that breaks the bound would find room in most of its steps. So the switch asks the mean of the
last `WINDOW` batches.

With λ → ∞ no step down the size outweighs one down the loss. As they come, ∇G (in bits) is many times as long as ∇L
(in parts of a nat), and Adam, which divides both by one average, leaves next to nothing of the steps down the loss:
the search would end narrow while nearly all of its steps find the bound broken. So both gradients are brought to
length 1, and units have no say.

And one decides whether it comes to rest. A switch never stands still: at the bound α swings to and fro, and the argmax
is of the moment at which the search happens to end. Where `falls`, α's rate goes down to zero with that of the weights.
The price: the loss of the mixture falls last of all, and then there is little rate left to make use of the room.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyqnn import optim, random
from tinyqnn.functional import cross_entropy
from tinyqnn.nn import Module, Parameter
from tinyqnn.nn.module import evaluating
from tinyqnn.search.relax import Relaxed, expected_size
from tinyqnn.tensor import Tensor
from tinyqnn.train import Hook, Trainer
from tinyqnn.train.score import Data, Loss, map_state, source_of

WINDOW = 20  # batches whose mean loss the switch asks; fewer where the validation data has fewer


class Search(Hook):
    """The α-steps of algorithm 1: one on a validation batch after each step of the weights.

    L_valid is taken in evaluation mode: the loss that the bound is about, without dropout, and nothing of the
    validation data gets into running averages. The backward pass is that of one batch, and runs only where the bound is
    violated. `lr` is the rate of α; where `falls`, times the part of theirs that the weights have at the moment.
    """

    def __init__(
        self,
        layers: list[Relaxed],
        valid: Data,
        theta: float,
        loss: Loss = cross_entropy,
        lr: float = 0.02,
        falls: bool = False,
        batch_size: int = 128,
        seq_len: int = 35,
        seed: int = 0,
    ) -> None:
        self.layers, self.theta, self.loss, self.falls = layers, theta, loss, falls
        self.optimizer = optim.Adam([layer.alpha for layer in layers], lr=lr, betas=(0.5, 0.999))  # as DARTS has it
        self.valid = _Stream(valid, batch_size, seq_len, np.random.default_rng((seed, 1)))
        self.recent: deque[float] = deque(maxlen=min(WINDOW, len(self.valid.source.batches(None))))
        self.steps = self.violations = 0
        self.history: list[dict[str, Any]] = []

    def before_epoch(self, trainer: Trainer) -> None:
        for layer in self.layers:
            layer.alpha.requires_grad = False  # the training loss has no say in α

    def after_step(self, trainer: Trainer) -> None:
        alphas = [layer.alpha for layer in self.layers]
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        self.optimizer.zero_grad()
        _require(weights, False)
        _require(alphas, True)
        try:
            with evaluating(trainer.model):
                valid_loss = self.valid.loss(trainer.model, self.loss)
                self.recent.append(valid_loss.item())
                violated = sum(self.recent) / len(self.recent) > self.theta
                objective = valid_loss if violated else expected_size(self.layers)  # λ → ∞, λ = 0
                objective.backward()
        finally:
            _require(alphas, False)
            _require(weights, True)
        _normalize(alphas)
        if self.falls:
            (weights_have, *_), (group,) = trainer.optimizer.param_groups, self.optimizer.param_groups
            group["lr"] = group["initial_lr"] * weights_have["lr"] / (weights_have["initial_lr"] or 1.0)
        self.optimizer.step()
        self.steps, self.violations = self.steps + 1, self.violations + violated

    def after_epoch(self, trainer: Trainer) -> None:
        total = sum(layer.elements for layer in self.layers)
        chosen = sum(layer.elements * layer.bits[int(layer.p.argmax())] for layer in self.layers)
        self.history.append(
            {
                "epoch": trainer.epoch,
                "valid_loss": trainer.history.rows[-1].get("valid_loss"),
                "theta": self.theta,
                "size": expected_size(self.layers).item(),
                "argmax_bits": chosen / total,
                "violated": self.violations / max(self.steps, 1),
                "probabilities": {layer.vertex: layer.p.tolist() for layer in self.layers},
                "candidates": list(self.layers[0].notations),
            }
        )
        self.steps = self.violations = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),  # α itself is among the model's parameters
            "valid": self.valid.state_dict(),
            "recent": list(self.recent),
            "steps": self.steps,
            "violations": self.violations,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.valid.load_state_dict(state["valid"])
        self.recent.clear()
        self.recent.extend(state["recent"])
        self.steps, self.violations, self.history = state["steps"], state["violations"], list(state["history"])


@dataclass
class _Stream:
    """Validation batches without end, each time round in a new order; a text is read again from its beginning."""

    data: Data
    batch_size: int
    seq_len: int
    rng: np.random.Generator
    number: int = 0
    carried: Any = None
    order: str = ""
    _waiting: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.source = source_of(self.data, self.batch_size, self.seq_len)

    def loss(self, model: Module, loss: Loss) -> Tensor:
        """The model's loss on the next batch."""
        if self._waiting is None:
            self.order = self.order or random.get_state(self.rng)  # from which the same order can be drawn again
            random.set_state(self.rng, self.order)
            self._waiting = iter(self.source.batches(self.rng, self.number))
        found = next(self._waiting, None)
        if found is None:
            self.number, self.carried, self.order, self._waiting = 0, None, "", None
            return self.loss(model, loss)
        x, y = found
        outputs, targets, self.carried = self.source.forward(model, x, y, self.carried)
        self.number += 1
        return loss(outputs, targets)

    def state_dict(self) -> dict[str, Any]:
        carried = map_state(lambda tensor: tensor.data, self.carried)
        order = self.order or random.get_state(self.rng)
        return {"number": self.number, "carried": carried, "order": order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.order, self._waiting = state["number"], state["order"], None
        self.carried = map_state(Tensor, state["carried"])


def _normalize(alphas: list[Parameter]) -> None:
    """Bring the gradient of all α together to length 1."""
    length = math.sqrt(sum(float(np.vdot(alpha.grad, alpha.grad)) for alpha in alphas if alpha.grad is not None))
    for alpha in alphas:
        if alpha.grad is not None and length > 0:
            alpha.grad = alpha.grad / alpha.grad.dtype.type(length)


def _require(parameters: Iterable[Tensor], wanted: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad = wanted
