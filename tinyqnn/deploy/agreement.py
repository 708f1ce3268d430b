"""Do they agree? Both models run on the same data, and their codes are compared, vertex by vertex.

An evaluating graph makes products of codes of exact sums, rounded once (`graph/exact.py`), and so does the packed
model, of bits and bytes. What lies between is the same functions. So all codes are equal, and outputs are equal to the
last bit; where they are not, something is wrong, and the report names the first place, with the number that was rounded
and how far, in steps, it is from the edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyqnn.deploy.model import Packed
from tinyqnn.deploy.values import leaves
from tinyqnn.graph import GraphModule
from tinyqnn.graph.vertices import map_tree
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.tensor import Tensor, no_grad

Array = np.ndarray


@dataclass(frozen=True)
class First:
    """The first place where two codes differ.

    vertex    the quantizing vertex
    index     of the code in the vertex's tensor; `channel` is index[1], the last for (N, C)
    model     the quantized model's code
    packed    the packed model's code
    value     the real number that the quantized model rounded
    edge      how far that number is from the nearest edge between the two codes, in steps between neighbouring values

    >>> First("conv2.quant.input", (0, 2, 5, 5), 1, 2, 0.75, 1e-7).channel
    2
    """

    vertex: str
    index: tuple[int, ...]
    model: int
    packed: int
    value: float
    edge: float

    @property
    def channel(self) -> int:
        return self.index[1] if len(self.index) > 1 else self.index[0]

    def __str__(self) -> str:
        return (
            f"first at {self.vertex}, channel {self.channel}, index {self.index}: the model has code {self.model}, "
            f"packed {self.packed}; the number rounded is {self.value:.9g}, {self.edge:.1e} steps from the edge"
        )


@dataclass
class Agreement:
    """What a comparison found.

    compared      codes compared
    differing     codes that differ
    vertices      differing codes by vertex, in the order they run
    first         the first place, or None
    samples       samples compared; `affected` of them have a differing code
    outputs       the largest difference of an output
    predictions   outputs whose largest number is in another place (along the last axis)

    >>> Agreement(compared=100).equal, Agreement(compared=100, differing=1).equal
    (True, False)
    """

    compared: int = 0
    differing: int = 0
    vertices: dict[str, int] = field(default_factory=dict)
    first: First | None = None
    outputs: float = 0.0
    predictions: int = 0

    @property
    def equal(self) -> bool:
        """Is every code the same?"""
        return self.differing == 0

    def add(self, other: Agreement) -> None:
        """Take the findings on more data in."""
        self.compared += other.compared
        self.differing += other.differing
        for name, count in other.vertices.items():
            self.vertices[name] = self.vertices.get(name, 0) + count
        self.first = self.first or other.first
        self.outputs = max(self.outputs, other.outputs)
        self.predictions += other.predictions

    def __str__(self) -> str:
        what = "all codes equal" if self.equal else f"{self.differing:,} differ"
        text = f"{self.compared:,} codes at {len(self.vertices)} vertices: {what}"
        if self.first is not None:
            where = ", ".join(f"{name} {count:,}" for name, count in self.vertices.items() if count)
            text += f" ({where})\n{self.first}"
        return f"{text}\noutputs differ by {self.outputs:.2g} at most, {self.predictions:,} have another arg max"


def agreement(model: GraphModule, packed: Packed, *inputs: Any) -> Agreement:
    """Run both on `inputs` (arrays or Tensors; one tuple for several) and compare codes and outputs.

    The model evaluates and is left as it was.

    >>> from tinyqnn import graph, nn
    >>> from tinyqnn.deploy import pack
    >>> x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    >>> model = graph.generate(nn.Sequential(nn.Linear(4, 3)), x, weights="P-3", activations="C-3")
    >>> print(agreement(model, pack(model), x).equal)
    True
    """
    if len(inputs) == 1 and isinstance(inputs[0], tuple):
        inputs = inputs[0]
    with evaluating(model), recording(model) as seen, no_grad():
        expected = model(*map_tree(inputs, lambda leaf, _: Tensor(leaf) if isinstance(leaf, np.ndarray) else leaf))
    given = map_tree(inputs, lambda leaf, _: leaf.data if isinstance(leaf, Tensor) else leaf)
    codes = packed.trace(*given)
    found = Agreement()
    for name, theirs in codes.items():
        ours = seen[name]
        if not len(ours):
            continue
        stacked = len(ours) > 1 or theirs.ndim > ours[0][0].ndim
        model_codes = np.stack([pair[1] for pair in ours]) if stacked else ours[0][1]
        different = model_codes != theirs
        count = int(different.sum())
        found.compared += theirs.size
        found.differing += count
        found.vertices[name] = count
        if count and found.first is None:
            values = np.stack([pair[0] for pair in ours]) if stacked else ours[0][0]
            found.first = _first(model, name, different, values, model_codes, theirs)
    _compare_outputs(found, expected, packed(*given))
    return found


def _first(model: GraphModule, name: str, different: Array, values: Array, ours: Array, theirs: Array) -> First:
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(different)), different.shape))
    coded = dict(model.named_quantizers())[name].module.frozen(values)
    value = float(values[index])
    edge = float("nan")
    if coded.quantizer.axis is None:
        edge = _distance(coded.quantizer, coded.params, value, int(theirs[index]))
    return First(name, index, int(ours[index]), int(theirs[index]), value, edge)


def _distance(scheme: Any, params: Any, value: float, other: int) -> float:
    """How far `value` is from getting the code `other`, in mean steps between neighbouring values."""
    levels = scheme.codebook(params).astype(np.float64)
    step = float(levels[-1] - levels[0]) / max(len(levels) - 1, 1)
    if step == 0:
        return float("nan")
    here = int(scheme.encode(np.array([value], np.float32), params)[0][0])
    up = other > here
    near, far = value, value + (1 if up else -1) * 4 * max(step, abs(value))
    for _ in range(60):
        middle = (near + far) / 2
        code = int(scheme.encode(np.array([middle], np.float32), params)[0][0])
        past = code > here if up else code < here
        near, far = (near, middle) if past else (middle, far)
    return abs(far - value) / step


def _compare_outputs(found: Agreement, expected: Any, got: Any) -> None:
    ours = [leaf.data for leaf in leaves(expected) if isinstance(leaf, Tensor)]
    theirs = [leaf for leaf in leaves(got) if isinstance(leaf, np.ndarray)]
    pairs = list(zip(ours, theirs, strict=True))
    found.outputs = max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0)
    if pairs and pairs[0][0].ndim > 1:
        a, b = pairs[0]
        found.predictions = int((a.argmax(-1) != b.argmax(-1)).sum())


class _Recording(Module):
    """Stands in a slot, lets the module there do its work, and writes down what it rounded and the codes."""

    def __init__(self, inner: Module, seen: list[tuple[Array, Array]]) -> None:
        super().__init__()
        self.__dict__["inner"], self.__dict__["seen"] = inner, seen
        self.__dict__["training"] = inner.training

    def forward(self, x: Tensor) -> Tensor:
        self._note(x.data)
        return self.inner(x)

    @property
    def scheme(self) -> Any:
        return self.inner.scheme

    def frozen(self, x: Array) -> Any:
        self._note(x)
        return self.inner.frozen(x)

    def _note(self, x: Array) -> None:
        self.seen.append((x, self.inner.frozen(x).encode(x)))


@contextmanager
def recording(model: GraphModule) -> Iterator[dict[str, list[tuple[Array, Array]]]]:
    """Inside, every activation that is quantized is written down: name -> [(real numbers, codes), …] in order.

    >>> from tinyqnn import graph, nn
    >>> x = np.ones((1, 2), np.float32) * [[1, -1]]
    >>> model = graph.generate(nn.Sequential(nn.Linear(2, 1)), x.astype(np.float32), activations="C-2").eval()
    >>> with recording(model) as seen:
    ...     _ = model(x.astype(np.float32))
    >>> [codes.tolist() for _, codes in seen["0.quant.input"]]
    [[[1, -2]]]
    """
    seen: dict[str, list[tuple[Array, Array]]] = {}
    inside = []
    try:
        for slot in model.quantizers():
            if slot.role == "activations":
                seen[slot.name] = []
                inside.append((slot, slot.module))
                slot.put(_Recording(slot.module, seen[slot.name]))
        yield seen
    finally:
        for slot, module in inside:
            slot.put(module)
