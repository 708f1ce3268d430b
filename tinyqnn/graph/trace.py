"""To draw a network, run it and write down who called whom: every operation passes one door, and we stand there.

`Function.apply` tells observers of each call: one call, one operation vertex; a Tensor that was seen before is an edge
from the vertex that made it; one that was not is a parameter, a buffer or a constant. No code is read or rewritten, so
branches, loops, shared weights and reused modules need no rules. `graph.lengths` then finds out what depends on the
batch, and a last run in training mode which options follow the mode.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import random
from tinyqnn.graph.lengths import difference, free_lengths, instantiate
from tinyqnn.graph.vertices import Edge, FollowsMode, Graph, Input, Port, Stored, Vertex, argument_names, map_tree
from tinyqnn.nn import Module, Parameter
from tinyqnn.tensor import Array, Function, Node, Observer, Tensor, no_grad


def trace(model: Module, example: Any, batch_axis: int = 0) -> Graph:
    """The graph of `model`, as it runs on `example`.

    example      a Tensor or an array; a tuple of them for a model of several inputs (nested tuples are kept, None and
                 numbers are passed on as they are). Arrays go in as Tensors. One or two samples are enough
    batch_axis   which axis of the first input counts samples: 0, or 1 for sequences with time first

    Operations are named after the module that called (`layer1.0.conv1`), or the module and the function
    (`layer1.0.add`); the second of a name is `relu:2`. A bias that is a parameter belongs to its vertex and is no edge.

    The model is left as it was: a copy runs, and generators of random numbers are put back. It runs several times, in
    evaluation mode and once in training mode, to find out which lengths may change (`graph.lengths`).

    Raises ValueError where the graph depends on the values of the input, or on the mode other than by an option.

    >>> from tinyqnn import nn
    >>> print(trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), np.zeros((2, 4), np.float32)))
    4 vertices (1 input, 1 parameter, 2 operation), 3 edges
    x         input      2×4
    0.weight  parameter  3×4
    0         Linear     2×3  ← x, 0.weight  (+ 0.bias)
    1         ReLU       2×3  ← 0
    """
    if not isinstance(model, Module):
        raise TypeError(f"trace takes a Module, got {type(model).__name__}; put your function into a Module's forward")
    arguments = example if isinstance(example, tuple) else (example,)
    arrays: list[Array] = []
    names: list[str] = []

    def number(leaf: Any, path: str) -> Any:
        """Each array of the example becomes an input of its own."""
        if not isinstance(leaf, (Tensor, np.ndarray)):
            return leaf
        arrays.append(Tensor(leaf).data)
        names.append(path)
        return Input(len(arrays) - 1)

    wanted = _argument_labels(model, len(arguments))
    inputs = tuple(map_tree(argument, number, name) for argument, name in zip(arguments, wanted))
    if not arrays:
        raise TypeError(f"example is a Tensor, an array or a tuple of them, got {type(example).__name__}")
    if any(array.size == 0 for array in arrays):
        raise ValueError(f"the example is empty: shapes {[array.shape for array in arrays]}; give one sample or more")
    if arrays[0].ndim and not -arrays[0].ndim <= batch_axis < arrays[0].ndim:
        raise ValueError(f"batch_axis={batch_axis}: the first input has shape {arrays[0].shape}")

    scratch = private_copy(model)

    def run(given: list[Array], training: bool = False) -> Graph:
        recorder = _Recorder(scratch, names, given)
        scratch.train(training)
        with recorder.watching():
            result = scratch(*map_tree(inputs, recorder.given))
        return recorder.graph(result, inputs)

    with randomness_kept(scratch):
        graph, other = free_lengths(run, arrays)
        _follow_mode(graph, other, run)
    graph.batch = arrays[0].shape[batch_axis] if arrays[0].ndim else 1
    return graph


def _follow_mode(graph: Graph, arrays: list[Array], run: Callable[..., Graph]) -> None:
    """Options that are False in evaluation and True in training are marked as following the mode."""
    evaluated = instantiate(graph, graph.lengths.read([array.shape for array in arrays], graph.input_names()))
    try:
        trained = run(arrays, training=True)
    except Exception as error:
        raise ValueError(
            f"the model does not run in training mode on inputs of shape {[a.shape for a in arrays]}: {error}; "
            "give an example of two samples or more"
        ) from error
    for vertex, in_training in zip(evaluated.vertices, trained.vertices):
        for name, value in vertex.options.items():
            if value is False and in_training.options.get(name) is True:
                graph[vertex.name].options[name] = vertex.options[name] = in_training.options[name] = FollowsMode()
    where = difference(evaluated, trained)
    if where:
        raise ValueError(
            f"the model differs between training and evaluation in more than an option: {where}. Call the operation in "
            "both modes and pass training=self.training, as in F.dropout(x, p, self.training)"
        )


class Detach(Function):
    """x, with no way back for the gradient: what `.detach()` or `Tensor(x.data)` did."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        return x

    @staticmethod
    def backward(ctx: Node, grad: Array) -> None:
        return None


