"""Vectors by hand: a few words that let a compiled loop say which numbers sit side by side in a register.

Numba's compiler vectorises simple loops by itself, but not the one that matters most: a small tile of the result, held
in registers, to which each step adds a column times a row,

    acc[r, n·LANES + lane] += a[rows[r] + i] · b[j + n·LANES + lane]        lane = 0 … LANES - 1

With `rows · n` accumulators every number loaded is used several times, and the processor's multipliers never wait.
The words are Numba intrinsics that emit LLVM vectors; LLVM turns them into AVX-512, AVX2, NEON or plain scalars. In a
kernel they read as the loop they are:

    acc = load_tile(y, y_rows, j, n, lanes)
    for k in range(depth):
        acc = outer(acc, a, rows, i + k, b, k * width)
    store_tile(acc, y, y_rows, j, lanes)

Offsets count elements from an array's first one; nothing is checked. The words exist in compiled code alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "REGISTERS",
    "copy",
    "fma",
    "load",
    "load_tile",
    "multiples",
    "offsets",
    "outer",
    "scaled",
    "splat",
    "spread_row",
    "store",
    "store_tile",
    "transpose",
]


def _features() -> set[str]:
    """What the processor that Numba compiles for can do; NUMBA_CPU_NAME and NUMBA_CPU_FEATURES can hide some of it."""
    asked, name = getattr(numba.config, "CPU_FEATURES", None), getattr(numba.config, "CPU_NAME", None)
    if asked is not None:
        return {feature[1:] for feature in asked.split(",") if feature.startswith("+")}
    if name == "generic":
        return set()
    return {name for name, has in binding.get_host_cpu_features().items() if has}


_FEATURES = _features()
# Vector registers: 32 of 16 lanes (AVX-512), 16 of 8 (AVX2), 32 of 4 (NEON), 16 of 4 (SSE).
LANES = 16 if "avx512f" in _FEATURES else 8 if "avx2" in _FEATURES else 4
REGISTERS = 32 if LANES == 16 or "neon" in _FEATURES else 16

_FLOAT = ir.FloatType()
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_CONTRACT = ("contract",)  # a·b + c may be one rounding where the processor has fused multiply-add


class Vector(types.Type):
    """LANES float32 numbers in one register."""

    def __init__(self) -> None:
        super().__init__(f"Vector({LANES})")


class Tile(types.Type):
    """`rows` × `cols` vectors, in registers as long as they fit."""

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        super().__init__(f"Tile({rows}, {cols}, {LANES})")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.ArrayType(_VECTOR, fe_type.rows * fe_type.cols))


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """The address of an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def _at(builder: Any, base: Any, *indices: Any) -> Any:
    """The address `base + Σ indices`, in elements."""
    for index in indices:
        base = builder.gep(base, [ir.Constant(ir.IntType(64), index) if isinstance(index, int) else index])
    return base


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_I32, 0))
    first_everywhere = ir.Constant(ir.VectorType(_I32, LANES), None)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), first_everywhere)


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(z, builder.fmul(x, y, flags=_CONTRACT), flags=_CONTRACT)


def _mask(builder: Any, lanes: Any) -> Any:
    """True in the first `lanes` lanes."""
    i32s = ir.VectorType(_I32, LANES)
    counts = builder.insert_element(ir.Constant(i32s, ir.Undefined), builder.trunc(lanes, _I32), ir.Constant(_I32, 0))
    counts = builder.shuffle_vector(counts, ir.Constant(i32s, ir.Undefined), ir.Constant(i32s, None))
    return builder.icmp_signed("<", ir.Constant(i32s, list(range(LANES))), counts)


_MASKS = ir.VectorType(ir.IntType(1), LANES)


def _load(builder: Any, address: Any, lanes: Any = None) -> Any:
    """Load all lanes, or the first `lanes` of them and zeros."""
    address = builder.bitcast(address, _VECTOR.as_pointer())
    if lanes is None:
        value = builder.load(address)
        value.align = 4
        return value
    kind = ir.FunctionType(_VECTOR, [address.type, _I32, _MASKS, _VECTOR])
    masked = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    return builder.call(masked, [address, ir.Constant(_I32, 4), _mask(builder, lanes), ir.Constant(_VECTOR, None)])


def _store(builder: Any, value: Any, address: Any, lanes: Any = None) -> None:
    """Store all lanes, or the first `lanes` of them."""
    address = builder.bitcast(address, _VECTOR.as_pointer())
    if lanes is None:
        builder.store(value, address).align = 4
        return
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, address.type, _I32, _MASKS])
    masked = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(masked, [value, address, ir.Constant(_I32, 4), _mask(builder, lanes)])


