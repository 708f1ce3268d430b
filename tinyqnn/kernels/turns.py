"""How threads share a loop without asking Python: whoever is free takes the next item, by one atomic addition.

A compiled kernel that `jit.share` runs on several threads at once reads

    item = take(seat)
    while item >= 0:
        …                      # nobody else has this item
        item = take(seat)
    leave(seat)

and never wants Python's lock. That is what matters: a thread that wants the lock while another has it goes to sleep,
and to wake it takes some 40 µs, a good part of a small product. For the same reason a helper that leaves does not go
home at once: for a little while it looks, again and again, whether the next job begins.

Items are cut into as many ranges as there are threads. Each begins with its own, and when that is used up helps with
the next: so the same thread has the same part of an array, in its own cache, call after call.

A *job* has a number on a cache line of its own for each range, how many of its items are taken, and one for how many
items of all are done. A *seat* is one thread's place at it, an array of int64; the words below say what is in it.

A *board* is where jobs are posted that helpers begin without Python: a kernel's address, and that of a *letter* which
tells it everything, an array of int64. A helper that waits for the next job looks there as well. It says that it is
inside before it reads, and the caller posts nothing new before all are out.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = [
    "BOARD",
    "DONE",
    "HOLD",
    "RANGE",
    "RANGES",
    "SEAT",
    "SIZE",
    "add",
    "again",
    "alone",
    "are_out",
    "close",
    "finish",
    "give_up",
    "lead",
    "leave",
    "linger",
    "mirrored",
    "opened",
    "take",
]

# In a seat: addresses of the numbers of the job and of the one to come (0 for the caller, and at a board), how often to
# look, items, those this thread took, its range now, and how many ranges, a helper's board, and the thread's number.
JOB, COMING, PATIENCE, ITEMS, MINE, RANGE, COUNT, AT, NUMBER = range(9)
SEAT = 9
LINE = 16  # numbers: two cache lines, for a processor fetches them in pairs
DONE, HOLD = 0, 1  # in a job, and then a line for each range; HOLD: how long helpers wait when it has begun
RANGES = 8  # at most
LOOP = LINE * (1 + RANGES)
SIZE = 2 * LOOP  # a second loop has numbers of its own, see `again`
CLOSED = 1 << 40  # more than there are items
# On a board: the number of the job that is posted, or 0, and of the last there was; how many helpers are inside; what
# is posted, with its items and threads; the job's own numbers; and the threads' seats.
POSTED, LAST, INSIDE, KERNEL, LETTER, HOW_MANY, THREADS, NUMBERS = (LINE * i for i in range(8))
FIRST_SEAT = NUMBERS + SIZE
SEATS = 256  # at most
BOARD = FIRST_SEAT + LINE * SEATS
LONGEST = 1 << 20  # numbers of a letter
_I64 = ir.IntType(64)
_IS_X86 = binding.get_process_triple().startswith(("x86_64", "i686"))


@intrinsic
def add(typingctx: Any, address: Any, place: Any, number: Any) -> Any:
    """Add to number `place` behind `address`, in one step that nobody can come between; returns what it was."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def look(typingctx: Any, address: Any, place: Any) -> Any:
    """What number `place` behind `address` is by now."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put(typingctx: Any, address: Any, place: Any, number: Any) -> Any:
    """Make number `place` behind `address` another, for all to see, and after all that was written before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])
        builder.store_atomic(args[2], pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call(typingctx: Any, kernel: Any, seat: Any, letter: Any) -> Any:
    """Call the compiled kernel at an address with those of a seat and of a letter."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _whole_numbers(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(types.int64)(types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Nothing, for some tens of nanoseconds; a processor that is told so keeps cool."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if _IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _part(function: Any) -> Any:
    """Compile what kernels alone call: without entrances for others."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)


@_part
def opened(seat, letter):
    """A seat and a letter, from their addresses."""
    return numba.carray(_whole_numbers(seat), (SEAT,)), numba.carray(_whole_numbers(letter), (LONGEST,))


@_part
def take(seat):
    """An item that nobody else has, or −1."""
    items, count = seat[ITEMS], seat[COUNT]
    for _ in range(count):
        mine = seat[RANGE]
        item = mine * items // count + add(seat[JOB], LINE * (1 + mine), 1)
        if item < (mine + 1) * items // count:
            seat[MINE] += 1
            return item
        seat[RANGE] = (mine + 1) % count
    return -1


@_part
def mirrored(seat, item):
    """The item as far from the end of its range as this one is from the beginning.

    Weights that no cache can hold are read forwards by one call and backwards by the next, which so begins with what
    the one before has left there.
    """
    items, count = seat[ITEMS], seat[COUNT]
    mine = ((item + 1) * count - 1) // items
    return mine * items // count + (mine + 1) * items // count - 1 - item


@_part
def close(seat):
    """Let nobody take an item any more; returns how many were taken."""
    items, count, taken = seat[ITEMS], seat[COUNT], 0
    for r in range(count):
        taken += min(add(seat[JOB], LINE * (1 + r), CLOSED), (r + 1) * items // count - r * items // count)
    return taken


@_part
def linger(coming, patience, board, number):
    """Wait until the caller has taken an item of the job to come, but not for long; meanwhile do what is posted."""
    left, seen = patience, 0
    while left > 0 and look(coming, LINE) == 0:
        posted = look(board, POSTED)
        if posted != seen and posted != 0:
            _join(board, number)
            left = patience
        seen = posted
        pause()
        left -= 1
    for _ in range(look(coming, HOLD)):
        pause()


@_part
def _join(board, number):
    """Take part in what is posted, if it is still there and wants so many threads."""
    add(board, INSIDE, 1)
    if look(board, POSTED) != 0 and number < min(look(board, THREADS), SEATS):
        _sit(board, number, 0)
    add(board, INSIDE, -1)


@_part
def _sit(board, number, patience):
    """Call the kernel that is posted, as thread `number`, whose seat is on the board, too."""
    place, count = board + 8 * (FIRST_SEAT + LINE * number), min(look(board, THREADS), RANGES)
    seat = numba.carray(_whole_numbers(place), (SEAT,))
    seat[JOB], seat[COMING], seat[PATIENCE] = board + 8 * NUMBERS, 0, patience
    seat[ITEMS], seat[MINE], seat[NUMBER] = look(board, HOW_MANY), 0, number
    seat[COUNT], seat[RANGE] = count, number % count
    call(look(board, KERNEL), place, look(board, LETTER))


@_part
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


@_part
def are_out(board):
    """Is no helper inside?"""
    return look(board, INSIDE) == 0


@_part
def alone(kernel, letter, items):
    """Do all items of a job that nobody else hears of; how many that were."""
    numbers, seat = np.zeros(SIZE, np.int64), np.zeros(SEAT, np.int64)
    seat[JOB], seat[ITEMS], seat[COUNT] = numbers.ctypes.data, items, 1
    call(kernel, seat.ctypes.data, letter)
    return numbers[DONE] + seat[MINE]  # up to here both are kept


@_part
def give_up(seat):
    """Say that this thread's items are done."""
    add(seat[JOB], DONE, seat[MINE])
    seat[MINE] = 0


@_part
def again(seat, mine, items):
    """A seat at a second loop, of `items`, which begins when all items of the first are done.

    mine   the number of the range that was this thread's in the beginning, `seat[RANGE]`
    """
    give_up(seat)
    second = seat.copy()
    second[JOB], second[ITEMS], second[RANGE] = seat[JOB] + 8 * LOOP, items, mine
    while look(seat[JOB], DONE) < seat[ITEMS]:
        if look(seat[JOB], LINE) >= CLOSED:  # the caller was interrupted and takes none: there is no second loop
            second[ITEMS] = 0
            break
        pause()
    return second


@_part
def finish(seat):
    """Say that this thread's items of a second loop are done, and wait for those of the others."""
    give_up(seat)
    while look(seat[JOB], DONE) < seat[ITEMS]:
        pause()


@_part
def leave(seat):
    """Say that this thread's items are done; then a helper waits for the coming job, the caller for the helpers."""
    patience = seat[PATIENCE]
    give_up(seat)
    if seat[COMING] != 0:
        linger(seat[COMING], patience, seat[AT], seat[NUMBER])
    else:
        while patience > 0 and look(seat[JOB], DONE) < seat[ITEMS]:
            pause()
            patience -= 1
