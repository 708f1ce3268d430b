"""Nothing in a header is believed: every field has a place, a type and a range; every layer fits its neighbours.

What is missing, unknown or wrong ends in one FileError that says where.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

from tinyqnn.deploy.layers import EXACT, FLOAT, OWN, PLAIN, Layer
from tinyqnn.deploy.values import leaves
from tinyqnn.files import FileError
from tinyqnn.graph.lengths import Fill, Length, Lengths
from tinyqnn.graph.vertices import Input, Port

LONGEST = 2**31


class Header:
    """A part of the header, that knows where it is and which of its fields have been read.

    >>> Header({"a": 1}, "content").get("a").whole()
    1
    """

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path
        self.read: set[str] = set()

    def has(self, name: str) -> bool:
        return isinstance(self.value, dict) and name in self.value

    def get(self, name: str) -> Header:
        """A field that must be there."""
        if not isinstance(self.value, dict):
            raise FileError(f"{self.path} is {_kind(self.value)}, expected fields by name")
        if name not in self.value:
            raise FileError(f"{self.path} has no {name!r}")
        self.read.add(name)
        return Header(self.value[name], f"{self.path}.{name}")

    def done(self) -> None:
        """There is nothing else."""
        unknown = set(self.value) - self.read
        if unknown:
            raise FileError(f"{self.path} has a field {sorted(unknown)[0]!r}, which this version does not know")

    def items(self) -> Iterator[tuple[str, Header]]:
        """All fields, whatever their names."""
        if not isinstance(self.value, dict):
            raise FileError(f"{self.path} is {_kind(self.value)}, expected fields by name")
        return iter([(name, Header(value, f"{self.path}.{name}")) for name, value in self.value.items()])

    def entries(self) -> list[Header]:
        if not isinstance(self.value, list):
            raise FileError(f"{self.path} is {_kind(self.value)}, expected a list")
        return [Header(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

    def whole(self) -> int:
        if type(self.value) is not int or not 0 <= self.value <= LONGEST:
            raise FileError(f"{self.path} is {_kind(self.value)}, expected a whole number from 0 to {LONGEST}")
        return self.value

    def flag(self) -> bool:
        if type(self.value) is not bool:
            raise FileError(f"{self.path} is {_kind(self.value)}, expected true or false")
        return self.value

    def text(self) -> str:
        if type(self.value) is not str:
            raise FileError(f"{self.path} is {_kind(self.value)}, expected text")
        return self.value

    def sizes(self) -> list[int]:
        """A shape."""
        found = [entry.whole() for entry in self.entries()]
        if len(found) > 8:
            raise FileError(f"{self.path} has {len(found)} axes, expected 8 at most")
        return found


@cache
def signature(op: str) -> tuple[int, int, frozenset[str]]:
    """How many positional arguments a plain function takes, at least and at most, and its options.

    >>> signature("max_pool2d")[:2]
    (1, 1)
    """
    parameters = list(inspect.signature(PLAIN[op].forward).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    most = 1 << 16 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(positional)
    return len(positional) or 1, most, frozenset(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)


def check_layer(layer: Layer) -> None:
    """Does a layer have what its operation wants, and nothing else? FileError if not."""
    if layer.op not in OWN and layer.op not in PLAIN:
        raise FileError(f"layer {layer.name!r} is a {layer.op!r}, which this version does not know")
    if layer.op in PLAIN:
        least, most, options = signature(layer.op)
        _same(layer, "options", layer.options, options)
        _same(layer, "coded", layer.coded, ())
        _same(layer, "numbers", layer.numbers, ())
        if not least <= len(layer.arguments) <= most:
            _refuse(layer, f"takes {least} to {most} arguments, got {len(layer.arguments)}")
        if not any(isinstance(argument, Port) for argument in layer.arguments):
            _refuse(layer, "has no input")
        _window(layer)
        return
    arguments = {"input": 0, "constant": 0, "lstm": 3}.get(layer.op, 1)
    if len(layer.arguments) != arguments or not all(isinstance(argument, Port) for argument in layer.arguments):
        _refuse(layer, f"takes {arguments} inputs")
    {
        "input": _input, "constant": _constant, "quantize": _quantize, "conv2d": _product, "linear": _product,
        "embedding": _embedding, "lstm": _lstm, "batch_norm": _norm,
    }[layer.op](layer)  # fmt: skip


def _input(layer: Layer) -> None:
    _same(layer, "options", layer.options, ("number", "whole"))
    _same(layer, "coded", layer.coded, ())
    _same(layer, "numbers", layer.numbers, ())
    if type(layer.options["number"]) is not int or type(layer.options["whole"]) is not bool:
        _refuse(layer, "has a number and whether it is whole")


def _constant(layer: Layer) -> None:
    _same(layer, "coded", layer.coded, ())
    if layer.numbers:
        _same(layer, "numbers", layer.numbers, ("value",))
        _same(layer, "options", layer.options, ())
    else:
        _same(layer, "options", layer.options, ("fill",))
        fill = layer.options["fill"]
        if not isinstance(fill, Fill):
            _refuse(layer, "is filled with something unknown")
        if math.prod(max(n.base if isinstance(n, Length) else n, 1) for n in fill.shape) > 1 << 28:
            _refuse(layer, "is absurdly large")


def _quantize(layer: Layer) -> None:
    _same(layer, "options", layer.options, ())
    _same(layer, "numbers", layer.numbers, ())
    _same(layer, "coded", layer.coded, ("x",))
    if layer.coded["x"].codes is not None:
        _refuse(layer, "is an activation, which has no codes in the file")


def _product(layer: Layer) -> None:
    is_conv = layer.op == "conv2d"
    shape = _weight(layer, "weight", 4 if is_conv else 2)
    _same(layer, "coded", layer.coded, {"weight"} & set(layer.coded))
    for name in ("bias", "multiplier", "addend"):
        _shape(layer, name, shape[:1])
    found = set(layer.numbers) - {"weight"}
    if found not in (set(), {"bias"}, {"multiplier", "addend"}):
        _refuse(layer, f"has the numbers {sorted(found)}; expected none, bias, or multiplier and addend")
    if "multiplier" in found and "weight" not in layer.coded:
        _refuse(layer, "has a folded norm, but no codes")
    _same(layer, "options", layer.options, ("sums", *(("stride", "padding", "dilation", "groups") if is_conv else ())))
    if layer.options["sums"] not in (EXACT, FLOAT):
        _refuse(layer, f"has sums that are {layer.options['sums']!r}, expected {EXACT!r} or {FLOAT!r}")
    if "multiplier" in found and layer.options["sums"] != EXACT:
        _refuse(layer, "has a folded norm, and sums that are not exact")
    if is_conv:
        _window(layer)
        groups = layer.options["groups"]
        if not _small(groups, 1) or shape[0] % groups:
            _refuse(layer, f"has {groups!r} groups of {shape[0]} outputs")


def _window(layer: Layer) -> None:
    """Numbers that decide how large a result is."""
    leasts = {"stride": 1, "padding": 0, "dilation": 1, "kernel_size": 1, "output_size": 1}
    for name in leasts.keys() & layer.options.keys():
        pair, least = layer.options[name], leasts[name]
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(_small(n, least) for n in pair)):
            _refuse(layer, f"has the {name} {pair!r}, expected two whole numbers from {least}")
    if "kernel_size" in layer.options:
        halves = [length // 2 for length in layer.options["kernel_size"]]
        if any(border > half for border, half in zip(layer.options["padding"], halves)):
            _refuse(layer, f"has the padding {layer.options['padding']!r}, more than half its kernel")
    if layer.op == "pad" and not all(_small(n, 0) for n in leaves(layer.options["widths"])):
        _refuse(layer, f"has borders of {layer.options['widths']!r}")


def _embedding(layer: Layer) -> None:
    _weight(layer, "weight", 2)
    _same(layer, "options", layer.options, ())
    _same(layer, "coded", layer.coded, {"weight"} & set(layer.coded))
    _same(layer, "numbers", layer.numbers, {"weight"} & set(layer.numbers))


def _lstm(layer: Layer) -> None:
    gates, hidden = _weight(layer, "weight_hh", 2)
    if gates != 4 * hidden or _weight(layer, "weight_ih", 2)[0] != gates:
        _refuse(layer, f"has weights of {gates} rows for a state of {hidden}; expected 4 gates of it")
    for name in ("bias_ih", "bias_hh"):
        _shape(layer, name, (gates,))
    weights = {"weight_ih", "weight_hh"}
    _same(layer, "coded", layer.coded, (weights | {"hidden"}) & set(layer.coded))
    _same(layer, "numbers", layer.numbers, (weights | {"bias_ih", "bias_hh"}) & set(layer.numbers))
    _same(layer, "options", layer.options, ("from_zeros", "state") if "hidden" in layer.coded else ("from_zeros",))
    if type(layer.options["from_zeros"]) is not bool or type(layer.options.get("state", "")) is not str:
        _refuse(layer, "says wrongly whether it starts from zeros, or the name of its state")


def _norm(layer: Layer) -> None:
    _same(layer, "options", layer.options, ())
    _same(layer, "coded", layer.coded, ())
    _same(layer, "numbers", layer.numbers, ("mean", "scale", "shift"))
    for name in ("mean", "scale", "shift"):
        _shape(layer, name, (len(layer.numbers["mean"].reshape(-1)),))


def check_links(layers: list[Layer], inputs: Any, outputs: Any, lengths: Lengths) -> None:
    """Does every layer come after those it takes from, are codes taken where codes are wanted? FileError if not."""
    seen: dict[str, Layer] = {}
    for layer in layers:
        if layer.name in seen or not layer.name:
            raise FileError(f"two layers are called {layer.name!r}" if layer.name else "a layer has no name")
        for index, argument in enumerate(layer.arguments):
            _known_lengths(layer, argument, lengths)
            if isinstance(argument, Port):
                source = _source(seen, argument, f"layer {layer.name!r}")
                if source.op == "quantize" and not (layer.op in ("conv2d", "linear", "lstm") and index == 0):
                    _refuse(layer, f"computes with the codes of {source.name!r}, which are no numbers")
        for value in layer.options.values():
            _known_lengths(layer, value, lengths)
        seen[layer.name] = layer
    found = [layer for layer in layers if layer.op == "input"]
    wanted = [leaf.number for leaf in leaves(inputs) if isinstance(leaf, Input)]
    numbers = list(range(len(found)))
    if not isinstance(inputs, tuple) or sorted(wanted) != numbers or [f.options["number"] for f in found] != numbers:
        raise FileError(f"there are {len(found)} inputs, which are not numbered 0, 1, … in the order of the layers")
    if len(lengths.shapes) != len(found):
        raise FileError(f"there are {len(found)} inputs, and {len(lengths.shapes)} shapes of inputs")
    ports = [leaf for leaf in leaves(outputs) if isinstance(leaf, Port)]
    if not ports:
        raise FileError("the model has no output")
    for port in ports:
        if _source(seen, port, "an output").op == "quantize":
            raise FileError(f"the output {port.vertex!r} is codes, which are no numbers")


def _source(seen: dict[str, Layer], port: Port, who: str) -> Layer:
    if port.vertex not in seen:
        raise FileError(f"{who} takes from {port.vertex!r}, and no layer before it is called that")
    if port.output >= (3 if seen[port.vertex].op == "lstm" else 1):
        raise FileError(f"{who} takes output {port.output} of {port.vertex!r}, which is not there")
    return seen[port.vertex]


def _known_lengths(layer: Layer, value: Any, lengths: Lengths) -> None:
    found = leaves(value)
    for part in [*found, *[n for leaf in found if isinstance(leaf, Fill) for n in leaf.shape]]:
        if isinstance(part, Length) and any(axis >= len(lengths.free) for axis, _, _ in part.terms):
            _refuse(layer, "follows a length that no input has")


def _weight(layer: Layer, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a weight that is there once, as codes or as numbers."""
    if (name in layer.coded) == (name in layer.numbers):
        _refuse(layer, f"has its {name} twice" if name in layer.coded else f"has no {name}")
    found = layer.coded[name].codes if name in layer.coded else layer.numbers[name]
    if found is None or found.ndim != axes or not found.size:
        _refuse(layer, f"has a {name} of shape {None if found is None else found.shape}, expected {axes} axes")
    return found.shape  # type: ignore[union-attr]


def _shape(layer: Layer, name: str, shape: tuple[int, ...]) -> None:
    if name in layer.numbers and layer.numbers[name].shape != shape:
        _refuse(layer, f"has {name} of shape {layer.numbers[name].shape}, expected {shape}")


def _same(layer: Layer, what: str, got: Any, wanted: Any) -> None:
    if set(got) != set(wanted):
        missing, unknown = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
        _refuse(layer, f"lacks {missing[0]!r} in its {what}" if missing else f"has {unknown[0]!r} in its {what}")


def _small(n: Any, least: int) -> bool:
    return type(n) is int and least <= n < 1 << 15


def _refuse(layer: Layer, why: str) -> None:
    raise FileError(f"layer {layer.name!r} ({layer.op}) {why}")


def _kind(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:37]}…"
