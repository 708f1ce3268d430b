"""A board, where jobs are posted that helpers begin without Python.

Posted are a compiled kernel's address and that of a *letter* which tells it everything, a vector of int64: whole
numbers, and arrays by their `id`, see `addresses.py`. A helper that waits for the next job looks here as well, and
calls the kernel with its seat and the letter. It says that it is inside before it reads what is posted, and the caller
posts nothing new before all are out.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from tinyqnn.kernels.seats import (
    COMING,
    COUNT,
    DONE,
    ITEMS,
    JOB,
    LINE,
    MINE,
    NUMBER,
    PATIENCE,
    RANGE,
    RANGES,
    SEAT,
    SIZE,
    add,
    look,
    part,
    pause,
    put,
    whole_numbers,
)

__all__ = [
    "BOARD", "HOW_MANY", "INSIDE", "KERNEL", "LETTER", "POSTED", "THREADS", "alone", "are_out", "join", "lead",
    "opened",
]  # fmt: skip

# The number of the job that is posted, or 0; how many helpers are inside; what is posted, its items, threads, and how
# often something was; the job's own numbers; and the threads' seats.
POSTED, INSIDE, WHAT, NUMBERS = (LINE * i for i in range(4))
KERNEL, LETTER, HOW_MANY, THREADS, LAST = range(WHAT, WHAT + 5)
FIRST_SEAT = NUMBERS + SIZE
SEATS = 256  # at most
BOARD = FIRST_SEAT + LINE * SEATS
LONGEST = 1 << 20  # numbers of a letter


@intrinsic
def call(typingctx: Any, kernel: Any, seat: Any, letter: Any) -> Any:
    """Call the compiled kernel at an address with those of a seat and of a letter."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 2)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@part
def opened(seat, letter):
    """A seat and a letter, from their addresses."""
    return whole_numbers(seat, SEAT), whole_numbers(letter, LONGEST)


@part
def join(board, number):
    """Take part in what is posted, if it is still there and wants so many threads."""
    add(board, INSIDE, 1)
    if look(board, POSTED) != 0 and number < min(look(board, THREADS), SEATS):
        _sit(board, number, 0)
    add(board, INSIDE, -1)


@part
def _sit(board, number, patience):
    """Call the kernel that is posted, as thread `number`, whose seat is on the board, too."""
    place, count = board + 8 * (FIRST_SEAT + LINE * number), min(look(board, THREADS), RANGES)
    seat = whole_numbers(place, SEAT)
    seat[JOB], seat[COMING], seat[PATIENCE] = board + 8 * NUMBERS, 0, patience
    seat[ITEMS], seat[MINE], seat[NUMBER] = look(board, HOW_MANY), 0, number
    seat[COUNT], seat[RANGE] = count, number % count
    call(look(board, KERNEL), place, look(board, LETTER))


@part
def lead(board, kernel, letter, items, threads, patience):
    """Post a job for `threads` threads, do it with whoever comes, and take it down; are all helpers out again?"""
    for i in range(0, SIZE, LINE):
        put(board, NUMBERS + i, 0)
    put(board, KERNEL, kernel)
    put(board, LETTER, letter)
    put(board, HOW_MANY, items)
    put(board, THREADS, threads)
    put(board, POSTED, add(board, LAST, 1) + 1)
    _sit(board, 0, patience)
    put(board, POSTED, 0)
    while patience > 0 and not are_out(board):
        pause()
        patience -= 1
    return are_out(board)


@part
def are_out(board):
    """Is no helper inside?"""
    return look(board, INSIDE) == 0


@part
def alone(kernel, letter, items):
    """Do all items of a job that nobody else hears of; how many that were."""
    numbers, seat = np.zeros(SIZE, np.int64), np.zeros(SEAT, np.int64)
    seat[JOB], seat[ITEMS], seat[COUNT] = numbers.ctypes.data, items, 1
    call(kernel, seat.ctypes.data, letter)
    return numbers[DONE] + seat[MINE]  # up to here both are kept
