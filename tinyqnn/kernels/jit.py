"""One decorator compiles every kernel, and one small pool of threads runs them.

A kernel is an ordinary compiled function that lets go of Python's lock (`nogil`). There are two ways to share its work:

    run(lambda first, last: kernel(first, last, x, y), items=len(x))     # Python hands out ranges
    share(kernel, len(x), x, y)                                          # the kernel takes items itself, see `turns.py`

Both ways, whoever is free takes the next piece. `run` asks nothing of a kernel, but each range wants Python's lock;
`share` is for kernels of a fraction of a millisecond. A helper that has just worked looks for the next job for some
0.4 ms before it sleeps, for to wake it would take 40 µs. It is that long because a product that reads some megabytes of
weights sweeps the caches: Python itself then takes 0.1 ms from one such product to the next. Even awake, a helper needs
10 µs of Python to begin; where that counts, a kernel is `ByLetter`, and helpers begin it from where they wait.

Why not Numba's `parallel=True`? It adds 0.6 s of compiling to every kernel and has another threading layer on every
system. On two quiet cores, a product of signs that takes one thread 0.45 ms takes 0.22 ms with OpenMP, 0.28 on the
workqueue layer, 0.23 with `share` and 0.26 with `run`. But OpenMP's threads wait for one another and do not sleep: with
a second program running, a loop of 0.22 ms took 3.5 ms there, and 0.23 ms where whoever is free takes the next piece.
They also stall threaded BLAS, and BLAS them, so products go through our own tile (`gemm.py`).
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import event
from numba.core.caching import Cache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.types import int64, unliteral, void
from numba.extending import overload

from tinyqnn import warmup
from tinyqnn.kernels import board as boards
from tinyqnn.kernels import seats, turns
from tinyqnn.kernels.addresses import address
from tinyqnn.kernels.memory import keep_freed_memory

__all__ = ["ByLetter", "get_num_threads", "jit", "run", "scratch", "set_num_threads", "share"]

Function = TypeVar("Function", bound=Callable[..., Any])


PATIENCE = 4e-4  # seconds for which a thread looks for what it waits for before it sleeps
FEW = 10_000_000  # multiplications that one thread has done, in 0.1 ms, before another is awake and has Python's lock
HOLD = 16e-6  # seconds for which helpers leave Python's lock to the caller of `run`

keep_freed_memory()


def jit(function: Function | None = None, inner: bool = False, **options: Any) -> Any:
    """`numba.njit` as every kernel here wants it: cached on disk, without Python's lock.

    Where the cache folder cannot be written to, the kernel is compiled anew by each process. Numba would recompile when
    the function's own file changed, not when a function it calls did; here a change of any file in this folder counts.
    What nobody asks for is not compiled: no entrance for C, none for Python to an `inner` part, which only kernels
    call, and no version of its own for every literal that kernels give one another.

    >>> @jit
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    if function is None:
        return lambda f: jit(f, inner, **options)
    inner = inner or options.get("forceinline", False)
    options = {"nogil": True, "no_cfunc_wrapper": True, "no_cpython_wrapper": inner, **options}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function …: no locator available for file …"
        compiled = numba.njit(**options)(function)
    if hasattr(compiled, "get_call_template"):
        resolve = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: resolve(
            [unliteral(kind) for kind in args], {name: unliteral(kind) for name, kind in kws.items()}
        )
    _keep_on_disk(compiled)
    return compiled


class ByLetter:
    """A kernel for `share` that helpers begin without Python: all that it is told stands in one letter.

    It is given two addresses, and finds there its seat and a vector of int64, see `board.opened`. That is worth it for
    a kernel of a tenth of a millisecond: a helper has it some 10 µs sooner, and so has the caller.
    """

    def __init__(self, function: Function) -> None:
        self.function = function

    @cached_property
    def address(self) -> int:
        """Where the compiled kernel is; the first who asks waits until it is compiled or found on disk."""
        self.compiled = CFunc(self.function, ((int64, int64), void), {}, {"nopython": True})
        try:
            self.compiled.enable_caching()
            _keep_on_disk(self.compiled)
        except RuntimeError:  # no folder for it
            pass
        self.compiled.compile()
        address: Any = self.compiled.address
        return int(address)


