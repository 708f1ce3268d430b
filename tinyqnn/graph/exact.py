"""In evaluation, a product of two quantized tensors is made of whole numbers, and rounded once.

Training multiplies float32 values with float32 values and rounds every sum some hundred times, in an order that hangs
on the processor. That is good enough to learn with, but no definition: where a sum lies within that rounding of an
edge, the next code is a matter of luck. So an evaluating graph does what `quant/whole.py` says: numbers of both factors
are whole, their sums are exact, and what they are worth, with the bias or the batch norm behind, is computed in float64
and rounded once. The result is the same on every machine, and the packed model (`deploy/`) has nothing to differ from.

Still these are the ordinary operations, on float32 tensors: float32 knows all whole numbers up to 2^24. Where sums may
be larger, one factor is cut in two, and where that is not enough, float64 does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.functional.conv import Conv2d, Linear
from tinyqnn.functional.norm import BatchNorm
from tinyqnn.functional.recurrent import LSTMLayer, advance, bias_of, forward, of_inputs
from tinyqnn.graph.vertices import Graph, Vertex
from tinyqnn.quant.whole import Coded, OneRounding
from tinyqnn.tensor import Function, Node, Tensor, no_grad

Array = np.ndarray

EXACT_IN_FLOAT32 = 2**24  # up to here every whole number is a float32
CUT = np.float32(16)  # a whole number of 8 bits is 16 · high + low, |high| ≤ 16, low < 16


# Which arguments of an operation are multiplied: (what flows in, a weight).
FACTORS: dict[type[Function] | None, tuple[tuple[int, int], ...]] = {
    Conv2d: ((0, 1),),
    Linear: ((0, 1),),
    LSTMLayer: ((0, 3), (1, 4)),
}


@dataclass(frozen=True)
class Exact:
    """A convolution, linear or LSTM layer that multiplies quantized tensors.

    vertex       the operation
    quantizers   the quantizing vertices of the factors, by the argument they make: two for each product
    norm         the batch norm that alone reads the product, or None
    """

    vertex: str
    quantizers: dict[int, str]
    norm: str | None = None

    @property
    def end(self) -> str:
        """The vertex whose result is computed."""
        return self.norm or self.vertex

    @property
    def inside(self) -> tuple[str, ...]:
        """The vertices before it that need not run."""
        return (*self.quantizers.values(), *(() if self.norm is None else (self.vertex,)))


def products(graph: Graph) -> list[Exact]:
    """Every operation of a graph that multiplies quantized tensors.

    >>> from tinyqnn import nn
    >>> from tinyqnn.graph import generate
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    >>> products(generate(net, np.ones((2, 4), np.float32), weights="C-2", activations="C-2").graph)
    [Exact(vertex='0', quantizers={0: '0.quant.input', 1: '0.quant.weight'}, norm='1')]
    """
    found, returned = [], graph.returned()
    for vertex in graph:
        before = {edge.argument: edge.source for edge in graph.in_edges(vertex.name)}
        factors = FACTORS.get(vertex.function, ())
        pairs = [(x, w) for x, w in factors if _are_quantized(graph, before.get(x), before.get(w))]
        if not pairs or not _are_parameters(graph, vertex, 5 if vertex.function is LSTMLayer else 2):
            continue
        users, norm = graph.out_edges(vertex.name), None
        if len(users) == 1 and vertex.name not in returned and _folds(graph, vertex, graph[users[0].target]):
            norm = users[0].target
        found.append(Exact(vertex.name, {argument: before[argument] for pair in pairs for argument in pair}, norm))
    return found


def _are_quantized(graph: Graph, x: str | None, weight: str | None) -> bool:
    """Are these quantizing vertices, the second one on a parameter?"""
    if x is None or weight is None or not graph[x].kind == graph[weight].kind == "quantizer":
        return False
    (edge,) = graph.in_edges(weight)
    return graph[edge.source].kind == "parameter"


def _folds(graph: Graph, vertex: Vertex, norm: Vertex) -> bool:
    """Is this a batch norm of the product's outputs, by running averages, with γ and β learned or left out?"""
    return (
        norm.function is BatchNorm
        and vertex.function is not LSTMLayer
        and all(norm.options[name] is not None for name in ("running_mean", "running_var"))
        and len(norm.shapes[0]) == (4 if vertex.function is Conv2d else 2)
        and _are_parameters(graph, norm, 1)
    )


def _are_parameters(graph: Graph, vertex: Vertex, first: int) -> bool:
    """Is every argument from number `first` on a parameter, and none computed?"""
    return all(graph[e.source].kind == "parameter" for e in graph.in_edges(vertex.name) if e.argument >= first)