@dataclass
class _Call:
    """One call of a module, while it lasts."""

    path: str
    leaf: bool
    own: set[int]  # ids of the module's own parameters
    operations: int = 0


class _ByIdentity:
    """Remembers something about objects without keeping them alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref, Any]] = {}

    def put(self, key: Any, value: Any) -> None:
        self._known[id(key)] = (weakref.ref(key), value)

    def get(self, key: Any) -> Any:
        alive, value = self._known.get(id(key), (lambda: None, None))
        return value if alive() is key else None


class _Recorder(Observer):
    """Writes down one run of a model. Vertices are numbers until it is over; then they get names."""

    def __init__(self, model: Module, names: list[str], arrays: list[Array]) -> None:
        self.model = model
        self.vertices: list[Vertex] = []
        self.callers: list[tuple[_Call, bool] | None] = []  # the call, and whether a parameter of that module is used
        self.edges: list[tuple[int, int, int, int]] = []  # source, output, target, argument
        self.made_tensors, self.made_arrays = _ByIdentity(), _ByIdentity()
        self.calls = [self._call("", model)]
        self.tensors: list[Tensor] = []
        self.parameters, self.buffers = _ByIdentity(), _ByIdentity()
        for name, parameter in model.named_parameters():
            self.parameters.put(parameter, name)
            self.buffers.put(parameter.data, name)
        for name, buffer in model.named_buffers():
            self.buffers.put(buffer, name)
        for index, (name, array) in enumerate(zip(names, arrays)):
            array = np.array(array, order="K")
            self.tensors.append(Tensor(array))
            vertex = self._add(Vertex(name, "input", shapes=(array.shape,), dtypes=(array.dtype,), value=index))
            self.made_tensors.put(self.tensors[-1], (vertex, 0))
            self.made_arrays.put(array, (vertex, 0))

    def given(self, leaf: Any, _: str) -> Any:
        """What goes in for a leaf of the arguments."""
        return self.tensors[leaf.number] if isinstance(leaf, Input) else leaf

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on, with each module telling when it is called."""
        modules = list(self.model.named_modules())
        for path, module in modules:
            module.__dict__["forward"] = self._telling(path, module, module.forward)
        try:
            with no_grad(), self:
                yield
        finally:
            for _, module in modules:
                del module.__dict__["forward"]

    def _telling(self, path: str, module: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **options: Any) -> Any:
            self.calls.append(self._call(path, module))
            try:
                return forward(*args, **options)
            finally:
                self.calls.pop()

        return told

    def _call(self, path: str, module: Module) -> _Call:
        return _Call(path, not module._modules, {id(p) for p in module._parameters.values()})

    def on_forward(
        self,
        function: type[Function],
        args: tuple[Any, ...],
        options: dict[str, Any],
        outputs: tuple[Tensor, ...],
        seconds: float,
    ) -> None:
        call, labels = self.calls[-1], argument_names(function.forward)
        call.operations += 1
        sources: dict[int, tuple[int, int]] = {}
        held: dict[int, Any] = {}
        for i, arg in enumerate(args):
            label = labels[i] if i < len(labels) else f"x{i}"
            if isinstance(arg, Parameter) and label.startswith("bias") and self.parameters.get(arg):
                held[i] = Stored(self.parameters.get(arg))
            elif isinstance(arg, (Tensor, np.ndarray)):
                sources[i] = self._source(arg, label)
            else:
                held[i] = arg
        for name, option in options.items():
            if isinstance(option, Tensor):
                raise TypeError(f"option {name} of {function.__name__} is a Tensor; pass Tensors positionally")
        vertex = Vertex(
            "",
            "operation",
            function,
            call.path,
            tuple(output.shape for output in outputs),
            tuple(output.dtype for output in outputs),
            held,
            {name: self._stored(option) for name, option in options.items()},
        )
        owns = any(isinstance(arg, Parameter) and id(arg) in call.own for arg in args)
        target = self._add(vertex, (call, owns))
        self.edges += [(source, output, target, i) for i, (source, output) in sources.items()]
        for number, output in enumerate(outputs):
            self.made_tensors.put(output, (target, number))
            self.made_arrays.put(output.data, (target, number))

    def _add(self, vertex: Vertex, caller: tuple[_Call, bool] | None = None) -> int:
        self.vertices.append(vertex)
        self.callers.append(caller)
        return len(self.vertices) - 1

    def _source(self, arg: Tensor | Array, label: str) -> tuple[int, int]:
        """Which vertex made this, and as which output; a data vertex is added where none did."""
        found = self.made_tensors.get(arg)
        if found is not None:
            return found
        array = arg.data if isinstance(arg, Tensor) else arg
        name = self.parameters.get(arg)
        made = self.made_arrays.get(array)
        if name is not None:
            vertex = Vertex(name, "parameter", value=Stored(name))
        elif made is not None:
            if self.vertices[made[0]].kind in ("input", "buffer"):
                return made
            vertex = Vertex("", "operation", Detach, self.calls[-1].path)
        elif (name := self.buffers.get(array)) is not None:
            vertex = Vertex(name, "buffer", value=Stored(name))
        else:
            vertex = Vertex(label, "constant", module=self.calls[-1].path, value=np.array(array))
        vertex.shapes, vertex.dtypes = (array.shape,), (array.dtype,)
        place = (self._add(vertex, (self.calls[-1], False) if vertex.function else None), 0)
        if vertex.function:
            self.edges.append((made[0], made[1], place[0], 0))
        if isinstance(arg, Tensor):
            self.made_tensors.put(arg, place)
        if vertex.kind == "buffer":
            self.made_arrays.put(array, place)
        return place

    def _stored(self, option: Any) -> Any:
        """A buffer among the options (a running average) is remembered by its name."""
        name = self.buffers.get(option) if isinstance(option, np.ndarray) else None
        return option if name is None else Stored(name)

    def graph(self, result: Any, inputs: Any) -> Graph:
        """Everything seen, with names."""

        def source(leaf: Any, _: str) -> None:
            if isinstance(leaf, np.ndarray):
                raise TypeError("the model returned an array; return the Tensor, an array cannot be traced")
            if isinstance(leaf, Tensor):
                self._source(leaf, "output")

        map_tree(result, source)  # what no operation made becomes a data vertex
        taken: dict[str, int] = {}
        for vertex, caller in zip(self.vertices, self.callers):
            name = vertex.name
            if vertex.function is not None and caller is not None:
                call, owns = caller
                own_name = call.path and call.leaf and (owns or call.operations == 1)
                name = call.path if own_name else _joined(call.path, vertex.function.__name__.lower())
            elif vertex.kind == "constant":
                name = _joined(vertex.module, name)
            taken[name] = taken.get(name, 0) + 1
            vertex.name = name if taken[name] == 1 else f"{name}:{taken[name]}"
        names = [vertex.name for vertex in self.vertices]
        edges = [
            Edge(names[source], names[target], argument, output) for source, output, target, argument in self.edges
        ]

        def port(leaf: Any, _: str) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            place, output = self._source(leaf, "output")
            return Port(names[place], output)

        return Graph(self.vertices, edges, map_tree(result, port), inputs)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _argument_labels(model: Module, count: int) -> list[str]:
    """Names for the inputs: those of forward's arguments."""
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
    return [names[i] if i < len(names) else f"input{i}" for i in range(count)]


def _generators(model: Module) -> list[np.random.Generator]:
    """The generators of random numbers that modules keep as attributes, and the default one."""
    kept = [value for module in model.modules() for value in vars(module).values()]
    return [random.default_rng(), *[value for value in kept if isinstance(value, np.random.Generator)]]


def private_copy(model: Module) -> Any:
    """A copy with parameters and buffers of its own. Generators of random numbers stay shared, as dropout's stream."""
    return copy.deepcopy(model, {id(generator): generator for generator in _generators(model)})


@contextmanager
def randomness_kept(model: Module) -> Iterator[None]:
    """Whatever is drawn inside, the generators go on afterwards as if nothing had been."""
    generators = _generators(model)
    states = [generator.bit_generator.state for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.bit_generator.state = state
