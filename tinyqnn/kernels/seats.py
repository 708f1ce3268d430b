"""What threads share: numbers that change in one step, so that nobody can come between, and what they mean.

A *job* is a loop that threads share. It has a number on a cache line of its own for each range of its items, how many
of them are taken, and one for how many items of all are done. A *seat* is one thread's place at it. Both are vectors of
int64; the words below say what is in them.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = [
    "AT", "COMING", "COUNT", "DONE", "HOLD", "ITEMS", "JOB", "LINE", "LOOP", "MINE", "NUMBER", "PATIENCE", "RANGE",
    "RANGES", "SEAT", "SIZE", "add", "look", "part", "pause", "put", "whole_numbers",
]  # fmt: skip

# In a seat: addresses of the numbers of the job and of the one to come (0 for the caller, and at a board), how often to
# look, items, those this thread took, its range now, and how many ranges, a helper's board, and the thread's number.
JOB, COMING, PATIENCE, ITEMS, MINE, RANGE, COUNT, AT, NUMBER = range(9)
SEAT = 9
LINE = 16  # numbers: two cache lines, for a processor fetches them in pairs
DONE, HOLD = 0, 1  # in a job, and then a line for each range; HOLD: how long helpers wait when it has begun
RANGES = 8  # at most
LOOP = LINE * (1 + RANGES)
SIZE = 2 * LOOP  # a second loop has numbers of its own, see `turns.again`
_I64 = ir.IntType(64)
_IS_X86 = binding.get_process_triple().startswith(("x86_64", "i686"))


def _at(builder: Any, args: Any) -> Any:
    """A pointer to number `args[1]` behind the address `args[0]`."""
    return builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])


@intrinsic
def add(typingctx: Any, address: Any, place: Any, number: Any) -> Any:
    """Add to number `place` behind `address`, in one step that nobody can come between; returns what it was."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _at(builder, args), args[2], "seq_cst")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def look(typingctx: Any, address: Any, place: Any) -> Any:
    """What number `place` behind `address` is by now."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_at(builder, args), "seq_cst", 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put(typingctx: Any, address: Any, place: Any, number: Any) -> Any:
    """Make number `place` behind `address` another, for all to see, and after all that was written before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _at(builder, args), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Nothing, for some tens of nanoseconds; a processor that is told so keeps cool."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if _IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(types.int64)(types.int64), codegen


def part(function: Any) -> Any:
    """Compile what kernels alone call: without entrances for others."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)


@part
def whole_numbers(address, size):
    """The `size` numbers from an address on."""
    return numba.carray(_pointer(address), (size,))
