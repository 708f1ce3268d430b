"""Say early what will be read: then it is there when it is wanted.

A processor guesses what a loop will read next and fetches it, but its guess ends with the page, every 4 KB. A loop that
writes nothing and adds up what it reads then waits and adds in turns; asked two pages in advance it does both at once.
Loops that write as much as they read gain nothing from that: they wait for the writing. A matrix product reads one part
of a factor again and again before it goes on to the next, and can ask for that meanwhile. What another core has read
since it was last written can be written to only when that core has let go of it; asked for early, it has by then.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tinyqnn.kernels import simd
from tinyqnn.kernels.jit import jit

__all__ = ["ahead", "ahead_of_writing", "ask", "ask_far"]

_DISTANCE = 2048  # numbers: two pages of float32
_LINE = 16  # of them fill a cache line


@intrinsic(prefer_literal=True)
def _fetch(typingctx: Any, x: Any, i: Any, to_write: Any, nearness: Any) -> Any:
    """Have the cache line of `x[i]` brought to the nearest cache (nearness 3) or to the next (2); there need be none.

    to_write   1 if it will be written to
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = simd._at(builder, simd._data(context, builder, sig.args[0], args[0]), args[1])
        address = builder.bitcast(place, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [address, number(to_write.literal_value), number(nearness.literal_value), number(1)])
        return context.get_dummy_value()

    return types.void(x, types.intp, to_write, nearness), codegen


@jit(inner=True)
def ask(x, first, last):
    """Soon to read `x[first:last]`, float32."""
    for i in range(first, last, _LINE):
        _fetch(x, i, 0, 3)


@jit(inner=True)
def ask_far(x, first, last):
    """Not so soon to read `x[first:last]`, which would drive from the nearest cache what is read until then."""
    for i in range(first, last, _LINE):
        _fetch(x, i, 0, 2)


@jit(inner=True)
def ahead(x, first, last):
    """About to read `x[first:last]`, float32: ask for what comes a little later."""
    ask(x, first + _DISTANCE, last + _DISTANCE)


@jit(inner=True)
def ahead_of_writing(x, first, last):
    """Soon to write to `x[first:last]`, float32: have other cores let go of it."""
    for i in range(first, last, _LINE):
        _fetch(x, i, 1, 3)
