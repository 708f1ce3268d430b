"""Tile registers for a processor that has none, so that what is computed on them can be tested there.

    TINYQNN_TEST_TILES=emulated python -m pytest tests/kernels

Every instruction that `kernels/tiles.py` writes becomes a call of a function below, which does what the processor's
manual says of it. bfloat16 numbers multiply exactly in float32, the sums over even and over odd k are added up apart
and to the result at the end, and what is no normal number counts as 0; so results are a processor's to the last bit.
"""

from __future__ import annotations

import re
from functools import wraps
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import carray, cfunc, njit, types

from tinyqnn.kernels import simd, tiles

TILE = 1024  # bytes
SHAPES = 8 * TILE  # where the table that `configure` was given lies, behind eight tiles
STATE = SHAPES + 64  # bytes of a thread's registers
THREADS = 1021  # places for them; a prime number, so that threads seldom meet
SMALLEST = np.float32(2**-126)

_registers = np.zeros(THREADS * STATE, np.uint8)
_FIRST = _registers.ctypes.data

_int, _place = types.int64, types.voidptr


@cfunc(_int(_int))
def _of_thread(thread):
    return _FIRST + (thread >> 12) % THREADS * STATE


@njit
def _shape(state, tile):
    """Rows, and bytes in a row."""
    table = state[SHAPES:]
    return np.int64(table[48 + tile]), table[16 + 2 * tile] + 256 * np.int64(table[17 + 2 * tile])


@njit
def _normal(x):
    return x if abs(x) >= SMALLEST or x != x else np.float32(0)


@cfunc(types.void(_place, _place))
def ldtilecfg(state_, table):
    state = carray(state_, STATE, np.uint8)
    state[:SHAPES] = 0
    state[SHAPES:] = carray(table, 64, np.uint8)


@cfunc(types.void(_place))
def tilerelease(state_):
    carray(state_, STATE, np.uint8)[:] = 0


@cfunc(types.void(_place, _int))
def tilezero(state_, tile):
    carray(state_, STATE, np.uint8)[tile * TILE : (tile + 1) * TILE] = 0


@cfunc(types.void(_place, _int, _place, _int))
def tileloadd(state_, tile, where, stride):
    state = carray(state_, STATE, np.uint8)
    rows, width = _shape(state, tile)
    there = carray(where, (rows - 1) * stride + width, np.uint8)
    state[tile * TILE : (tile + 1) * TILE] = 0
    for r in range(rows):
        state[tile * TILE + r * 64 : tile * TILE + r * 64 + width] = there[r * stride : r * stride + width]


@cfunc(types.void(_place, _int, _place, _int))
def tilestored(state_, tile, where, stride):
    state = carray(state_, STATE, np.uint8)
    rows, width = _shape(state, tile)
    there = carray(where, (rows - 1) * stride + width, np.uint8)
    for r in range(rows):
        there[r * stride : r * stride + width] = state[tile * TILE + r * 64 : tile * TILE + r * 64 + width]


@cfunc(types.void(_place, _int, _int, _int))
def tdpbf16ps(state_, b, a, c):
    rows, width = _shape(carray(state_, STATE, np.uint8), c)
    pairs = _shape(carray(state_, STATE, np.uint8), a)[1] // 4
    words, floats = carray(state_, STATE // 4, np.uint32), carray(state_, STATE // 4, np.float32)
    left, right, result = a * (TILE // 4), b * (TILE // 4), c * (TILE // 4)
    x_bits, w_bits, sums = np.empty(2, np.uint32), np.empty((2, 16), np.uint32), np.empty((2, 16), np.float32)
    x, w = x_bits.view(np.float32), w_bits.view(np.float32)
    for m in range(rows):
        sums[:] = 0
        for k in range(pairs):
            pair = words[left + m * 16 + k]
            x_bits[0], x_bits[1] = pair << np.uint32(16), pair & np.uint32(0xFFFF0000)
            for n in range(16):
                w_bits[0, n] = words[right + k * 16 + n] << np.uint32(16)
                w_bits[1, n] = words[right + k * 16 + n] & np.uint32(0xFFFF0000)
            for half in range(2):
                number = _normal(x[half])
                for n in range(16):
                    sums[half, n] = _normal(sums[half, n] + number * _normal(w[half, n]))
        for n in range(width // 4):
            to = result + m * 16 + n
            floats[to] = _normal(_normal(floats[to]) + _normal(sums[0, n] + sums[1, n]))


@njit
def _dot_bytes(state, numbers_of_a, numbers_of_b, sums, a, b, c):
    rows, width = _shape(state, c)
    depth = _shape(state, a)[1]
    for m in range(rows):
        for n in range(width // 4):
            total = sums[c * (TILE // 4) + m * 16 + n]
            for k in range(depth):
                w = np.int32(numbers_of_b[b * TILE + k // 4 * 64 + 4 * n + k % 4])
                total += np.int32(numbers_of_a[a * TILE + m * 64 + k]) * w
            sums[c * (TILE // 4) + m * 16 + n] = total


@cfunc(types.void(_place, _int, _int, _int))
def tdpbssd(state_, b, a, c):
    signed, sums = carray(state_, STATE, np.int8), carray(state_, STATE // 4, np.int32)
    _dot_bytes(carray(state_, STATE, np.uint8), signed, signed, sums, a, b, c)


@cfunc(types.void(_place, _int, _int, _int))
def tdpbusd(state_, b, a, c):
    state, sums = carray(state_, STATE, np.uint8), carray(state_, STATE // 4, np.int32)
    _dot_bytes(state, state, carray(state_, STATE, np.int8), sums, a, b, c)


INSTRUCTIONS = {
    "ldtilecfg": ldtilecfg,
    "tilerelease": tilerelease,
    "tilezero": tilezero,
    "tileloadd": tileloadd,
    "tileloaddt1": tileloadd,
    "tilestored": tilestored,
    "tdpbf16ps": tdpbf16ps,
    "tdpbssd": tdpbssd,
    "tdpbusd": tdpbusd,
}


def _call(builder: Any, name: str, result: Any, *operands: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    found = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(found, operands)


def _emit(builder: Any, text: str, *operands: Any) -> None:
    """A call in the place of an instruction."""
    name, number, anywhere = text.split()[0], ir.IntType(64), ir.IntType(8).as_pointer()
    if name == "prefetcht0":
        return
    thread = _call(builder, "pthread_self", number)
    state = builder.inttoptr(_call(builder, "emulated_tiles_of", number, thread), anywhere)
    given = [number(int(tile)) for tile in re.findall(r"%tmm(\d)", text)]
    if operands:
        given.append(builder.inttoptr(operands[0], anywhere))
    _call(builder, f"emulated_{name}", ir.VoidType(), state, *given, *operands[1:])


def install() -> None:
    """From now on there are tiles. What is compiled with them is kept in a folder of its own."""
    if tiles.allowed():
        raise RuntimeError("this processor has tile registers of its own; leave TINYQNN_TEST_TILES out")
    if simd.LANES != tiles.COLUMNS:
        raise RuntimeError("tiles come with vectors of 16 numbers (AVX-512), which this processor has not")
    numba.config.CACHE_DIR = str(Path(__file__).parent / "__pycache__" / "emulated_tiles")
    binding.add_symbol("emulated_tiles_of", _of_thread.address)
    for name, function in INSTRUCTIONS.items():
        binding.add_symbol(f"emulated_{name}", function.address)
    tiles._emit = _emit
    tiles.allowed = wraps(tiles.allowed.__wrapped__)(lambda: True)
