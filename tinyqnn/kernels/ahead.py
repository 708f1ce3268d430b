"""Say early what will be read: then it is there when it is wanted.

A processor guesses what a loop will read next and fetches it, but its guess ends with the page, every 4 KB. A loop that
writes nothing and adds up what it reads then waits and adds in turns; asked two pages in advance it does both at once.
Loops that write as much as they read gain nothing: they wait for the writing.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tinyqnn.kernels import simd
from tinyqnn.kernels.jit import jit

__all__ = ["ahead"]

_DISTANCE = 2048  # numbers: two pages of float32
_LINE = 16  # of them fill a cache line


@intrinsic
def _fetch(typingctx: Any, x: Any, i: Any) -> Any:
    """Have the cache line of `x[i]` brought near; there need be no such element."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = simd._at(builder, simd._data(context, builder, sig.args[0], args[0]), args[1])
        address = builder.bitcast(place, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [address, number(0), number(3), number(1)])  # to read; into the nearest cache; data
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@jit(inner=True)
def ahead(x, first, last):
    """About to read `x[first:last]`, float32: ask for what comes a little later."""
    for i in range(first + _DISTANCE, last + _DISTANCE, _LINE):
        _fetch(x, i)
