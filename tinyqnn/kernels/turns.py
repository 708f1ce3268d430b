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
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from tinyqnn.kernels.board import POSTED, join
from tinyqnn.kernels.seats import (
    AT,
    COMING,
    COUNT,
    DONE,
    HOLD,
    ITEMS,
    JOB,
    LINE,
    LOOP,
    MINE,
    NUMBER,
    PATIENCE,
    RANGE,
    add,
    look,
    part,
    pause,
)

__all__ = ["again", "close", "finish", "give_up", "leave", "linger", "mirrored", "take"]

CLOSED = 1 << 40  # more than there are items


@part
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


@part
def mirrored(seat, item):
    """The item as far from the end of its range as this one is from the beginning.

    Weights that no cache can hold are read forwards by one call and backwards by the next, which so begins with what
    the one before has left there.
    """
    items, count = seat[ITEMS], seat[COUNT]
    mine = ((item + 1) * count - 1) // items
    return mine * items // count + (mine + 1) * items // count - 1 - item


@part
def close(seat):
    """Let nobody take an item any more; returns how many were taken."""
    items, count, taken = seat[ITEMS], seat[COUNT], 0
    for r in range(count):
        taken += min(add(seat[JOB], LINE * (1 + r), CLOSED), (r + 1) * items // count - r * items // count)
    return taken


@part
def linger(coming, patience, board, number):
    """Wait until the caller has taken an item of the job to come, but not for long; meanwhile do what is posted."""
    left, seen = patience, 0
    while left > 0 and look(coming, LINE) == 0:
        posted = look(board, POSTED)
        if posted != seen and posted != 0:
            join(board, number)
            left = patience
        seen = posted
        pause()
        left -= 1
    for _ in range(look(coming, HOLD)):
        pause()


@part
def give_up(seat):
    """Say that this thread's items are done."""
    add(seat[JOB], DONE, seat[MINE])
    seat[MINE] = 0


@part
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


@part
def finish(seat):
    """Say that this thread's items of a second loop are done, and wait for those of the others."""
    give_up(seat)
    while look(seat[JOB], DONE) < seat[ITEMS]:
        pause()


@part
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
