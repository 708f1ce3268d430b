"""Quantizing scheme search (QSS): try all schemes in every place at once, and let the loss say which it likes.

Each quantizing vertex becomes a `Mixture` of candidates whose states s are learned along with the weights (AutoQNN
§3.2). It starts hot, with all candidates in nearly equal parts, and cools down until samples are nearly hard:

    τ(t) = τ0 · (1 − t/T)^ε          t the epoch, T how many there are                               AutoQNN eq. (3)

Fine search has a state for every vertex; coarse search one for all weights and one for all activations. Afterwards
every vertex takes its likeliest scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from tinyqnn import picture
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph import EXPENSIVE, GraphModule
from tinyqnn.graph.generate import kept_vertices, not_negative
from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.optim import Adam
from tinyqnn.quant import SCHEMES, scheme
from tinyqnn.search.courses import draw_probabilities
from tinyqnn.search.mixture import Mixture
from tinyqnn.search.network import fit, traced
from tinyqnn.search.policy import ROLES, Policy
from tinyqnn.train import History, Hook, Trainer

LETTERS = ("B", "T", "Q", "F", "R", "Z", "C", "P")  # AutoQNN's candidate set
NOT_AFTER_RELU = ("B", "T", "Q")  # AutoQNN §6
Candidates = Union[Sequence[str], Mapping[str, Union[Sequence[str], None]], None]


def default_candidates(bits: int = 3) -> tuple[str, ...]:
    """AutoQNN's eight schemes, with `bits` bits where a scheme has the choice, else the nearest width it has.

    >>> default_candidates()
    ('B-1', 'T-2', 'Q-2', 'F-3', 'R-3', 'Z-3', 'C-3', 'P-3')
    """
    return tuple(f"{name}-{min(max(bits, SCHEMES[name].widths[0]), SCHEMES[name].widths[-1])}" for name in LETTERS)


@dataclass(frozen=True, eq=False)
class SchemeSearch(Policy):
    """What QSS found: a Policy, the network, and how the search went.

    model      the network with each vertex's likeliest scheme in it, as far as it was trained
    course     the probabilities at the beginning and after each epoch: {"conv1.quant.weight": {"C-3": 0.2, …}, …};
               of a coarse search {"weights": {…}, "activations": {…}}
    history    of the training; `history.interrupted` says whether Ctrl-C ended it early

    `draw(figure)` or `save_picture(path)` shows the course as AutoQNN's figures 6 and 8 do.

    >>> SchemeSearch((), course=({"weights": {"C-3": 0.25, "P-3": 0.75}},)).course[-1]["weights"]["P-3"]
    0.75
    """

    model: GraphModule | None = None
    course: tuple[dict[str, dict[str, float]], ...] = ()
    history: History = field(default_factory=History)

    def draw(self, figure: Any) -> None:
        """The probabilities over the epochs, a small picture for each state."""
        draw_probabilities(figure, self.course)

    def save_picture(self, path: PathLike) -> None:
        """The course as a PNG file; one that is there is replaced."""
        rows = -(-len(self.course[0]) // 4) if self.course else 1
        with picture.look():
            figure = picture.figure(10, 1 + 2.2 * rows)
            self.draw(figure)
            picture.save(figure, path)


def qss(
    model: Module,
    train: Any,
    valid: Any = None,
    *,
    candidates: Candidates = None,
    fine: bool = True,
    epochs: int = 10,
    keep: Iterable[str] = (),
    temperature: float = 2.0,
    exponent: float = 1.0,
    state_lr: float = 0.02,
    example: Any = None,
    batch_axis: int = 0,
    seed: int = 0,
    **training: Any,
) -> SchemeSearch:
    """Search for the scheme of every vertex; `model` is not changed.

    train, valid           a Split, or a text as a row of token numbers
    candidates             notations, for both roles or as {"weights": …, "activations": …}; None for a role leaves it
                           float. By default AutoQNN's eight at 3 bits. Binary, Ternary and Quaternary are left out
                           where the input follows a ReLU, in a coarse search if any input does
    fine                   a state for every vertex; False: one for all weights and one for all activations
    keep                   expensive vertices that stay float, as for `graph.generate`
    temperature, exponent  τ0 and ε of eq. (3)
    state_lr               rate of Adam, which moves the states. The paper says "gradient descent" and no rate
    example, batch_axis    as for `graph.generate`; taken from `train` if not given
    seed                   of the noise and of the order of the data
    training               how the weights are trained, see `network.fit`: lr, weight_decay, optimizer, checkpoint,
                           resume, progress; and what a Trainer takes: batch_size, loss, schedule, augment, …

    The noise is drawn anew at every vertex and step, in a coarse search, too. With `checkpoint` and `resume` a search
    that was stopped ends with the same bits. Raises ValueError for an empty or unfit candidate set.

    >>> from tinyqnn import data, nn
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 4)).astype(np.float32)
    >>> found = qss(nn.Linear(4, 2, rng=rng), data.Split(x, (x[:, 0] > 0).astype(int)), candidates=["B-1", "C-3"],
    ...             epochs=2, progress=False)
    >>> len(found.course), found.average_bits("weights") <= 3
    (3, True)
    """
    network, example = traced(model, train, example, batch_axis)
    sides = candidates_by_role(candidates)
    network, states = put_mixtures(network, sides, fine, keep, seed)
    hook = SchemeHook(network, states, epochs, temperature, exponent, state_lr)
    settings = {
        "search": {
            "candidates": {role: None if names is None else list(names) for role, names in sides.items()},
            "fine": fine,
            "temperature": temperature,
            "exponent": exponent,
            "state_lr": state_lr,
            "seed": seed,
        }
    }
    training = {"label": "QSS", "seed": seed, **training}
    history = fit(network, train, valid, epochs, hook, states.values(), settings, **training)
    take_best(network)
    policy = Policy.of(network)
    return SchemeSearch(policy.choices, policy.floats, network, tuple(hook.course), history)


class SchemeHook(Hook):
    """Sets the temperature, moves the states, and writes down the probabilities."""

    def __init__(
        self,
        network: GraphModule,
        states: dict[str, Parameter],
        epochs: int,
        temperature: float,
        exponent: float,
        lr: float,
    ) -> None:
        if not (temperature > 0 and exponent >= 0):
            raise ValueError(f"temperature is above 0 and exponent not below, got {temperature} and {exponent}")
        self.mixtures = {slot.name: slot.module for slot in network.quantizers() if isinstance(slot.module, Mixture)}
        self.first = {  # of each state a mixture that has it
            name: next(m for m in self.mixtures.values() if m.state is state) for name, state in states.items()
        }
        self.epochs, self.temperature, self.exponent = epochs, temperature, exponent
        self.optimizer = Adam(list(states.values()), lr=lr)
        self.course = [self.probabilities()]

    def probabilities(self) -> dict[str, dict[str, float]]:
        """p of every state as it is now."""
        return {name: mixture.probabilities() for name, mixture in self.first.items()}

    def before_epoch(self, trainer: Trainer) -> None:
        for mixture in self.mixtures.values():
            mixture.temperature = cooled(self.temperature, self.exponent, trainer.epoch, self.epochs)

    def after_step(self, trainer: Trainer) -> None:
        self.optimizer.step()

    def after_epoch(self, trainer: Trainer) -> None:
        self.course.append(self.probabilities())

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "course": self.course}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.course = state["course"]


def cooled(temperature: float, exponent: float, epoch: int, epochs: int) -> float:
    """τ(t) = τ0 · (1 − t/T)^ε (AutoQNN eq. (3)).

    >>> [cooled(5.0, 2.0, t, 4) for t in range(5)]
    [5.0, 2.8125, 1.25, 0.3125, 0.0]
    """
    return temperature * max(1 - epoch / max(epochs, 1), 0.0) ** exponent


def candidates_by_role(candidates: Candidates) -> dict[str, tuple[str, ...] | None]:
    """The candidate set of each role, checked; None for one that stays float.

    >>> candidates_by_role({"weights": ["C-3"], "activations": None})
    {'weights': ('C-3',), 'activations': None}
    """
    if candidates is None:
        candidates = default_candidates()
    if not isinstance(candidates, Mapping):
        candidates = dict.fromkeys(ROLES, candidates)
    if unknown := sorted(set(candidates) - set(ROLES)):
        raise ValueError(f"candidates are for weights and for activations, got {', '.join(map(repr, unknown))}")
    found: dict[str, tuple[str, ...] | None] = {}
    for role in ROLES:
        given = candidates.get(role)
        if isinstance(given, str):
            raise TypeError(f"candidates for {role} are a list of notations, got the text {given!r}; write [{given!r}]")
        found[role] = None if given is None else tuple(dict.fromkeys(scheme(name).notation for name in given))
        if given is not None and not found[role]:
            raise ValueError(f"the candidate set for {role} is empty; name schemes such as C-3, or None for float")
    if all(names is None for names in found.values()):
        raise ValueError("there is nothing to search for: neither weights nor activations have candidates")
    return found


def put_mixtures(
    network: GraphModule, sides: dict[str, tuple[str, ...] | None], fine: bool, keep: Iterable[str], seed: int
) -> tuple[GraphModule, dict[str, Parameter]]:
    """QAG on a float network, with a mixture in every vertex; and the states by the names they go by."""
    network = quantized_everywhere(network, [role for role in ROLES if sides[role] is not None], keep)
    positive = not_negative(network.graph.without_quantizers())
    slots = list(network.quantizers())
    after_relu = {
        slot.name: slot.role == "activations" and network.graph.in_edges(slot.name)[0].source in positive
        for slot in slots
    }
    states: dict[str, Parameter] = {}
    for slot, rng in zip(slots, np.random.default_rng(seed).spawn(len(slots))):
        names = given = sides[slot.role] or ()
        if after_relu[slot.name] or (slot.role == "activations" and not fine and any(after_relu.values())):
            names = tuple(name for name in given if scheme(name).letter not in NOT_AFTER_RELU)
        if not names:
            where = slot.name if fine else "all activations together"
            raise ValueError(
                f"no candidate is left for {where}: {', '.join(given)} are symmetric around 0 and not for what follows "
                "a ReLU (AutoQNN §6); add F, R, Z, C or P"
            )
        state = states.setdefault(slot.name if fine else slot.role, Parameter(np.zeros(len(names), np.float32)))
        slot.put(Mixture(names, state, rng, slot.role, after_relu[slot.name]))
        slot.module.train(network.training)
    return network, states


def quantized_everywhere(network: GraphModule, roles: Sequence[str], keep: Iterable[str]) -> GraphModule:
    """A copy with some scheme in every vertex of these roles, but for layers that are kept float.

    Raises ValueError if there is no vertex, or no layer of a name in `keep`.
    """
    names = [vertex.name for vertex in network.graph if vertex.function in EXPENSIVE]
    kept = kept_vertices(keep, names)
    everywhere = Policy.of(network)
    wanted = {choice.vertex: "F-8" for choice in everywhere if choice.role in roles and choice.feeds not in kept}
    if not wanted:
        raise ValueError("no tensor is left to quantize: every convolution, linear, LSTM and embedding layer is kept")
    return everywhere.changed(wanted).apply(network, None)


def take_best(network: GraphModule) -> None:
    """Put each mixture's likeliest candidate in its place."""
    for slot in network.quantizers():
        if isinstance(slot.module, Mixture):
            slot.put(slot.module.best)
