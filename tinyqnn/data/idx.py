"""IDX, the file format of MNIST: two zero bytes, one byte for the type, one for the number of dimensions, the
dimensions as big-endian 32-bit numbers, then the values. Every claim of the header is checked before memory is
reserved for it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .lookup import again, read_bytes

MAX_BYTES = 1 << 30  # far above any set in this format, far below what hurts
UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The bytes of an IDX file (plain or .gz) in the shape its header gives; the array is read-only.

    Raises ValueError, naming the file and the remedy, when the file is no IDX file of unsigned bytes with `ndim`
    dimensions, claims more than 1 GiB, is shorter or longer than its header says, or is a damaged gzip.
    """
    header = read_bytes(path, limit=4 + 4 * ndim)[: 4 + 4 * ndim]
    if len(header) < 4 or header[:2] != b"\0\0":
        raise ValueError(
            f"{path}: not an IDX file (it must begin with two zero bytes, this begins with "
            f"{header[:4].hex(' ') or 'nothing'}); {again(path)}"
        )
    if header[2] != UNSIGNED_BYTE or header[3] != ndim:
        raise ValueError(
            f"{path}: expected unsigned bytes (type 8) in {ndim} dimensions, the header says type "
            f"{header[2]} in {header[3]}; are images and labels swapped?"
        )
    if len(header) < 4 + 4 * ndim:
        raise ValueError(f"{path}: ends inside its header; {again(path)}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = 1
    for length in shape:
        size *= length  # Python's integers do not wrap around
    if not 0 < size <= MAX_BYTES:
        claim = " × ".join(map(str, shape))
        raise ValueError(f"{path}: the header claims {claim} values, which is absurd; {again(path)}")
    whole = len(header) + size
    if path.suffix != ".gz" and path.stat().st_size != whole:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes long, but its header needs {whole:,}; {again(path)}")
    data = read_bytes(path, limit=whole)
    if len(data) != whole:
        held = f"more than the {whole:,}" if len(data) > whole else f"{len(data):,} of the {whole:,}"
        raise ValueError(f"{path}: holds {held} bytes its header needs; {again(path)}")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)
