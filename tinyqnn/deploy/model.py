"""A packed model: called as the model was called, it answers as the quantized model does, from codes.

packed = tq.deploy.pack(qmodel, example)
packed(x)              what qmodel.eval()(x) returns; arrays for arrays, Tensors for Tensors
packed.trace(x)        the codes at every quantizing vertex
packed.save(path)      a file; packed.nbytes says how long it is
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyqnn.deploy.engine import Engine
from tinyqnn.deploy.layers import Layer
from tinyqnn.deploy.lower import lower
from tinyqnn.deploy.values import leaves
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph import GraphModule
from tinyqnn.graph.lengths import Lengths
from tinyqnn.graph.vertices import Input, Port, map_tree
from tinyqnn.nn import Module
from tinyqnn.tensor import Tensor

Array = np.ndarray


class Packed(Module):
    """A list of layers, and how it is called.

    layers    what runs, in order
    inputs    how it is called: nested tuples of `Input`
    outputs   what it returns: nested tuples of `Port`
    lengths   which axes of the inputs may have other lengths

    >>> from tinyqnn import graph, nn
    >>> x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    >>> packed = pack(graph.generate(nn.Linear(4, 3), x, weights="C-2", activations="C-3").eval())
    >>> packed(x).shape
    (2, 3)
    """

    def __init__(self, layers: list[Layer], inputs: Any, outputs: Any, lengths: Lengths) -> None:
        super().__init__()
        kept = {leaf.vertex for leaf in leaves(outputs) if isinstance(leaf, Port)}
        self.__dict__.update(layers=layers, inputs=inputs, outputs=outputs, lengths=lengths, training=False)
        given = [layer for layer in layers if layer.op == "input"]
        self.__dict__["_names"] = [layer.name for layer in given]
        self.__dict__["_whole"] = [layer.options["whole"] for layer in given]
        self.__dict__["_last"] = [], []  # shapes, and the lengths read from them
        self.__dict__["engine"] = Engine(layers, kept)

    layers: list[Layer]
    inputs: Any
    outputs: Any
    lengths: Lengths
    engine: Engine
    _names: list[str]
    _whole: list[bool]
    _last: tuple[list[tuple[int, ...]], list[int]]

    def forward(self, *args: Any) -> Any:
        """What the quantized model returns in evaluation mode. An input that is left out, a state, is zeros."""
        arrays, wrap = self._read(args)
        values = self.engine.run(arrays, self._lengths(arrays))
        return map_tree(self.outputs, lambda leaf, _: wrap(_found(values, leaf)) if isinstance(leaf, Port) else leaf)

    def trace(self, *args: Any) -> dict[str, Array]:
        """The codes at every quantizing vertex on an activation, by the name of the vertex.

        An LSTM's state is encoded at each step, (steps, N, hidden); its first step is left out where it starts from
        zeros, which are never encoded.
        """
        arrays, _ = self._read(args)
        names = {layer.name for layer in self.layers if layer.op == "quantize"}
        values = self.engine.run(arrays, self._lengths(arrays), names)
        codes: dict[str, Array] = {}
        for layer in self.layers:
            if layer.op == "quantize":
                codes[layer.name] = values[layer.name]
            elif "hidden" in layer.coded:
                codes[layer.options["state"]] = values[f"{layer.name}/states"]
        return codes

    @property
    def nbytes(self) -> int:
        """How long the file is that `save` writes, to the byte: codes, scales, floats and the header."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of the file: "codes" Σ ⌈n·b/8⌉, "scales" and "floats" 4 each, and "header", all the rest."""
        from tinyqnn.deploy import format

        return format.sizes(self)

    def save(self, path: PathLike, overwrite: bool | None = None) -> None:
        """Write the model to one `.npz` file; `deploy/format.py` says what is in it.

        overwrite   None: replace only a packed model. True: replace anything. False: nothing
        """
        from tinyqnn.deploy import format

        format.save(self, path, overwrite)

    def _lengths(self, arrays: list[Array]) -> list[int]:
        shapes = [array.shape for array in arrays]
        if shapes != self._last[0]:
            self.__dict__["_last"] = shapes, self.lengths.read(shapes, self._names)
        return self._last[1]

    def _read(self, args: tuple[Any, ...]) -> tuple[list[Array], Callable[[Array], Any]]:
        """The inputs as arrays, and what becomes of the outputs."""
        while len(args) > len(self.inputs) and args[-1] is None:
            args = args[:-1]
        args += (None,) * (len(self.inputs) - len(args)) if args else ()
        if len(args) != len(self.inputs):
            raise TypeError(f"the model takes {len(self.inputs)} inputs, got {len(args)}")
        given: list[Any] = [None] * len(self._names)
        for index, (want, got) in enumerate(zip(self.inputs, args)):
            _take(want, got, given, (index,))
        tensors = any(isinstance(got, Tensor) for got in given)
        found = [got.data if isinstance(got, Tensor) else got for got in given]
        arrays = [_checked(a, w) for a, w in zip(self._filled(found), self._whole)]
        return arrays, Tensor if tensors else lambda array: array

    def _filled(self, found: list[Array | None]) -> list[Array]:
        """Zeros for inputs that were left out; where a length is free, it is that of the inputs which are there."""
        if all(a is not None for a in found):
            return found  # type: ignore[return-value]
        shapes = [list(shape) for shape in self.lengths.shapes]
        for axes in self.lengths.free:
            known = [a.shape[k] for i, k in axes if (a := found[i]) is not None and k < a.ndim]
            for i, k in axes:
                shapes[i][k] = known[0] if known else shapes[i][k]
        return [np.zeros(shape, np.float32) if a is None else a for a, shape in zip(found, shapes)]

    def __repr__(self) -> str:
        coded = sum(1 for layer in self.layers if "weight" in layer.coded or "weight_hh" in layer.coded)
        return f"<Packed of {len(self.layers)} layers, {coded} with packed weights, {self.nbytes:,} bytes>"


