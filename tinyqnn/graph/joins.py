"""Neighbours in a graph that run as one operation: what a network's own modules join, its graph joins when it runs.

A ReLU reads what the vertex before it has just written. Where nobody else reads that, the two are one pass over the
memory, with a shortcut's addition between them as well; the result is the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyqnn.functional.activation import ReLU
from tinyqnn.functional.conv import Linear, LinearReLU
from tinyqnn.functional.norm import BatchNorm, BatchNormReLU
from tinyqnn.graph.vertices import Edge, Graph
from tinyqnn.tensor import Add, Function

JOINED: dict[type[Function] | None, type[Function]] = {BatchNorm: BatchNormReLU, Linear: LinearReLU}


@dataclass(frozen=True)
class Join:
    """What runs in the place of a ReLU's vertex.

    function   the operation
    first      the vertex whose arguments it takes
    inside     all vertices that need not run, the first among them
    plus       the edge on which a shortcut comes, or None
    """

    function: type[Function]
    first: str
    inside: tuple[str, ...]
    plus: Edge | None = None


def joins(graph: Graph) -> dict[str, Join]:
    """Every join of a graph, by the name of its ReLU.

    >>> import numpy as np
    >>> from tinyqnn import graph, nn
    >>> traced = graph.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), np.ones((2, 4), np.float32))
    >>> [(name, join.function.__name__) for name, join in joins(traced).items()]
    [('1', 'LinearReLU')]
    """
    returned = graph.returned()

    def ends_at(edge: Edge) -> bool:
        """Does nobody else want what flows here?"""
        return len(graph.out_edges(edge.source)) == 1 and edge.source not in returned

    found = {}
    for vertex in graph:
        edges = graph.in_edges(vertex.name)
        if vertex.function is not ReLU or not ends_at(edges[0]):
            continue
        before = graph[edges[0].source]
        if before.function in JOINED:
            found[vertex.name] = Join(JOINED[before.function], before.name, (before.name,))
        elif before.function is Add:
            both = graph.in_edges(before.name)
            if len(both) == 2 and graph.shape(both[0]) == graph.shape(both[1]):
                for edge, plus in (both, both[::-1]):
                    if graph[edge.source].function is BatchNorm and ends_at(edge):
                        found[vertex.name] = Join(BatchNormReLU, edge.source, (edge.source, before.name), plus)
                        break
    return found
