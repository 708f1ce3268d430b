"""The first step compiles on two cores: while this process is at the forward pass, another warms up the backward.

Numba compiles one function at a time, however many threads there are. A second process has a Numba of its own, and what
it compiles this one finds in the cache on disk. So in a step that has to compile, each recorded operation is told to a
second Python, which runs the operation's derivative once, on made-up arrays of the same shapes. The backward pass meets
it half way: it waits for a derivative that the other is at, and takes back one that was not begun.

    this process    conv     norm    conv    pool    linear   loss  loss′  step
    the second      update   conv′   norm′   conv′   pool′   linear′

Optimizers are made before the first step, so their update is the first thing that is warmed up.

No result depends on all this, only the time. There is no second process where nothing has to be compiled, with one
thread (TINYQNN_THREADS=1), or where Numba finds no folder for its cache.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from queue import Empty, SimpleQueue
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Future

Array = np.ndarray
Use = Callable[[Any], object]

NEAR = 64  # so many recorded operations after the last that had to compile are warmed up
LARGE = 1 << 28  # bytes of arrays: a derivative that needs more may not find room twice
QUIET = 10.0  # seconds without a question after which the second process ends
PATIENCE = 60.0  # seconds to wait for one answer
KNOWN = {"tinyqnn", "numpy", *sys.stdlib_module_names}  # to import anything else may run somebody's whole program

cold = 0  # how many recorded operations are still to be warmed up: none, as long as everything is found on disk
asked: dict[Hashable, Future[None]] = {}  # what nobody has come for yet

_notices: list[Callable[[], object]] = []  # the last of them is for whoever waits now
_possible = bool(sys.executable) and not getattr(sys, "frozen", False)  # a frozen program has no Python to start
_expected: WeakKeyDictionary[Any, Use] = WeakKeyDictionary()
_asked_before: set[bytes] = set()
_second: _Second | None = None
_lock = threading.RLock()


def expect(thing: Any, use: Use) -> None:
    """`use(thing)` will be called later. As soon as anything has to be compiled, it is warmed up."""
    with _lock:
        _expected[thing] = use


@contextlib.contextmanager
def told(tell: Callable[[], object], again: bool = False) -> Iterator[None]:
    """Inside, `tell()` is called when something has to be compiled, so that who waits knows why; once, or each time."""
    said = False

    def notice() -> None:
        nonlocal said
        if again or not said:
            said = True
            tell()

    _notices.append(notice)
    try:
        yield
    finally:
        _notices.remove(notice)


def compiling(for_disk: bool = True) -> None:
    """A kernel has to be compiled, and what comes after it may have to be, too; `for_disk` if others find it there."""
    global cold
    if _notices:
        _notices[-1]()
    if _possible and for_disk:
        with _lock:
            cold, expected = NEAR, list(_expected.items())
            _expected.clear()
            for thing, use in expected:
                warm_up(thing, use, thing)


def warm_up(key: Hashable, function: Callable[..., object], *args: Any) -> None:
    """Let the second process call `function(*args)`, with made-up arrays; who calls it here asks `meet(key)` first."""
    global cold, _second
    cold = max(cold - 1, 0)
    try:
        question = _question(function, args)
    except Exception:  # what cannot be told is compiled here, when it is needed
        return
    with _lock:
        if question not in _asked_before:
            _asked_before.add(question)
            _second = _second or _Second()
            asked[key] = _second.ask(question)


def meet(key: Hashable) -> None:
    """Wait for what was asked under this key if the second process is at it, and take it back if it is not."""
    answer = asked.pop(key, None)
    if answer is not None and not answer.cancel():
        from concurrent.futures import TimeoutError as TakesTooLong

        try:
            answer.result(PATIENCE)
        except TakesTooLong:
            if _second is not None:
                _second.process.kill()


def over() -> None:
    """The backward pass is through: what it did not come for is not wanted any more."""
    global cold
    cold = 0
    for key, answer in list(asked.items()):
        if answer.cancel() or answer.done():
            asked.pop(key, None)


class _Second:
    """The second process, and the thread that talks to it: one question at a time, in the order they were asked."""

    def __init__(self) -> None:
        self.questions: SimpleQueue[tuple[Future[None], bytes]] = SimpleQueue()
        threading.Thread(target=self.talk, name="tinyqnn-warmup", daemon=True).start()

    def ask(self, question: bytes) -> Future[None]:
        from concurrent.futures import Future  # nobody waits for this import, and that of subprocess, before

        answer: Future[None] = Future()
        self.questions.put((answer, question))
        return answer

    def talk(self) -> None:
        import subprocess

        program = f"import sys; sys.path[:] = {[*map(str, sys.path)]!r}; from tinyqnn import warmup; warmup.serve()"
        with (
            contextlib.suppress(OSError),  # it could not be started, or was stopped
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            ) as self.process,
        ):
            to, back = self.process.stdin, self.process.stdout
            assert to is not None
            assert back is not None
            while (pair := self.next()) is not None:
                answer, question = pair
                if answer.set_running_or_notify_cancel():
                    try:
                        pickle.dump(question, to)
                        to.flush()
                        back.readline()
                    finally:
                        answer.set_result(None)

    def next(self) -> tuple[Future[None], bytes] | None:
        """The next question; None when there has been none for a while."""
        global _second
        with contextlib.suppress(Empty):
            return self.questions.get(timeout=QUIET)
        with _lock:
            if not self.questions.empty():
                return self.questions.get()
            _second = None
            return None


def serve() -> None:
    """What the second process does: answer each question with a line, until there are no more."""
    stay_alone()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which may want to finish its step
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while True:
        try:
            question = pickle.load(questions)
        except EOFError:
            return
        with contextlib.suppress(Exception), np.errstate(all="ignore"):
            function, args = pickle.loads(question)
            function(*args)
        answers.write(b"\n")
        answers.flush()


def stay_alone() -> None:
    """Have no second process from now on."""
    global _possible, cold
    _possible, cold = False, 0
    asked.clear()


if hasattr(os, "register_at_fork"):  # the thread that talks stays with the parent
    os.register_at_fork(after_in_child=stay_alone)


class _Pickler(pickle.Pickler):
    """Arrays go as what they look like. What would import somebody else's program is refused."""

    room = LARGE

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray:
            self.room -= value.nbytes
            if self.room < 0:
                raise MemoryError
            return made_up, (value.shape, value.dtype.str, value.strides, value.flags.writeable)
        is_named = isinstance(value, (type, FunctionType, BuiltinFunctionType))
        if is_named and (value.__module__ or "").partition(".")[0] not in KNOWN:
            raise pickle.PicklingError(f"{value!r} is not ours to import")
        return NotImplemented


def _question(function: Callable[..., object], args: tuple[Any, ...]) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump((function, args))
    return file.getvalue()


def made_up(shape: tuple[int, ...], dtype: str, strides: tuple[int, ...], writeable: bool = True) -> Array:
    """An array that a kernel takes for another of this shape and memory order; numbers from 0.1 to 1, integers 0.

    Numbers like these are never divided by 0, have a root and a logarithm, and are no multiples of anything, so a
    kernel that looks at them goes the way it goes with weights.

    >>> made_up((2, 3), "<i8", (8, 16)).strides
    (8, 16)
    """
    kind = np.dtype(dtype)
    reach = [(axis - 1) * stride for axis, stride in zip(shape, strides)] if 0 not in shape else []
    first = -sum(min(way, 0) for way in reach)
    memory = np.zeros((first + sum(max(way, 0) for way in reach)) // kind.itemsize + 1, kind)
    if kind.kind == "f":
        memory[:] = np.resize(np.random.default_rng(0).uniform(0.1, 1, 997), len(memory))
    array = np.ndarray(shape, kind, memory, first, strides)
    array.flags.writeable = writeable
    return array
