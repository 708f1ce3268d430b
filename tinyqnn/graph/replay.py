"""A graph runs again as a Module: its vertices in order, each calling its Function on what its edges bring.

The modules of the model are kept as the home of parameters and buffers, under the same `state_dict` keys; their
`forward` is no longer called. A quantizing vertex is a module in the layer it serves: `conv1.quant.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn.functional.fold import fold
from tinyqnn.functional.norm import BatchNorm, BatchNormReLU
from tinyqnn.functional.recurrent import LSTMLayer
from tinyqnn.graph.cost import elements
from tinyqnn.graph.exact import FACTORS, Exact, ExactProduct, Instead, lstm, products
from tinyqnn.graph.joins import joins
from tinyqnn.graph.lengths import Fill, moves, resolve
from tinyqnn.graph.vertices import FollowsMode, Graph, Input, Port, Stored, Vertex, map_tree
from tinyqnn.nn import Module
from tinyqnn.quant.whole import countable
from tinyqnn.tensor import Function, Tensor, is_recording, wants_parts


class Slots(Module):
    """The quantizing vertices of one layer, by what they quantize."""


@dataclass(frozen=True)
class Slot:
    """A quantizing vertex, for those who put something into it.

    name       of the vertex, and of its module: `conv1.quant.weight`
    role       "weights" or "activations"
    feeds      the expensive vertex it flows into
    elements   how many numbers pass it: of the weight, or of the activation for one sample
    shape      of the tensor, as traced
    module     what quantizes: swap its `scheme`, or put another Module of a Tensor to a Tensor in with `put`

    >>> from tinyqnn import graph, nn
    >>> (slot,) = graph.generate(nn.Linear(4, 3), np.ones((2, 4), np.float32), weights="C-2").quantizers()
    >>> slot.name, slot.role, slot.elements, slot.module.scheme.bits
    ('quant.linear_weight', 'weights', 12, 2)
    """

    name: str
    role: str
    feeds: str
    elements: int
    shape: tuple[int, ...]
    owner: Module
    key: str

    @property
    def module(self) -> Any:
        return self.owner._modules[self.key]

    def put(self, module: Module) -> None:
        """Put another module in; the graph stays as it is."""
        if not isinstance(module, Module):
            raise TypeError(f"{self.name} takes a Module, got {type(module).__name__}")
        self.owner._modules[self.key] = module


@dataclass(frozen=True)
class _Step:
    """One vertex, ready to run: everything that can be looked up beforehand has been."""

    vertex: Vertex
    sources: tuple[tuple[int, int, int], ...]  # (argument, place of the source, its output)
    home: Module  # the module that called
    stored: tuple[tuple[str | int, Module, str], ...]  # options and arguments that are parameters or buffers
    following: tuple[str, ...]  # options that follow the mode
    varying: bool  # is a length in here?
    done: tuple[int, ...]  # places nobody needs after this step
    recurrent: _Recurrent | None = None


@dataclass(frozen=True)
class _Joined:
    """What runs in the place of a step together with steps before it, see `joins`."""

    function: type[Function]
    first: int  # place of the step whose arguments it takes
    inside: tuple[int, ...]  # places of the steps that need not run
    plus: tuple[int, int] | None  # place and output of one argument more


@dataclass(frozen=True)
class _Recurrent:
    """An LSTM layer whose state is quantized at every step."""

    owner: Module
    key: str
    starts_from_zeros: bool


class GraphModule(Module):
    """Runs `graph` on the parameters and buffers of `body`, which it takes over.

    Call it as the model was called: with arrays or Tensors in the place of the example's. `train()` and `eval()` act on
    dropout, batch norm and quantizers; evaluating, sums of products of codes are exact (`exact.py`). `graph` is the
    graph it runs.

    >>> from tinyqnn import graph, nn
    >>> model = graph.generate(nn.Linear(4, 3), np.ones((2, 4), np.float32), weights="C-2")
    >>> model(np.ones((5, 4), np.float32)).shape
    (5, 3)
    """

    graph: Graph

    def __init__(self, graph: Graph, body: Module, quantizers: dict[str, Module] | None = None) -> None:
        super().__init__()
        self._modules.update(body._modules)
        self._parameters.update(body._parameters)
        self._buffers.update(body._buffers)
        self.__dict__["graph"] = graph
        self.__dict__["training"] = body.training
        self.__dict__["_slots"] = {}
        for vertex in graph.quantizers():
            if quantizers is None or vertex.name not in quantizers:
                raise ValueError(f"there is no module for the quantizing vertex {vertex.name!r}")
            self._add_slot(vertex, quantizers[vertex.name])
        self.__dict__["_program"] = self._compiled()

    def forward(self, *args: Any) -> Any:
        tensors = self._read(args)
        free, places = self.graph.lengths, self._places
        lengths = free.read([t.shape for t in tensors], self.graph.input_names()) if free is not None else []
        values: list[Any] = [None] * len(self.graph.vertices)
        joins, exact = ({}, {}) if wants_parts() else (self._joins, self._exact_now())
        joins = {place: joined for place, joined in joins.items() if joined.first not in exact}
        inside = {inner for joined in joins.values() for inner in joined.inside}
        if not is_recording():
            inside.update(places[name] for one in exact.values() for name in one.inside)
        for place, step in enumerate(self._program):
            if place in joins:
                values[place] = self._run_joined(step, joins[place], values, lengths)
            elif place in exact:
                values[place] = self._run_exact(step, exact[place], values, tensors, lengths)
            elif place not in inside:
                values[place] = self._run(step, values, tensors, lengths)
            for gone in step.done:
                values[gone] = None

        def result(leaf: Any, _: str) -> Any:
            return values[places[leaf.vertex]][leaf.output] if isinstance(leaf, Port) else leaf

        return map_tree(self.graph.outputs, result)

    def quantizers(self) -> Iterator[Slot]:
        """The quantizing vertices in the order they run."""
        return iter(self._slots.values())

    def named_quantizers(self) -> Iterator[tuple[str, Slot]]:
        """(name, slot) for each quantizing vertex, in the order they run."""
        return iter(self._slots.items())

    def without_quantizers(self) -> GraphModule:
        """The float network of this one, as a copy: the quantizing vertices taken out, the weights as learned."""
        from tinyqnn.graph.trace import private_copy

        body = private_copy(self)
        for slot in body._slots.values():
            slot.owner._modules.pop(slot.key)
        for _, module in list(body.named_modules()):
            for name, child in list(module._modules.items()):
                if isinstance(child, Slots):
                    del module._modules[name]
        return GraphModule(body.graph.without_quantizers(), body)

    def to(self, dtype: Any) -> Any:
        """Turn all floating-point parameters, buffers and constants into float32 or float64. Returns self."""
        for vertex in self.graph.vertices:
            if vertex.kind == "constant" and vertex.value.dtype.kind == "f":
                fill = isinstance(vertex.value, Fill)
                vertex.value = replace(vertex.value, dtype=np.dtype(dtype)) if fill else vertex.value.astype(dtype)
        return super().to(dtype)

    def _read(self, args: tuple[Any, ...]) -> list[Tensor]:
        """The inputs, in their order."""
        expected = self.graph.inputs
        tensors: list[Tensor] = []

        def take(want: Any, got: Any, name: str) -> None:
            if isinstance(want, Input):
                if not isinstance(got, (Tensor, np.ndarray)):
                    raise TypeError(
                        f"input {name} was a tensor when the graph was traced and is {_kind(got)} now; "
                        "pass a Tensor, or generate from an example without it"
                    )
                tensors.append(got if isinstance(got, Tensor) else Tensor(got))
            elif isinstance(want, (tuple, list)):
                if not isinstance(got, (tuple, list)) or len(got) != len(want):
                    raise TypeError(f"input {name} was {len(want)} things when the graph was traced, got {_kind(got)}")
                for index, (a, b) in enumerate(zip(want, got)):
                    take(a, b, f"{name}.{index}")
            elif isinstance(want, dict):
                if not isinstance(got, dict) or got.keys() != want.keys():
                    raise TypeError(f"input {name} was a dictionary of {sorted(want)}, got {_kind(got)}")
                for key in want:
                    take(want[key], got[key], f"{name}.{key}")
            elif isinstance(got, (Tensor, np.ndarray)) or want != got:
                raise ValueError(
                    f"input {name} was {want!r} when the graph was traced and is {_kind(got)} now; "
                    "generate from such an example"
                )

        while len(args) > len(expected) and args[-1] is None:
            args = args[:-1]  # forward(x, None) means forward(x)
        if len(args) != len(expected):
            known = ", ".join(self.graph.input_names())
            raise TypeError(f"the graph was traced with {len(expected)} inputs ({known}), got {len(args)}")
        for index, (want, got) in enumerate(zip(expected, args)):
            take(want, got, str(index))
        return tensors

    def _run(self, step: _Step, values: list[Any], tensors: list[Tensor], lengths: Sequence[int]) -> tuple[Tensor, ...]:
        vertex = step.vertex
        if vertex.kind == "input":
            return (tensors[vertex.value],)
        if vertex.kind in ("parameter", "buffer"):
            ((_, home, name),) = step.stored
            return (_parameter(home, name) if vertex.kind == "parameter" else Tensor(_array(home, name)),)
        if vertex.kind == "constant":
            return (Tensor(resolve(vertex.value, lengths)),)
        if vertex.kind == "quantizer":
            ((_, place, output),) = step.sources
            if step.recurrent is not None:  # the LSTM layer calls it itself, at every step
                return (values[place][output],)
            return (self._slots[vertex.name].module(values[place][output]),)

        args, options = self._gathered(step, values, lengths)
        if step.recurrent is not None:
            module = step.recurrent.owner._modules[step.recurrent.key]
            return lstm_by_steps(module, step.recurrent.starts_from_zeros, *args)
        assert vertex.function is not None
        result = vertex.function.apply(*args, **options)
        return result if isinstance(result, tuple) else (result,)

    def _run_joined(
        self, step: _Step, joined: _Joined, values: list[Any], lengths: Sequence[int]
    ) -> tuple[Tensor, ...]:
        plus = None
        if joined.plus is not None:
            place, output = joined.plus
            plus = values[place][output]
            ((_, source, at),) = self._program[joined.first].sources[:1]
            if plus.shape != values[source][at].shape:  # it was as large in the example only: repeated along an axis
                for inner in joined.inside:
                    values[inner] = self._run(self._program[inner], values, [], lengths)
                return self._run(step, values, [], lengths)
        args, options = self._gathered(self._program[joined.first], values, lengths)
        if joined.function is BatchNormReLU:
            args.append(plus)
        return (joined.function.apply(*args, **options),)

    def _exact_now(self) -> dict[int, Exact]:
        """The products that are exact now, since all around them evaluates; by the place of their end."""
        found = {}
        for place, one in self._exact.items():
            pairs = [pair for pair in FACTORS[self.graph[one.vertex].function] if self._is_countable(one, *pair)]
            norm = None if one.norm is None else self._program[place]
            learning = norm is not None and (norm.home.training if norm.following else norm.vertex.options["training"])
            if pairs and not learning:
                found[place] = replace(one, quantizers={i: one.quantizers[i] for pair in pairs for i in pair})
        return found

    def _is_countable(self, one: Exact, x: int, weight: int) -> bool:
        """Have the quantizing vertices of two arguments schemes of fixed width, whose products have whole numbers?"""
        if x not in one.quantizers:
            return False
        modules = [self._slots[one.quantizers[argument]].module for argument in (x, weight)]
        if any(module.training or not hasattr(module, "frozen") for module in modules):
            return False
        (edge,) = self.graph.in_edges(one.quantizers[weight])
        array = self.state(self.graph[edge.source].value.name)
        of_x, of_weight = (module.scheme for module in modules)
        return array.dtype == np.float32 and countable(of_weight, of_x, math.prod(array.shape[1:]))

    def _run_exact(
        self, step: _Step, one: Exact, values: list[Any], tensors: list[Tensor], lengths: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Exact sums, rounded once; see `exact.py`. Their gradient, if anybody asks, is that of the ordinary steps."""
        layer = self._step_of(one.vertex)
        function, recurrent = layer.vertex.function, layer.recurrent
        args, options = self._gathered(layer, values, lengths)
        numbers, modules = _arrays(args), {}
        for argument, name in one.quantizers.items():  # what flows into the quantizing vertex, not out of it
            ((_, place, output),) = self._step_of(name).sources
            numbers[argument] = values[place][output].data
            modules[argument] = self._slots[name].module
        results: tuple[np.ndarray, ...]
        if function is LSTMLayer:
            if recurrent is not None:
                modules[1] = recurrent.owner._modules[recurrent.key]
            results = lstm(numbers, modules, recurrent is not None and recurrent.starts_from_zeros)
        else:
            assert function is not None
            x, weight, addend = numbers
            multiplier = None
            if one.norm is not None:
                args, norm = self._gathered(step, values, lengths)
                (_, gamma, beta), (mean, var) = _arrays(args), (norm["running_mean"], norm["running_var"])
                multiplier, addend = fold(addend, mean, var, gamma, beta, norm["eps"])
            product = ExactProduct(function, options, weight, modules[1].frozen(weight), multiplier, addend)
            results = (product(x, modules[0].frozen(x)),)
        if not is_recording():
            return tuple(Tensor(result) for result in results)
        ordinary = self._run(step, values, tensors, lengths)
        return tuple(Instead.apply(y, value=result) for y, result in zip(ordinary, results))

    def _step_of(self, name: str) -> _Step:
        return self._program[self._places[name]]

    def _gathered(self, step: _Step, values: list[Any], lengths: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments and options of a vertex's Function; in training, a batch norm counts the batch."""
        vertex = step.vertex
        held = resolve(vertex.held, lengths) if step.varying else vertex.held
        options = dict(resolve(vertex.options, lengths) if step.varying else vertex.options)
        arguments: dict[int, Any] = dict(held)
        for argument, place, output in step.sources:
            found = values[place]  # None if it need not run
            arguments[argument] = None if found is None else found[output]
        for key, home, name in step.stored:
            if isinstance(key, int):
                arguments[key] = _parameter(home, name)
            else:
                options[key] = _array(home, name)
        for option in step.following:
            options[option] = step.home.training
        if vertex.function is BatchNorm and options["training"]:
            count = step.home._buffers.get("num_batches_tracked")
            if count is not None:
                count += 1
        return [arguments[i] for i in range(len(arguments))], options

    def _add_slot(self, vertex: Vertex, module: Module) -> None:
        """Put a quantizing vertex into the layer it serves, under `quant`."""
        *path, quant, key = vertex.name.split(".")
        home = self._find(".".join([*path, ""]))[0]
        slots = home._modules.setdefault(quant, Slots())
        if not isinstance(slots, Slots):
            raise ValueError(f"{type(home).__name__} has a child named {quant!r} of its own; call it something else")
        slots.add_module(key, module)
        (incoming,), (outgoing,) = self.graph.in_edges(vertex.name), self.graph.out_edges(vertex.name)
        self._slots[vertex.name] = Slot(
            vertex.name,
            vertex.role,
            outgoing.target,
            elements(self.graph, vertex.name),
            self.graph.shape(incoming),
            slots,
            key,
        )

    def state(self, name: str) -> np.ndarray:
        """The array of one parameter or buffer, by its `state_dict` name; not a copy."""
        return _array(*self._find(name))

    def _find(self, name: str) -> tuple[Module, str]:
        """The module that holds a parameter or a buffer, and its name there."""
        *path, key = name.split(".")
        module: Module = self
        for part in path:
            module = module._modules[part]
        return module, key

    def _compiled(self) -> list[_Step]:
        """The vertices as steps. A value is dropped after the last step that needs it."""
        graph = self.graph
        places = self.__dict__["_places"] = {vertex.name: index for index, vertex in enumerate(graph.vertices)}
        found, exact = joins(graph), products(graph)
        self.__dict__["_exact"] = {places[one.end]: one for one in exact}
        self.__dict__["_joins"] = {
            places[name]: _Joined(
                join.function,
                places[join.first],
                tuple(places[inner] for inner in join.inside),
                None if join.plus is None else (places[join.plus.source], join.plus.output),
            )
            for name, join in found.items()
        }
        runs_at = {inner: places[one.end] for one in exact for inner in one.inside}
        runs_at |= {inner: places[name] for name, join in found.items() for inner in join.inside}
        last = list(range(len(places)))
        for edge in graph.edges:
            target = runs_at.get(edge.target, places[edge.target])
            last[places[edge.source]] = max(last[places[edge.source]], target)
        kept = graph.returned()
        done: list[list[int]] = [[] for _ in places]
        for name, place in places.items():
            if name not in kept:
                done[last[place]].append(place)

        homes = dict(self.named_modules())
        steps = []
        for place, vertex in enumerate(graph.vertices):
            stored: list[tuple[str | int, Module, str]] = []
            held: list[tuple[Any, Any]] = [*vertex.held.items(), *vertex.options.items()]
            if vertex.kind in ("parameter", "buffer"):
                held = [("value", vertex.value)]
            stored = [(key, *self._find(value.name)) for key, value in held if isinstance(value, Stored)]
            steps.append(
                _Step(
                    vertex,
                    tuple((e.argument, places[e.source], e.output) for e in graph.in_edges(vertex.name)),
                    homes.get(vertex.module, self),
                    tuple(stored),
                    tuple(name for name, option in vertex.options.items() if isinstance(option, FollowsMode)),
                    moves(vertex.held) or moves(vertex.options),
                    tuple(done[place]),
                    self._recurrent(vertex),
                )
            )
        return steps

    def _recurrent(self, vertex: Vertex) -> _Recurrent | None:
        """Is this an LSTM layer with a quantizing vertex on its state, or that vertex?"""
        graph = self.graph
        if vertex.kind == "quantizer":
            (edge,) = graph.out_edges(vertex.name)
            on_state = graph[edge.target].function is LSTMLayer and edge.argument == 1
        else:
            on_state = False
            edges = [e for e in graph.in_edges(vertex.name) if e.argument == 1 and graph[e.source].kind == "quantizer"]
            if vertex.function is LSTMLayer and edges:
                on_state, edge = True, edges[0]
        if not on_state:
            return None
        slot = self._slots[edge.source if vertex.kind != "quantizer" else vertex.name]
        (before,) = graph.in_edges(slot.name)
        return _Recurrent(slot.owner, slot.key, graph[before.source].kind == "constant")


def lstm_by_steps(
    quantize: Module,
    starts_from_zeros: bool,
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`LSTMLayer`, with the state h quantized whenever it is multiplied by weights: the layer is called step by step.

    With a quantizer that changes nothing the results are those of one call. Zeros that the first step starts from are
    left alone, for a scheme may have no 0.
    """
    outputs = []
    for t in range(len(x)):
        state = h if t == 0 and starts_from_zeros else quantize(h)
        y, h, c = LSTMLayer.apply(x[t : t + 1], state, c, weight_ih, weight_hh, bias_ih, bias_hh)
        outputs.append(y)
    return F.concat(outputs), h, c


def _parameter(home: Module, name: str) -> Tensor:
    parameter = home._parameters.get(name)
    if parameter is None:
        raise ValueError(f"the parameter {name!r} that the graph uses is gone from its {type(home).__name__}")
    return parameter


def _arrays(tensors: Iterable[Tensor | None]) -> list[Any]:
    return [None if tensor is None else tensor.data for tensor in tensors]


def _array(home: Module, name: str) -> np.ndarray:
    """A buffer, or the bare array of a parameter."""
    return home._buffers[name] if name in home._buffers else _parameter(home, name).data


def _kind(value: Any) -> str:
    if value is None or isinstance(value, (int, float, str)):
        return repr(value)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
