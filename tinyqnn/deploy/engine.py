"""The engine runs a list of layers: whole numbers wherever both factors are codes, the model's functions elsewhere.

Where a product of codes flows, through ReLU, pooling and reshaping alone, into the next quantizing vertex, no real
number is computed in between: the sums step up the stairs of `stairs.py` and come out as codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.deploy.layers import EXACT, ON_CODES, PLAIN, Layer
from tinyqnn.deploy.product import Product, Window, integer
from tinyqnn.deploy.recurrent import run_lstm
from tinyqnn.deploy.stairs import FloatStairs, IntegerStairs, few_edges
from tinyqnn.graph.lengths import moves, resolve
from tinyqnn.graph.vertices import Port
from tinyqnn.kernels import channels
from tinyqnn.quant.whole import Coded
from tinyqnn.tensor import Node

Array = np.ndarray
Values = dict[str, Any]
Step = Callable[[Values, list[int]], None]

FEW_SAMPLES = 8  # a thread, from which it pays to share out the samples


@dataclass(frozen=True)
class Fused:
    """A product, what lies between, and the quantizing vertex at the end."""

    product: Layer
    between: tuple[Layer, ...]
    quantize: Layer


class Engine:
    """Runs layers on arrays. What it prepares for that, packed weights and stairs, it makes when it is first needed."""

    def __init__(self, layers: list[Layer], kept: set[str]) -> None:
        """`kept` are the names of the layers whose values are wanted in the end."""
        self.layers = {layer.name: layer for layer in layers}
        self.steps: list[tuple[Step, tuple[str, ...]]] = []
        self.by_sample = all(self._is_by_sample(layer) for layer in layers)
        users: dict[str, list[Layer]] = {layer.name: [] for layer in layers}
        for layer in layers:
            for argument in layer.arguments:
                if isinstance(argument, Port):
                    users[argument.vertex].append(layer)
        fused = {f.quantize.name: f for f in (self._fusible(layer, users, kept) for layer in layers) if f is not None}
        inside = {layer.name for f in fused.values() for layer in (f.product, *f.between)}
        runs: list[tuple[Layer, Step, tuple[str, ...]]] = []
        for layer in layers:
            if layer.name not in inside:
                found = fused.get(layer.name)
                source = found.product if found else layer
                needs = tuple(a.vertex for a in source.arguments if isinstance(a, Port))
                runs.append((layer, self._fused_step(found) if found else self._step(layer), needs))
        last: dict[str, int] = {}
        for place, (layer, _, needs) in enumerate(runs):
            last.update(dict.fromkeys((*needs, layer.name), place))
        for place, (_, step, _) in enumerate(runs):
            done = tuple(name for name, end in last.items() if end == place and name not in kept)
            self.steps.append((step, done))

    def run(self, inputs: list[Array], lengths: list[int], keep: set[str] | None = None) -> Values:
        """The values that are kept, and those named in `keep`, by layer.

        Where samples go their ways alone, each thread takes some of them through all layers: threads that meet behind
        each layer wait for one another, and what one has just made is in its own core's cache.
        """
        threads = 1 if kernels.use_reference() or not self.by_sample else kernels.jit.get_num_threads()
        if threads == 1 or len(inputs[0]) < FEW_SAMPLES * threads:
            return self._run(inputs, lengths, keep)
        shares, found = np.array_split(inputs[0], threads), [Values()] * threads

        def body(first: int, last: int) -> None:
            for i in range(first, last):
                found[i] = self._run([shares[i]], lengths, keep)

        kernels.jit.run(body, threads, 1)
        return {name: np.concatenate([values[name] for values in found]) for name in found[0] if name}

    def _run(self, inputs: list[Array], lengths: list[int], keep: set[str] | None) -> Values:
        values: Values = {"": inputs}
        for step, done in self.steps:
            step(values, lengths)
            for name in done:
                if keep is None or name not in keep:
                    del values[name]
        return values

    def _is_by_sample(self, layer: Layer) -> bool:
        """Does each sample, along the first axis, get the same numbers whoever else is in the batch?"""
        options = layer.options
        if moves(options) or not all(isinstance(argument, Port) for argument in layer.arguments):
            return False
        if layer.op in ("conv2d", "linear"):
            return self._integer(layer)
        if layer.op == "quantize":
            return layer.coded["x"].quantizer.axis is None
        if layer.op == "flatten":
            return options["start_dim"] == 1
        return layer.op in ("relu", "max_pool2d") or (layer.op == "input" and options["number"] == 0)

    def _coded(self, layer: Layer) -> Coded | None:
        """The scheme of the codes that flow into a layer first."""
        return self.layers[layer.arguments[0].vertex].coded.get("x")

    def _fusible(self, quantize: Layer, users: dict[str, list[Layer]], kept: set[str]) -> Fused | None:
        """The way back from a quantizing vertex to a product of codes, if nothing else needs what lies on it."""
        if quantize.op != "quantize" or not few_edges(quantize.coded["x"]):
            return None
        between: list[Layer] = []
        layer = self.layers[quantize.arguments[0].vertex]
        while True:
            if len(users[layer.name]) != 1 or layer.name in kept:
                return None
            if layer.op not in ON_CODES:
                break
            between.insert(0, layer)
            layer = self.layers[layer.arguments[0].vertex]
        if layer.op not in ("conv2d", "linear") or not self._integer(layer):
            return None
        return Fused(layer, tuple(between), quantize) if self._product(layer).rounding.single else None

    def _integer(self, layer: Layer) -> bool:
        """Is this product added up in whole numbers?"""
        return layer.options["sums"] == EXACT and integer(layer.coded.get("weight"), self._coded(layer))

    def _product(self, layer: Layer) -> Product:
        x = self._coded(layer)
        assert x is not None
        window = _window(layer) if layer.op == "conv2d" else None
        numbers = layer.numbers
        addend = numbers.get("addend", numbers.get("bias"))
        return Product(layer.coded["weight"], x, window, numbers.get("multiplier"), addend)

    def _fused_step(self, fused: Fused) -> Step:
        product, coded = self._product(fused.product), fused.quantize.coded["x"]
        relu = any(layer.op == "relu" for layer in fused.between)
        stairs: list[IntegerStairs] = []
        source, target = fused.product.arguments[0].vertex, fused.quantize.name
        lowest = int(coded.quantizer.alphabet[0])
        shapers = {layer.name: _plain(layer) for layer in fused.between if layer.op in ("flatten", "reshape")}

        def step(values: Values, lengths: list[int]) -> None:
            if not stairs:
                then = [lambda y: np.maximum(y, 0)] if relu else []
                stairs.append(
                    IntegerStairs(coded, product.rounding.factors[0], product.rounding.addend, product.largest, then)
                )
            codes = product.to_codes(values[source], stairs[0].stairs)
            for layer in fused.between:
                if layer.op == "max_pool2d":
                    size, stride, padding = (layer.options[name] for name in ("kernel_size", "stride", "padding"))
                    codes = kernels.requantize.max_codes(codes, size, stride, padding, lowest)
                elif layer.op in ("flatten", "reshape"):
                    codes = shapers[layer.name]([codes], lengths)
            values[target] = codes

        return step

    def _step(self, layer: Layer) -> Step:
        """How one layer runs alone."""
        name = layer.name
        if layer.op == "input":
            number = layer.options["number"]

            def step(values: Values, lengths: list[int]) -> None:
                values[name] = values[""][number]

            return step
        if layer.op == "constant":
            return self._constant(layer)
        run = {
            "quantize": self._quantize,
            "conv2d": self._conv_or_linear,
            "linear": self._conv_or_linear,
            "embedding": self._embedding,
            "batch_norm": self._norm,
        }.get(layer.op)
        if layer.op == "lstm":
            return run_lstm(layer, self._coded(layer))
        if run is not None:
            function, source = run(layer), layer.arguments[0]

            def one(values: Values, lengths: list[int]) -> None:
                values[name] = function(_get(values, source))

            return one

        if layer.op == "stack" and len(layer.arguments) == 1:  # of one array: nothing has to be moved
            (source,), axis = layer.arguments, layer.options["axis"]

            def alone(values: Values, lengths: list[int]) -> None:
                array = _get(values, source)
                before = axis if axis >= 0 else array.ndim + 1 + axis
                if not 0 <= before <= array.ndim:
                    raise ValueError(f"{name}: an array of shape {array.shape} cannot be stacked along axis {axis}")
                values[name] = array[(slice(None),) * before + (None,)]

            return alone

        compute, arguments = _plain(layer), layer.arguments

        def plain(values: Values, lengths: list[int]) -> None:
            given = [_get(values, a) if isinstance(a, Port) else resolve(a, lengths) for a in arguments]
            values[name] = compute(given, lengths)

        return plain

    def _constant(self, layer: Layer) -> Step:
        def step(values: Values, lengths: list[int]) -> None:
            values[layer.name] = layer.numbers["value"] if layer.numbers else resolve(layer.options["fill"], lengths)

        return step

    def _quantize(self, layer: Layer) -> Callable[[Array], Array]:
        coded = layer.coded["x"]
        if coded.quantizer.axis is not None:
            return coded.encode
        stairs: list[FloatStairs] = []

        def encode(x: Array) -> Array:
            if not stairs:
                stairs.append(FloatStairs(coded))
            return stairs[0](x)

        return encode

    def _conv_or_linear(self, layer: Layer) -> Callable[[Array], Array]:
        x, weight = self._coded(layer), layer.coded.get("weight")
        if self._integer(layer):
            return self._product(layer)
        values = layer.numbers["weight"] if weight is None else weight.values()
        bias = layer.numbers.get("bias")

        channels_in = values.shape[1] * (layer.options["groups"] if layer.op == "conv2d" else 1)

        def run(given: Array) -> Array:
            axis = 1 if layer.op == "conv2d" else -1
            if given.ndim < 2 or (axis == 1 and given.ndim != 4) or given.shape[axis] != channels_in:
                raise ValueError(f"{layer.name} takes {channels_in} channels, got an input of shape {given.shape}")
            real = given if x is None else x.quantizer.decode(given, x.params)
            if layer.op == "conv2d":
                return kernels.conv.conv2d(real, values, bias, *_window(layer))
            rows = real.reshape(-1, real.shape[-1])
            return kernels.gemm.matmul(rows, values.T, bias).reshape(*real.shape[:-1], len(values))

        return run

    def _embedding(self, layer: Layer) -> Callable[[Array], Array]:
        coded = layer.coded.get("weight")
        rows = layer.numbers["weight"] if coded is None else coded.codes
        assert rows is not None

        def run(words: Array) -> Array:
            if words.size and not (words.min() >= 0 and words.max() < len(rows)):
                raise ValueError(
                    f"{layer.name}: the table has rows 0 … {len(rows) - 1}, got {words.min()} … {words.max()}"
                )
            found = rows[words]
            if coded is None or not found.size:
                return found.astype(np.float32)
            params = coded.params
            if coded.quantizer.axis is not None:  # one scale a row, or one a column
                return coded.values()[words]
            return coded.quantizer.decode(found, params)

        return run

    def _norm(self, layer: Layer) -> Callable[[Array], Array]:
        mean, scale, shift = (layer.numbers[name] for name in ("mean", "scale", "shift"))

        def run(x: Array) -> Array:
            if x.ndim < 2 or x.shape[1] != len(mean):
                raise ValueError(f"{layer.name} takes {len(mean)} channels, got an input of shape {x.shape}")
            return channels.affine(x, mean, scale, shift)

        return run


def _window(layer: Layer) -> Window:
    return Window(*(layer.options[name] for name in Window._fields))


def _get(values: Values, port: Port) -> Array:
    found = values[port.vertex]
    return found[port.output] if isinstance(found, tuple) else found


def _plain(layer: Layer) -> Callable[[list[Any], list[int]], Array]:
    """The forward of the model's own function, on arrays."""
    function, options = PLAIN[layer.op], layer.options
    varying = moves(options)

    def run(arguments: list[Any], lengths: list[int]) -> Array:
        node = Node(function, (False,) * len(arguments))
        return np.asarray(function.forward(node, *arguments, **(resolve(options, lengths) if varying else options)))

    return run
