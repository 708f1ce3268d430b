"""A traced network with M branches in the place of every layer: the relaxed network that DFQ searches in.

It is an edit of the graph, as QAG is. `relax.py` says what the branches and their mixture compute.

    conv                                              becomes     weight → B-1 → conv → B ↘
    weight → conv → …                                                                      mix → …
                                                                  weight → C-8 → conv → B ↗

Where a layer's output is no batch of examples, its quantizing vertex gets the mixture of the quantized weights instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.norm import BatchNorm
from tinyqnn.graph import EXPENSIVE, Edge, Graph, GraphModule, Vertex
from tinyqnn.graph.cost import elements
from tinyqnn.graph.generate import quantize_edges
from tinyqnn.graph.trace import private_copy
from tinyqnn.graph.vertices import FollowsMode, Stored
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.quant import WeightQuantizer
from tinyqnn.search.network import trainable
from tinyqnn.search.relax import EPS, MOMENTUM, Branches, Mix, MixedWeight, Relaxed
from tinyqnn.tensor import Array, Observer, Tensor, no_grad


def relax(
    base: GraphModule, notations: tuple[str, ...], keep: tuple[str, ...] = ()
) -> tuple[GraphModule, list[Relaxed]]:
    """A copy of a float network in which every expensive weight is the mixture of its candidates.

    keep   expensive vertices that stay float

    Parameters and buffers have the names they had; what is new lies in `<layer>.mixed_<weight>` and
    `<layer>.quant.<weight>`.

    >>> from tinyqnn import graph, nn
    >>> x = np.eye(4, dtype=np.float32)
    >>> model, layers = relax(graph.generate(nn.Sequential(nn.Linear(4, 3)), x), ("B-1", "C-8"))
    >>> [(layer.vertex, layer.p.tolist()) for layer in layers], model(x).shape
    ([('0.quant.weight', [0.5, 0.5])], (4, 3))
    """

    def role_of(edge: Edge) -> tuple[str, str] | None:
        target, source = base.graph[edge.target], base.graph[edge.source]
        found = EXPENSIVE.get(target.function, {}).get(edge.argument) if target.function else None
        wanted = found is not None and found[0] == "weights" and source.dtypes[edge.output].kind == "f"
        return found if wanted and target.name not in keep else None

    graph = quantize_edges(base.graph, role_of)
    body = private_copy(base)
    vertices: list[Vertex] = []
    edges: list[Edge] = []
    modules: dict[str, Module] = {}
    homes: dict[str, Module] = {}
    for vertex in graph.vertices:
        weight = _mixed_outputs(graph, vertex)
        if weight is not None:
            home, homes[weight] = _home(body, weight, notations, vertex)
            piece = _branched(graph, vertex, weight, notations, home)
            vertices += piece.vertices
            edges += piece.edges
            modules |= piece.modules
            continue
        if vertex.kind == "quantizer":
            (outgoing,) = graph.out_edges(vertex.name)
            if _mixed_outputs(graph, graph[outgoing.target]) == vertex.name:
                continue  # comes with its layer
            homes[vertex.name] = modules[vertex.name] = MixedWeight(notations, vertex.dtypes[0])
        vertices.append(vertex)
        edges += graph.in_edges(vertex.name)
    model = GraphModule(Graph(vertices, edges, graph.outputs, graph.inputs, graph.lengths, graph.batch), body, modules)
    for module in model.modules():
        module.__dict__["training"] = base.training
    layers = [
        Relaxed(
            slot.name, graph.out_edges(slot.name)[0].target, elements(graph, slot.name), notations, homes[slot.name]
        )
        for slot in graph.quantizers()
    ]
    return model, layers


def _mixed_outputs(graph: Graph, vertex: Vertex) -> str | None:
    """The quantizing vertex on the weight, if the layer's outputs are to be mixed: (examples, channels, …)."""
    if vertex.function not in (Conv2d, Linear) or (vertex.function is Linear and len(vertex.shapes[0]) != 2):
        return None
    (weight,) = (edge.source for edge in graph.in_edges(vertex.name) if edge.argument == 1)
    return weight if graph[weight].kind == "quantizer" else None


