"""Quantized architecture generation (QAG): quantization is an edit of the graph, so it fits any network.

Some vertices take nearly all the time and memory: convolutions, linear layers, LSTM layers, embedding tables. On every
edge that brings them a tensor a quantizing vertex is put; every other edge stays (AutoQNN §5.1, algorithm 1).
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Union

import numpy as np

from tinyqnn.functional.activation import ReLU, Sigmoid, Softmax
from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.dropout import Dropout
from tinyqnn.functional.embedding import Embedding
from tinyqnn.functional.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyqnn.functional.recurrent import LSTMLayer
from tinyqnn.functional.shape import Concat, Stack
from tinyqnn.graph.replay import GraphModule
from tinyqnn.graph.trace import private_copy, trace
from tinyqnn.graph.vertices import Edge, Graph, Vertex, map_tree
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.quant import ActivationQuantizer, Quantizer, WeightQuantizer, scheme
from tinyqnn.tensor import Abs, Add, Exp, Flatten, Function, GetItem, Permute, Reshape, Tensor, no_grad

Schemes = Union[str, Quantizer, None, Mapping[str, Union[str, Quantizer, None]]]
Expensive = Mapping[type[Function], Mapping[int, tuple[str, str]]]

# The expensive vertices, and which of their arguments are multiplied: (role, name of the quantizing vertex).
# Not among them, and never quantized: biases, which are added to the wide sums and are few; the cell state of an LSTM,
# which is such a sum; and whole numbers, as the words that an embedding looks up.
EXPENSIVE: Expensive = {
    Conv2d: {0: ("activations", "input"), 1: ("weights", "weight")},
    Linear: {0: ("activations", "input"), 1: ("weights", "weight")},
    LSTMLayer: {
        0: ("activations", "input"),
        1: ("activations", "hidden"),
        3: ("weights", "weight_ih"),
        4: ("weights", "weight_hh"),
    },
    Embedding: {0: ("weights", "weight")},
}


def generate(
    model: Module,
    example: Any,
    weights: Schemes = None,
    activations: Schemes = None,
    keep: Iterable[str] = (),
    *,
    expensive: Expensive = EXPENSIVE,
    batch_axis: int = 0,
) -> GraphModule:
    """A quantized copy of `model`: the same graph, with a quantizing vertex on every edge into an expensive vertex.

    example       what the model is called with, see `trace`. Running averages of activations start from it, unless it
                  is the same number throughout; without them the copy must be trained or calibrated before `eval()`
    weights       a scheme such as "P-3", a quantizer, None for float, or a dictionary from names of expensive vertices
                  (or patterns, "layer1.*"; the first that fits counts) to such; what no pattern fits stays float
    activations   the same for activations
    keep          expensive vertices that stay float: names as `trace` prints them, or "first" and "last" to run
    expensive     which Functions are expensive, and which of their arguments get a vertex
    batch_axis    which axis of the first input counts samples

    The copy has parameters and buffers of its own, under the same `state_dict` keys, and quantizers under
    `<layer>.quant.*`: a checkpoint of the float model loads with `strict=False`. `model` is not changed.

    A weight or an activation that flows into two expensive vertices gets two quantizing vertices, one an edge. The
    image that flows into the first layer is quantized too, unless "first" is kept. With `weights` and `activations`
    both None the copy computes what the model computes, bit for bit.

    >>> from tinyqnn import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> quantized = generate(model, np.random.default_rng(0).normal(size=(2, 4)), weights="C-3", activations="C-3")
    >>> [(slot.name, slot.elements) for slot in quantized.quantizers()]
    [('0.quant.input', 4), ('0.quant.weight', 32), ('2.quant.input', 8), ('2.quant.weight', 16)]
    """
    if isinstance(model, GraphModule) and any(True for _ in model.quantizers()):
        raise ValueError("the model has quantizing vertices already; start from model.without_quantizers()")
    graph = trace(model, example, batch_axis)
    names = [vertex.name for vertex in graph if vertex.function in expensive]
    kept = kept_vertices(keep, names)
    chosen = {
        "weights": _assigned("weights", weights, names),
        "activations": _assigned("activations", activations, names),
    }

    def role_of(edge: Edge) -> tuple[str, str] | None:
        """The role and the name of the vertex to put on an edge, or None to leave the edge."""
        target, source = graph[edge.target], graph[edge.source]
        found = expensive.get(target.function, {}).get(edge.argument) if target.function else None
        if found is None or source.dtypes[edge.output].kind != "f":
            return None
        return found if target.name not in kept and chosen[found[0]][target.name] is not None else None

    rewritten = quantize_edges(graph, role_of)
    positive = not_negative(graph)
    modules: dict[str, Module] = {}
    for vertex in rewritten.quantizers():
        (incoming,), (outgoing,) = rewritten.in_edges(vertex.name), rewritten.out_edges(vertex.name)
        quantizer = copy.deepcopy(scheme(chosen[vertex.role][outgoing.target]))  # type: ignore[arg-type]
        try:
            modules[vertex.name] = (
                WeightQuantizer(quantizer)
                if vertex.role == "weights"
                else ActivationQuantizer(quantizer, after_relu=incoming.source in positive, shape=vertex.shapes[0])
            )
        except ValueError as error:
            raise ValueError(f"{vertex.name}: {error}") from error

    body = private_copy(model)
    for parameter in body.parameters():
        parameter.grad = None
    quantized = GraphModule(rewritten, body, modules)
    for slot in quantized.quantizers():
        slot.module.train(quantized.training)
    _start_averages(quantized, example)
    return quantized


def quantize_edges(graph: Graph, role_of: Callable[[Edge], tuple[str, str] | None]) -> Graph:
    """Algorithm 1 of AutoQNN: put a quantizing vertex on every edge for which `role_of` gives a (role, name).

    The vertices of a graph stand in an order in which each comes after those it depends on, those of in-degree 0 first
    of all; so one walk along them meets every vertex once and every edge once: O(|V| + |E|).
    """
    vertices: list[Vertex] = []
    edges: list[Edge] = []
    taken: dict[str, int] = {}
    for vertex in graph.vertices:
        put_in, flowing = [], []
        for edge in graph.in_edges(vertex.name):
            found = role_of(edge)
            if found is None:
                flowing.append(edge)
                continue
            role, key = found
            source = graph[edge.source]
            name = _slot_name(vertex, key)
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                name = f"{name}:{taken[name]}"
            shape, dtype = source.shapes[edge.output], source.dtypes[edge.output]
            put_in.append(Vertex(name, "quantizer", shapes=(shape,), dtypes=(dtype,), role=role))
            edges.append(replace(edge, target=name, argument=0))
            flowing.append(Edge(name, vertex.name, edge.argument))
        vertices += [*put_in, vertex]
        edges += flowing
    return Graph(vertices, edges, graph.outputs, graph.inputs, graph.lengths, graph.batch)


def _slot_name(vertex: Vertex, key: str) -> str:
    """`conv1.quant.weight`: in the module that called, under `quant`; a call without a module of its own says which."""
    path = f"{vertex.module}." if vertex.module else ""
    own = vertex.name == vertex.module or vertex.name.startswith(f"{vertex.module}:")
    return f"{path}quant.{key}" if own else f"{path}quant.{vertex.name[len(path) :]}_{key}"


def kept_vertices(keep: Iterable[str], names: list[str]) -> set[str]:
    """Which of the expensive vertices `names`, in the order they run, stay float: "first", "last", or by name.

    Raises ValueError for a name that is none of them.

    >>> sorted(kept_vertices(("last", "conv1"), ["conv1", "conv2", "fc"]))
    ['conv1', 'fc']
    """
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    ends = {"first": names[:1], "last": names[-1:]}
    unknown = [name for name in keep if name not in names and name not in ends]
    if unknown:
        known = ", ".join(["first", "last", *names])
        raise ValueError(f"keep: {', '.join(map(repr, unknown))} is no expensive vertex; there are {known}")
    return {found for name in keep for found in ([name] if name in names else ends[name])}


def _assigned(side: str, schemes: Schemes, names: list[str]) -> dict[str, Quantizer | None]:
    """The quantizer for every expensive vertex, or None for float."""
    if not isinstance(schemes, Mapping):
        chosen = None if schemes is None else scheme(schemes)
        return dict.fromkeys(names, chosen)
    unused = [pattern for pattern in schemes if not any(fnmatch.fnmatchcase(name, pattern) for name in names)]
    if unused:
        known = ", ".join(names)
        raise ValueError(f"{side}: {', '.join(map(repr, unused))} fits no expensive vertex; there are {known}")
    made = {pattern: None if wanted is None else scheme(wanted) for pattern, wanted in schemes.items()}
    return {
        name: next((made[pattern] for pattern in made if fnmatch.fnmatchcase(name, pattern)), None) for name in names
    }


_POSITIVE = (ReLU, Sigmoid, Softmax, Exp, Abs)
_KEEPS_SIGN = (
    MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Reshape, Permute, GetItem, Dropout, Concat, Stack, Add,
)  # fmt: skip


def not_negative(graph: Graph) -> set[str]:
    """Vertices whose output is never negative: ReLU and its like, and what keeps the sign of such.

    >>> from tinyqnn import nn
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1))
    >>> sorted(not_negative(trace(model, np.ones((1, 2), np.float32))))
    ['1', '2']
    """
    found: set[str] = set()
    for vertex in graph.vertices:
        inputs = [edge.source in found for edge in graph.in_edges(vertex.name)]
        numbers = all(value >= 0 for value in vertex.held.values() if isinstance(value, (int, float)))
        if vertex.function in _POSITIVE or (vertex.function in _KEEPS_SIGN and inputs and all(inputs) and numbers):
            found.add(vertex.name)
    return found


def _start_averages(quantized: GraphModule, example: Any) -> None:
    """Let the running averages see the example, unless it is a mere shape: the same number throughout."""
    arguments = example if isinstance(example, tuple) else (example,)
    seen = [leaf for leaf in _leaves(arguments) if leaf.size and bool((leaf != leaf.flat[0]).any())]
    if not seen:
        return
    with evaluating(quantized), no_grad():
        for slot in quantized.quantizers():
            slot.module.train()
        quantized(*arguments)


def _leaves(tree: Any) -> list[np.ndarray]:
    """The arrays of an example."""
    found: list[np.ndarray] = []

    def keep(leaf: Any, _: str) -> None:
        if isinstance(leaf, (Tensor, np.ndarray)):
            found.append(np.asarray(leaf))

    map_tree(tree, keep)
    return found
