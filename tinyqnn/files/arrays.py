"""Named arrays and a JSON header in one file: an ordinary .npz, which `numpy.load` and `unzip` open as well.

    header.json      {"format": "tinyqnn checkpoint", "version": 1, "sha256": …, …}
    <name>.npy       one for each array, not compressed

Equal contents make equal bytes: no times, no compression. The checksum covers header, names, types, shapes and values.
A reader believes nothing: sizes are compared with the file's length before memory is taken, and object arrays (pickles
in disguise) are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tinyqnn.files.atomic import FileError, PathLike, atomic_write, open_checked

Array = np.ndarray

VERSION = 1
MAX_BYTES = 1 << 32
HEADER = "header.json"


def save_arrays(
    path: PathLike,
    arrays: Mapping[str, Array],
    header: Mapping[str, Any] | None = None,
    kind: str = "arrays",
    overwrite: bool | None = None,
    indent: int | None = 1,
) -> None:
    """Write `arrays` and `header` to `path`, so that a kill at any moment leaves the old file or the new one, whole.

    arrays      numbers or booleans of any shape, by name
    header      whatever JSON can hold
    kind        what the file is ("checkpoint", "packed model"): it says so, and `load_arrays` asks for it
    overwrite   None: replace a file only if it is one of ours, of the same kind. True: replace any. False: none
    indent      of the header's lines; None: all in one line, without spaces

    Raises FileExistsError for a file that must not be replaced, TypeError for arrays of objects or text.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/a.npz", {"w": np.arange(3)}, {"epoch": 7})
    ...     arrays, header = load_arrays(f"{folder}/a.npz")
    >>> arrays["w"].tolist(), header
    ([0, 1, 2], {'epoch': 7})
    """
    ready = {name: _little_endian(np.asarray(array)) for name, array in arrays.items()}
    for name, array in ready.items():
        if array.dtype.kind not in "biufc":
            raise TypeError(f"array {name!r} is of {array.dtype}; only numbers and booleans are saved")
        if not name or name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is no name for an array in a file")
    content = json.loads(json.dumps(header or {}, allow_nan=False))
    head = {"format": f"tinyqnn {kind}", "version": VERSION, "sha256": _checksum(ready, content), "content": content}

    def ours(existing: Path) -> bool:
        try:
            return read_header(existing)["format"] == f"tinyqnn {kind}"
        except (FileError, OSError):
            return False

    with atomic_write(path, ours if overwrite is None else overwrite) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo(HEADER), "w") as member:
            member.write(header_text(head, indent))
        for name, array in ready.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=array.nbytes > 1 << 30) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def header_text(head: Mapping[str, Any], indent: int | None) -> bytes:
    """The bytes of header.json.

    >>> header_text({"version": 1}, None)
    b'{"version":1}'
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(head, indent=indent, separators=separators, ensure_ascii=False).encode()


def load_arrays(
    path: PathLike, kind: str | None = "arrays", max_bytes: int = MAX_BYTES
) -> tuple[dict[str, Array], Any]:
    """The arrays and the header of a file that `save_arrays` wrote.

    kind        what it must be; None takes any .npz, also one that `numpy.savez` wrote (its header is then {})
    max_bytes   the most that a file, and what it unpacks to, may have

    Raises FileError, naming the file and what is wrong, for one that is cut short, damaged, of another kind or absurdly
    large; FileNotFoundError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/x.npz", {"x": np.arange(3)}, {"made": "here"})
    ...     arrays, header = load_arrays(f"{folder}/x.npz")
    >>> arrays["x"].tolist(), header
    ([0, 1, 2], {'made': 'here'})
    """
    what = "an .npz file" if kind is None else f"a tinyqnn {kind}"
    file, length = open_checked(path, what, max_bytes)
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path, length, max_bytes)
                head = None
                if HEADER in members or kind is not None:
                    head = _header(archive, path, kind)
                    members.pop(HEADER)
                arrays = {name.removesuffix(".npy"): _array(archive, info) for name, info in members.items()}
        except FileError as error:
            raise FileError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
        except _DAMAGE as error:
            raise FileError(_damaged(path, what, error)) from error
    if head is None:
        return arrays, {}
    if head["sha256"] != _checksum(arrays, head["content"]):
        raise FileError(f"{path} is damaged: its contents do not match its checksum; use a copy or make it again")
    return arrays, head["content"]


def read_header(path: PathLike) -> dict[str, Any]:
    """What a file says of itself: "format", "version" and "content", without reading its arrays.

    Raises FileError if it is not one of ours.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/x.npz", {"x": np.arange(3)}, {"made": "here"}, kind="numbers")
    ...     read_header(f"{folder}/x.npz")["content"]
    {'made': 'here'}
    """
    file, length = open_checked(path, "a tinyqnn file", 1 << 62)
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                _members(archive, path, length, 1 << 62)
                return _header(archive, path, None)
        except FileError:
            raise
        except _DAMAGE as error:
            raise FileError(_damaged(path, "a tinyqnn file", error)) from error


