"""What a network costs, by the one definition of "bits" that searches, tables and files share.

Of every expensive vertex is counted: the elements of its weights and, for one sample, the elements of the activations
that flow into it and its multiply-accumulates. Averages of bits weigh each quantizing vertex by its elements:

    b̄ = Σᵢ nᵢ bᵢ / Σᵢ nᵢ        AutoQNN eq. (6)

    bytes            Σ ⌈n · b / 8⌉ of the weights, packed, + 4 for each parameter of a codebook (a scale)
    float bytes      4 for each number that stays float: biases, batch norm, layers that were kept
    bit operations   multiply-accumulates · bits of the weight · bits of the activation
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.embedding import Embedding
from tinyqnn.functional.recurrent import LSTMLayer
from tinyqnn.graph.vertices import Edge, Graph, Stored, Vertex
from tinyqnn.tensor import Function

if TYPE_CHECKING:
    from tinyqnn.graph.replay import GraphModule

FLOAT_BITS = 32
WEIGHED: dict[type[Function], tuple[tuple[int, ...], tuple[int, ...]]] = {
    # which arguments are activations, and which are weights
    Conv2d: ((0,), (1,)),
    Linear: ((0,), (1,)),
    LSTMLayer: ((0, 1), (3, 4)),
    Embedding: ((), (0,)),
}


def average_bits(bits: Iterable[float], elements: Iterable[int]) -> float:
    """Σ nᵢ bᵢ / Σ nᵢ: the mean width of all numbers (AutoQNN eq. (6)). Nothing at all has 0 bits.

    AutoQNN's own VGG-like, section 6.3: weights of 7, 8, 6, 6, 7, 5 and 2 bits are 2.82 on average.

    >>> sizes = [1728, 36864, 73728, 147456, 294912, 589824, 4194304]
    >>> round(average_bits([7, 8, 6, 6, 7, 5, 2], sizes), 2)
    2.82
    """
    pairs = list(zip(bits, elements, strict=True))
    total = sum(n for _, n in pairs)
    return sum(b * n for b, n in pairs) / total if total else 0.0


@dataclass(frozen=True)
class Operand:
    """One tensor that flows into an expensive vertex.

    name       of the quantizing vertex, or of the vertex the tensor comes from
    role       "weights" or "activations"
    shape      as traced
    elements   of the weight; of the activation, for one sample
    scheme     notation of the scheme, or "float"
    bits       its width, 32 for float
    scales     how many parameters the codebook has
    source     where the tensor is made
    """

    name: str
    role: str
    shape: tuple[int, ...]
    elements: int
    scheme: str
    bits: float
    scales: int
    source: str

    @property
    def bytes(self) -> int:
        """Codes in whole bytes, and the scales."""
        return math.ceil(self.elements * self.bits / 8) + 4 * self.scales


@dataclass(frozen=True)
class LayerCost:
    """One expensive vertex: what flows in, and its multiply-accumulates by the widths they run at, for one sample."""

    name: str
    function: str
    shape: tuple[int, ...]
    operands: tuple[Operand, ...]
    macs: tuple[tuple[int, float, float], ...]  # (how many, bits of the weight, bits of the activation)

    def of(self, role: str) -> tuple[Operand, ...]:
        return tuple(operand for operand in self.operands if operand.role == role)

    def elements(self, role: str) -> int:
        return sum(operand.elements for operand in self.of(role))

    def bits(self, role: str) -> float:
        """The average over the layer's weights or activations."""
        return average_bits([o.bits for o in self.of(role)], [o.elements for o in self.of(role)])

    @property
    def weight_bytes(self) -> int:
        return sum(operand.bytes for operand in self.of("weights"))

    @property
    def operations(self) -> int:
        return sum(n for n, _, _ in self.macs)

    @property
    def bit_operations(self) -> float:
        return sum(n * w * a for n, w, a in self.macs)


