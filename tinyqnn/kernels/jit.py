"""One decorator compiles every kernel, and one small pool of threads runs them.

A kernel is an ordinary compiled function that lets go of Python's lock (`nogil`) and works on a range of items, images
or rows: `kernel(first, last, …)`. `run` cuts the range into chunks and lets a few plain Python threads take them:

    run(lambda first, last: kernel(first, last, x, y), items=len(x))

Why not Numba's `parallel=True`? On two cores, a 0.22 ms loop takes 0.13 ms here, and it compiles as fast as the plain
loop. `parallel=True` adds 0.6 s for every kernel, has another threading layer on every system, and its threads wait for
one another: with a second program running, the same loop took 0.25 ms on the workqueue layer, 3.5 ms on OpenMP, and
0.23 ms here, where whoever is free takes the next chunk. A spinning OpenMP pool also stalls threaded BLAS, and BLAS it.
So products go through our own tile (`gemm.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numba
import numpy as np

from tinyqnn.kernels.memory import keep_freed_memory

__all__ = ["get_num_threads", "jit", "run", "scratch", "set_num_threads"]

Function = TypeVar("Function", bound=Callable[..., Any])


keep_freed_memory()


def jit(function: Function | None = None, **options: Any) -> Any:
    """`numba.njit` as every kernel here wants it: cached on disk, without Python's lock.

    Where the cache folder cannot be written to, the kernel is compiled anew by each process. Numba recompiles when the
    function's own file changed, not when a function it calls did, so the cache entry is stamped with all of this
    folder's files.

    >>> @jit
    ... def double(x):
    ...     return 2 * x
    >>> double(21)
    42
    """
    if function is None:
        return lambda f: jit(f, **options)
    options = {"nogil": True, **options}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function …: no locator available for file …"
        return numba.njit(**options)(function)
    cache_file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = (cache_file._source_stamp, _folder_stamp())
    return compiled


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
    """One call of `run`: the chunks that nobody has taken yet and the number that are not finished."""

    def __init__(self, body: Callable[[int, int], None], items: int, chunk: int) -> None:
        self.body, self.items, self.chunk = body, items, chunk
        self.next = 0
        self.unfinished = -(-items // chunk)
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.finished = threading.Lock()
        self.finished.acquire()

    def work(self) -> None:
        """Take chunks until none is left."""
        while True:
            with self.lock:
                first = self.next
                self.next = first + self.chunk
            if first >= self.items:
                return
            try:
                if self.error is None:
                    self.body(first, min(first + self.chunk, self.items))
            except BaseException as error:
                self.error = error
            with self.lock:
                self.unfinished -= 1
                if self.unfinished == 0:
                    self.finished.release()


class _Pool:
    """Threads that wait for jobs. The caller works too, and never waits for a thread that has not taken a chunk."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.threads = _threads_asked()
        self.started = 0
        self.local = threading.local()

    def run(self, job: _Job) -> None:
        helpers = min(self.threads, job.unfinished) - 1
        while self.started < helpers:
            threading.Thread(target=self.serve, name=f"tinyqnn-{self.started}", daemon=True).start()
            self.started += 1
        for _ in range(helpers):
            self.jobs.put(job)
        job.work()
        job.finished.acquire()
        if job.error is not None:
            raise job.error

    def serve(self) -> None:
        self.local.inside = True
        while True:
            self.jobs.get().work()


_pool = _Pool()


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


def run(body: Callable[[int, int], None], items: int, chunk: int | None = None) -> None:
    """Call `body(first, last)` on ranges that cover `0 … items`, on several threads; an error in any is raised here.

    `chunk` items are handed out at a time, by default so that each thread gets about four ranges. Ranges are taken by
    whoever is free: a body must write only what belongs to its range, and its result must not depend on the cut.

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
    if chunk is None:
        chunk = -(-items // (4 * _pool.threads))
    if _pool.threads == 1 or items <= chunk or getattr(_pool.local, "inside", False):
        for first in range(0, items, chunk):
            body(first, min(first + chunk, items))
    else:
        _pool.run(_Job(body, items, chunk))


def scratch(size: int, slot: int = 0) -> np.ndarray:
    """A float32 work space of `size` elements that belongs to this thread, on a cache line's boundary.

    Its contents are whatever was left there; each `slot` is another one.
    """
    spaces = _pool.local.__dict__.setdefault("spaces", {})
    space = spaces.get(slot)
    if space is None or len(space) < size:
        space = spaces[slot] = aligned(size)
    return space[:size]


def aligned(size: int) -> np.ndarray:
    """An uninitialised float32 vector that begins on a cache line: vector loads that straddle two lines cost double."""
    raw = np.empty(size + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + size]
