"""A policy says how each tensor is quantized: a scheme and a width for every vertex. It is what a search finds.

policy = Policy.of(qmodel)                 read from a network
policy.save("policy.json")                 text: read it, edit it
Policy.load("policy.json").apply(model, example)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyqnn import files
from tinyqnn.files.atomic import PathLike, open_checked
from tinyqnn.graph import Graph, GraphModule, average_bits, cost, generate
from tinyqnn.graph.cost import FLOAT_BITS
from tinyqnn.graph.generate import not_negative, quantize_edges
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.quant import ActivationQuantizer, WeightQuantizer
from tinyqnn.search.choice import Choice, checked, notation_of, place_of, role_of, vertices_of
from tinyqnn.search.policy_file import read, write
from tinyqnn.tensor import Tensor, no_grad

ROLES = ("weights", "activations")
MAX_BYTES = 1 << 26  # of a file; a vertex takes some hundred


@dataclass(frozen=True, eq=False)
class Policy:
    """A scheme and a width for every vertex that QAG can put into a network.

    choices   a `Choice` each, in the order the vertices run
    floats    how many other numbers a file of the network holds: biases, batch norm

    Policies are equal if these are. `policy["conv1.quant.weight"]` is a Choice, `print(policy)` a table.

    >>> from tinyqnn import graph, nn
    >>> model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), np.eye(4, dtype=np.float32)
    >>> policy = Policy.of(graph.generate(model, x, weights="P-3", activations="C-3"))
    >>> policy = policy.changed({"2.quant.weight": "C-6", "0.quant.input": "float"})
    >>> print(policy)
    vertex          scheme  elements
    ────────────────────────────────
    0.quant.input   float          4
    0.quant.weight  P-3           32
    2.quant.input   C-3            8
    2.quant.weight  C-6           16
    ────────────────────────────────
    on average 4.00 bits for weights, 3.00 for activations; 3.2× smaller than float32
    >>> Policy.from_json(policy.to_json()) == policy == Policy.of(policy.apply(model, x))
    True
    """

    choices: tuple[Choice, ...]
    floats: int = 0

    @classmethod
    def of(cls, qmodel: GraphModule) -> Policy:
        """The policy of a network that `graph.generate` made; vertices that were left out are float.

        Raises ValueError for a quantizer whose notation does not say all of it, such as one with an axis.
        """
        inside = {place_of(qmodel.graph, slot.name): slot for slot in qmodel.quantizers()}
        choices = []
        for choice, place in vertices_of(qmodel.graph):
            slot = inside.get(place)
            found = "float" if slot is None else notation_of(slot.name, slot.module)
            choices.append(replace(choice, scheme=found))
        return Policy(tuple(choices), sum(count for _, count in cost(qmodel).floats))

    def apply(self, model: Module, example: Any, *, batch_axis: int = 0) -> GraphModule:
        """A copy of `model` quantized by this policy. Running averages of activations start from the example.

        example   what the model is called with, as for `graph.generate`
        model     float; of a network that is quantized already, its float weights are taken

        Raises ValueError, naming what differs, if the policy is for another model. Activations of a text of another
        length fit: all their counts have one factor in common.
        """
        base = (
            model.without_quantizers()
            if isinstance(model, GraphModule)
            else generate(model, example, batch_axis=batch_axis)
        )
        self._check(base.graph)
        wanted = {
            place: self[choice.vertex].scheme
            for choice, place in vertices_of(base.graph)
            if self[choice.vertex].scheme != "float"
        }
        graph = quantize_edges(
            base.graph, lambda edge: role_of(base.graph, edge) if (edge.target, edge.argument) in wanted else None
        )
        positive = not_negative(base.graph)
        modules: dict[str, Module] = {}
        for vertex in graph.quantizers():
            (incoming,) = graph.in_edges(vertex.name)
            notation, after_relu = wanted[place_of(graph, vertex.name)], incoming.source in positive
            if vertex.role == "weights":
                modules[vertex.name] = WeightQuantizer(notation)
            else:
                modules[vertex.name] = made_for_activations(vertex.name, notation, after_relu)
            modules[vertex.name].train(base.training)
        qmodel = GraphModule(graph, base, modules)
        start_averages(qmodel, example)
        return qmodel

    def changed(self, schemes: Mapping[str, str]) -> Policy:
        """This policy with other schemes; keys are names of vertices or patterns, such as "conv1.*".

        Raises ValueError for a pattern that fits no vertex and a scheme that there is not.
        """
        choices = list(self.choices)
        for pattern, notation in schemes.items():
            fitting = [i for i, c in enumerate(choices) if fnmatch.fnmatchcase(c.vertex, pattern)]
            if not fitting:
                raise ValueError(f"{pattern!r} fits no vertex; there are {', '.join(c.vertex for c in choices)}")
            for i in fitting:
                choices[i] = replace(choices[i], scheme=checked(notation, choices[i].vertex))
        return Policy(tuple(choices), self.floats)

    def __getitem__(self, vertex: str) -> Choice:
        for choice in self.choices:
            if choice.vertex == vertex:
                return choice
        raise KeyError(f"there is no vertex {vertex!r}; there are {', '.join(c.vertex for c in self.choices)}")

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def of_role(self, role: str) -> list[Choice]:
        """The choices for "weights" or for "activations"."""
        if role not in ROLES:
            raise ValueError(f"there are weights and activations, got {role!r}")
        return [choice for choice in self.choices if choice.role == role]

    def average_bits(self, role: str = "weights") -> float:
        """The mean width of all "weights" or "activations" that are quantized, by elements (AutoQNN eq. (6)).

        What is float does not count; 32 if all is.
        """
        quantized = [choice for choice in self.of_role(role) if choice.scheme != "float"]
        if not quantized:
            return float(FLOAT_BITS)
        return average_bits([c.bits for c in quantized], [c.elements for c in quantized])

    @property
    def bytes(self) -> int:
        """The packed network: codes, scales, and 4 for each number that stays float. A shared weight counts once."""
        stored = {(c.source, c.scheme): c.bytes for c in self.of_role("weights")}
        return sum(stored.values()) + 4 * self.floats

    @property
    def float32_bytes(self) -> int:
        """The network in float32."""
        return 4 * (sum({c.source: c.elements for c in self.of_role("weights")}.values()) + self.floats)

    @property
    def compression(self) -> float:
        """How many times smaller than in float32 the network is, everything counted (`graph.cost`)."""
        return self.float32_bytes / max(self.bytes, 1)

    def to_json(self) -> str:
        """The policy as text, a line a vertex; only "scheme" is meant to be edited."""
        vertices = {
            c.vertex: {"scheme": c.scheme, "role": c.role, "feeds": c.feeds, "source": c.source, "elements": c.elements}
            for c in self.choices
        }
        return write(vertices, self.floats)

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy that `to_json` wrote. Raises ValueError for anything else, naming what is wrong and where."""
        vertices, floats = read(text)
        return Policy(
            tuple(Choice(name, **{**row, "scheme": checked(row["scheme"], name)}) for name, row in vertices.items()),
            floats,
        )

    def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write `to_json` to a file. Raises FileExistsError if it is there, unless `overwrite`."""
        with files.atomic_write(path, overwrite=overwrite) as file:
            file.write(self.to_json().encode("utf-8"))

    @classmethod
    def load(cls, path: PathLike, max_bytes: int = MAX_BYTES) -> Policy:
        """The policy in a file. Raises FileNotFoundError, ValueError."""
        file, _ = open_checked(path, "a policy", max_bytes)
        with file:
            content = file.read()
        try:
            return Policy.from_json(content.decode("utf-8"))
        except ValueError as error:  # UnicodeDecodeError is one
            raise ValueError(f"{path}: {error}") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        return (self.choices, self.floats) == (other.choices, other.floats)

    def __hash__(self) -> int:
        return hash((self.choices, self.floats))

    def __str__(self) -> str:
        rows = [("vertex", "scheme", "elements"), *((c.vertex, c.scheme, f"{c.elements:,}") for c in self.choices)]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        rule = "─" * len(lines[0])
        weights, activations = (self.average_bits(role) for role in ROLES)
        total = f"on average {weights:.2f} bits for weights, {activations:.2f} for activations; "
        total += f"{self.compression:.1f}× smaller than float32"
        return "\n".join([lines[0], rule, *lines[1:], rule, total])

    def _check(self, graph: Graph) -> None:
        """Is this a policy for that graph?"""
        here = {choice.vertex: choice for choice, _ in vertices_of(graph)}
        mine = {choice.vertex: choice for choice in self.choices}
        told = [f"{name}: in the policy, not in the model" for name in mine if name not in here]
        told += [f"{name}: in the model, not in the policy" for name in here if name not in mine]
        both = [(mine[name], here[name]) for name in mine if name in here]
        for field in ("role", "feeds", "source"):
            told += [
                f"{a.vertex}: {'' if field == 'role' else field + ' '}{getattr(a, field)} in the policy, "
                f"{getattr(b, field)} in the model"
                for a, b in both
                if getattr(a, field) != getattr(b, field)
            ]
        told += [
            f"{a.vertex}: {a.elements:,} elements in the policy, {b.elements:,} in the model"
            for a, b in both
            if a.elements != b.elements and (a.role == "weights" or not _one_factor(both))
        ]
        if told:
            more = [f"and {len(told) - 5} more"] if len(told) > 5 else []
            raise ValueError("the policy is for another model:\n  " + "\n  ".join(told[:5] + more))


def made_for_activations(vertex: str, notation: str, after_relu: bool) -> ActivationQuantizer:
    """A quantizer for activations; ValueError names the vertex where the scheme does not fit."""
    try:
        return ActivationQuantizer(notation, after_relu=after_relu)
    except ValueError as error:
        raise ValueError(f"{vertex}: {error}") from error


def start_averages(qmodel: GraphModule, example: Any) -> None:
    """Let activation quantizers that have seen nothing yet see the example, unless it is the same number throughout."""
    fresh = [
        module
        for module in qmodel.modules()
        if isinstance(module, ActivationQuantizer) and module.scheme.sees_data and module.batches == 0
    ]
    arguments = example if isinstance(example, tuple) else (example,)
    if not fresh or not any(_varies(argument) for argument in arguments):
        return
    with evaluating(qmodel), no_grad():
        for quantizer in fresh:
            quantizer.train()
        qmodel(*arguments)


def _varies(argument: Any) -> bool:
    if isinstance(argument, (tuple, list)):
        return any(_varies(part) for part in argument)
    array = np.asarray(argument.data if isinstance(argument, Tensor) else argument)
    return array.size > 0 and bool((array != array.flat[0]).any())


def _one_factor(pairs: list[tuple[Choice, Choice]]) -> bool:
    """Are all activations as much larger here than there: those of a text of another length?"""
    counts = [(a.elements, b.elements) for a, b in pairs if a.role == "activations"]
    return all(a * counts[0][1] == b * counts[0][0] for a, b in counts)