class _Watch(event.Listener):
    """Tells `warmup` what Numba has to compile, and keeps Ctrl-C waiting until a function is whole.

    An exception in the middle is swallowed by the compiler, which then complains of what is missing.
    """

    def __init__(self) -> None:
        self.depth = 0  # functions that call functions are compiled around them
        self.handler: Any = None  # whose turn it is after that
        self.held: list[tuple[Any, ...]] = []

    def on_start(self, event: event.Event) -> None:
        self.depth += 1
        if self.depth == 1 and threading.current_thread() is threading.main_thread():
            self.handler = signal.getsignal(signal.SIGINT)
            if callable(self.handler):
                signal.signal(signal.SIGINT, self.hold)
        warmup.compiling(_pool.threads > 1 and isinstance(event.data["dispatcher"]._cache, Cache))

    def hold(self, *what: Any) -> None:
        self.held.append(what)

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if self.depth == 0 and callable(self.handler):
            signal.signal(signal.SIGINT, self.handler)
            held, self.handler, self.held = self.held, None, []
            for what in held:  # the first may leave the second to another handler
                now: Any = signal.getsignal(signal.SIGINT)
                now(*what)


event.register("numba:compile", _Watch())


class _CacheFile(IndexDataCacheFile):
    """Where a kernel's compiled versions are on disk: out of date when any file of this folder has changed.

    Two processes may compile at once, see `warmup.py`. So a version's file is called after what it is a version of,
    not by the next number that is free, and it is whole before the index names it.
    """

    def save(self, key: Any, data: Any) -> None:
        name = self._data_name(int(sha256(str(key).encode()).hexdigest()[:12], 16))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


def _keep_on_disk(compiled: Any) -> None:
    """Use such a file, where Numba compiles and has found a folder for one."""
    cache = getattr(compiled, "_cache", None)
    if isinstance(cache, Cache):
        stamp = (cache._impl.locator.get_source_stamp(), _folder_stamp())
        cache._cache_file = _CacheFile(cache.cache_path, cache._impl.filename_base, stamp)


def _folder_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every source file beside this one."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)


def _available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads_asked() -> int:
    """$TINYQNN_THREADS, or every core there is."""
    text = os.environ.get("TINYQNN_THREADS", "")
    if not text:
        return _available_cores()
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"TINYQNN_THREADS is {text!r}, expected a whole number from 1; unset it to use every core")
    return int(text)


class _Job:
    """A loop that threads share: its numbers (see `seats.py`), and what each thread calls with its seat."""

    def __init__(self) -> None:
        self.numbers = np.zeros(seats.SIZE, np.int64)
        self.address = address(self.numbers)
        self.items, self.ranges = 0, 1
        self.call: Callable[[np.ndarray], object] | None = None
        self.error: BaseException | None = None

    def sit(self, number: int = 0, coming: _Job | None = None, board: int = 0) -> np.ndarray:
        """A seat: number 0 is the caller's, the others are for helpers, who then wait for the coming job."""
        then, mine, looks = coming.address if coming else 0, number % self.ranges, _looks(PATIENCE)
        return np.array((self.address, then, looks, self.items, 0, mine, self.ranges, board, number), np.int64)


class _Local(threading.local):
    """What belongs to one thread: is it a helper that is at work, and its work spaces."""

    inside = False

    def __init__(self) -> None:
        self.spaces: dict[int, np.ndarray] = {}


