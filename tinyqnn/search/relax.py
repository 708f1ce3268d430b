"""Which of M widths? Take all of them at once, each as much as a softmax says, and the choice has a gradient.

    q = Σⱼ softmax(α)ⱼ · B(yⱼ),    yⱼ = what the layer puts out with its weights quantized to width j       DFQ eq. (1)

B is batch normalisation of each branch's output: branches of another amplitude are compared by what they say and not by
how loud they say it. It is an edit of the traced graph, as QAG is:

    conv                                              becomes     weight → B-1 → conv → B ↘
    weight → conv → …                                                                      mix → …
                                                                  weight → C-8 → conv → B ↗

Where a layer's output is no batch of examples (LSTM and embedding layers, linear layers on sequences), the quantized
weights themselves are mixed, Σⱼ softmax(α)ⱼ · Qⱼ(w), by a module in the quantizing vertex. What these layers multiply
the weights with is linear in them, so that is the mixture of the branches' products, with B left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.norm import BatchNorm
from tinyqnn.graph import EXPENSIVE, Edge, Graph, GraphModule, Vertex
from tinyqnn.graph.cost import FLOAT_BITS, elements
from tinyqnn.graph.generate import quantize_edges
from tinyqnn.graph.trace import private_copy
from tinyqnn.graph.vertices import FollowsMode, Stored
from tinyqnn.nn import Module, Parameter
from tinyqnn.nn.module import evaluating
from tinyqnn.quant import WeightQuantizer, scheme
from tinyqnn.search.network import trainable
from tinyqnn.tensor import Array, Function, Node, Observer, Tensor, no_grad

EPS, MOMENTUM = 1e-5, 0.1  # of B, PyTorch's


class Mix(Function):
    """Σⱼ pⱼ yⱼ with p = softmax(α): (M,), M × (…) -> (…). DFQ eq. (1)

    >>> Mix.apply(Tensor([0.0, 0.0]), Tensor([1.0, 3.0]), Tensor([3.0, 7.0])).data.tolist()
    [2.0, 5.0]
    """

    @staticmethod
    def forward(ctx: Node, alpha: Array, *ys: Array) -> Array:
        p = probabilities(alpha)
        ctx.save(p, ys)
        mixed = p[0] * ys[0]
        for share, y in zip(p[1:], ys[1:]):
            mixed += share * y
        return mixed

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        p, ys = ctx.saved
        need_alpha, *need = ctx.needs_input_grad
        grad_alpha = None
        if need_alpha:  # ∂/∂pⱼ = ⟨grad, yⱼ⟩,  ∂pⱼ/∂αₖ = pⱼ ([j = k] − pₖ)
            grad_p = np.array([_dot(grad, y) for y in ys], p.dtype)
            grad_alpha = p * (grad_p - p @ grad_p)
        return grad_alpha, *(share * grad if wanted else None for share, wanted in zip(p, need))


def probabilities(alpha: Array) -> Array:
    """softmax(α) of an array.

    >>> probabilities(np.array([0.0, np.log(3.0)])).round(4).tolist()
    [0.25, 0.75]
    """
    e = np.exp(alpha - alpha.max())
    return e / e.sum()


def _dot(a: Array, b: Array) -> float:
    """Σ a·b, in b's memory order, which is mostly a's as well: no copies."""
    order = np.argsort([-stride for stride in b.strides], kind="stable")
    return float(np.vdot(a.transpose(order), b.transpose(order)))


class Branches(Module):
    """What a relaxed layer has of its own: α, and for B of each branch a running mean and variance.

    γ and β of B are shared by the branches: a branch with a γ of its own could be louder. They start as the spread and
    mean of what the float layer puts out, so that a trained network stays near what it was.
    """

    def __init__(self, notations: tuple[str, ...], channels: int, dtype: Any) -> None:
        super().__init__()
        self.notations = notations
        self.alpha = Parameter(np.zeros(len(notations), dtype))
        self.weight, self.bias = Parameter(np.ones(channels, dtype)), Parameter(np.zeros(channels, dtype))
        for notation in notations:
            self.register_buffer(f"mean_{notation}", np.zeros(channels, dtype))
            self.register_buffer(f"var_{notation}", np.ones(channels, dtype))


class MixedWeight(Module):
    """Σⱼ softmax(α)ⱼ · Qⱼ(w), for the quantizing vertex of a weight.

    >>> MixedWeight(("B-1", "float"))(Tensor([1.0, -3.0])).data.tolist()
    [1.5, -2.5]
    """

    def __init__(self, notations: tuple[str, ...], dtype: Any = np.float32) -> None:
        super().__init__()
        self.notations = notations
        self.quantizers = [None if notation == "float" else scheme(notation) for notation in notations]
        self.alpha = Parameter(np.zeros(len(notations), dtype))

    def forward(self, x: Tensor) -> Tensor:
        return Mix.apply(self.alpha, *(x if quantize is None else quantize(x) for quantize in self.quantizers))

    @property
    def bits(self) -> float:
        """The expected width."""
        return float(probabilities(self.alpha.data) @ [width(notation) for notation in self.notations])


@dataclass(frozen=True)
class Relaxed:
    """A weight whose width is searched for.

    vertex      its quantizing vertex, `conv1.quant.weight`
    feeds       the expensive vertex
    elements    how many weights
    notations   the candidates, narrow ones first
    home        the module that has α: `Branches` or `MixedWeight`
    """

    vertex: str
    feeds: str
    elements: int
    notations: tuple[str, ...]
    home: Any

    @property
    def alpha(self) -> Parameter:
        return self.home.alpha

    @property
    def p(self) -> Array:
        """softmax(α)."""
        return probabilities(self.alpha.data)

    @property
    def bits(self) -> list[int]:
        """The width of each candidate."""
        return [width(notation) for notation in self.notations]


def width(notation: str) -> int:
    """Bits of a notation; 32 for float.

    >>> width("C-3"), width("float")
    (3, 32)
    """
    return FLOAT_BITS if notation == "float" else scheme(notation).bits


def expected_size(layers: list[Relaxed]) -> Tensor:
    """G(α) = Σᵢ nᵢ Σⱼ softmax(αᵢ)ⱼ · bitsⱼ / Σᵢ nᵢ: the expected bits of a weight, with its gradient (DFQ eq. (2)).

    >>> layer = Relaxed("fc.quant.weight", "fc", 10, ("B-1", "C-8"), MixedWeight(("B-1", "C-8")))
    >>> expected_size([layer]).item()
    4.5
    """
    total = sum(layer.elements for layer in layers)
    size = Tensor(np.zeros((), layers[0].alpha.dtype))
    for layer in layers:
        bits = np.array(layer.bits, layer.alpha.dtype) * (layer.elements / total)
        size = size + (F.softmax(layer.alpha) * bits.astype(layer.alpha.dtype)).sum()
    return size


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
            homes[weight] = _branch(graph, vertex, weight, notations, body, vertices, edges, modules)
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


def _branch(
    graph: Graph,
    vertex: Vertex,
    weight: str,
    notations: tuple[str, ...],
    body: Module,
    vertices: list[Vertex],
    edges: list[Edge],
    modules: dict[str, Module],
) -> Branches:
    """Put M branches and their mixture, which has the vertex's name, in the place of one layer."""
    *path, _, key = weight.split(".")
    home = body
    for part in path:
        home = home._modules[part]
    name = f"mixed_{key}"
    if name in home._modules:
        raise ValueError(f"{type(home).__name__} has a child named {name!r} of its own; call it something else")
    branches = Branches(notations, vertex.shapes[0][1], vertex.dtypes[0])
    home.add_module(name, branches)
    place = ".".join([*path, name])

    (before,) = graph.in_edges(weight)
    others = [edge for edge in graph.in_edges(vertex.name) if edge.argument != 1]
    mix = Vertex(vertex.name, "operation", Mix, place, vertex.shapes, vertex.dtypes, {0: Stored(f"{place}.alpha")})
    incoming = []
    for number, notation in enumerate(notations, 1):
        source = before
        if notation != "float":
            slot = f"{weight}:{notation}"
            vertices.append(replace(graph[weight], name=slot))
            edges.append(replace(before, target=slot, argument=0))
            modules[slot] = WeightQuantizer(notation)
            source = Edge(slot, "")
        layer, norm = f"{vertex.name}:{notation}", f"{vertex.name}:{notation}:norm"
        # B takes the mean away, and with it any bias
        vertices.append(replace(vertex, name=layer, held={**vertex.held, 2: None}))
        edges += [replace(edge, target=layer) for edge in others]
        edges.append(Edge(source.source, layer, 1, source.output))
        statistics = {f"running_{kind}": Stored(f"{place}.{kind}_{notation}") for kind in ("mean", "var")}
        vertices.append(
            Vertex(
                norm, "operation", BatchNorm, place, vertex.shapes, vertex.dtypes,
                {1: Stored(f"{place}.weight"), 2: Stored(f"{place}.bias")},
                {**statistics, "training": FollowsMode(), "momentum": MOMENTUM, "eps": EPS},
            )
        )  # fmt: skip
        edges.append(Edge(layer, norm))
        incoming.append(Edge(norm, vertex.name, number))
    vertices.append(mix)
    edges += incoming
    return branches


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