@dataclass(frozen=True)
class ModelCost:
    """All expensive vertices, and what else a file of the network holds.

    layers      a LayerCost each
    floats      numbers that stay float outside the expensive vertices' weights: (what, how many numbers)
    """

    layers: tuple[LayerCost, ...]
    floats: tuple[tuple[str, int], ...]

    def stored(self) -> list[Operand]:
        """Weights, each once: a shared weight that is quantized in one way is stored once."""
        seen: dict[tuple[str, str], Operand] = {}
        for layer in self.layers:
            for operand in layer.of("weights"):
                seen.setdefault((operand.source, operand.scheme), operand)
        return list(seen.values())

    def average_bits(self, role: str) -> float:
        """Mean width of all "weights" or "activations" that are quantized, by elements; 32 if none is."""
        operands = [o for layer in self.layers for o in layer.of(role) if o.scheme != "float"]
        if not operands:
            return float(FLOAT_BITS)
        return average_bits([o.bits for o in operands], [o.elements for o in operands])

    @property
    def bytes(self) -> int:
        """Everything, packed."""
        return sum(operand.bytes for operand in self.stored()) + self.float_bytes

    @property
    def float_bytes(self) -> int:
        return 4 * sum(count for _, count in self.floats)

    @property
    def float32_bytes(self) -> int:
        """Everything as float32."""
        weights = {operand.source: operand.elements for operand in self.stored()}
        return 4 * (sum(weights.values()) + sum(count for _, count in self.floats))

    @property
    def float16_bytes(self) -> int:
        """Everything as float16."""
        return self.float32_bytes // 2

    @property
    def operations_by_width(self) -> dict[str, int]:
        """Multiply-accumulates for one sample by the widths of weight and activation: {"W3A3": …, "float": …}."""
        found: dict[str, int] = {}
        for layer in self.layers:
            for n, w, a in layer.macs:
                name = "float" if w == a == FLOAT_BITS else f"W{w:g}A{a:g}"
                found[name] = found.get(name, 0) + n
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def bit_operations(self) -> float:
        return sum(layer.bit_operations for layer in self.layers)


def elements(graph: Graph, quantizer: str) -> int:
    """How many numbers pass a quantizing vertex: of the weight, or of the activation for one sample."""
    (outgoing,) = graph.out_edges(quantizer)
    target = graph[outgoing.target]
    return _elements(graph, target, outgoing.argument, graph[quantizer].shapes[0], graph[quantizer].role)


def cost(model: GraphModule) -> ModelCost:
    """Count everything in a network made by `generate`, float or quantized.

    >>> from tinyqnn import graph, nn
    >>> model = nn.Sequential(nn.Linear(100, 10, bias=False))
    >>> counted = cost(graph.generate(model, np.ones((1, 100), np.float32), weights="C-2", activations="C-4"))
    >>> counted.bytes, counted.float32_bytes, counted.operations_by_width
    (254, 4000, {'W2A4': 1000})
    """
    graph, slots = model.graph, dict(model.named_quantizers())
    layers = []
    weighed: set[str] = set()
    for vertex in graph.vertices:
        if vertex.function not in WEIGHED:
            continue
        activations, weights = WEIGHED[vertex.function]
        operands: dict[int, Operand] = {}
        for edge in graph.in_edges(vertex.name):
            role = "activations" if edge.argument in activations else "weights" if edge.argument in weights else ""
            if role:
                operands[edge.argument] = _operand(model, graph, vertex, edge, role, slots)
        weighed.update(o.source for o in operands.values() if o.role == "weights")
        macs = tuple((n, operands[w].bits, operands[a].bits) for n, w, a in _products(graph, vertex))
        shape = graph.shape(next(e for e in graph.in_edges(vertex.name) if e.argument == weights[0]))
        layers.append(LayerCost(vertex.name, vertex.function.__name__, shape, tuple(operands.values()), macs))

    floats = []
    inside = {id(p) for slot in slots.values() for p in slot.module.parameters()}
    inside |= {id(buffer) for slot in slots.values() for _, buffer in slot.module.named_buffers()}
    for name, parameter in model.named_parameters():
        if name not in weighed and id(parameter) not in inside:
            floats.append((name, parameter.size))
    for name, buffer in model.named_buffers():
        if buffer.dtype.kind == "f" and id(buffer) not in inside:
            floats.append((name, buffer.size))
    return ModelCost(tuple(layers), tuple(floats))


