"""Registers that are matrices: a tile is 16 rows of 64 bytes, and one instruction multiplies two of them.

    c[m, n] += Σ_k a[m, k] · b[k, n]        a: 16 rows of 64 bytes,  b: 64 rows of 16 bytes,  c: 16 × 16 sums of 32 bits

That is 16,384 products of bytes where the byte-dot of `simd.py` makes 64; processors with AMX finish one in 16 steps of
their clock. There are eight tiles, numbered 0 … 7. A tile of b holds four neighbours of k side by side, as the byte-dot
wants them: row q is b[4q : 4q + 4, 0], b[4q : 4q + 4, 1], … In compiled code, tile numbers being literals:

    tiles.configure(shape(16, 16))
    tiles.zero(0)
    for step in range(steps):
        tiles.load(1, a + 64 · step, stride_of_a)
        tiles.load(2, b + 1024 · step, 64)
        tiles.dot_bytes(0, 1, 2, True)
    tiles.store(0, y, stride_of_y)
    tiles.release()

Places are addresses, `address(array)` plus bytes; nothing is checked. A thread configures its tiles before the first
word and releases them behind the last, so that nobody else has to save them. The words are written as the processor's
own instructions, not asked of the compiler, which then need not know that there are tiles at all.

Linux wants to be asked, once a process, before a thread may touch a tile: `allowed()` asks.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tinyqnn.kernels import simd

__all__ = [
    "COLUMNS",
    "ROWS",
    "STEP",
    "address",
    "allowed",
    "begin",
    "configure",
    "copy_step",
    "dot_bytes",
    "expect",
    "load",
    "numbers",
    "put",
    "put_bytes",
    "put_rows",
    "put_signs",
    "put_sum",
    "reach",
    "release",
    "shape",
    "store",
    "stream",
    "whole",
    "zero",
]

ROWS = 16  # of a tile
COLUMNS = 16  # numbers of 32 bits in a row
STEP = 64  # bytes of k in a row

_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA = 158, 0x1023, 18  # see Linux, Documentation/arch/x86/xstate.rst
_ADDRESS = ir.IntType(64)

binding.initialize_native_asmparser()  # the words below are the processor's own


@lru_cache(maxsize=1)
def allowed() -> bool:
    """May this process use tiles? The processor has them, Numba's settings do not hide them, and Linux says yes.

    >>> allowed() in (True, False)
    True
    """
    has_tiles = {"amx-tile", "amx-int8", "amx-bf16"} <= simd._FEATURES and simd.LANES == COLUMNS
    if not has_tiles or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        answer = ctypes.CDLL(None).syscall(*(ctypes.c_long(n) for n in (_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA)))
    except (OSError, AttributeError):
        return False
    return bool(answer == 0)


@lru_cache(maxsize=ROWS * COLUMNS)
def shape(rows: int, columns: int) -> np.ndarray:
    """What `configure` wants: tiles 0 … 3 for results and 4, 5 for a of `rows` rows; columns of the results and of b.

    Tiles 6 and 7 are for b. Fewer than sixteen rows or columns take less time and reach no further in memory. Whoever
    asks for the same gets the same array, to be read only.

    >>> shape(16, 10)[48:56].tolist()
    [16, 16, 16, 16, 16, 16, 16, 16]
    """
    table = np.zeros(64, np.uint8)
    table[0] = 1  # the only palette there is
    widths = table[16:32].view("<u2")
    widths[:4], widths[4:6], widths[6:] = 4 * columns, STEP, 4 * columns
    table[48:54], table[54:56] = rows, STEP // 4
    return table


def _emit(builder: Any, text: str, *operands: Any) -> None:
    """One instruction, in its place among the others; `$0`, `$1` are its operands, addresses and numbers of bytes."""
    kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
    constraints = ",".join(["r"] * len(operands) + ["~{memory}"])
    builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), operands)


@intrinsic
def address(typingctx: Any, a: Any) -> Any:
    """Where in memory an array's first element lies."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(simd._data(context, builder, sig.args[0], args[0]), _ADDRESS)

    return types.intp(a), codegen


