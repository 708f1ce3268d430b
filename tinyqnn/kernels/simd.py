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

import operator
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_jitable, register_model

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
    "outer_lines",
    "scaled",
    "splat",
    "spread_row",
    "store",
    "store_tile",
    "transpose",
    "whole_vectors",
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


@register_jitable
def whole_vectors(n: int) -> int:
    """The smallest number of whole vectors' lanes that `n` numbers fit in.

    >>> whole_vectors(1) == LANES, whole_vectors(2 * LANES) == 2 * LANES
    (True, True)
    """
    return -(-n // LANES) * LANES


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


def _add_outer(context: Any, builder: Any, sig: Any, args: Any, place: Callable[[int], list[Any]]) -> Any:
    """A column times a row, added to the tile; `place(r)` adds up to where the column's number r is."""
    tile, acc_, j_ = sig.args[0], args[0], args[5]
    a_ = _data(context, builder, sig.args[1], args[1])
    b_ = _data(context, builder, sig.args[4], args[4])
    row = [_load(builder, _at(builder, b_, j_, n * LANES)) for n in range(tile.cols)]
    for r in range(tile.rows):
        value = _splat(builder, builder.load(_at(builder, a_, *place(r))))
        for n in range(tile.cols):
            k = r * tile.cols + n
            acc_ = builder.insert_value(acc_, _fma(builder, value, row[n], builder.extract_value(acc_, k)), k)
    return acc_


@intrinsic
def outer(typingctx: Any, acc: Any, a: Any, rows: Any, i: Any, b: Any, j: Any) -> Any:
    """`acc[r][n] + a[rows[r] + i] · b[j + n·LANES : …]`: one step of every product, a column times a row.

    `rows` is a tuple from `offsets`; as a plain integer it is the first of neighbours, `rows + r`.
    """
    neighbours = isinstance(rows, types.Integer)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def place(r: int) -> list[Any]:
            return [args[2], args[3], r] if neighbours else [builder.extract_value(args[2], r), args[3]]

        return _add_outer(context, builder, sig, args, place)

    return acc(acc, a, types.intp if neighbours else rows, types.intp, b, types.intp), codegen


@intrinsic
def outer_lines(typingctx: Any, acc: Any, a: Any, first: Any, i: Any, b: Any, j: Any) -> Any:
    """`outer` for rows that are LANES numbers apart, `first + r·LANES`: one address serves them all."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _add_outer(context, builder, sig, args, lambda r: [args[2], args[3], r * LANES])

    return acc(acc, a, types.intp, types.intp, b, types.intp), codegen


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
def rectified(typingctx: Any, acc: Any) -> Any:
    """The larger of each number of the tile and 0; NaN stays NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        acc_, zero = args[0], ir.Constant(_VECTOR, [0.0] * LANES)
        for k in range(acc.rows * acc.cols):
            x = builder.extract_value(acc_, k)
            acc_ = builder.insert_value(acc_, builder.select(builder.fcmp_ordered("<=", x, zero), zero, x), k)
        return acc_

    return acc(acc), codegen


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


class IntVector(types.Type):
    """One register of whole numbers: LANES // 2 words of 64 bits, LANES numbers of 32, or 2 · LANES of 16.

    Compiled code writes `a ^ b`, `a & b`, `a | b`, `a + b`, `a - b`, `a << n`; all wrap around as the processor does.
    """

    def __init__(self, bits: int) -> None:
        self.bits, self.lanes = bits, 32 * LANES // bits
        self.llvm = ir.VectorType(ir.IntType(bits), self.lanes)
        super().__init__(f"IntVector({bits}, {self.lanes})")


class IntTile(types.Type):
    """`rows` × `cols` integer vectors."""

    def __init__(self, rows: int, cols: int, element: IntVector) -> None:
        self.rows, self.cols, self.element = rows, cols, element
        super().__init__(f"IntTile({rows}, {cols}, {element.name})")


@register_model(IntVector)
class _IntVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)


@register_model(IntTile)
class _IntTileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.ArrayType(fe_type.element.llvm, fe_type.rows * fe_type.cols))


