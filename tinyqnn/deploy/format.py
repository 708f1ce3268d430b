"""The file of a packed model: an `.npz` with a JSON header and two flat arrays. `tutorials/file_format.md` is its page.

    header.json    {"format": "tinyqnn packed model", "version": 1, "sha256": …, "content": what follows}
    codes.npy      uint8: the codes of every weight, packed, one weight after another
    numbers.npy    float32: everything that is no code, one array after another

`content` is

    packed     1, the version of all this
    inputs     how the model is called, outputs: what it returns (trees, see `values.py`)
    lengths    which axes of the inputs may have other lengths than when the model was packed
    layers     a list; each layer has name, op, arguments, options, numbers, coded (`layers.py`)

An array is written as {"at": where it begins, "shape": […]}, counted in numbers, or in bytes for codes. They lie one
after another, without gaps, in the order in which the header names them, and fill their file to the end.

The codes of one weight, n of b bits: each code is written as its place in the scheme's alphabet, 0 … 2^b − 1. First
bit 0 of all n codes, then bit 1 of all, up to bit b − 1: n·b bits in ⌈n·b/8⌉ bytes, the first bit lowest, 0 in the
bits that are left.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from tinyqnn.deploy.layers import Layer
from tinyqnn.deploy.model import Packed
from tinyqnn.deploy.schema import Header, check_layer, check_links
from tinyqnn.deploy.values import from_json, to_json
from tinyqnn.files import FileError, load_arrays, save_arrays
from tinyqnn.files.arrays import MAX_BYTES, header_text
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph.lengths import Lengths
from tinyqnn.quant import Quantizer, Uniform, scheme
from tinyqnn.quant.whole import Coded

Array = np.ndarray

__all__ = ["load", "pack_bits", "save", "sizes", "unpack_bits"]

KIND, VERSION = "packed model", 1


def save(packed: Packed, path: PathLike, overwrite: bool | None = None) -> None:
    """Write a packed model; `Packed.save` is the same.

    Raises FileExistsError for a file that is no packed model, unless `overwrite` is True.
    """
    arrays, content, _ = _parts(packed)
    save_arrays(path, arrays, content, KIND, overwrite, indent=None)


def load(path: PathLike, max_bytes: int = MAX_BYTES) -> Packed:
    """The packed model in a file, ready to run.

    max_bytes   the longest file that is believed

    Raises FileError, naming the file and what is wrong with it: cut short, damaged, another kind or version of file, a
    field missing, unknown, or of another type. FileNotFoundError.

    >>> import tempfile
    >>> from tinyqnn import deploy, graph, nn
    >>> x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    >>> packed = deploy.pack(graph.generate(nn.Linear(4, 3), x, weights="C-2", activations="C-3").eval())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     packed.save(f"{folder}/model.npz")
    ...     np.array_equal(load(f"{folder}/model.npz")(x), packed(x))
    True
    """
    try:
        arrays, content = load_arrays(path, KIND, max_bytes)
    except FileError as error:
        raise FileError(_short(error)) from error
    try:
        return _model(arrays, content)
    except FileError as error:
        raise FileError(f"{path}: {_short(error)}") from None
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        raise FileError(f"{path} does not hold together as a packed model: {_short(error)}") from error


def sizes(packed: Packed) -> dict[str, int]:
    """The bytes of the file by what they are; `Packed.sizes` is the same."""
    arrays, content, counted = _parts(packed)
    head = {"format": f"tinyqnn {KIND}", "version": VERSION, "sha256": "0" * 64, "content": content}
    members = {"header.json": len(header_text(head, None))}
    for name, array in arrays.items():
        start = io.BytesIO()
        np.lib.format.write_array_header_1_0(start, np.lib.format.header_data_from_array_1_0(array))
        members[f"{name}.npy"] = len(start.getvalue()) + array.nbytes
    # A zip file: 30 bytes and the name before each member, 46 and the name once more in the list at the end, and 22.
    total = sum(76 + 2 * len(name) + length for name, length in members.items()) + 22
    return {**counted, "header": total - sum(counted.values())}


def pack_bits(places: Array, bits: int) -> Array:
    """Whole numbers below 2^bits as bytes: bit 0 of all of them, then bit 1, …; the first bit lowest.

    >>> [bin(byte) for byte in pack_bits(np.array([3, 0, 1]), 2)]
    ['0b1101']
    """
    flat = places.reshape(-1)
    planes = [flat >> bit & 1 for bit in range(bits)]
    return np.packbits(np.concatenate(planes).astype(np.uint8), bitorder="little")


def unpack_bits(octets: Array, count: int, bits: int) -> Array:
    """The `count` whole numbers of `pack_bits` again, uint8.

    >>> unpack_bits(np.array([0b1101], np.uint8), 3, 2).tolist()
    [3, 0, 1]
    """
    found = np.unpackbits(octets, count=count * bits, bitorder="little").reshape(bits, count)
    places = np.zeros(count, np.uint8)
    for bit, plane in enumerate(found):
        places |= plane << bit
    return places


def _short(error: Exception) -> str:
    """A message quotes what it found, which may be anything."""
    text = str(error)
    return text if len(text) <= 500 else text[:499] + "…"


class _Blob:
    """Arrays one after another, and where each begins."""

    def __init__(self, dtype: Any) -> None:
        self.dtype, self.parts, self.length = dtype, [np.zeros(0, dtype)], 0

    def put(self, array: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        place = {"at": self.length, "shape": [int(n) for n in shape]}
        self.parts.append(np.ascontiguousarray(array, self.dtype).reshape(-1))
        self.length += array.size
        return place

    def all(self) -> Array:
        return np.concatenate(self.parts)


def _parts(packed: Packed) -> tuple[dict[str, Array], dict[str, Any], dict[str, int]]:
    """The two arrays, the header's content, and the bytes of codes, scales and floats."""
    codes, numbers = _Blob(np.uint8), _Blob(np.float32)
    counted = {"codes": 0, "scales": 0, "floats": 0}
    layers = []
    for layer in packed.layers:
        coded = {}
        for name, found in layer.coded.items():
            entry = _scheme_to_json(found.quantizer)
            entry["params"] = {key: numbers.put(value, value.shape) for key, value in found.params.items()}
            counted["scales"] += 4 * sum(value.size for value in found.params.values())
            if found.codes is not None:
                places = np.searchsorted(found.quantizer.alphabet, found.codes)
                octets = pack_bits(places, found.quantizer.bits)
                entry["codes"] = codes.put(octets, found.codes.shape)
                counted["codes"] += octets.size
            coded[name] = entry
        floats = {name: numbers.put(value, value.shape) for name, value in layer.numbers.items()}
        counted["floats"] += 4 * sum(value.size for value in layer.numbers.values())
        layers.append(
            {
                "name": layer.name,
                "op": layer.op,
                "arguments": [to_json(argument) for argument in layer.arguments],
                "options": {name: to_json(value) for name, value in layer.options.items()},
                "coded": coded,
                "numbers": floats,
            }
        )
    lengths = packed.lengths
    content = {
        "packed": VERSION,
        "inputs": to_json(packed.inputs),
        "outputs": to_json(packed.outputs),
        "lengths": {
            "shapes": [list(shape) for shape in lengths.shapes],
            "free": [[list(axis) for axis in axes] for axes in lengths.free],
            "fixed": [[*axis, reason] for axis, reason in lengths.fixed.items()],
        },
        "layers": layers,
    }
    return {"codes": codes.all(), "numbers": numbers.all()}, content, counted