class _Pool:
    """Helpers that wait for jobs. The caller works too, and never waits for a helper that has not taken an item."""

    def __init__(self) -> None:
        self.threads = _threads_asked()
        self.jobs = (_Job(), _Job())  # the last that began, and the one to come
        self.board = np.zeros(boards.BOARD, np.int64)
        self.posting = threading.Lock()  # held while something is posted
        self.lock = threading.Lock()  # held while a job begins
        self.bells: list[SimpleQueue[None]] = []  # one for each helper
        self.asleep: list[bool] = []
        self.local = _Local()

    def alone(self) -> bool:
        """Is there nobody to share with? A helper's own loops are not shared again, and a second process that compiles
        leaves helpers no core: whoever shared with them would wait until the system lets them run."""
        return self.threads == 1 or bool(warmup.asked) or self.local.inside

    def begin(self, call: Callable[[np.ndarray], object], items: int, hold: int) -> _Job:
        """Make the job to come the one to work on, and wake who sleeps."""
        helpers = min(self.threads, items) - 1
        with self.lock:
            job = self.jobs[1]
            job.call, job.items, job.ranges = call, items, min(helpers + 1, seats.RANGES)
            job.numbers[seats.HOLD] = hold
            self.jobs = (job, _Job())
            self.wake(helpers)
        return job

    def wake(self, helpers: int) -> None:
        """So many are to come; the lock is held."""
        while len(self.bells) < helpers:
            self.bells.append(SimpleQueue())
            self.asleep.append(False)
            index = len(self.bells) - 1
            threading.Thread(target=self.serve, args=(index,), name=f"tinyqnn-{index}", daemon=True).start()
        for index in range(helpers):
            if self.asleep[index]:
                self.asleep[index] = False
                self.bells[index].put(None)

    def post(self, kernel: int, items: int, letter: np.ndarray) -> None:
        """Let the kernel at an address do all items, here and on the helpers."""
        threads = min(self.threads, items)
        if threads < 2 or self.alone() or not self.posting.acquire(blocking=False):  # one thing at a time is posted
            _alone(kernel, letter, items)
            return
        out = False
        try:
            if len(self.bells) < threads - 1 or True in self.asleep:
                with self.lock:
                    self.wake(threads - 1)
            out = _lead(self.board, kernel, letter, items, threads, _looks(PATIENCE))
        finally:  # whom the system holds up still has work, and needs the letter's arrays
            while not (out or _are_out(self.board)):
                time.sleep(2e-5)
            self.posting.release()

    def work(self, call: Callable[[np.ndarray], object], items: int, hold: int = 0) -> None:
        """Run `call(seat)` here and on the helpers until all items are done."""
        job = self.begin(call, items, hold)
        seat = job.sit()
        try:
            call(seat)
        finally:  # after an error or Ctrl-C, too: what helpers have begun is waited for
            job.call = None
            taken = _close(seat)
            while job.numbers[seats.DONE] < taken:
                time.sleep(2e-5)
        if job.error is not None:
            raise job.error

    def serve(self, index: int) -> None:
        """A helper's life: a job, a short wait for the next, and sleep."""
        self.local.inside = True
        seen, board = None, address(self.board)
        while True:
            job, coming = self.jobs
            if job is seen:
                self.asleep[index] = True
                if self.jobs[0] is job:
                    self.bells[index].get()
                self.asleep[index] = False
                _linger(coming.address, _looks(PATIENCE), board, index + 1)
                continue
            seen, call = job, job.call
            if call is None or index >= self.threads - 1:
                _linger(coming.address, _looks(PATIENCE), board, index + 1)
                continue
            seat = job.sit(index + 1, coming, board)
            try:
                call(seat)
            except BaseException as error:  # for the caller to raise, who need not wait for these items
                job.error = error
                _give_up(seat)
            del call  # it holds arrays


@jit(nogil=False)
def _give_up(seat):
    turns.give_up(seat)


@jit(nogil=False)
def _close(seat):
    turns.give_up(seat)
    return turns.close(seat)


@jit(nogil=False)
def _take(seat):
    return turns.take(seat)


@jit
def _leave(seat):
    turns.leave(seat)


@jit
def _linger(address, patience, board, number):
    turns.linger(address, patience, board, number)


@jit
def _lead(board, kernel, letter, items, threads, patience):
    return boards.lead(board.ctypes.data, kernel, letter.ctypes.data, items, threads, patience)


@jit
def _alone(kernel, letter, items):
    boards.alone(kernel, letter.ctypes.data, items)


@jit(nogil=False)
def _are_out(board):
    return boards.are_out(board.ctypes.data)


def _looks(seconds: float) -> int:
    """How often a thread looks for what it waits for in so many seconds."""
    return int(seconds * _looks_a_second())


@cache
def _looks_a_second() -> float:
    """Processors differ: to pause between two looks takes them from 10 to 60 ns."""
    nobody, spans = _Job(), []
    for looks in (1, 1000, 1000, 1000):  # in the first it is compiled
        start = time.perf_counter()
        _linger(nobody.address, looks, nobody.address, 0)
        spans.append(time.perf_counter() - start)
    return 1000 / min(spans[1:])


