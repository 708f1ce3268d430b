"""What one vertex of a network does, which vertices there can be, and where each of them stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn.graph import EXPENSIVE, Edge, Graph
from tinyqnn.graph.cost import FLOAT_BITS, elements
from tinyqnn.graph.generate import quantize_edges
from tinyqnn.quant import SCHEMES, Quantizer, scheme


@dataclass(frozen=True)
class Choice:
    """What one vertex does.

    vertex     its name, as in `conv1.quant.weight`
    scheme     "C-3", or "float"
    role       "weights" or "activations"
    feeds      the expensive vertex it flows into
    source     where the tensor comes from: a parameter's name, for activations the vertex before
    elements   how many numbers pass: of the weight, or of the activation for one sample

    >>> choice = Choice("fc.quant.weight", "C-3", "weights", "fc", "fc.weight", 1000)
    >>> choice.letter, choice.bits, choice.bytes
    ('C', 3, 379)
    """

    vertex: str
    scheme: str
    role: str
    feeds: str
    source: str
    elements: int

    @property
    def letter(self) -> str | None:
        """The scheme without its width; None for float."""
        return None if self.scheme == "float" else self.scheme.rpartition("-")[0]

    @property
    def bits(self) -> int:
        """The width; 32 for float."""
        return FLOAT_BITS if self.scheme == "float" else scheme(self.scheme).bits

    @property
    def bytes(self) -> int:
        """Codes in whole bytes and 4 for each parameter of the codebook, as `graph.cost` counts them."""
        scales = 0
        if self.scheme != "float":
            scales = sum(np.size(value) for value in scheme(self.scheme).fit(np.array([-1.0, 2.0])).values())
        return math.ceil(self.elements * self.bits / 8) + 4 * scales


def checked(notation: Any, vertex: str) -> str:
    """`notation` if it is "float" or a scheme with a width that it has; ValueError says which of the two is wrong.

    >>> checked("P-4", "conv1.quant.weight")
    'P-4'
    """
    letter, dash, width = notation.rpartition("-") if isinstance(notation, str) else ("", "", "")
    if notation == "float":
        return "float"
    if not dash or letter not in SCHEMES or not width.isdecimal():
        known = ", ".join(f"{name}-{page.widths[0]}" for name, page in SCHEMES.items())
        raise ValueError(f"{vertex}: unknown scheme {notation!r}; write float or a scheme and its width: {known}, …")
    widths = SCHEMES[letter].widths
    if int(width) not in widths:
        span = f"{widths[0]} bits" if len(widths) == 1 else f"{widths[0]} to {widths[-1]} bits"
        raise ValueError(f"{vertex}: {letter} ({SCHEMES[letter].__name__}) has {span}, got {width}")
    return scheme(f"{letter}-{int(width)}").notation


def vertices_of(graph: Graph) -> list[tuple[Choice, tuple[str, int]]]:
    """All vertices that QAG can put into a network, float, each with its place: the edge it stands on."""
    graph = graph.without_quantizers()
    full = quantize_edges(graph, lambda edge: role_of(graph, edge))
    found = []
    for vertex in full.quantizers():
        (incoming,), (outgoing,) = full.in_edges(vertex.name), full.out_edges(vertex.name)
        count = elements(full, vertex.name)
        choice = Choice(vertex.name, "float", vertex.role, outgoing.target, incoming.source, count)
        found.append((choice, (outgoing.target, outgoing.argument)))
    return found


def place_of(graph: Graph, quantizer: str) -> tuple[str, int]:
    """The edge a quantizing vertex stands on: into which vertex, as which argument."""
    (outgoing,) = graph.out_edges(quantizer)
    return outgoing.target, outgoing.argument


def role_of(graph: Graph, edge: Edge) -> tuple[str, str] | None:
    """The role and the name of the vertex that QAG puts on an edge, None where it puts none."""
    function = graph[edge.target].function
    if function is None or graph[edge.source].dtypes[edge.output].kind != "f":
        return None
    return EXPENSIVE.get(function, {}).get(edge.argument)


def notation_of(name: str, module: Any) -> str:
    """What is in a slot, in the papers' notation."""
    quantizer = getattr(module, "scheme", module)
    if not isinstance(quantizer, Quantizer) or repr(scheme(quantizer.notation)) != repr(quantizer):
        raise ValueError(f"{name} holds {quantizer!r}; a policy knows schemes by their notation alone, such as C-3")
    return quantizer.notation