def _full_or_masked(builder: Any, lanes: Any, cols: int, emit: Callable[[bool], Any]) -> Any:
    """`emit(False)` where all of cols·LANES lanes are wanted, else `emit(True)`."""
    full = builder.icmp_signed(">=", lanes, ir.Constant(lanes.type, cols * LANES))
    values = []
    with builder.if_else(full) as (then, otherwise):
        with then:
            values.append((emit(False), builder.block))
        with otherwise:
            values.append((emit(True), builder.block))
    if values[0][0] is None:
        return None
    phi = builder.phi(values[0][0].type)
    for value, block in values:
        phi.add_incoming(value, block)
    return phi


@intrinsic
def load(typingctx: Any, a: Any, i: Any, lanes: Any) -> Any:
    """`a[i : i + lanes]` as a vector, at most LANES lanes; the others are 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        return _full_or_masked(builder, args[2], 1, lambda masked: _load(builder, address, args[2] if masked else None))

    return vector(a, types.intp, types.intp), codegen


@intrinsic
def splat(typingctx: Any, x: Any) -> Any:
    """The number `x` in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return vector(types.float32), codegen


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """`x · y + z`, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fma(builder, *args)

    return vector(vector, vector, vector), codegen


@intrinsic
def store(typingctx: Any, x: Any, a: Any, i: Any, lanes: Any) -> Any:
    """`a[i : i + lanes] = x`, with at most LANES lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[1], args[1]), args[2])

        def one(masked: bool) -> None:
            _store(builder, args[0], address, args[3] if masked else None)

        _full_or_masked(builder, args[3], 1, one)
        return context.get_dummy_value()

    return types.void(vector, a, types.intp, types.intp), codegen