class ExactProduct:
    """m · Σ w·x + a of quantized tensors, rounded once.

    function, options    Conv2d or Linear, and how it is called
    weight, of_weight    real numbers, and what encodes them
    multiplier, addend   m and a, (O,)

    >>> from tinyqnn.quant import ClipQ
    >>> weight = np.array([[0.07, -0.08, 0.14]])
    >>> product = ExactProduct(Linear, {}, weight, Coded(ClipQ(2), {"scale": np.float32(0.1)}))
    >>> product(np.ones((1, 3)), Coded(ClipQ(2), {"scale": np.float32(2)})).tolist()
    [[0.15000000596046448]]
    """

    def __init__(
        self,
        function: type[Function],
        options: dict[str, Any],
        weight: Array,
        of_weight: Coded,
        multiplier: Array | None = None,
        addend: Array | None = None,
    ) -> None:
        self.function, self.options = function, options
        self.of_weight, self.outputs = of_weight, len(weight)
        self.multiplier, self.addend = multiplier, addend
        self.numbers = of_weight.numbers(weight)
        if options.get("groups", 1) > 1:  # else one output does for all, where all weights are 1
            self.numbers = [np.broadcast_to(m, weight.shape) for m in self.numbers]
        self.reach = max(float(abs(m).reshape(len(m), -1).sum(axis=1).max()) for m in self.numbers)

    def __call__(self, x: Array, by: Coded) -> Array:
        """The product with real numbers x, which `by` encodes; float32."""
        rounding = OneRounding(self.of_weight, by, self.outputs, self.multiplier, self.addend)
        numbers, largest = by.numbers(x), [abs(term.numbers).max() for term in rounding.of_x]
        with no_grad():
            sums = {(i, j): self._sums(self.numbers[i], numbers[j], largest[j]) for i, j in rounding.pairs}
        return rounding(sums, 1 if self.function is Conv2d else -1)

    def _sums(self, m: Array, n: Array, largest: float) -> Array:
        """Σ m·n of whole numbers, exact; none of n is larger than `largest`."""

        def multiply(n: Array, dtype: Any = np.float32) -> Array:
            factors = (Tensor(factor.astype(dtype, copy=False)) for factor in (n, m))
            return self.function.apply(*factors, None, **self.options).data

        if self.reach * largest <= EXACT_IN_FLOAT32:
            return multiply(n)
        if self.reach * CUT > EXACT_IN_FLOAT32:
            return multiply(n, np.float64)
        high = np.floor(n / CUT)
        return CUT * multiply(high).astype(np.float64) + multiply(n - CUT * high)


def lstm(arguments: Sequence[Any], modules: dict[int, Any], starts_from_zeros: bool) -> tuple[Array, Array, Array]:
    """`LSTMLayer` on its arguments, real numbers, with exact products of the inputs, of the states, or of both.

    modules   what quantizes an argument, by its number: 0 and 3 for the inputs' product, 1 and 4 for the states'
    """
    x, h, c, weight_ih, weight_hh, *biases = arguments
    of_input, of_state = (
        ExactProduct(Linear, {}, arguments[w], modules[w].frozen(arguments[w])) if {i, w} <= modules.keys() else None
        for i, w in FACTORS[LSTMLayer]
    )
    gates = of_inputs(x, weight_ih) if of_input is None else of_input(x, modules[0].frozen(x))
    bias = bias_of(biases, gates.shape[2], gates.dtype)
    outputs, cells = (np.empty((len(x) + 1, *h.shape), h.dtype) for _ in range(2))
    outputs[0], cells[0] = h, c
    if 1 not in modules:
        forward(gates, bias, weight_hh, outputs, cells)
        return outputs[1:], outputs[-1].copy(), cells[-1].copy()
    packed = None if of_state is not None else kernels.gemm.packed(weight_hh.T)
    for t, a in enumerate(gates):
        a += bias
        if t > 0 or not starts_from_zeros:
            state = outputs[t]
            if of_state is not None:
                a += of_state(state, modules[1].frozen(state))
            else:
                a += kernels.gemm.matmul(modules[1](Tensor(state)).data, packed)
        advance(a, cells[t], cells[t + 1], outputs[t + 1])
    return outputs[1:], outputs[-1].copy(), cells[-1].copy()


class Instead(Function):
    """`value` in the place of y, which is nearly the same; the gradient goes to y."""

    @staticmethod
    def forward(ctx: Node, y: Array, *, value: Array) -> Array:
        return value

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        return grad