# What zipfile, zlib, NumPy's header parser and json raise at bytes that make no sense.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    OverflowError,
    RecursionError,
    SyntaxError,
    ValueError,
    RuntimeError,
    MemoryError,
    OSError,
    TypeError,
)


def _damaged(path: PathLike, what: str, error: BaseException) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} is not {what}, or it is cut short or damaged ({reason}); use a copy or make it again"


def _members(archive: zipfile.ZipFile, path: PathLike, length: int, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name, after a look at what they claim to be and to need."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if name in members:
            raise FileError(f"{path} holds {name} twice; it was not written by NumPy or tinyqnn")
        if name.endswith("data.pkl"):
            raise FileError(f"{path} is a file of torch.save, which is a pickle. {EXPORT}")
        if not name.endswith(".npy") and name != HEADER:
            raise FileError(f"{path} holds {name}, which is no array; expected an .npz file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x1:
            raise FileError(f"{path}: {name} is encrypted or packed in an unknown way; write it again with numpy.savez")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise FileError(f"{path}: {name} is damaged, it claims two different sizes; use a copy or make it again")
        members[name] = info
    packed, unpacked = (sum(getattr(m, size) for m in members.values()) for size in ("compress_size", "file_size"))
    if packed > length:
        raise FileError(
            f"{path} claims {packed:,} bytes of arrays, but has {length:,} in all; it is cut short or damaged"
        )
    if unpacked > min(max_bytes, max(1 << 26, 100 * length)):
        raise FileError(
            f"{path} has {length:,} bytes and claims to unpack to {unpacked:,}, which is absurd; do not trust it"
        )
    return members


EXPORT = (
    "Export the weights in PyTorch:\n"
    '    state = torch.load("model.pt", map_location="cpu", weights_only=True)\n'
    '    numpy.savez("model.npz", **{name: tensor.float().numpy() for name, tensor in state.items()})'
)


def _header(archive: zipfile.ZipFile, path: PathLike, kind: str | None) -> dict[str, Any]:
    """header.json, if it is one of ours, of a version we can read, and of the wanted kind."""
    if HEADER not in archive.namelist():
        raise FileError(f"{path} is an .npz file, but not one that tinyqnn wrote: it has no {HEADER}")
    head = json.loads(_bytes(archive, archive.getinfo(HEADER)))
    if not isinstance(head, dict) or not {"format", "version", "sha256", "content"} <= set(head):
        raise FileError(f"{path} is not one that tinyqnn wrote: its {HEADER} lacks format, version, sha256 or content")
    if kind is not None and head["format"] != f"tinyqnn {kind}":
        raise FileError(f"{path} is a {head['format']}, expected a tinyqnn {kind}")
    if head["version"] != VERSION:
        raise FileError(
            f"{path} has version {head['version']} of the format, this tinyqnn reads {VERSION}; update tinyqnn"
        )
    return head


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
    """The contents of a member: exactly as many bytes as it declares. zipfile compares their CRC-32."""
    buffer = bytearray(info.file_size)
    with archive.open(info) as member:
        read, view = 0, memoryview(buffer)
        while read < len(buffer):
            count = cast(io.BufferedIOBase, member).readinto(view[read:])
            if not count:
                raise EOFError(f"{info.filename} has {read:,} of {len(buffer):,} bytes")
            read += count
        if member.read(1):
            raise EOFError(f"{info.filename} is longer than it declares")
    return buffer


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """A .npy member as an array on its own memory, its shape compared with its length first."""
    buffer = _bytes(archive, info)
    file = io.BytesIO(buffer)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise FileError(f"{info.filename} has version {version} of NumPy's format, expected 1.0 or 2.0; save it again")
    shape, fortran, dtype = read(file)
    if dtype.kind not in "biufc":
        raise FileError(f"{info.filename} is an array of {dtype}; only numbers and booleans are read, never objects")
    if math.prod(shape) * dtype.itemsize != len(buffer) - file.tell():
        raise FileError(
            f"{info.filename} claims shape {shape} of {dtype}, {math.prod(shape) * dtype.itemsize:,} bytes, "
            f"and holds {len(buffer) - file.tell():,}; it is damaged"
        )
    array = np.frombuffer(buffer, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _checksum(arrays: Mapping[str, Array], content: Any) -> str:
    """SHA-256 of everything that matters: header, names, types, shapes, values."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, array in arrays.items():
        array = _little_endian(array)
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _little_endian(array: Array) -> Array:
    """The array as it lies in a file: in C order, the lowest byte of each number first. A copy only if it has to be."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def pickle_inside(file: BinaryIO) -> bool:
    """Whether the file begins like a pickle, as old `torch.save` files do."""
    start = file.read(2)
    file.seek(0)
    return len(start) == 2 and start[0] == 0x80 and start[1] <= 5