@intrinsic
def copy(typingctx: Any, y: Any, j: Any, x: Any, i: Any, count: Any) -> Any:
    """`y[j : j + count] = x[i : i + count]` for two arrays of one type that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        source = _at(builder, _data(context, builder, sig.args[2], args[2]), args[3])
        itemsize = context.get_abi_sizeof(context.get_data_type(sig.args[0].dtype))
        cgutils.raw_memcpy(builder, target, source, args[4], itemsize)
        return context.get_dummy_value()

    return types.void(y, types.intp, x, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def offsets(typingctx: Any, table: Any, first: Any, last: Any, rows: Any) -> Any:
    """`table[first : first + rows]` as a tuple; from entry `last` on that entry is repeated."""
    result = types.UniTuple(types.intp, rows.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, values = _data(context, builder, sig.args[0], args[0]), []
        for r in range(result.count):
            i = builder.add(args[1], ir.Constant(args[1].type, r))
            i = builder.select(builder.icmp_signed("<", i, args[2]), i, args[2])
            values.append(builder.load(_at(builder, base, i)))
        return cgutils.pack_array(builder, values)

    return result(table, types.intp, types.intp, rows), codegen


@intrinsic(prefer_literal=True)
def multiples(typingctx: Any, step: Any, last: Any, rows: Any) -> Any:
    """`(0, step, 2·step, …)`, `rows` of them; from number `last` on that one is repeated."""
    result = types.UniTuple(types.intp, rows.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = []
        for r in range(result.count):
            i = ir.Constant(args[1].type, r)
            i = builder.select(builder.icmp_signed("<", i, args[1]), i, args[1])
            values.append(builder.mul(i, args[0]))
        return cgutils.pack_array(builder, values)

    return result(types.intp, types.intp, rows), codegen


@intrinsic
def transpose(typingctx: Any, acc: Any) -> Any:
    """Rows to columns of a tile of LANES × 1 vectors: log2 LANES times, the two halves are interleaved."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        half = LANES // 2
        lanes = ir.VectorType(_I32, LANES)
        merge = [ir.Constant(lanes, [k + i // 2 + i % 2 * LANES for i in range(LANES)]) for k in (0, half)]
        rows = [builder.extract_value(args[0], r) for r in range(LANES)]
        for _ in range(LANES.bit_length() - 1):
            rows = [builder.shuffle_vector(rows[r // 2], rows[r // 2 + half], merge[r % 2]) for r in range(LANES)]
        acc_ = args[0]
        for r, row in enumerate(rows):
            acc_ = builder.insert_value(acc_, row, r)
        return acc_

    return acc(acc), codegen


@intrinsic(prefer_literal=True)
def spread_row(typingctx: Any, a: Any, i: Any, rows: Any, cols: Any, lanes: Any) -> Any:
    """`acc[r] = a[i : i + lanes]` for every row of the tile."""
    tile = Tile(rows.literal_value, cols.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, lanes_ = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1]), args[4]
        acc = ir.Constant(ir.ArrayType(_VECTOR, tile.rows * tile.cols), ir.Undefined)
        for n in range(tile.cols):
            left = builder.sub(lanes_, ir.Constant(lanes_.type, n * LANES))
            value = _load(builder, _at(builder, base, n * LANES), left)
            for r in range(tile.rows):
                acc = builder.insert_value(acc, value, r * tile.cols + n)
        return acc

    return tile(a, types.intp, rows, cols, types.intp), codegen


@intrinsic(prefer_literal=True)
def load_tile(typingctx: Any, a: Any, rows: Any, i: Any, cols: Any, lanes: Any) -> Any:
    """`acc[r] = a[rows[r] + i : … + lanes]`, len(rows) × cols vectors; the lanes that are not loaded are 0."""
    tile = Tile(rows.count, cols.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, lanes_ = _at(builder, _data(context, builder, sig.args[0], args[0]), args[2]), args[4]

        def all_rows(masked: bool) -> Any:
            acc = ir.Constant(ir.ArrayType(_VECTOR, tile.rows * tile.cols), ir.Undefined)
            for r in range(tile.rows):
                for n in range(tile.cols):
                    left = builder.sub(lanes_, ir.Constant(lanes_.type, n * LANES)) if masked else None
                    address = _at(builder, base, builder.extract_value(args[1], r), n * LANES)
                    acc = builder.insert_value(acc, _load(builder, address, left), r * tile.cols + n)
            return acc

        return _full_or_masked(builder, lanes_, tile.cols, all_rows)

    return tile(a, rows, types.intp, cols, types.intp), codegen


@intrinsic
def outer(typingctx: Any, acc: Any, a: Any, rows: Any, i: Any, b: Any, j: Any) -> Any:
    """`acc[r][n] + a[rows[r] + i] · b[j + n·LANES : …]`: one step of every product, a column times a row.

    `rows` is a tuple from `offsets`; as a plain integer it is the first of neighbours, `rows + r`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, (acc_, _, rows_, i_, _, j_) = sig.args[0], args
        a_ = _data(context, builder, sig.args[1], args[1])
        b_ = _data(context, builder, sig.args[4], args[4])
        row = [_load(builder, _at(builder, b_, j_, n * LANES)) for n in range(tile.cols)]
        for r in range(tile.rows):
            place = [rows_, i_, r] if isinstance(rows, types.Integer) else [builder.extract_value(rows_, r), i_]
            value = _splat(builder, builder.load(_at(builder, a_, *place)))
            for n in range(tile.cols):
                k = r * tile.cols + n
                acc_ = builder.insert_value(acc_, _fma(builder, value, row[n], builder.extract_value(acc_, k)), k)
        return acc_

    return acc(acc, a, types.intp if isinstance(rows, types.Integer) else rows, types.intp, b, types.intp), codegen


@intrinsic
def scaled(typingctx: Any, acc: Any, a: Any, rows: Any, i: Any, x: Any, lanes: Any) -> Any:
    """`acc[r] + a[rows[r] + i : … + lanes] · x`, lane by lane, for a tile one vector wide."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        acc_, _, rows_, i_, x_, lanes_ = args
        base = _at(builder, _data(context, builder, sig.args[1], args[1]), i_)

        def all_rows(masked: bool) -> Any:
            out = acc_
            for r in range(sig.args[0].rows):
                value = _load(builder, _at(builder, base, builder.extract_value(rows_, r)), lanes_ if masked else None)
                out = builder.insert_value(out, _fma(builder, value, x_, builder.extract_value(out, r)), r)
            return out

        return _full_or_masked(builder, lanes_, 1, all_rows)

    return acc(acc, a, rows, types.intp, vector, types.intp), codegen


@intrinsic
def store_tile(typingctx: Any, acc: Any, y: Any, rows: Any, j: Any, lanes: Any) -> Any:
    """`y[rows[r] + j : … + lanes] = acc[r]`, at most cols·LANES lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, (acc_, _, rows_, j_, lanes_) = sig.args[0], args
        base = _at(builder, _data(context, builder, sig.args[1], args[1]), j_)

        def all_rows(masked: bool) -> None:
            for r in range(tile.rows):
                for n in range(tile.cols):
                    left = builder.sub(lanes_, ir.Constant(lanes_.type, n * LANES)) if masked else None
                    address = _at(builder, base, builder.extract_value(rows_, r), n * LANES)
                    _store(builder, builder.extract_value(acc_, r * tile.cols + n), address, left)

        _full_or_masked(builder, lanes_, tile.cols, all_rows)
        return context.get_dummy_value()

    return types.void(acc, y, rows, types.intp, types.intp), codegen