WORDS = LANES // 2
words, ints, shorts = IntVector(64), IntVector(32), IntVector(16)
HAS_POPCOUNT = "avx512vpopcntdq" in _FEATURES or "neon" in _FEATURES  # of whole vectors
HAS_BYTE_DOT = ("avx512vnni" in _FEATURES and LANES == 16) or ("avxvnni" in _FEATURES and LANES == 8)
_X86 = binding.get_process_triple().startswith(("x86_64", "i686"))
_PAIR_DOTS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_PAIR_DOT = _PAIR_DOTS[LANES] if _X86 and (LANES < 16 or "avx512bw" in _FEATURES) else ""
HAS_TERNARY_LOGIC = LANES == 16
HAS_LOOK_UP = LANES == 16 and "avx512bw" in _FEATURES  # of 64 bytes at once


def _element(array_type: Any) -> IntVector:
    """The vector that holds an integer array's numbers."""
    return words if array_type.dtype.bitwidth == 64 else ints


def _int_splat(builder: Any, kind: IntVector, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind.llvm, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        one, ir.Constant(kind.llvm, ir.Undefined), ir.Constant(ir.VectorType(_I32, kind.lanes), None)
    )


def _constant(kind: IntVector, number: int) -> Any:
    return ir.Constant(kind.llvm, [number] * kind.lanes)


def _int_load(builder: Any, kind: IntVector, address: Any) -> Any:
    value = builder.load(builder.bitcast(address, kind.llvm.as_pointer()))
    value.align = 4
    return value


