"""A traced graph has seen one batch of one size; how does it know what another size would have changed?

By trying. Each axis of each input is made longer, from d to 2d + 1, and the model is traced again:

    the model stops with an error          the axis is fixed
    it runs other operations               the axis is fixed
    nothing in the graph differs           the axis is free
    whole numbers differ, by a multiple    the axis is free, and the number is remembered as
    of d + 1                               v₀ + s · (d − d₀), a product of those where several axes move it

2d + 1 and not d + 1, because ⌊d/2⌋ (what pooling makes of a length) may stay the same from d to d + 1 and pass for a
constant. At the end the graph is held against more traces, with all free axes longer by one and other numbers in the
inputs, so that nothing is left to a lucky guess: what still differs depends on the data. (A branch that none of these
trials takes goes unseen.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyqnn.graph.vertices import Graph, Vertex, same
from tinyqnn.tensor import Array

Axes = tuple[tuple[int, int], ...]  # (input, axis) pairs that have one length together


class UnfitError(ValueError):
    """What differs between two traces does not follow a length."""


@dataclass(frozen=True)
class Length:
    """A whole number that follows lengths of the inputs: Π (v₀ + sₖ (dₖ − d₀ₖ)) / v₀^(m − 1).

    base    v₀, the number at the lengths traced
    terms   for each of the m free axes that move it (its number, d₀, s)

    >>> Length(6, ((0, 2, 3),)).at([5])  # 3 · d
    15
    >>> Length(6, ((0, 2, 3), (1, 3, 2))).at([4, 5])  # d · e
    20
    """

    base: int
    terms: tuple[tuple[int, int, int], ...]

    def at(self, lengths: Sequence[int]) -> int:
        factors = [self.base + slope * (lengths[axis] - before) for axis, before, slope in self.terms]
        return math.prod(factors) // self.base ** (len(factors) - 1)


@dataclass(frozen=True)
class Fill:
    """An array of one value whose shape follows the lengths, such as the zeros an LSTM starts from."""

    shape: tuple[int | Length, ...]
    value: Any
    dtype: np.dtype


@dataclass(frozen=True)
class Lengths:
    """Which axes of the inputs are free.

    shapes   of the inputs, as traced
    free     groups of axes that have one length together
    fixed    for each other axis, why it is not free
    """

    shapes: tuple[tuple[int, ...], ...]
    free: tuple[Axes, ...]
    fixed: dict[tuple[int, int], str]

    def read(self, shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[int]:
        """The lengths of the free axes. Raises ValueError where `shapes` differ from those traced otherwise."""
        for name, shape, traced in zip(names, shapes, self.shapes):
            if len(shape) != len(traced):
                raise ValueError(f"input {name} has {len(traced)} axes, like the example's {traced}, got shape {shape}")
        for (i, axis), reason in self.fixed.items():
            if shapes[i][axis] != self.shapes[i][axis]:
                raise ValueError(
                    f"input {names[i]} of shape {shapes[i]}: axis {axis} has length {self.shapes[i][axis]} in the "
                    f"traced graph and cannot change ({reason}); generate from an example of the new shape"
                )
        found = []
        for axes in self.free:
            lengths = {shapes[i][axis] for i, axis in axes}
            if len(lengths) > 1:
                where = ", ".join(f"axis {axis} of {names[i]} {shapes[i]}" for i, axis in axes)
                raise ValueError(f"these have one length together, got {sorted(lengths)}: {where}")
            found.append(lengths.pop())
        return found


def resolve(value: Any, lengths: Sequence[int]) -> Any:
    """`value` with every length in it written out."""
    if isinstance(value, Length):
        return value.at(lengths)
    if isinstance(value, Fill):
        return np.full(tuple(resolve(n, lengths) for n in value.shape), value.value, value.dtype)
    if type(value) in (tuple, list):
        return type(value)(resolve(item, lengths) for item in value)
    if type(value) is dict:
        return {key: resolve(item, lengths) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(resolve(item, lengths) for item in (value.start, value.stop, value.step)))
    return value


def moves(value: Any) -> bool:
    """Is there a length in `value`?"""
    if type(value) in (tuple, list):
        return any(moves(item) for item in value)
    if type(value) is dict:
        return any(moves(item) for item in value.values())
    if isinstance(value, slice):
        return any(moves(item) for item in (value.start, value.stop, value.step))
    return isinstance(value, (Length, Fill))


def free_lengths(run: Callable[[list[Array]], Graph], arrays: list[Array]) -> tuple[Graph, list[Array]]:
    """Trace with `run`, find which axes are free, and write what follows them as lengths.

    Returns the graph, and inputs of other lengths and other values that the graph has been held against.
    Raises ValueError where the graph depends on the values of the inputs.
    """
    base = run(arrays)
    free: list[Axes] = []
    probes: list[tuple[int, int, Graph]] = []
    fixed: dict[tuple[int, int], str] = {}
    taken: set[tuple[int, int]] = set()
    for axis in [(i, k) for i, array in enumerate(arrays) for k in range(array.ndim)]:
        if axis in taken:
            continue
        before = arrays[axis[0]].shape[axis[1]]
        for axes in _company(axis, arrays, taken):
            try:
                with np.errstate(all="ignore"):
                    probe = run([_varied(array, _longer(axes, i, 2 * before + 1)) for i, array in enumerate(arrays)])
                _fit_graph(base, [(0, before, 2 * before + 1, probe)])
            except Exception as error:
                fixed.setdefault(axis, _first_line(error))
                continue
            free.append(axes)
            probes.append((before, 2 * before + 1, probe))
            taken.update(axes)
            break
    for axis in taken:
        fixed.pop(axis, None)

    graph = _fit_graph(base, [(number, before, after, probe) for number, (before, after, probe) in enumerate(probes)])
    graph.lengths = Lengths(tuple(array.shape for array in arrays), tuple(free), fixed)
    other = [
        _varied(array, {k: array.shape[k] + 1 for axes in free for j, k in axes if j == i})
        for i, array in enumerate(arrays)
    ]
    where = difference(instantiate(graph, [before + 1 for before, _, _ in probes]), run(other))
    try:
        with np.errstate(all="ignore"):
            where = where or difference(base, run([_varied(array, {}, -0.75) for array in arrays]))
    except Exception:
        pass  # a model may refuse negative numbers
    if where:
        raise ValueError(
            f"the model cannot be traced: {where} depends on the values in its input, on chance, or on the shape in "
            "a way that no rule describes. Compute it with operations on Tensors, not on arrays (.data, .item(), x > 0)"
        )
    return graph, other


def instantiate(graph: Graph, lengths: Sequence[int]) -> Graph:
    """The graph at these lengths, all written out."""
    vertices = [
        replace(v, held=resolve(v.held, lengths), options=resolve(v.options, lengths), value=resolve(v.value, lengths))
        for v in graph.vertices
    ]
    return Graph(vertices, graph.edges, graph.outputs, graph.inputs, graph.lengths, graph.batch)


def difference(a: Graph, b: Graph) -> str:
    """What differs between two graphs beside shapes, in words; empty if nothing does."""
    if not _same_structure(a, b):
        return "which operations run"
    for v, w in zip(a.vertices, b.vertices):
        for part in ("held", "options", "value"):
            if not same(getattr(v, part), getattr(w, part)):
                return _described(v)
    return ""


def _described(vertex: Vertex) -> str:
    kind = "the constant" if vertex.kind == "constant" else f"an option of {vertex.label} at"
    return f"{kind} {vertex.name!r}"


def _company(axis: tuple[int, int], arrays: list[Array], taken: set[tuple[int, int]]) -> Iterator[Axes]:
    """The axis alone; then with axes of the same length of other inputs, as the batch of several inputs is one."""
    i, k = axis
    choices = [
        [None, *[(j, m) for m in range(b.ndim) if b.shape[m] == arrays[i].shape[k] and (j, m) not in taken]]
        for j, b in enumerate(arrays)
        if j != i
    ]
    combinations = list(itertools.islice(itertools.product(*choices), 64))
    for others in sorted(combinations, key=lambda others: sum(other is not None for other in others)):
        yield (axis, *[other for other in others if other is not None])


def _longer(axes: Axes, i: int, length: int) -> dict[int, int]:
    return {axis: length for j, axis in axes if j == i}


def _varied(array: Array, lengths: dict[int, int], scale: float = 0.75) -> Array:
    """An input of other lengths and other values: repeated, turned round along its first axis, fractions scaled."""
    for axis, length in lengths.items():
        array = np.take(array, np.arange(length) % array.shape[axis], axis)
    array = array[::-1] if array.ndim else array
    return np.array(array * array.dtype.type(scale) if array.dtype.kind == "f" else array)


def _first_line(error: Exception) -> str:
    text = str(error) if isinstance(error, UnfitError) else f"with another the model stops: {error}"
    text = text.split("\n")[0]
    return text if len(text) <= 160 else text[:159] + "…"


def _same_structure(a: Graph, b: Graph) -> bool:
    return (
        a.edges == b.edges
        and same(a.outputs, b.outputs)
        and [(v.name, v.kind, v.function, len(v.shapes)) for v in a.vertices]
        == [(v.name, v.kind, v.function, len(v.shapes)) for v in b.vertices]
    )


def _fit_graph(base: Graph, probes: list[tuple[int, int, int, Graph]]) -> Graph:
    """`base` with everything that differs in the probes, each (axis number, d₀, d, graph), written as lengths."""
    for *_, graph in probes:
        if not _same_structure(base, graph):
            raise UnfitError("the model runs other operations at other lengths")
    vertices = []
    for index, vertex in enumerate(base.vertices):
        others = [(number, before, after, graph.vertices[index]) for number, before, after, graph in probes]
        try:
            held, options, value = [
                _fit(getattr(vertex, part), [(n, d0, d, getattr(other, part)) for n, d0, d, other in others])
                for part in ("held", "options", "value")
            ]
        except UnfitError as error:
            raise UnfitError(f"{_described(vertex)} {error}") from None
        vertices.append(replace(vertex, held=held, options=options, value=value))
    return Graph(vertices, base.edges, base.outputs, base.inputs, base.lengths, base.batch)


def _fit(base: Any, probes: list[tuple[int, int, int, Any]]) -> Any:
    """One value as traced, and as it was in each probe: the rule behind it."""
    changed = [probe for probe in probes if not same(base, probe[-1])]
    if not changed:
        return base
    if any(type(value) is not type(base) for *_, value in changed):
        raise UnfitError("is of another kind at other lengths")
    if type(base) is int:
        terms = []
        for number, before, after, value in changed:
            slope, rest = divmod(value - base, after - before)
            if rest:
                raise UnfitError(f"goes from {base} to {value} where a length goes from {before} to {after}")
            terms.append((number, before, slope))
        if base == 0 and len(terms) > 1:
            raise UnfitError("follows several lengths from 0")
        return Length(base, tuple(terms))
    if type(base) in (tuple, list) and all(len(value) == len(base) for *_, value in changed):
        return type(base)(_fit(item, [(*head, value[i]) for *head, value in changed]) for i, item in enumerate(base))
    if type(base) is dict and all(value.keys() == base.keys() for *_, value in changed):
        return {key: _fit(base[key], [(n, b, a, value[key]) for n, b, a, value in changed]) for key in base}
    if isinstance(base, slice):
        parts = [(n, b, a, (s.start, s.stop, s.step)) for n, b, a, s in changed]
        return slice(*_fit((base.start, base.stop, base.step), parts))
    if isinstance(base, np.ndarray) and base.size:
        fill, first = base.flat[0], base.reshape(-1)[:1]
        if all(same(array, np.full(array.shape, fill, base.dtype)) for array in (base, *[v for *_, v in changed])):
            return Fill(_fit(base.shape, [(n, b, a, v.shape) for n, b, a, v in changed]), first[0].item(), base.dtype)
    raise UnfitError("differs at other lengths by more than a length")