def pack(model: GraphModule, example: Any = None) -> Packed:
    """Pack a quantized network: weights as codes, batch norm folded, activations with their frozen parameters.

    model     what `graph.generate` made, trained and calibrated; what evaluation would compute is packed
    example   what the model is called with (a tuple for several inputs). If given, both run on it once and are compared

    Raises ValueError, naming the vertex, for what has no packed form; RuntimeError for activations that have seen no
    data, or where the packed model does not agree with the model.

    >>> from tinyqnn import graph, nn
    >>> x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    >>> model = graph.generate(nn.Sequential(nn.Linear(4, 3)), x, weights="P-3", activations="C-3").eval()
    >>> packed = pack(model, x)
    >>> bool(np.allclose(packed(x), model(Tensor(x)).data)), packed.sizes["codes"]
    (True, 5)
    """
    layers, outputs = lower(model)
    assert model.graph.lengths is not None
    packed = Packed(layers, model.graph.inputs, outputs, model.graph.lengths)
    if example is not None:
        from tinyqnn.deploy.agreement import agreement

        found = agreement(model, packed, example)
        if not found.equal:
            raise RuntimeError(f"the packed model does not agree with the model it was made from:\n{found}")
    return packed


def _found(values: dict[str, Any], port: Port) -> Array:
    found = values[port.vertex]
    return found[port.output] if isinstance(found, tuple) else found


def _take(want: Any, got: Any, given: list[Any], place: tuple[Any, ...]) -> None:
    """Put the arrays of an argument where the inputs of its tree say; an input that is left out stays None."""
    if isinstance(want, Input) and isinstance(got, (Tensor, np.ndarray)):
        given[want.number] = got
    elif got is None and any(isinstance(leaf, Input) for leaf in leaves(want)):
        return
    elif isinstance(want, Input):
        raise TypeError(f"input {_dotted(place)} is an array or a Tensor, got {type(got).__name__}")
    elif isinstance(want, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(want):
            raise TypeError(f"input {_dotted(place)} is {len(want)} things, got {type(got).__name__}")
        for index, pair in enumerate(zip(want, got)):
            _take(*pair, given, (*place, index))
    elif isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            raise TypeError(f"input {_dotted(place)} is a dictionary of {sorted(want)}, got {type(got).__name__}")
        for key in want:
            _take(want[key], got[key], given, (*place, key))
    elif isinstance(got, (Tensor, np.ndarray)) or want != got:
        raise ValueError(f"input {_dotted(place)} was {want!r} when the graph was traced; pack from such an example")


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))


def _checked(array: Array, whole: bool) -> Array:
    """An input of the kind that was traced: whole numbers, or finite float32."""
    if whole != (array.dtype.kind in "iu"):
        raise TypeError(f"expected {'whole numbers' if whole else 'float32'}, got {array.dtype}")
    if whole:
        return array
    if array.dtype != np.float32:
        raise TypeError(f"expected float32, got {array.dtype}; use .astype(np.float32)")
    if np.count_nonzero(np.isfinite(array)) < array.size:
        raise ValueError("expected finite numbers, the input has NaN or Inf")
    return array
