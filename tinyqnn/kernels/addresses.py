"""Any number of arrays for one kernel: by their addresses.

Numba compiles a kernel anew for every number of arrays it is given, so one that takes a whole network's parameters gets
the address of a tuple instead. Python has to keep the tuple alive, and contiguous is all that the arrays may be.

    at = id(arrays)                       in Python, of a tuple
    p = objects_at(at, len(arrays))       in a kernel: where each array is
    x = numbers_at(p[i], n)               the first n float32 numbers of array i

An `id` is where an object is, and the one address that Python tells in no time. The object is a head, as every object
of Python has it, whose last word is its type. A tuple goes on with its length and ends with the addresses of what is in
it. An array goes on with words that tell where its numbers are, how many axes there are, where their lengths and their
strides stand, whose memory it is, the type of its numbers, and flags (NumPy's `PyArrayObject_fields`, which extensions
are compiled with and so never changes).
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from tinyqnn.kernels import use_reference

__all__ = ["PLAIN", "address", "axes", "fast", "length", "numbers_at", "objects_at", "plain", "writeable"]

FLOAT32 = np.dtype(np.float32)  # to compare with this takes half as long as with the type


def fast(*arrays: np.ndarray) -> bool:
    """Do the compiled loops serve, which want contiguous float32?

    >>> fast(np.zeros(3))
    False
    """
    kinds, orders = [array.dtype for array in arrays], [array.flags.c_contiguous for array in arrays]
    return kinds.count(FLOAT32) == len(kinds) and all(orders) and not use_reference()


_first_byte: Any = (ctypes.c_char * 0).from_buffer


def address(array: np.ndarray) -> int:
    """Where a contiguous array's numbers begin; `array.ctypes.data` takes three times as long to tell.

    >>> x = np.zeros(3)
    >>> address(x) == x.ctypes.data
    True
    """
    try:
        return ctypes.addressof(_first_byte(array))
    except TypeError:  # it is not to be written to
        return array.ctypes.data


HEAD, TUPLE = object.__basicsize__, tuple.__basicsize__  # bytes; a tuple's are those before its first object
TYPE, AXES, LENGTHS, KIND, FLAGS = -1, 1, 2, 5, 6  # words from the head's end on
CONTIGUOUS, WRITEABLE = 0x101, 0x400  # flags: in C's order, and where a number may begin; may be written to
KINDS_NUMBER = 1  # the word of a type of numbers that says which it is, but for a byte of flags
OURS = ~0xFF000000


@intrinsic
def _numbers_of(typingctx: Any, address: Any) -> Any:
    """Where the numbers are of the array object at `address`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = context.get_value_type(sig.return_type)
        word = builder.add(args[0], args[0].type(HEAD))
        return builder.load(builder.inttoptr(word, pointer.as_pointer()))

    return types.CPointer(types.float32)(types.int64), codegen


@numba.njit(forceinline=True)
def numbers_at(address, size):
    """The first `size` float32 numbers of the array at an address, in compiled code."""
    return numba.carray(_numbers_of(address), (size,))


@intrinsic
def _objects_of(typingctx: Any, address: Any) -> Any:
    """Where the addresses stand of what is in the tuple at `address`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(builder.add(args[0], args[0].type(TUPLE)), context.get_value_type(sig.return_type))

    return types.CPointer(types.int64)(types.int64), codegen


@numba.njit(forceinline=True)
def objects_at(address, count):
    """Where the first `count` objects are of the tuple at an address, in compiled code."""
    return numba.carray(_objects_of(address), (count,))


@intrinsic
def _word(typingctx: Any, address: Any, place: Any) -> Any:
    """Word number `place` behind an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.gep(builder.inttoptr(args[0], args[0].type.as_pointer()), [args[1]]))

    return types.int64(types.int64, types.int64), codegen


@numba.njit(forceinline=True)
def plain(address, array, float32):
    """Is at this address a contiguous array of float32? Nothing but the object's head is read before it is an array.

    array, float32   where NumPy's type of arrays and that of their numbers are, `PLAIN`
    """
    head = address + HEAD
    if _word(head, TYPE) != array or _word(head, FLAGS) & CONTIGUOUS != CONTIGUOUS:
        return False
    return _word(_word(head, KIND) + HEAD, KINDS_NUMBER) & OURS == _word(float32 + HEAD, KINDS_NUMBER) & OURS


PLAIN = id(np.ndarray), id(FLOAT32)


@numba.njit(forceinline=True)
def writeable(address):
    """May the array at an address be written to?"""
    return _word(address + HEAD, FLAGS) & WRITEABLE != 0


@numba.njit(forceinline=True)
def axes(address):
    """How many axes the array at an address has."""
    return _word(address + HEAD, AXES) & 0xFFFFFFFF


@numba.njit(forceinline=True)
def length(address, axis):
    """How long an axis of the array at an address is."""
    return _word(_word(address + HEAD, LENGTHS), axis)