class _Piece(NamedTuple):
    """What comes into a graph in the place of one layer."""

    vertices: list[Vertex]
    edges: list[Edge]
    modules: dict[str, Module]


def _home(body: Module, weight: str, notations: tuple[str, ...], vertex: Vertex) -> tuple[str, Branches]:
    """A child for the module of a layer: its path, and itself."""
    *path, _, key = weight.split(".")
    parent, name = body, f"mixed_{key}"
    for part in path:
        parent = parent._modules[part]
    if name in parent._modules:
        raise ValueError(f"{type(parent).__name__} has a child named {name!r} of its own; call it something else")
    branches = Branches(notations, vertex.shapes[0][1], vertex.dtypes[0])
    parent.add_module(name, branches)
    return ".".join([*path, name]), branches


def _branched(graph: Graph, vertex: Vertex, weight: str, notations: tuple[str, ...], home: str) -> _Piece:
    """M branches, quantizer → layer → B each, and their mixture, which takes the name of the layer."""
    piece = _Piece([], [], {})
    (before,) = graph.in_edges(weight)
    others = [edge for edge in graph.in_edges(vertex.name) if edge.argument != 1]
    into_mix = []
    for number, notation in enumerate(notations, 1):
        source = before
        if notation != "float":
            slot = f"{weight}:{notation}"
            piece.vertices.append(replace(graph[weight], name=slot))
            piece.edges.append(replace(before, target=slot, argument=0))
            piece.modules[slot] = WeightQuantizer(notation)
            source = Edge(slot, "")
        layer, norm = f"{vertex.name}:{notation}", f"{vertex.name}:{notation}:norm"
        # B takes the mean away, and with it any bias
        piece.vertices.append(replace(vertex, name=layer, held={**vertex.held, 2: None}))
        piece.edges.extend(
            [*(replace(edge, target=layer) for edge in others), replace(source, target=layer, argument=1)]
        )
        statistics = {f"running_{kind}": Stored(f"{home}.{kind}_{notation}") for kind in ("mean", "var")}
        piece.vertices.append(
            Vertex(
                norm, "operation", BatchNorm, home, vertex.shapes, vertex.dtypes,
                {1: Stored(f"{home}.weight"), 2: Stored(f"{home}.bias")},
                {**statistics, "training": FollowsMode(), "momentum": MOMENTUM, "eps": EPS},
            )
        )  # fmt: skip
        piece.edges.append(Edge(layer, norm))
        into_mix.append(Edge(norm, vertex.name, number))
    alpha = {0: Stored(f"{home}.alpha")}
    piece.vertices.append(Vertex(vertex.name, "operation", Mix, home, vertex.shapes, vertex.dtypes, alpha))
    piece.edges.extend(into_mix)
    return piece


def start(model: GraphModule, layers: list[Relaxed], base: GraphModule, x: Any) -> None:
    """Let B of every branch begin where the float network is: γ, β and the running averages from one batch."""
    branches = [layer for layer in layers if isinstance(layer.home, Branches)]
    outputs = _Outputs()
    norms = [vertex for vertex in model.graph if vertex.function is BatchNorm and vertex.name.endswith(":norm")]
    try:
        with evaluating(base), evaluating(model), no_grad():
            with outputs:
                trainable(base)(x)
            names = [vertex.name for vertex in base.graph if vertex.function in (Conv2d, Linear)]
            for layer in branches:
                y = outputs.seen[names.index(layer.feeds)]
                axes = tuple(axis for axis in range(y.ndim) if axis != 1)
                layer.home.weight.data[...] = np.sqrt(y.var(axes) + EPS)
                layer.home.bias.data[...] = y.mean(axes)
                layer.home.train()
            for norm in norms:
                norm.options["momentum"] = 1.0
            trainable(model)(x)
    finally:
        for norm in norms:
            norm.options["momentum"] = MOMENTUM


class _Outputs(Observer):
    """What convolutions and linear layers put out, in the order they ran."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def on_forward(self, function: Any, args: Any, options: Any, outputs: tuple[Tensor, ...], seconds: float) -> None:
        if function in (Conv2d, Linear):
            self.seen.append(outputs[0].data)
