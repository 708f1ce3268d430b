"""A trained, quantized graph becomes a list of layers that need no training: codes, folded norms, plain functions.

quantizing vertex on a weight         -> the weight's codes, in the layer that multiplies with them
quantizing vertex on an activation    -> a layer `quantize` with the frozen parameters
batch norm behind a product of codes  -> a factor and an addend a channel of that product
dropout, detach                       -> nothing
everything else                       -> the same function
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tinyqnn.deploy.layers import EXACT, PLAIN, Layer
from tinyqnn.deploy.product import integer
from tinyqnn.deploy.values import leaves
from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.dropout import Dropout
from tinyqnn.functional.embedding import Embedding
from tinyqnn.functional.fold import as_run, fold
from tinyqnn.functional.norm import BatchNorm
from tinyqnn.functional.recurrent import LSTMLayer
from tinyqnn.graph import GraphModule, Vertex
from tinyqnn.graph.exact import products
from tinyqnn.graph.lengths import Fill
from tinyqnn.graph.trace import Detach
from tinyqnn.graph.vertices import FollowsMode, Port, Stored, map_tree
from tinyqnn.quant.whole import Coded

Array = np.ndarray

_NAMES = {function: name for name, function in PLAIN.items()}


def lower(model: GraphModule) -> tuple[list[Layer], Any]:
    """The layers of a model made by `graph.generate`, as it evaluates, and what it returns, as a tree of `Port`.

    Raises ValueError, naming the vertex, for what has no packed form, RuntimeError for activations never seen.
    """
    if not isinstance(model, GraphModule):
        raise TypeError(
            f"pack takes a network made by graph.generate, got {type(model).__name__}; "
            "generate(model, example, weights=…, activations=…) makes one"
        )
    lowering = _Lowering(model)
    for vertex in model.graph:
        lowering.add(vertex)
    outputs = map_tree(model.graph.outputs, lambda leaf, _: lowering.port(leaf) if isinstance(leaf, Port) else leaf)
    return _needed(lowering.layers, outputs), outputs


class _Lowering:
    """The layers so far."""

    def __init__(self, model: GraphModule) -> None:
        self.model, self.graph = model, model.graph
        self.slots = dict(model.named_quantizers())
        self.layers: list[Layer] = []
        self.same: dict[str, Port] = {}  # vertices whose output is another's
        self.made: dict[str, Layer] = {}
        self.in_front = {one.norm: one.vertex for one in products(model.graph)}  # of a batch norm that folds

    def port(self, port: Port) -> Port:
        """Where an output of a vertex is found."""
        while port.output == 0 and port.vertex in self.same:
            port = self.same[port.vertex]
        if port.vertex not in self.made:
            self._data(self.graph[port.vertex])
        return port

    def add(self, vertex: Vertex) -> None:
        if vertex.kind == "input":
            whole = vertex.dtypes[0].kind != "f"
            self._append(Layer(vertex.name, "input", options={"number": vertex.value, "whole": whole}))
        elif vertex.kind == "quantizer":
            if vertex.role == "activations" and not self._is_state(vertex):
                (edge,) = self.graph.in_edges(vertex.name)
                source = self.port(Port(edge.source, edge.output))
                self._append(Layer(vertex.name, "quantize", (source,), coded={"x": self._activation(vertex.name)}))
        elif vertex.kind == "operation":
            self._operation(vertex)

    def _operation(self, vertex: Vertex) -> None:
        function = vertex.function
        if function in (Dropout, Detach):
            self.same[vertex.name] = self._argument(vertex, 0)
        elif function in (Conv2d, Linear):
            self._product(vertex)
        elif function is BatchNorm:
            self._norm(vertex)
        elif function is Embedding:
            layer = Layer(vertex.name, "embedding", (self._argument(vertex, 1),))
            self._weight(vertex, 0, "weight", layer)
            self._append(layer)
        elif function is LSTMLayer:
            self._lstm(vertex)
        elif function in _NAMES:
            self._plain(vertex)
        else:
            raise ValueError(
                f"{vertex.name}: deploy has no packed form of {vertex.label}; it knows conv2d, linear, lstm, "
                f"embedding, batch_norm, dropout and {', '.join(PLAIN)}"
            )

    def _product(self, vertex: Vertex) -> None:
        layer = Layer(vertex.name, "conv2d" if vertex.function is Conv2d else "linear", (self._argument(vertex, 0),))
        layer.options = {**vertex.options, "sums": EXACT}
        self._weight(vertex, 1, "weight", layer)
        self._keep(layer, "bias", self._number(vertex, 2))
        self._append(layer)

    def _norm(self, vertex: Vertex) -> None:
        options = vertex.options
        mean, var = (self._stored(options[name]) for name in ("running_mean", "running_var"))
        if mean is None or var is None:
            raise ValueError(
                f"{vertex.name} normalises by each batch's own statistics; train it with track_running_stats"
            )
        source = self._argument(vertex, 0)
        front = self.made.get(self.in_front.get(vertex.name, ""))
        weight, shift, eps = self._number(vertex, 1), self._number(vertex, 2), float(options["eps"])
        if front and integer(front.coded["weight"], self.made[front.arguments[0].vertex].coded["x"]):
            front.numbers["multiplier"], front.numbers["addend"] = fold(
                front.numbers.pop("bias", None), mean, var, weight, shift, eps
            )
            self.same[vertex.name] = source
            return
        self._append(Layer(vertex.name, "batch_norm", (source,), numbers=as_run(mean, var, weight, shift, eps)))

    def _lstm(self, vertex: Vertex) -> None:
        layer = Layer(vertex.name, "lstm", tuple(self._argument(vertex, i) for i in range(3)))
        (state,) = (edge for edge in self.graph.in_edges(vertex.name) if edge.argument == 1)
        if self.graph[state.source].kind == "quantizer":
            layer.coded["hidden"] = self._activation(state.source)
            layer.options["state"] = state.source
            (state,) = self.graph.in_edges(state.source)
        layer.options["from_zeros"] = self.graph[state.source].kind == "constant"
        for argument, name in ((3, "weight_ih"), (4, "weight_hh")):
            self._weight(vertex, argument, name, layer)
        for argument, name in ((5, "bias_ih"), (6, "bias_hh")):
            self._keep(layer, name, self._number(vertex, argument))
        self._append(layer)

    def _plain(self, vertex: Vertex) -> None:
        edges = {edge.argument for edge in self.graph.in_edges(vertex.name)}
        count = len(edges | set(vertex.held))
        arguments: list[Any] = []
        for i in range(count):
            if i in edges:
                arguments.append(self._argument(vertex, i))
            elif isinstance(vertex.held[i], Stored):
                arguments.append(self._constant(vertex.held[i].name, self._stored(vertex.held[i])))
            else:
                arguments.append(vertex.held[i])
        options = {k: False if isinstance(v, FollowsMode) else v for k, v in vertex.options.items()}
        for name, value in options.items():
            _refuse_arrays(vertex.name, name, value)
        self._append(Layer(vertex.name, _NAMES[vertex.function], tuple(arguments), options))  # type: ignore[index]

    def _weight(self, vertex: Vertex, argument: int, name: str, layer: Layer) -> None:
        """The factor that is stored: as codes, or as it is."""
        (edge,) = (edge for edge in self.graph.in_edges(vertex.name) if edge.argument == argument)
        if self.graph[edge.source].kind != "quantizer":
            self._keep(layer, name, self._number(vertex, argument))
            return
        (source,) = self.graph.in_edges(edge.source)
        array = self._array(source.source)
        if array is None:
            raise ValueError(f"{edge.source}: deploy packs weights that are parameters, this one is computed")
        coded = self._quantizer(edge.source).frozen(array := _float32(array, source.source))
        layer.coded[name] = replace(coded, codes=coded.encode(array))

    def _activation(self, name: str) -> Coded:
        """The frozen parameters of an activation."""
        return self._quantizer(name).frozen(np.zeros(1, np.float32))

    def _quantizer(self, name: str) -> Any:
        """What is in a slot, if it has a scheme of fixed width."""
        module = self.slots[name].module
        of_data = self.slots[name].role == "activations"
        if not hasattr(module, "frozen") or (of_data and not hasattr(type(module), "params")):
            raise ValueError(
                f"{name} holds a {type(module).__name__}, which is no scheme of a fixed width; end the search, "
                "or put a quant.WeightQuantizer or a quant.ActivationQuantizer in"
            )
        return module

    def _is_state(self, vertex: Vertex) -> bool:
        """Is this the quantizer of an LSTM's state?"""
        (edge,) = self.graph.out_edges(vertex.name)
        return self.graph[edge.target].function is LSTMLayer and edge.argument == 1

    def _argument(self, vertex: Vertex, argument: int) -> Port:
        """Where an argument comes from; the quantizer on an LSTM's state belongs to the LSTM."""
        (edge,) = (edge for edge in self.graph.in_edges(vertex.name) if edge.argument == argument)
        source = self.graph[edge.source]
        if source.kind == "quantizer" and self._is_state(source):
            (edge,) = self.graph.in_edges(edge.source)
        return self.port(Port(edge.source, edge.output))

    def _number(self, vertex: Vertex, argument: int) -> Array | None:
        """An argument that is known beforehand, such as a bias."""
        if argument in vertex.held:
            return self._stored(vertex.held[argument])
        (edge,) = (edge for edge in self.graph.in_edges(vertex.name) if edge.argument == argument)
        array = self._array(edge.source)
        if array is None:
            raise ValueError(f"{vertex.name}: its argument {argument} is computed; deploy takes a parameter there")
        return array

    def _array(self, name: str) -> Array | None:
        """The array of a data vertex, None for others."""
        value = self.graph[name].value
        return self._stored(value) if isinstance(value, (Stored, np.ndarray)) else None

    def _stored(self, value: Any) -> Array | None:
        return self.model.state(value.name) if isinstance(value, Stored) else value

    def _data(self, vertex: Vertex) -> None:
        """A parameter, buffer or constant that a plain function uses."""
        if isinstance(vertex.value, Fill):
            self._append(Layer(vertex.name, "constant", options={"fill": vertex.value}))
        elif vertex.kind in ("parameter", "buffer", "constant"):
            self._constant(vertex.name, self._array(vertex.name))

    def _constant(self, name: str, array: Array | None) -> Port:
        if name not in self.made:
            layer = Layer(name, "constant")
            self._keep(layer, "value", array)
            self._append(layer)
        return Port(name)

    def _keep(self, layer: Layer, name: str, array: Array | None) -> None:
        if array is not None:
            layer.numbers[name] = _float32(array, layer.name)

    def _append(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.made[layer.name] = layer


def _float32(array: Array, name: str) -> Array:
    if array.dtype != np.float32:
        raise ValueError(f"{name} holds {array.dtype}; a packed model computes in float32: model.to(np.float32) first")
    return np.array(array)


def _refuse_arrays(vertex: str, option: str, value: Any) -> None:
    if any(isinstance(leaf, np.ndarray) for leaf in leaves(value)):
        raise ValueError(f"{vertex}: its option {option} is an array, which has no packed form; use slices and numbers")


def _needed(layers: list[Layer], outputs: Any) -> list[Layer]:
    """The layers that lead to an output, and the inputs."""
    wanted = {leaf.vertex for leaf in leaves(outputs) if isinstance(leaf, Port)}
    for layer in reversed(layers):
        if layer.name in wanted:
            wanted.update(argument.vertex for argument in layer.arguments if isinstance(argument, Port))
    return [layer for layer in layers if layer.name in wanted or layer.op == "input"]
