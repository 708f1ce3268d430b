"""Any number of arrays for one kernel: by their addresses.

Numba compiles a kernel anew for every number of arrays it is given, so one that takes a whole network's parameters gets
a vector of addresses instead. Python has to keep the arrays alive, and contiguous is all that they may be.

    p = addresses(arrays)        in Python
    x = numbers_at(p[i], n)      in a kernel: the first n float32 numbers of array i
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

__all__ = ["address", "addresses", "numbers_at"]


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


def addresses(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Where each array's numbers begin, for a kernel.

    >>> x = np.zeros(3)
    >>> addresses([x, x]).tolist() == [x.ctypes.data] * 2
    True
    """
    try:
        return np.array([ctypes.addressof(_first_byte(array)) for array in arrays], np.int64)
    except TypeError:
        return np.array([array.ctypes.data for array in arrays], np.int64)


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(types.float32)(types.int64), codegen


@numba.njit(forceinline=True)
def numbers_at(address, size):
    """`size` float32 numbers from an address on, in compiled code."""
    return numba.carray(_pointer(address), (size,))
