"""A network as a graph: vertices hold or make tensors, edges say where each tensor flows.

`G = (V, E)` of AutoQNN §5: a *data vertex* is an input, a parameter or a constant; an *operation vertex* is one
functional call (a convolution, a ReLU, a whole LSTM layer); a *quantizing vertex* stands on an edge and rounds what
flows through. A graph is a description only: parameters are names in it, and `graph.replay` runs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from tinyqnn.tensor import Function


@dataclass(frozen=True)
class Stored:
    """Stands for a parameter or a buffer of the model, by its `state_dict` name."""

    name: str


@dataclass(frozen=True)
class FollowsMode:
    """Stands for True in training and False in evaluation."""


@dataclass(frozen=True)
class Input:
    """Stands for input number `number` where the model is called."""

    number: int


@dataclass(frozen=True)
class Port:
    """Stands for output number `output` of a vertex, where the model returns it."""

    vertex: str
    output: int = 0


@dataclass(frozen=True)
class Edge:
    """The tensor `source` makes (its output number `output`) is argument number `argument` of `target`.

    >>> Edge("conv1", "relu", 0).output
    0
    """

    source: str
    target: str
    argument: int = 0
    output: int = 0


@dataclass
class Vertex:
    """One vertex.

    name       unique in the graph: a parameter's `state_dict` name, or the path of the module that called
    kind       "input", "parameter", "buffer", "constant", "operation" or "quantizer"
    function   the Function of an operation vertex
    module     path of the module that called
    shapes     shape of each output, as traced
    dtypes     dtype of each output, as traced
    held       positional arguments that are no edges: numbers, None, and biases, which are parameters of the vertex
    options    keyword arguments
    value      of a data vertex: the array, the `Stored` name, or the number of the input
    role       of a quantizing vertex: "weights" or "activations"

    >>> from tinyqnn import graph, nn
    >>> *_, vertex = graph.trace(nn.Linear(4, 3), np.ones((2, 4), np.float32))
    >>> vertex.function.__name__, vertex.shapes
    ('Linear', ((2, 3),))
    """

    name: str
    kind: str
    function: type[Function] | None = None
    module: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[np.dtype, ...] = ()
    held: dict[int, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    role: str = ""

    @property
    def label(self) -> str:
        """What the vertex does, in a word."""
        return self.role if self.kind == "quantizer" else self.function.__name__ if self.function else self.kind


class Graph:
    """Vertices in an order in which each comes after those it depends on, and the edges between them.

    vertices   list of Vertex
    edges      list of Edge, in the order of their targets
    outputs    what the model returns: tuples, lists and dictionaries of `Port`
    inputs     how the model is called: the same, of `Input`
    lengths    which axes of the inputs may have other lengths, see `graph.lengths`
    batch      how many samples the example held

    >>> from tinyqnn import graph, nn
    >>> traced = graph.trace(nn.Linear(4, 3), np.ones((2, 4), np.float32))
    >>> [vertex.kind for vertex in traced]
    ['input', 'parameter', 'operation']
    """

    def __init__(
        self,
        vertices: Iterable[Vertex],
        edges: Iterable[Edge],
        outputs: Any = None,
        inputs: Any = None,
        lengths: Any = None,
        batch: int = 1,
    ) -> None:
        self.vertices, self.edges = list(vertices), list(edges)
        self.outputs, self.inputs, self.lengths, self.batch = outputs, inputs, lengths, batch
        self._by_name = {vertex.name: vertex for vertex in self.vertices}
        if len(self._by_name) != len(self.vertices):
            raise ValueError("the names of vertices are unique; two vertices have the same name")
        place = {vertex.name: index for index, vertex in enumerate(self.vertices)}
        self._in: dict[str, list[Edge]] = {name: [] for name in place}
        self._out: dict[str, list[Edge]] = {name: [] for name in place}
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in place:
                    raise ValueError(f"there is an edge at {end!r}, but no such vertex")
            if place[edge.source] >= place[edge.target]:
                raise ValueError(
                    f"{edge.target!r} comes before {edge.source!r}, which flows into it; order vertices along the edges"
                )
            self._in[edge.target].append(edge)
            self._out[edge.source].append(edge)

    def __getitem__(self, name: str) -> Vertex:
        if name not in self._by_name:
            raise KeyError(f"there is no vertex {name!r}; print(graph) lists them")
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self.vertices)

    def __iter__(self) -> Iterator[Vertex]:
        return iter(self.vertices)

    def in_edges(self, name: str) -> list[Edge]:
        """The edges that flow into a vertex."""
        return self._in[name]

    def out_edges(self, name: str) -> list[Edge]:
        """The edges that flow out of a vertex."""
        return self._out[name]

    def returned(self) -> set[str]:
        """The names of the vertices whose outputs the model returns."""
        found: set[str] = set()
        map_tree(self.outputs, lambda leaf, _: found.add(leaf.vertex) if isinstance(leaf, Port) else None)
        return found

    def quantizers(self) -> Iterator[Vertex]:
        """The quantizing vertices."""
        return (vertex for vertex in self.vertices if vertex.kind == "quantizer")

    def input_names(self) -> list[str]:
        """The names of the inputs, in their order."""
        return [vertex.name for vertex in self.vertices if vertex.kind == "input"]

    def shape(self, edge: Edge) -> tuple[int, ...]:
        """The shape of the tensor on an edge, as traced."""
        return self[edge.source].shapes[edge.output]

    def without_quantizers(self) -> Graph:
        """The same graph with every quantizing vertex taken off its edge: O(|V| + |E|)."""
        edges = []
        for edge in self.edges:
            if self[edge.target].kind == "quantizer":
                continue
            if self[edge.source].kind == "quantizer":
                (before,) = self._in[edge.source]
                edge = Edge(before.source, edge.target, edge.argument, before.output)
            edges.append(edge)
        vertices = [vertex for vertex in self.vertices if vertex.kind != "quantizer"]
        return Graph(vertices, edges, self.outputs, self.inputs, self.lengths, self.batch)

    def __eq__(self, other: object) -> bool:
        """The same vertices with the same options, and the same edges, in the same order."""
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.edges == other.edges
            and same(self.outputs, other.outputs)
            and len(self) == len(other)
            and all(same(vars(a), vars(b)) for a, b in zip(self.vertices, other.vertices))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Graph of {len(self.vertices)} vertices, {len(self.edges)} edges>"

    def __str__(self) -> str:
        """A line a vertex: its name, what it does, the shape it makes, and what flows in."""
        rows = []
        for vertex in self.vertices:
            shape = " ".join(_times(shape) for shape in vertex.shapes)
            sources = [
                edge.source + (f"[{edge.output}]" if len(self[edge.source].shapes) > 1 else "")
                for edge in self._in[vertex.name]
            ]
            held = [value.name for value in vertex.held.values() if isinstance(value, Stored)]
            flow = ("← " + ", ".join(sources) if sources else "") + (f"  (+ {', '.join(held)})" if held else "")
            rows.append((vertex.name, vertex.label, shape, flow))
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        count: dict[str, int] = {}
        for vertex in self.vertices:
            count[vertex.kind] = count.get(vertex.kind, 0) + 1
        head = f"{len(self.vertices)} vertices ({', '.join(f'{n} {kind}' for kind, n in count.items())}), "
        lines = ["  ".join([text.ljust(width) for text, width in zip(row, widths)] + [row[3]]).rstrip() for row in rows]
        return "\n".join([head + f"{len(self.edges)} edges", *lines])


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "1"


@cache
def argument_names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional arguments of a Function's forward, `ctx` left out.

    >>> from tinyqnn.functional.conv import Linear
    >>> argument_names(Linear.forward)
    ('x', 'weight', 'bias')
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds)[1:]


def map_tree(tree: Any, f: Callable[[Any, str], Any], path: str = "") -> Any:
    """`f(leaf, path)` for every leaf of nested tuples, lists and dictionaries.

    >>> map_tree((1, [2, 3]), lambda leaf, path: f"{path}={leaf}", "x")
    ('x.0=1', ['x.1.0=2', 'x.1.1=3'])
    """
    dot = f"{path}." if path else ""
    if isinstance(tree, (tuple, list)):
        items = [map_tree(item, f, f"{dot}{index}") for index, item in enumerate(tree)]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {key: map_tree(item, f, f"{dot}{key}") for key, item in tree.items()}
    return f(tree, path)


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down; arrays by dtype, shape and elements, generators by identity."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
            return False
        return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    return a is b or bool(a == b) or (a != a and b != b)