@intrinsic
def configure(typingctx: Any, table: Any) -> Any:
    """Shape this thread's tiles as `shape` says; all become 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        where = builder.ptrtoint(simd._data(context, builder, sig.args[0], args[0]), _ADDRESS)
        _emit(builder, "ldtilecfg ($0)", where)
        return context.get_dummy_value()

    return types.void(table), codegen


@intrinsic
def release(typingctx: Any) -> Any:
    """This thread is done with tiles."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic(prefer_literal=True)
def zero(typingctx: Any, tile: Any) -> Any:
    """`tile = 0`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, f"tilezero %tmm{tile.literal_value}")
        return context.get_dummy_value()

    return types.void(tile), codegen


@intrinsic(prefer_literal=True)
def load(typingctx: Any, tile: Any, where: Any, stride: Any) -> Any:
    """`tile[r] = the bytes at where + r · stride`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, f"tileloadd ($0,$1,1), %tmm{tile.literal_value}", *args[1:])
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def stream(typingctx: Any, tile: Any, where: Any, stride: Any) -> Any:
    """`load` what will not be wanted again for long: it shall not drive out of the nearest cache what is there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, f"tileloaddt1 ($0,$1,1), %tmm{tile.literal_value}", *args[1:])
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def begin(typingctx: Any, tile: Any, known: Any) -> Any:
    """`tile = the 1024 bytes at known`, sums that are to be gone on with; 0 where that is no address but 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number, where = tile.literal_value, args[1]
        with builder.if_else(builder.icmp_unsigned("!=", where, where.type(0))) as (then, otherwise):
            with then:
                _emit(builder, f"tileloadd ($0,$1,1), %tmm{number}", where, where.type(STEP))
            with otherwise:
                _emit(builder, f"tilezero %tmm{number}")
        return context.get_dummy_value()

    return types.void(tile, types.intp), codegen


@intrinsic
def expect(typingctx: Any, where: Any) -> Any:
    """The tile of 1024 bytes at an address will be wanted soon: have it brought nearer."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for line in range(0, ROWS * STEP, 64):
            _emit(builder, f"prefetcht0 {line}($0)", args[0])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic(prefer_literal=True)
def store(typingctx: Any, tile: Any, where: Any, stride: Any) -> Any:
    """`the bytes at where + r · stride = tile[r]`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, f"tilestored %tmm{tile.literal_value}, ($0,$1,1)", *args[1:])
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def dot_bytes(typingctx: Any, c: Any, a: Any, b: Any, signed: Any) -> Any:
    """`c += a · b`; bytes of b are signed, those of a as `signed` says. Sums wrap around in 32 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = "tdpbssd" if signed.literal_value else "tdpbusd"
        _emit(builder, f"{name} %tmm{b.literal_value}, %tmm{a.literal_value}, %tmm{c.literal_value}")
        return context.get_dummy_value()

    return types.void(c, a, b, signed), codegen


@intrinsic(prefer_literal=True)
def dot_bfloat16(typingctx: Any, c: Any, a: Any, b: Any) -> Any:
    """`c += a · b` of pairs of bfloat16; sums are float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _emit(builder, f"tdpbf16ps %tmm{b.literal_value}, %tmm{a.literal_value}, %tmm{c.literal_value}")
        return context.get_dummy_value()

    return types.void(c, a, b), codegen


@intrinsic
def reach(typingctx: Any, count: Any, x: Any, edge: Any, up: Any) -> Any:
    """`count + up` in the lanes where x ≥ edge, `count` in the others."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count_, x_, edge_, up_ = args
        return builder.select(builder.icmp_signed(">=", x_, edge_), builder.add(count_, up_), count_)

    return count(count, count, count, count), codegen


def _pointer(builder: Any, where: Any, kind: Any) -> Any:
    return builder.inttoptr(where, kind.as_pointer())


@intrinsic
def whole(typingctx: Any, where: Any) -> Any:
    """The 64-bit number at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], _ADDRESS))

    return types.intp(types.intp), codegen