def _operand(model: GraphModule, graph: Graph, vertex: Vertex, edge: Edge, role: str, slots: dict[str, Any]) -> Operand:
    """What flows along one edge into an expensive vertex."""
    shape = graph.shape(edge)
    count = _elements(graph, vertex, edge.argument, shape, role)
    slot = slots.get(edge.source)
    if slot is None:
        return Operand(edge.source, role, shape, count, "float", FLOAT_BITS, 0, edge.source)
    source = graph.in_edges(edge.source)[0].source
    scheme, bits = scheme_of(slot.module)
    scales = 0
    if role == "weights":
        value = graph[source].value
        data = model.state(value.name) if isinstance(value, Stored) else np.random.default_rng(0).normal(size=shape)
        scales = _parameters(slot.module, data)
    return Operand(edge.source, role, shape, count, scheme, bits, scales, source)


def scheme_of(module: Any) -> tuple[str, float]:
    """Notation and width of what is in a slot: its quantizer's, or its own."""
    quantizer = getattr(module, "scheme", module)
    bits = getattr(quantizer, "bits", None)
    if bits is None:
        raise ValueError(f"a {type(quantizer).__name__} in a quantizing vertex has no .bits; give it the width it has")
    return getattr(quantizer, "notation", type(quantizer).__name__), bits.item() if hasattr(bits, "item") else bits


def _parameters(module: Any, data: np.ndarray) -> int:
    """How many numbers a quantizer's codebook is described by, for this tensor."""
    fit = getattr(getattr(module, "scheme", module), "fit", None)
    return sum(int(np.size(value)) for value in fit(data).values()) if fit is not None else 1


def _elements(graph: Graph, vertex: Vertex, argument: int, shape: tuple[int, ...], role: str) -> int:
    if role == "weights":
        return math.prod(shape)
    if vertex.function is LSTMLayer and argument == 1:
        shape = vertex.shapes[0]  # the state is used at every step: (T, N, hidden)
    return _per_sample(math.prod(shape), graph.batch)


def _per_sample(count: int, batch: int) -> int:
    """A batch's count shared among its samples; what is not a batch's (a tensor without that axis) is left."""
    return count // batch if count % batch == 0 else count


def _products(graph: Graph, vertex: Vertex) -> list[tuple[int, int, int]]:
    """Multiply-accumulates of one sample, as in `multiply_accumulates`."""
    shapes = {edge.argument: graph.shape(edge) for edge in graph.in_edges(vertex.name)}
    counted = multiply_accumulates(vertex.function, shapes, vertex.shapes[0])
    return [(_per_sample(n, graph.batch), weight, activation) for n, weight, activation in counted]


def multiply_accumulates(
    function: type[Function] | None, shapes: Mapping[int, tuple[int, ...]], result: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """(how many, argument that is the weight, argument that is the activation) of each product in an operation.

    shapes   of the arguments, by their place
    result   shape of the (first) result

    >>> multiply_accumulates(Linear, {0: (8, 100), 1: (10, 100)}, (8, 10))
    [(8000, 1, 0)]
    """
    outputs = math.prod(result)
    if function in (Conv2d, Linear):  # each output sums over in/groups · kh · kw, or over in
        return [(outputs * math.prod(shapes[1][1:]), 1, 0)]
    if function is LSTMLayer:  # four gates an output, each sums over in and over hidden
        return [(4 * outputs * shapes[weight][1], weight, activation) for weight, activation in ((3, 0), (4, 1))]
    return []
