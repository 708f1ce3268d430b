"""safetensors: eight bytes that say how long the header is, a JSON header that says where each array lies, the arrays.

    8 bytes                little-endian length n of the header
    n bytes                {"fc.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
    the rest               the arrays, little-endian, in C order, one after the other without a gap

The format of the Hugging Face library of that name; PyTorch writes it with `safetensors.torch.save_file(state, path)`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyqnn.files.atomic import FileError, PathLike, atomic_write, open_checked

Array = np.ndarray

MAX_BYTES = 1 << 32
MAX_HEADER = 100_000_000  # the official limit

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
    "BF16": "<u2",  # the upper half of a float32; NumPy has no name for it
}


def load_safetensors(path: PathLike, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays of a .safetensors file by name, in the order in which they lie there. BF16 becomes float32.

    Raises FileError, naming the file and what is wrong, for one that is cut short, damaged, of another kind or absurdly
    large; nothing is allocated before the header fits the file's length. FileNotFoundError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/x.safetensors", {"x": np.arange(3)})
    ...     load_safetensors(f"{folder}/x.safetensors")["x"].tolist()
    [0, 1, 2]
    """
    file, length = open_checked(path, "a .safetensors file", max_bytes)
    with file:
        size = int.from_bytes(file.read(8), "little")
        if length < 8 or size > min(length - 8, MAX_HEADER):
            raise FileError(
                f"{path} is not a .safetensors file, or it is cut short: it has {length:,} bytes "
                f"and would begin with a header of {size:,}; fetch it again"
            )
        header = _parse(path, file.read(size))
        layout = _layout(path, header, length - 8 - size)
        buffer = bytearray(length - 8 - size)
        if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise FileError(f"{path} became shorter while it was read; fetch it again")
    arrays = {}
    for name, dtype, shape, begin in layout:
        array = np.frombuffer(buffer, _DTYPES[dtype], math.prod(shape), begin).reshape(shape)
        if dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        elif dtype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
            raise FileError(f"{path}: {name} holds booleans that are neither 0 nor 1; the file is damaged")
        # An array that does not lie on a multiple of its element's size is slow, on some machines unusable.
        arrays[name] = array if array.flags.aligned else array.copy()
    return arrays


def save_safetensors(
    path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None, overwrite: bool = False
) -> None:
    """Write `arrays` so that everybody's safetensors reader can load them; largest element type first, then by name.

    metadata    text by name, e.g. {"format": "pt"}
    overwrite   replace a file that is already there

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/a.safetensors", {"w": np.float32([1, 2])})
    ...     load_safetensors(f"{folder}/a.safetensors")["w"].tolist()
    [1.0, 2.0]
    """
    names = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}
    ready = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.newbyteorder("<") not in names:
            raise TypeError(
                f"{name}: safetensors has no type for {array.dtype}; convert it, e.g. with .astype(np.float32)"
            )
        ready[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = sorted(
        ready, key=lambda name: (-ready[name].itemsize, name)
    )  # so that every array lies on a multiple of its size
    end = 0
    for name in order:
        begin, end = end, end + ready[name].nbytes
        header[name] = {
            "dtype": names[ready[name].dtype],
            "shape": list(ready[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path, overwrite) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(ready[name].tobytes())


def _parse(path: PathLike, text: bytes) -> dict[str, Any]:
    """The header as a dictionary."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name is there twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=once) if text[:1] == b"{" else None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: the header is damaged ({error}); fetch the file again") from None
    if not isinstance(header, dict):
        raise FileError(f"{path} is not a .safetensors file: its header does not begin with {{")
    header.pop("__metadata__", None)
    return header


def _layout(path: PathLike, header: Mapping[str, Any], available: int) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, dtype, shape, begin) of every array, after a proof that they fill the buffer without gap or overlap."""
    layout = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            numbers = (*shape, begin, end)
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{path}: {name} lacks dtype, shape or data_offsets; the file is damaged") from None
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) > 64:
            raise FileError(f"{path}: {name} has sizes that are no sizes ({numbers}); the file is damaged")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise FileError(f"{path}: {name} has type {dtype}; known are {', '.join(_DTYPES)}. Save it as float32")
        needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if end - begin != needed:
            raise FileError(
                f"{path}: {name} claims shape {shape} of {dtype}, {needed:,} bytes, and {end - begin:,} of the file"
            )
        layout.append((begin, end, name, dtype, shape))
    here = 0
    for begin, end, name, _, _ in sorted(layout):
        if begin != here:
            raise FileError(
                f"{path}: {name} begins at byte {begin:,}, the array before it ends at {here:,}; the file is damaged"
            )
        here = end
    if here != available:
        raise FileError(
            f"{path} holds {available:,} bytes of arrays, its header speaks of {here:,}; it is cut short or damaged"
        )
    return [(name, dtype, shape, begin) for begin, _, name, dtype, shape in sorted(layout)]