def _scheme_to_json(quantizer: Quantizer) -> dict[str, Any]:
    entry: dict[str, Any] = {"scheme": quantizer.notation, "axis": quantizer.axis}
    if isinstance(quantizer, Uniform):
        entry |= {"signed": quantizer.signed, "levels": quantizer.levels}
    return entry


class _Reader:
    """Takes arrays from the two flat ones, each where the last one ended."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        if set(arrays) != {"codes", "numbers"}:
            raise FileError(f"holds the arrays {sorted(arrays)}, expected codes and numbers")
        self.codes, self.numbers = arrays["codes"], arrays["numbers"]
        for name, dtype in (("codes", np.uint8), ("numbers", np.float32)):
            if arrays[name].dtype != dtype or arrays[name].ndim != 1:
                raise FileError(
                    f"{name} is {arrays[name].dtype} of shape {arrays[name].shape}, expected a row of {dtype.__name__}"
                )
        self.at = {"codes": 0, "numbers": 0}

    def take(self, blob: str, entry: Header, bits: int = 0) -> tuple[Array, tuple[int, ...]]:
        """The part of a flat array that an entry names, and its shape."""
        shape = tuple(entry.get("shape").sizes())
        begin, count = entry.get("at").whole(), math.prod(shape)
        length = -(-count * bits // 8) if bits else count
        if begin != self.at[blob]:
            raise FileError(f"{entry.path} begins at {begin}, expected {self.at[blob]}, where what is before it ends")
        entry.done()
        flat = self.codes if blob == "codes" else self.numbers
        if begin + length > len(flat):
            raise FileError(f"{entry.path} wants {blob} {begin} … {begin + length}, the file has {len(flat)}")
        self.at[blob] = begin + length
        return flat[begin : begin + length], shape

    def array(self, entry: Header) -> Array:
        found, shape = self.take("numbers", entry)
        if not np.isfinite(found).all():
            raise FileError(f"{entry.path} has NaN or Inf")
        return found.reshape(shape)

    def coded(self, entry: Header) -> Coded:
        quantizer = _scheme_from_json(entry)
        params = {name: self.array(value) for name, value in entry.get("params").items()}
        params = dict(quantizer._named(params))
        codes = None
        if entry.has("codes"):
            place = entry.get("codes")
            octets, shape = self.take("codes", place, quantizer.bits)
            count = math.prod(shape)
            if count * quantizer.bits % 8 and octets[-1] >> (count * quantizer.bits % 8):
                raise FileError(f"{place.path} has bits set behind its last code")
            places = unpack_bits(octets, count, quantizer.bits)
            if count and places.max() >= len(quantizer.alphabet):
                raise FileError(f"{place.path} has a code that is not in the alphabet of {quantizer.notation}")
            codes = quantizer.alphabet[places].reshape(shape)
        entry.done()
        _check_params(entry.path, quantizer, params, codes)
        return Coded(quantizer, params, codes)


def _scheme_from_json(entry: Header) -> Quantizer:
    notation = entry.get("scheme").text()
    axis = None if entry.get("axis").value is None else entry.get("axis").whole()
    made = scheme(notation) if axis is None else scheme(notation, axis=axis)
    if isinstance(made, Uniform):
        signed, levels = entry.get("signed").flag(), entry.get("levels").whole()
        return Uniform(made.bits, signed=signed, levels=levels, axis=axis)
    return made


def _check_params(path: str, quantizer: Quantizer, params: dict[str, Array], codes: Array | None) -> None:
    """One number each, or one a channel, as the scheme wants them."""
    for name, value in params.items():
        lead, shape = value.shape[: quantizer.parameter_ndim], value.shape[quantizer.parameter_ndim :]
        fits = all(n == quantizer.bits for n in lead) and len(lead) == quantizer.parameter_ndim
        if quantizer.axis is None:
            fits = fits and shape == ()
        elif codes is not None:
            expected = [1] * codes.ndim
            expected[quantizer.axis] = codes.shape[quantizer.axis]
            fits = fits and shape == tuple(expected)
        if not fits:
            raise FileError(f"{path}: {name} has shape {value.shape}, which does not fit {quantizer!r}")


def _model(arrays: dict[str, Array], content: Any) -> Packed:
    head = Header(content, "content")
    version = head.get("packed").whole()
    if version != VERSION:
        raise FileError(f"is version {version} of a packed model, this tinyqnn reads {VERSION}; update tinyqnn")
    reader = _Reader(arrays)
    layers = [_layer(reader, entry) for entry in head.get("layers").entries()]
    for name in ("codes", "numbers"):
        if reader.at[name] != len(arrays[name]):
            raise FileError(f"has {len(arrays[name])} {name}, its header knows of {reader.at[name]}")
    inputs, outputs = from_json(head.get("inputs").value), from_json(head.get("outputs").value)
    lengths = _lengths(head.get("lengths"))
    head.done()
    check_links(layers, inputs, outputs, lengths)
    return Packed(layers, inputs, outputs, lengths)


def _layer(reader: _Reader, entry: Header) -> Layer:
    name, op = entry.get("name").text(), entry.get("op").text()
    arguments = tuple(from_json(argument.value) for argument in entry.get("arguments").entries())
    options = {key: from_json(value.value) for key, value in entry.get("options").items()}
    coded = {key: reader.coded(value) for key, value in entry.get("coded").items()}
    numbers = {key: reader.array(value) for key, value in entry.get("numbers").items()}
    entry.done()
    layer = Layer(name, op, arguments, options, numbers, coded)
    check_layer(layer)
    return layer


def _lengths(entry: Header) -> Lengths:
    shapes = tuple(tuple(shape.sizes()) for shape in entry.get("shapes").entries())

    def axis(pair: Header) -> tuple[int, int]:
        i, k = (number.whole() for number in pair.entries())
        if i >= len(shapes) or k >= len(shapes[i]):
            raise FileError(f"{pair.path} names axis {k} of input {i}, which is not there")
        return i, k

    free = tuple(tuple(axis(pair) for pair in axes.entries()) for axes in entry.get("free").entries())
    fixed = {}
    for triple in entry.get("fixed").entries():
        i, k, reason = triple.entries()
        fixed[axis(Header([i.value, k.value], triple.path))] = reason.text()
    entry.done()
    named = [pair for axes in free for pair in axes] + list(fixed)
    if not all(free) or sorted(named) != [(i, k) for i, shape in enumerate(shapes) for k in range(len(shape))]:
        raise FileError(f"{entry.path} does not name every axis of the inputs once, as free or as fixed")
    return Lengths(shapes, free, fixed)