def _operator(function: Any, name: str) -> None:
    """`a (+) b` for two vectors, or two tiles, of one type."""

    @intrinsic
    def word(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            emit = getattr(builder, name)
            if isinstance(a, IntVector):
                return emit(*args)
            result = args[0]
            for k in range(a.rows * a.cols):
                result = builder.insert_value(result, emit(*(builder.extract_value(arg, k) for arg in args)), k)
            return result

        return a(a, a), codegen

    @overload(function)
    def choose(a, b):
        if isinstance(a, (IntVector, IntTile)) and a == b:
            return lambda a, b: word(a, b)
        return None


_operator(operator.xor, "xor")
_operator(operator.and_, "and_")
_operator(operator.or_, "or_")
_operator(operator.add, "add")
_operator(operator.sub, "sub")
_operator(operator.lshift, "shl")


@intrinsic
def int_load(typingctx: Any, a: Any, i: Any) -> Any:
    """`a[i : i + lanes]` as an integer vector: 64-bit numbers as words, 32-bit ones as ints."""
    kind = _element(a)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _int_load(builder, kind, _at(builder, _data(context, builder, sig.args[0], args[0]), args[1]))

    return kind(a, types.intp), codegen


@intrinsic
def int_store(typingctx: Any, x: Any, a: Any, i: Any) -> Any:
    """`a[i : i + lanes] = x`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[1], args[1]), args[2])
        builder.store(args[0], builder.bitcast(address, x.llvm.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(x, a, types.intp), codegen


@intrinsic
def int_splat(typingctx: Any, like: Any, x: Any) -> Any:
    """The number `x` in every lane of a vector of the type of `like`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = builder.trunc(args[1], ir.IntType(32)) if like.bits == 32 else args[1]
        return _int_splat(builder, like, number)

    return like(like, types.int64), codegen


@intrinsic
def popcount(typingctx: Any, x: Any) -> Any:
    """How many bits are set in each word: one instruction where the processor has it, else a table of nibbles."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if isinstance(x, types.Integer):
            return builder.ctpop(args[0])
        element = x.element if isinstance(x, IntTile) else x
        kind = ir.FunctionType(element.llvm, [element.llvm])
        count = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{element.lanes}i{element.bits}")
        if isinstance(x, IntVector):
            return builder.call(count, args)
        result = args[0]
        for k in range(x.rows * x.cols):
            result = builder.insert_value(result, builder.call(count, [builder.extract_value(args[0], k)]), k)
        return result

    return x(x), codegen


@intrinsic
def carry_save(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """`a + b + c` of single bits: (those that count 1, those that count 2); with AVX-512 one instruction each."""

    def one(builder: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        if HAS_TERNARY_LOGIC:
            kind = ir.FunctionType(x.type, [x.type] * 3 + [_I32])
            logic = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pternlog.q.512")
            odd, majority = (ir.Constant(_I32, table) for table in (0x96, 0xE8))
            return builder.call(logic, [x, y, z, odd]), builder.call(logic, [x, y, z, majority])
        differ = builder.xor(x, y)
        return builder.xor(differ, z), builder.or_(builder.and_(x, y), builder.and_(differ, z))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, carries = args[0], args[0]
        for k in range(a.rows * a.cols):
            low, high = one(builder, *(builder.extract_value(arg, k) for arg in args))
            sums, carries = builder.insert_value(sums, low, k), builder.insert_value(carries, high, k)
        return context.make_tuple(builder, sig.return_type, [sums, carries])

    return types.UniTuple(a, 2)(a, a, a), codegen


@intrinsic
def dot_bytes(typingctx: Any, acc: Any, x: Any, y: Any) -> Any:
    """`acc + Σ x_i · y_i` over the four bytes i of each 32-bit number; those of x are unsigned, those of y signed.

    One instruction where the processor has it, else two products of 16-bit halves: even bytes and odd ones.
    """

    def pairs(builder: Any, x: Any, y: Any) -> Any:
        """`x_2i · y_2i + x_2i+1 · y_2i+1` of 16-bit numbers: one instruction on x86."""
        if _PAIR_DOT:
            kind = ir.FunctionType(ints.llvm, [shorts.llvm] * 2)
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, _PAIR_DOT), [x, y])
        total = None
        for first in (0, 1):
            places = ir.Constant(ir.VectorType(_I32, LANES), list(range(first, 2 * LANES, 2)))
            p, q = (builder.sext(builder.shuffle_vector(side, side, places), ints.llvm) for side in (x, y))
            product = builder.mul(p, q)
            total = product if total is None else builder.add(total, product)
        return total

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if HAS_BYTE_DOT:
            kind = ir.FunctionType(ints.llvm, [ints.llvm] * 3)
            name = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)
        x_, y_ = (builder.bitcast(arg, shorts.llvm) for arg in args[1:])
        eight = _constant(shorts, 8)
        even = pairs(builder, builder.and_(x_, _constant(shorts, 255)), builder.ashr(builder.shl(y_, eight), eight))
        odd = pairs(builder, builder.lshr(x_, eight), builder.ashr(y_, eight))
        return builder.add(args[0], builder.add(even, odd))

    return ints(ints, ints, ints), codegen


@intrinsic(prefer_literal=True)
def zeros(typingctx: Any, a: Any, rows: Any, cols: Any) -> Any:
    """A tile of zeros for sums over the numbers of array `a`: `rows` rows, or one for each entry of a tuple."""
    count = rows.count if isinstance(rows, types.UniTuple) else rows.literal_value
    tile = IntTile(count, cols.literal_value, _element(a))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(ir.ArrayType(tile.element.llvm, tile.rows * tile.cols), None)

    return tile(a, rows, cols), codegen


@intrinsic
def outer_with(typingctx: Any, step: Any, acc: Any, a: Any, rows: Any, i: Any, b: Any, j: Any) -> Any:
    """`acc[r][n] = step(acc[r][n], a[rows[r] + i], b[j + n·lanes : …])`: `outer` with any compiled step for the fma."""
    vector_, tile = acc.element, acc
    step_sig = typingctx.resolve_function_type(step, (vector_, vector_, vector_), {})

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call = context.get_function(step, step_sig)
        _, acc_, _, rows_, i_, _, j_ = args
        a_ = _data(context, builder, sig.args[2], args[2])
        b_ = _data(context, builder, sig.args[5], args[5])
        row = [_int_load(builder, vector_, _at(builder, b_, j_, n * vector_.lanes)) for n in range(tile.cols)]
        for r in range(tile.rows):
            value = builder.load(_at(builder, a_, builder.extract_value(rows_, r), i_))
            value = _int_splat(builder, vector_, value)
            for n in range(tile.cols):
                k = r * tile.cols + n
                result = call(builder, [builder.extract_value(acc_, k), value, row[n]])
                acc_ = builder.insert_value(acc_, result, k)
        return acc_

    return acc(step, acc, a, rows, types.intp, b, types.intp), codegen


@intrinsic
def carried(typingctx: Any, odd: Any, left: Any, ones: Any) -> Any:
    """Where `odd` has a 1 the opposite of `left`, elsewhere `ones`: the carry of three bits, see `count.py`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        odd_, left_, ones_ = args
        if HAS_TERNARY_LOGIC:
            name = f"llvm.x86.avx512.pternlog.{'q' if odd.bits == 64 else 'd'}.512"
            kind = ir.FunctionType(odd.llvm, [odd.llvm] * 3 + [_I32])
            logic = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(logic, [odd_, left_, ones_, ir.Constant(_I32, 0x3A)])
        return builder.or_(builder.and_(odd_, builder.not_(left_)), builder.and_(builder.not_(odd_), ones_))

    return odd(odd, odd, odd), codegen


@intrinsic
def outer_twice(typingctx: Any, step: Any, low: Any, high: Any, a: Any, rows: Any, i: Any, b: Any, j: Any) -> Any:
    """`outer_with` for the two halves k and k + 1 of a word: `low, high = step(low, high, a_k, b_k, a_k+1, b_k+1)`.

    a_k is the lower half of `a[rows[r] + i]`, 64 bits; b_k+1 stands behind the tile's width of b_k, 32 bits each.
    """
    vector_, tile = low.element, low
    step_sig = typingctx.resolve_function_type(step, (vector_,) * 6, {})

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call = context.get_function(step, step_sig)
        _, low_, high_, _, rows_, i_, _, j_ = args
        a_ = _data(context, builder, sig.args[3], args[3])
        b_ = _data(context, builder, sig.args[6], args[6])
        row = [_int_load(builder, vector_, _at(builder, b_, j_, n * vector_.lanes)) for n in range(2 * tile.cols)]
        for r in range(tile.rows):
            place = builder.bitcast(_at(builder, a_, builder.extract_value(rows_, r), i_), _I32.as_pointer())
            first, second = (_int_splat(builder, vector_, builder.load(_at(builder, place, half))) for half in (0, 1))
            for n in range(tile.cols):
                k = r * tile.cols + n
                sums = [builder.extract_value(low_, k), builder.extract_value(high_, k)]
                pair = call(builder, [*sums, first, row[n], second, row[tile.cols + n]])
                low_ = builder.insert_value(low_, builder.extract_value(pair, 0), k)
                high_ = builder.insert_value(high_, builder.extract_value(pair, 1), k)
        return context.make_tuple(builder, sig.return_type, [low_, high_])

    result = types.UniTuple(low, 2)
    return result(step, low, high, a, rows, types.intp, b, types.intp), codegen


@intrinsic
def apply(typingctx: Any, step: Any, acc: Any, number: Any) -> Any:
    """`acc[r][n] = step(acc[r][n], number)`, the number in every lane."""
    vector_, tile = acc.element, acc
    step_sig = typingctx.resolve_function_type(step, (vector_, vector_), {})

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call = context.get_function(step, step_sig)
        acc_ = args[1]
        scalar = builder.trunc(args[2], ir.IntType(vector_.bits)) if vector_.bits < 64 else args[2]
        value = _int_splat(builder, vector_, scalar)
        for k in range(tile.rows * tile.cols):
            acc_ = builder.insert_value(acc_, call(builder, [builder.extract_value(acc_, k), value]), k)
        return acc_

    return acc(step, acc, types.int64), codegen


def _at_lanes(builder: Any, base: Any, place: Any, lanes: Any, kind: IntVector) -> tuple[Any, Any, Any]:
    """Address of a row's int32 numbers, and the mask and type of those that exist."""
    narrow = ir.VectorType(_I32, kind.lanes)
    counts = builder.insert_element(ir.Constant(narrow, ir.Undefined), builder.trunc(lanes, _I32), ir.Constant(_I32, 0))
    counts = builder.shuffle_vector(counts, ir.Constant(narrow, ir.Undefined), ir.Constant(narrow, None))
    mask = builder.icmp_signed("<", ir.Constant(narrow, list(range(kind.lanes))), counts)
    return builder.bitcast(_at(builder, base, place), narrow.as_pointer()), mask, narrow


@intrinsic
def put_tile(
    typingctx: Any, acc: Any, y: Any, rows: Any, j: Any, lanes: Any, first: Any, start: Any, starts: Any, s: Any
) -> Any:
    """`y[rows[r] + j + lane] = acc[r][lane] + before`, as int32, for at most `lanes` lanes of a row.

    `before` is `start[starts[r] + s + lane]` the first time, and what y held later.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile, kind = sig.args[0], sig.args[0].element
        acc_, _, rows_, j_, lanes_, first_, _, starts_, s_ = args
        base = _data(context, builder, sig.args[1], args[1])
        before = builder.select(first_, _data(context, builder, sig.args[6], args[6]), base)
        size, align = f"v{kind.lanes}i32.p0", ir.Constant(_I32, 4)

        def write(masked: bool) -> None:
            sums = []  # all are read before the first is written: the last rows of a tile may be one and the same
            for r in range(tile.rows):
                place = builder.add(builder.extract_value(rows_, r), j_)
                source = builder.select(first_, builder.add(builder.extract_value(starts_, r), s_), place)
                for n in range(tile.cols):
                    step = ir.Constant(lanes_.type, n * kind.lanes)
                    value, left = builder.extract_value(acc_, r * tile.cols + n), builder.sub(lanes_, step)
                    old_at, mask, narrow = _at_lanes(builder, before, builder.add(source, step), left, kind)
                    new_at, _, _ = _at_lanes(builder, base, builder.add(place, step), left, kind)
                    if kind.bits == 64:
                        value = builder.trunc(value, narrow)
                    if masked:
                        get = ir.FunctionType(narrow, [old_at.type, _I32, mask.type, narrow])
                        load_ = cgutils.get_or_insert_function(builder.module, get, f"llvm.masked.load.{size}")
                        old = builder.call(load_, [old_at, align, mask, ir.Constant(narrow, None)])
                    else:
                        old = builder.load(old_at)
                        old.align = 4
                    sums.append((builder.add(value, old), new_at, mask))
            for value, address, mask in sums:
                if masked:
                    put = ir.FunctionType(ir.VoidType(), [value.type, address.type, _I32, mask.type])
                    store_ = cgutils.get_or_insert_function(builder.module, put, f"llvm.masked.store.{size}")
                    builder.call(store_, [value, address, align, mask])
                else:
                    builder.store(value, address).align = 4

        full = builder.icmp_signed(">=", lanes_, ir.Constant(lanes_.type, tile.cols * kind.lanes))
        with builder.if_else(full) as (then, otherwise):
            with then:
                write(False)
            with otherwise:
                write(True)
        return context.get_dummy_value()

    return types.void(acc, y, rows, types.intp, types.intp, types.boolean, start, starts, types.intp), codegen


@intrinsic
def add_to_rows(typingctx: Any, acc: Any, numbers: Any, i: Any, last: Any) -> Any:
    """`acc[r][lane] + numbers[i + r]`; from entry `last` on that entry is repeated."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        acc_, _, i_, last_ = args
        base = _data(context, builder, sig.args[1], args[1])
        for r in range(acc.rows):
            place = builder.add(i_, ir.Constant(i_.type, r))
            place = builder.select(builder.icmp_signed("<", place, last_), place, last_)
            number = builder.load(_at(builder, base, place))
            if acc.element.bits < 64:
                number = builder.trunc(number, ir.IntType(acc.element.bits))
            number = _int_splat(builder, acc.element, number)
            for k in range(r * acc.cols, (r + 1) * acc.cols):
                acc_ = builder.insert_value(acc_, builder.add(builder.extract_value(acc_, k), number), k)
        return acc_

    return acc(acc, numbers, types.intp, types.intp), codegen


@intrinsic
def at(typingctx: Any, a: Any, i: Any) -> Any:
    """`a[i]` for i from 0: a plain index is first asked whether it is negative."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_at(builder, _data(context, builder, sig.args[0], args[0]), args[1]))

    return a.dtype(a, types.intp), codegen


@intrinsic(prefer_literal=True)
def cyclic(typingctx: Any, i: Any, last: Any, size: Any, step: Any, rows: Any) -> Any:
    """`(i mod size · step, (i + 1) mod size · step, …)`, `rows` of them; from number `last` on that one is repeated."""
    result = types.UniTuple(types.intp, rows.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i_, last_, size_, step_, _ = args
        one = builder.icmp_signed("==", size_, ir.Constant(size_.type, 1))
        zero, values = ir.Constant(i_.type, 0), []
        with builder.if_else(one) as (then, otherwise):
            with then:
                from_one = builder.block
            with otherwise:
                for r in range(result.count):
                    place = builder.add(i_, ir.Constant(i_.type, r))
                    place = builder.select(builder.icmp_signed("<", place, last_), place, last_)
                    values.append(builder.mul(builder.srem(place, size_), step_))
                from_many = builder.block
        found = []
        for value in values:
            phi = builder.phi(i_.type)
            phi.add_incoming(zero, from_one)
            phi.add_incoming(value, from_many)
            found.append(phi)
        return cgutils.pack_array(builder, found)

    return result(types.intp, types.intp, types.intp, types.intp, rows), codegen


@intrinsic
def test_bits(typingctx: Any, a: Any, i: Any, bit: Any) -> Any:
    """Bit number `bit` of each of the 64 integers `a[i : i + 64]`, as one word, the first in the lowest place."""
    number = ir.IntType(a.dtype.bitwidth)
    row = ir.VectorType(number, 64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        value = builder.load(builder.bitcast(address, row.as_pointer()))
        value.align = 1
        place = builder.trunc(args[2], number) if number.width < 64 else args[2]
        mask = builder.shl(ir.Constant(number, 1), place)
        mask = builder.insert_element(ir.Constant(row, ir.Undefined), mask, ir.Constant(_I32, 0))
        mask = builder.shuffle_vector(mask, ir.Constant(row, ir.Undefined), ir.Constant(ir.VectorType(_I32, 64), None))
        found = builder.icmp_unsigned("!=", builder.and_(value, mask), ir.Constant(row, None))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(a, types.intp, types.intp), codegen


@intrinsic
def are_signs(typingctx: Any, a: Any, i: Any) -> Any:
    """Which of the 64 numbers `a[i : i + 64]` are 1 or −1, as one word, the first in the lowest place."""
    real = isinstance(a.dtype, types.Float)
    number = _FLOAT if real else ir.IntType(a.dtype.bitwidth)
    row = ir.VectorType(number, 64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        value = builder.load(builder.bitcast(address, row.as_pointer()))
        value.align = 1
        name, rest = ("llvm.fabs.v64f32", []) if real else (f"llvm.abs.v64i{number.width}", [ir.IntType(1)(0)])
        kind = ir.FunctionType(row, [row, *(r.type for r in rest)])
        size = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [value, *rest])
        equal = builder.fcmp_ordered if real else builder.icmp_signed
        return builder.bitcast(equal("==", size, ir.Constant(row, [1.0 if real else 1] * 64)), ir.IntType(64))

    return types.uint64(a, types.intp), codegen


@intrinsic
def negatives(typingctx: Any, a: Any, i: Any) -> Any:
    """Which of the 64 numbers `a[i : i + 64]` are below 0, as one word, the first in the lowest place."""
    real = isinstance(a.dtype, types.Float)
    row = ir.VectorType(_FLOAT if real else ir.IntType(a.dtype.bitwidth), 64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        value = builder.load(builder.bitcast(address, row.as_pointer()))
        value.align = 1
        below = builder.fcmp_ordered if real else builder.icmp_signed
        return builder.bitcast(below("<", value, ir.Constant(row, None)), ir.IntType(64))

    return types.uint64(a, types.intp), codegen


@intrinsic
def byte_pairs(typingctx: Any, a: Any, i: Any) -> Any:
    """The bytes `a[i : i + 4·LANES]` as numbers of 16 bits, of two neighbours each, the first one lower."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        value = builder.load(builder.bitcast(address, shorts.llvm.as_pointer()))
        value.align = 1
        return value

    return shorts(a, types.intp), codegen


@intrinsic
def upper_bytes(typingctx: Any, x: Any) -> Any:
    """`x >> 8`: the second byte of each pair, from 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.lshr(args[0], _constant(shorts, 8))

    return x(x), codegen


@intrinsic
def upper_off(typingctx: Any, x: Any, upper: Any) -> Any:
    """`x − 256 · upper`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sub(args[0], builder.shl(args[1], _constant(shorts, 8)))

    return x(x, x), codegen


@intrinsic
def add_shifted(typingctx: Any, total: Any, i: Any, x: Any, shift: Any) -> Any:
    """`total[i : i + 2·LANES] += x << shift`, in 32 bits."""
    wide = ir.VectorType(_I32, shorts.lanes)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _at(builder, _data(context, builder, sig.args[0], args[0]), args[1])
        address = builder.bitcast(address, wide.as_pointer())
        before = builder.load(address)
        before.align = 4
        one = builder.insert_element(
            ir.Constant(wide, ir.Undefined), builder.trunc(args[3], _I32), ir.Constant(_I32, 0)
        )
        splat_ = builder.shuffle_vector(one, ir.Constant(wide, ir.Undefined), ir.Constant(wide, None))
        value = builder.add(before, builder.shl(builder.sext(args[2], wide), splat_))
        builder.store(value, address).align = 4
        return context.get_dummy_value()

    return types.void(total, types.intp, x, types.intp), codegen


@intrinsic
def add_picked(typingctx: Any, acc: Any, table: Any, i: Any, w: Any, place: Any) -> Any:
    """`acc + table[i + weight]` for the 4-bit weights at bit `place` of each number of w, 32-bit lanes.

    The table holds what a number x times each of sixteen weights is: x << s for the weights 0 … 7, where s is 0, 2, 3,
    … 8, and minus that for 8 … 15. AVX-512 keeps it in one register; elsewhere each lane shifts x = table[i].
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        acc_, _, i_, w_, place_ = args
        address = _at(builder, _data(context, builder, sig.args[1], args[1]), i_)
        weight = builder.lshr(w_, _int_splat(builder, ints, builder.trunc(place_, _I32)))
        if LANES == 16:
            kind = ir.FunctionType(ints.llvm, [ints.llvm] * 2)
            pick = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.si.512")
            return builder.add(acc_, builder.call(pick, [_int_load(builder, ints, address), weight]))
        x, n = _int_splat(builder, ints, builder.load(address)), builder.and_(weight, _constant(ints, 7))
        doubled = builder.select(builder.icmp_unsigned("==", n, _constant(ints, 0)), x, builder.add(x, x))
        product = builder.shl(doubled, n)
        negative = builder.icmp_unsigned("!=", builder.and_(weight, _constant(ints, 8)), _constant(ints, 0))
        return builder.select(negative, builder.sub(acc_, product), builder.add(acc_, product))

    return acc(acc, table, types.intp, w, types.intp), codegen


@intrinsic
def nibbles(typingctx: Any, w: Any, place: Any) -> Any:
    """With place 0 the lower half of every byte, with place 4 the upper one; the other half becomes 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shifted = builder.lshr(args[0], _int_splat(builder, w, builder.trunc(args[1], _I32)))
        return builder.and_(shifted, _constant(w, 0x0F0F0F0F))

    return w(w, types.intp), codegen


@intrinsic
def look_up(typingctx: Any, table: Any, places: Any) -> Any:
    """`table[place]` for every byte, 0 … 15, of `places`; a table is sixteen bytes, in each quarter of a register."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        octets = ir.VectorType(ir.IntType(8), 4 * LANES)
        kind = ir.FunctionType(octets, [octets] * 2)
        shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.pshuf.b.512")
        return builder.bitcast(builder.call(shuffle, [builder.bitcast(arg, octets) for arg in args]), ints.llvm)

    return ints(ints, ints), codegen