@intrinsic
def numbers(typingctx: Any, where: Any) -> Any:
    """Sixteen numbers of 32 bits at an address, as a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_pointer(builder, args[0], simd.ints.llvm))
        value.align = 4
        return value

    return simd.ints(types.intp), codegen


@intrinsic
def put(typingctx: Any, x: Any, where: Any) -> Any:
    """`the numbers at an address = x`, a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[0], _pointer(builder, args[1], args[0].type)).align = 1
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@intrinsic
def put_rows(typingctx: Any, block: Any, where: Any) -> Any:
    """The vectors of a block of one column, one behind the other from an address on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _pointer(builder, args[1], simd._VECTOR)
        for r in range(block.rows):
            row = builder.gep(place, [ir.Constant(_ADDRESS, r)])
            builder.store(builder.extract_value(args[0], r), row).align = 1
        return context.get_dummy_value()

    return types.void(block, types.intp), codegen


@intrinsic
def copy_step(typingctx: Any, to: Any, where: Any) -> Any:
    """`the 64 bytes at to = the 64 bytes at where`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        step = ir.VectorType(ir.IntType(8), STEP)
        value = builder.load(_pointer(builder, args[1], step))
        value.align = 1
        builder.store(value, _pointer(builder, args[0], step)).align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def put_signs(typingctx: Any, to: Any, where: Any) -> Any:
    """`the 64 bytes at to = 64 signs`: −1 for each bit 1 of the 64-bit word at an address, 1 for each 0."""
    octets = ir.VectorType(ir.IntType(8), STEP)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = builder.load(_pointer(builder, args[1], _ADDRESS))
        negative = builder.bitcast(word, ir.VectorType(ir.IntType(1), STEP))
        signs = builder.select(negative, ir.Constant(octets, [-1] * STEP), ir.Constant(octets, [1] * STEP))
        builder.store(signs, _pointer(builder, args[0], octets)).align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def put_sum(typingctx: Any, to: Any, where: Any, apart: Any, weights: Any, count: Any, constant: Any) -> Any:
    """`the 64 bytes at to = constant + Σ_p weights[p] · bits`: of `count` words of 64 bits, `apart` bytes from another.

    `weights` is the address of as many bytes; sums are taken modulo 256.
    """
    octet = ir.IntType(8)
    octets = ir.VectorType(octet, STEP)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        to, where, apart, weights, count, constant = args

        def everywhere(number: Any) -> Any:
            one = builder.insert_element(ir.Constant(octets, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), STEP), None))

        total = cgutils.alloca_once_value(builder, everywhere(builder.trunc(constant, octet)))
        with cgutils.for_range(builder, count) as loop:
            word = builder.load(_pointer(builder, builder.add(where, builder.mul(loop.index, apart)), _ADDRESS))
            weight = builder.load(_pointer(builder, builder.add(weights, loop.index), octet))
            chosen = builder.bitcast(word, ir.VectorType(ir.IntType(1), STEP))
            term = builder.select(chosen, everywhere(weight), ir.Constant(octets, None))
            builder.store(builder.add(builder.load(total), term), total)
        builder.store(builder.load(total), _pointer(builder, to, octets)).align = 1
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def put_bytes(typingctx: Any, x: Any, where: Any, lanes: Any) -> Any:
    """`the bytes at where = x`, the lowest byte of each of the first `lanes` lanes."""
    octets, masks = ir.VectorType(ir.IntType(8), x.lanes), ir.VectorType(ir.IntType(1), x.lanes)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, where_, lanes_ = args
        place, value = _pointer(builder, where_, octets), builder.trunc(value, octets)
        with builder.if_else(builder.icmp_signed(">=", lanes_, lanes_.type(x.lanes))) as (then, otherwise):
            with then:
                builder.store(value, place).align = 1
            with otherwise:
                kind = ir.FunctionType(ir.VoidType(), [octets, place.type, ir.IntType(32), masks])
                name = f"llvm.masked.store.v{x.lanes}i8.p0"
                write = cgutils.get_or_insert_function(builder.module, kind, name)
                builder.call(write, [value, place, ir.IntType(32)(1), simd._mask(builder, lanes_)])
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp), codegen
