"""Quantizing precision learning (QPL): the width of every vertex is learned along with the weights.

More bits lower the loss, so by itself every width would grow. A second loss holds the average down:

    L = L_task + λ · (b̄ − target)²,   b̄ = Σᵢ nᵢ bᵢ / Σᵢ nᵢ            for weights and for activations   AutoQNN eq. (6)

nᵢ is the number of elements at vertex i, as `graph.cost` counts them. The paper leaves open whether (6) is a square or
an absolute value; this is the square. At last the widths are made whole, and the network trains on with them.

By eq. (5) a width is pulled by how much its rounding hurts, in one layer a thousand times less than in another. Plain
descent at one rate would leave most widths where they began, so Adam moves them, as it moves the states of QSS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyqnn import picture
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph import GraphModule, average_bits
from tinyqnn.graph.generate import not_negative
from tinyqnn.nn import Module
from tinyqnn.optim import Adam
from tinyqnn.search.courses import draw_widths, layers_of
from tinyqnn.search.learned import LearnedBits, learnable, rounded
from tinyqnn.search.network import fit, traced
from tinyqnn.search.policy import ROLES, Policy, start_averages
from tinyqnn.search.targets import Target, targets_of
from tinyqnn.tensor import Tensor
from tinyqnn.train import History, Hook, Trainer

# Far from its target eq. (6) pulls hard; a longer memory of that would hold the widths still long after.
BETAS = (0.9, 0.9)


@dataclass(frozen=True, eq=False)
class PrecisionSearch(Policy):
    """What QPL found: a Policy, the network, and how the search went.

    model      the network with whole widths, trained
    course     the learned real width of every vertex at the beginning and after each epoch: {"conv1.quant.weight": 2.7}
    history    of the training; `history.interrupted` says whether Ctrl-C ended it early

    `draw(figure)` or `save_picture(path)` shows the course as AutoQNN's figure 9 does.

    >>> PrecisionSearch((), course=({"fc.quant.weight": 2.7},)).course[-1]["fc.quant.weight"]
    2.7
    """

    model: GraphModule | None = None
    course: tuple[dict[str, float], ...] = ()
    history: History = field(default_factory=History)

    def draw(self, figure: Any) -> None:
        """The widths over the epochs, weights beside activations."""
        draw_widths(figure, layers_of(self), self.course)

    def save_picture(self, path: PathLike) -> None:
        """The course as a PNG file; one that is there is replaced."""
        with picture.look():
            figure = picture.figure(10, 4.5)
            self.draw(figure)
            picture.save(figure, path)


def qpl(
    model: Module,
    train: Any,
    valid: Any = None,
    *,
    target_bits: Target = 3.0,
    policy: Policy | None = None,
    epochs: int = 10,
    settled: int | None = None,
    strength: float = 1.0,
    bits_lr: float = 0.05,
    tolerance: float = 0.1,
    example: Any = None,
    batch_axis: int = 0,
    **training: Any,
) -> PrecisionSearch:
    """Learn the width of every vertex whose scheme has a choice; `model` is not changed.

    target_bits    the average to reach, for both roles or as {"weights": 2, "activations": 4}; None for a role leaves
                   its widths as they are
    policy         the schemes, and the widths to begin with. None: those in the vertices of `model`; for a float one
                   ClipQ with 3 bits everywhere, as in AutoQNN's figure 9
    settled        how many of the last epochs train with whole, fixed widths; half of them if not given. The widths
                   are made whole by `learned.rounded`: the average is then at most the target + `tolerance`
    strength       λ
    bits_lr        rate of Adam, which moves the widths: about so many bits a step where all steps wish the same. The
                   paper says "gradient descent" and no rate
    example        as for `qss`; `training`, too: lr, batch_size, seed, checkpoint, …

    Raises ValueError, saying which averages there are, for a target that no widths reach.

    >>> from tinyqnn import data, nn
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 4)).astype(np.float32)
    >>> found = qpl(nn.Linear(4, 2, rng=rng), data.Split(x, (x[:, 0] > 0).astype(int)), target_bits=2, epochs=6,
    ...             progress=False)
    >>> found.average_bits("weights"), found.average_bits("activations")
    (2.0, 2.0)
    """
    if policy is None and isinstance(model, GraphModule) and any(True for _ in model.quantizers()):
        policy = Policy.of(model)
    network, example = traced(model, train, example, batch_axis)
    if policy is None:
        policy = Policy.of(network).changed({"*": "C-3"})
    positive = not_negative(network.graph)
    targets = targets_of(policy, target_bits, positive)
    network = policy.apply(network, example)
    learned = put_learned(network, [role for role in ROLES if targets[role] is not None])
    settled = max(1, epochs // 2) if settled is None else settled
    if not 0 <= settled <= epochs:
        raise ValueError(f"settled is a number of epochs from 0 to {epochs}, all there are, got {settled}")
    hook = PrecisionHook(network, targets, strength, bits_lr, tolerance, epochs - settled)
    settings = {
        "precision": {
            "policy": policy.to_json(),
            "targets": targets,
            "settled": settled,
            "strength": strength,
            "bits_lr": bits_lr,
            "tolerance": tolerance,
        }
    }
    searched = [module.bits for module in learned.values()]
    history = fit(network, train, valid, epochs, hook, searched, settings, **{"label": "QPL", **training})
    for slot in network.quantizers():
        if isinstance(slot.module, LearnedBits):
            slot.put(slot.module.quantizer)
    start_averages(network, example)
    found = Policy.of(network)
    return PrecisionSearch(found.choices, found.floats, network, tuple(hook.course), history)


class PrecisionHook(Hook):
    """The precision loss, the steps of the widths, and the epoch from which they are whole."""

    def __init__(
        self,
        network: GraphModule,
        targets: Mapping[str, float | None],
        strength: float,
        lr: float,
        tolerance: float,
        learning: int,
    ) -> None:
        self.slots = {role: [slot for slot in network.quantizers() if slot.role == role] for role in ROLES}
        self.targets = {role: target for role, target in targets.items() if target is not None}
        self.learned = {slot.name: slot.module for slot in network.quantizers() if isinstance(slot.module, LearnedBits)}
        self.strength, self.tolerance, self.learning = strength, tolerance, learning
        bits: list[Tensor] = [module.bits for module in self.learned.values()]
        self.optimizer = Adam(bits, lr=lr, betas=BETAS) if bits else None
        self.wishes = dict.fromkeys(self.learned, 0.0)
        self.course = [self.widths()]

    def widths(self) -> dict[str, float]:
        """b of every vertex as it is now; the width where it is not learned."""
        return {
            slot.name: self.learned[slot.name].bits.item()
            if slot.name in self.learned
            else float(slot.module.scheme.bits)
            for role in ROLES
            for slot in self.slots[role]
        }

    def before_epoch(self, trainer: Trainer) -> None:
        if trainer.epoch == self.learning == 0:
            self.settle()
        for module in self.learned.values():
            module.bits.requires_grad = trainer.epoch < self.learning

    def penalty(self, trainer: Trainer) -> Tensor | None:
        """λ · Σ over the roles of (b̄ − target)²."""
        if trainer.epoch >= self.learning:
            return None
        total = None
        for role, target in self.targets.items():
            count = sum(slot.elements for slot in self.slots[role])
            average: Any = sum(  # Σ nᵢ bᵢ / Σ nᵢ
                (self.learned[slot.name].bits if slot.name in self.learned else slot.module.scheme.bits)
                * (slot.elements / count)
                for slot in self.slots[role]
            )
            if isinstance(average, Tensor):
                loss = (average - target) ** 2 * self.strength
                total = loss if total is None else total + loss
        return total

    def after_step(self, trainer: Trainer) -> None:
        if trainer.epoch >= self.learning or self.optimizer is None:
            return
        self._listen()
        self.optimizer.step()
        for module in self.learned.values():  # kept in the scheme's range
            module.bits.data[...] = min(max(module.bits.item(), module.widths[0]), module.widths[-1])

    def _listen(self) -> None:
        """Add up what the vertices wish, −∂L_task/∂b · 4^width: their gradients without the part that is eq. (6)'s."""
        now = self.widths()
        for role, target in self.targets.items():
            slots = self.slots[role]
            sizes = [slot.elements for slot in slots]
            price = 2 * self.strength * (average_bits([now[slot.name] for slot in slots], sizes) - target) / sum(sizes)
            for slot in slots:
                module = self.learned.get(slot.name)
                if module is not None and module.bits.grad is not None:
                    felt = module.bits.grad.item() - price * slot.elements
                    self.wishes[slot.name] -= felt * 4.0**module.scheme.bits

    def after_epoch(self, trainer: Trainer) -> None:
        self.course.append(self.widths())
        if trainer.epoch == self.learning:
            self.settle()

    def settle(self) -> None:
        """Make the widths whole, so that the averages reach their targets."""
        for role, target in self.targets.items():
            slots = self.slots[role]
            bits, kept = self.widths(), self.learned
            own = {slot.name: range(slot.module.scheme.bits, slot.module.scheme.bits + 1) for slot in slots}
            chosen = rounded(
                [bits[slot.name] for slot in slots],
                [kept[slot.name].widths if slot.name in kept else own[slot.name] for slot in slots],
                [slot.elements for slot in slots],
                target,
                [self.wishes.get(slot.name, 0.0) for slot in slots],
                self.tolerance,
            )
            for slot, width in zip(slots, chosen):
                if slot.name in self.learned:
                    self.learned[slot.name].settle(width)

    def state_dict(self) -> dict[str, Any]:
        averages = {name: module.averages() for name, module in self.learned.items()}
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        return {"course": self.course, "averages": averages, "wishes": self.wishes, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.course, self.wishes = state["course"], state["wishes"]
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        for name, module in self.learned.items():
            module.load_averages(state["averages"][name])


def put_learned(network: GraphModule, roles: Sequence[str]) -> dict[str, LearnedBits]:
    """A learned width in every vertex of these roles whose scheme has a choice."""
    found, positive = {}, not_negative(network.graph.without_quantizers())
    for slot in network.quantizers():
        if slot.role in roles and learnable(slot.module):
            after_relu = network.graph.in_edges(slot.name)[0].source in positive
            found[slot.name] = LearnedBits(slot.module, after_relu)
            slot.put(found[slot.name])
            found[slot.name].train(network.training)
    return found