_pool = _Pool()


@atexit.register
def _rest() -> None:
    """Let helpers fall asleep before Python ends: it cannot stop a thread that is in compiled code."""
    deadline = time.monotonic() + 1
    while not all(_pool.asleep) and time.monotonic() < deadline:
        time.sleep(1e-4)


def _new_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    threads, _pool = _pool.threads, _Pool()
    _pool.threads = threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_pool)


def get_num_threads() -> int:
    """How many threads `run` uses, the caller included."""
    return _pool.threads


def set_num_threads(threads: int) -> None:
    """Use `threads` threads from now on. No result depends on it, only the time.

    >>> before = get_num_threads()
    >>> set_num_threads(1); get_num_threads()
    1
    >>> set_num_threads(before)
    """
    if threads < 1:
        raise ValueError(f"expected at least one thread, got {threads}")
    _pool.threads = int(threads)


def share(kernel: Callable[..., object] | ByLetter, items: int, *args: Any) -> None:
    """Call `kernel(seat, *args)` on several threads at once; it takes items 0 … `items` − 1 one by one, see `turns.py`.

    A kernel writes only what belongs to its items, its result does not depend on who takes them, and it does not raise.
    One `ByLetter` gets one vector of int64.

    >>> from tinyqnn.kernels.turns import leave, take
    >>> @jit
    ... def square(seat, x, y):
    ...     i = take(seat)
    ...     while i >= 0:
    ...         y[i] = x[i] ** 2
    ...         i = take(seat)
    ...     leave(seat)
    >>> x, y = np.arange(5), np.zeros(5, int)
    >>> share(square, 5, x, y); y.tolist()
    [0, 1, 4, 9, 16]
    """
    if isinstance(kernel, ByLetter):
        (letter,) = args
        _pool.post(kernel.address, items, letter)
    elif _pool.alone() or items <= 1:
        job = _Job()
        job.items = items
        kernel(job.sit(), *args)
    else:
        _pool.work(lambda seat: kernel(seat, *args), items)


def run(body: Callable[[int, int], None], items: int, chunk: int | None = None, work: int = FEW) -> None:
    """Call `body(first, last)` on ranges that cover `0 … items`, on several threads; an error in any is raised here.

    `chunk` items are handed out at a time, by default so that each thread gets about four ranges. Ranges are taken by
    whoever is free: a body must write only what belongs to its range, and its result must not depend on the cut.
    `work` tells how many multiplications that are, in all; the caller does few of them alone, in one range.

    >>> squares = [0] * 5
    >>> def body(first, last):
    ...     for i in range(first, last):
    ...         squares[i] = i * i
    >>> run(body, 5)
    >>> squares
    [0, 1, 4, 9, 16]
    """
    if items <= 0:
        return
    if work < FEW:
        chunk = items
    elif chunk is None:
        chunk = -(-items // (4 * _pool.threads))

    size = chunk
    if _pool.alone() or items <= size or getattr(numba.config, "DISABLE_JIT", False):
        for first in range(0, items, size):
            body(first, min(first + size, items))
        return

    def call(seat: np.ndarray) -> None:
        while (i := _take(seat)) >= 0:
            body(i * size, min((i + 1) * size, items))
        _leave(seat)

    _pool.work(call, -(-items // size), _looks(HOLD))


def scratch(size: int, slot: int = 0) -> np.ndarray:
    """A float32 work space of `size` elements that belongs to this thread, on a cache line's boundary.

    Its contents are whatever was left there; each `slot` is another one.
    """
    spaces = _pool.local.spaces
    space = spaces.get(slot)
    if space is None or len(space) < size:
        space = spaces[slot] = aligned(size)
    return space[:size]


def aligned(size: int) -> np.ndarray:
    """An uninitialised float32 vector that begins on a cache line: vector loads that straddle two lines cost double."""
    raw = np.empty(size + 16, np.float32)
    skip = -(address(raw) // 4) % 16
    return raw[skip : skip + size]


@overload(aligned)
def _aligned(size):
    def compiled(size):
        raw = np.empty(size + 16, np.float32)
        skip = -(raw.ctypes.data // 4) % 16
        return raw[skip : skip + size]

    return compiled
