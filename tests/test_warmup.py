"""The second process that warms up the backward pass: it takes the way the first takes, and nobody depends on it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn import Tensor, optim, warmup
from tinyqnn.tensor import Function


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing asked, nothing told, nobody there; and afterwards nobody stays."""
    for name, value in {"cold": 0, "asked": {}, "_asked_before": set(), "_second": None, "_possible": True}.items():
        monkeypatch.setattr(warmup, name, value)
    monkeypatch.setattr(warmup, "QUIET", 0.2)
    yield
    for thread in threading.enumerate():
        if thread.name == "tinyqnn-warmup":
            thread.join(10)


class Nobody:
    """A second process that never begins anything."""

    def __init__(self):
        self.questions = []

    def ask(self, question):
        self.questions.append(pickle.loads(question))
        return Future()


def run(code, *options, **environment):
    """What a Python prints that runs `code`."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


VIEWS = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "every other": lambda x: x[::2],
    "backwards": lambda x: x[::-1],
    "with gaps": lambda x: x[..., :1],
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
    "channels first": lambda x: np.moveaxis(x, -1, 0),
    "empty": lambda x: x.reshape(-1)[:0],
    "one number": lambda x: x.sum(),
}


@pytest.mark.parametrize("view", VIEWS)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(["f4", "f8", "i8", "i1", "?"]))
def test_a_made_up_array_looks_like_the_one_it_stands_for(view, shape, kind):
    import numba

    array = np.asarray(VIEWS[view](np.zeros(shape, kind)))
    function, (made,) = pickle.loads(warmup._question(len, (array,)))
    assert function is len
    assert (made.shape, made.dtype, made.strides) == (array.shape, array.dtype, array.strides)
    assert numba.typeof(made) == numba.typeof(array)
    if made.dtype.kind == "f":
        assert (made >= 0.1).all()
        assert (made <= 1).all()
    else:
        assert not made.any()


def test_an_array_given_twice_stays_one():
    x = np.ones(3)
    _, (first, second) = pickle.loads(warmup._question(len, (x, x)))
    assert first is second


# Operations of every kind, for the question whether made-up arrays lead a derivative to the kernels that real ones do.
STEP = """
    import io, pickle, sys
    import numpy as np
    from numba.core.dispatcher import Dispatcher
    from tinyqnn import Tensor, models, optim, nn, warmup
    from tinyqnn import functional as F

    found, add = [], Dispatcher.add_overload
    def note(self, version):
        found.append((self.py_func.__qualname__, version.signature))
        add(self, version)
    Dispatcher.add_overload = note

    def here(key, function, *args):
        function, args = pickle.loads(warmup._question(function, args))
        function(*args)
    warmup.warm_up, warmup.compiling = here, lambda for_disk: None

    rng = np.random.default_rng(0)
    {make}
    optimizer = optim.{optimizer}(model.parameters(), lr=0.1)
    for thing, use in list(warmup._expected.items()):
        here(thing, use, thing)
    warmup.cold = 1
    loss = loss()
    before = len(found)
    loss.backward()
    optimizer.step()
    print(before > 0, found[before:])
"""
IMAGES = """
    model = models.create("{}", 3, 10, rng=rng)
    x = np.ascontiguousarray(rng.standard_normal((8, 32, 32, 3), dtype=np.float32)).transpose(0, 3, 1, 2)
    y = rng.integers(10, size=8)
    loss = lambda: F.cross_entropy(model(Tensor(x)), y)
"""
WORDS = """
    model = models.create("lstm-24", 3, 50, rng=rng)
    x, y = rng.integers(50, size=(5, 4)), rng.integers(50, size=20)
    loss = lambda: F.cross_entropy(model(Tensor(x))[0].reshape(-1, 50), y)
"""
POINTS = """
    model = models.create("fcdnn-16-3", 3, 2, rng=rng)
    x, y = rng.standard_normal((100, 2), dtype=np.float32), rng.integers(2, size=100)
    loss = lambda: F.cross_entropy(model(Tensor(x)), y)
"""


@pytest.mark.parametrize(
    ("make", "optimizer"),
    [
        (IMAGES.format("resnet20-16"), "SGD"),
        (IMAGES.format("vgg-16"), "Adam"),
        (IMAGES.format("mobilenet-0.5"), "SGD"),
        (WORDS, "SGD"),
        (POINTS, "Adam"),
    ],
    ids=["resnet", "vgg", "mobilenet", "lstm", "fcdnn"],
)
def test_made_up_arrays_lead_to_every_kernel_that_the_step_wants(make, optimizer):
    from tinyqnn.kernels import use_reference

    if use_reference():
        pytest.skip("nothing is compiled")
    code = textwrap.dedent(STEP).format(make=textwrap.dedent(make), optimizer=optimizer)
    assert run(code, "-W", "ignore") == "True []\n"


def test_what_nobody_has_begun_is_taken_back(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    warmup.compiling()
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = (x * x).sum()
    assert [(args[0].__name__, args[1]) for _, args in nobody.questions] == [("Mul", (True, True)), ("Sum", (True,))]
    y.backward()
    assert x.grad.tolist() == [[2, 2, 2]] * 2
    assert (warmup.cold, warmup.asked) == (0, {})


def test_what_the_backward_pass_does_not_come_by_is_not_wanted(monkeypatch):
    monkeypatch.setattr(warmup, "_second", Nobody())
    warmup.compiling()
    x = Tensor([1.0], requires_grad=True)
    aside, y = x + x, x * x
    warmup.asked["at it"] = running = Future()
    running.set_running_or_notify_cancel()
    y.backward()
    assert list(warmup.asked) == ["at it"]
    assert aside.data == 2


@pytest.mark.parametrize("who", ["a derivative", "an optimizer"])
def test_what_the_other_is_at_is_waited_for(who):
    x = Tensor([1.0], requires_grad=True)
    optimizer, y = optim.SGD([x], lr=0.1), x * x
    answer = Future()
    answer.set_running_or_notify_cancel()
    warmup.asked[y._node[0].number if who == "a derivative" else optimizer] = answer
    threading.Timer(0.3, answer.set_result, [None]).start()
    y.backward()
    assert answer.done() == (who == "a derivative")
    optimizer.step()
    assert answer.done()
    assert not warmup.asked


def test_who_waits_is_told_once_or_each_time():
    said = []
    with warmup.told(lambda: said.append("once")):
        warmup.compiling(False)
        warmup.compiling(False)
        with warmup.told(lambda: said.append("again"), again=True):
            warmup.compiling(False)
            warmup.compiling(False)
        warmup.compiling(False)
    warmup.compiling(False)
    assert said == ["once", "again", "again"]


def test_nothing_is_told_twice_and_nothing_as_long_as_nothing_is_compiled(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    x = Tensor([1.0, 2.0], requires_grad=True)
    _ = x * x
    assert not nobody.questions
    warmup.compiling()
    _ = x * x, x * x, x.data * x.data
    assert len(nobody.questions) == 1


def test_only_the_operations_near_a_compilation_are_told(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    monkeypatch.setattr(warmup, "NEAR", 3)
    warmup.compiling()
    for size in range(1, 6):
        _ = Tensor(np.ones(size, np.float32), requires_grad=True) * 2.0
    assert len(nobody.questions) == 3


def test_an_optimizer_is_the_first_that_is_told(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    w = Tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)
    gone = optim.SGD([w], lr=0.5)
    del gone
    warmup.compiling()
    loss = (w * 2.0).sum()
    steps = [args for _, args in nobody.questions if isinstance(args[0], optim.SGD)]
    assert len(steps) == 1
    assert nobody.questions[0][1] == steps[0]
    function, (theirs,) = nobody.questions[0]
    before = [p.data.copy() for p in theirs._params()]
    function(theirs)  # what the second process does
    assert [p.data.tolist() for p in theirs._params()] == [(b - np.float32(0.5)).tolist() for b in before]

    loss.backward()
    optimizer.step()
    assert w.data.tolist() == [0, 1]
    assert not warmup.asked


class Mine(Function):
    """An operation of somebody's own program."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_nobodys_own_program_is_imported(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    warmup.compiling()
    x = Tensor([1.0], requires_grad=True)
    Mine.apply(x).backward()
    assert x.grad.tolist() == [2]
    assert not nobody.questions


def test_arrays_that_need_much_memory_are_not_made_twice(monkeypatch):
    nobody = Nobody()
    monkeypatch.setattr(warmup, "_second", nobody)
    monkeypatch.setattr(warmup, "LARGE", 2 * 400)
    monkeypatch.setattr(warmup._Pickler, "room", 2 * 400)
    warmup.compiling()
    warmup.warm_up("fits", len, np.ones(50), np.ones(50))
    warmup.warm_up("does not", len, np.ones(50), np.ones(51))
    assert list(warmup.asked) == ["fits"]


def answered(key):
    """Wait until the second process has answered, and be told how."""
    answer = warmup.asked[key]
    deadline = time.monotonic() + 60
    while not answer.done() and time.monotonic() < deadline:
        time.sleep(0.01)
    warmup.meet(key)
    return answer.done() and not answer.cancelled()


def test_it_answers_in_order_whatever_happens_and_ends_when_it_is_quiet(tmp_path):
    note = tmp_path / "note"
    warmup.warm_up("an error", os.mkdir, str(tmp_path))
    warmup.warm_up("made", os.mkdir, str(note))
    second = warmup._second
    assert answered("an error")
    assert answered("made")
    assert note.is_dir()
    deadline = time.monotonic() + 20
    while warmup._second is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert warmup._second is None
    assert second.process.wait(20) == 0
    warmup.warm_up("again", os.rmdir, str(note))
    assert answered("again")
    assert not note.exists()


def test_it_has_no_second_process_of_its_own():
    code = "from tinyqnn import warmup; warmup.serve(); warmup.compiling(); print(warmup.cold)"
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"0\n")  # what anybody prints there does not come between the answers


@pytest.mark.parametrize("python", ["/nowhere/python", "false"])
def test_without_it_everything_goes_on(python, monkeypatch):
    monkeypatch.setattr(sys, "executable", python)
    warmup.compiling()
    x = Tensor([3.0], requires_grad=True)
    y = x * x
    time.sleep(0.3)
    (y * y).backward()
    assert x.grad.tolist() == [108]
    assert not warmup.asked


def test_one_that_does_not_answer_is_stopped(monkeypatch):
    monkeypatch.setattr(warmup, "PATIENCE", 0.2)
    warmup.warm_up("sleep", time.sleep, 60)
    answer, second = warmup.asked["sleep"], warmup._second
    deadline = time.monotonic() + 60
    while not answer.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    warmup.meet("sleep")
    assert second.process.wait(20) != 0


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C does not come by there")
def test_ctrl_c_is_not_for_it(tmp_path):
    warmup.warm_up("begun", os.mkdir, str(tmp_path / "begun"))
    second = warmup._second
    assert answered("begun")
    second.process.send_signal(signal.SIGINT)
    warmup.warm_up("goes on", os.mkdir, str(tmp_path / "goes on"))
    assert answered("goes on")
    assert (tmp_path / "goes on").is_dir()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_stays_alone():
    warmup.cold, warmup.asked["x"] = 5, Future()
    child = os.fork()
    if child == 0:
        warmup.compiling()
        os._exit(0 if (warmup.cold, warmup.asked) == (0, {}) else 1)
    assert os.waitpid(child, 0)[1] == 0


POOLING = """
    import time
    import numpy as np
    from numba.core import event
    from tinyqnn import Tensor, warmup
    from tinyqnn import functional as F

    compiled = []
    class Watch(event.Listener):
        def on_start(self, event): compiled.append(event.data["dispatcher"].py_func.__name__)
        def on_end(self, event): pass
    event.register("numba:compile", Watch())
    x = np.ones((8, 32, 32, 16), np.float32).transpose(0, 3, 1, 2)
    x = Tensor(x, requires_grad=True)
    y = F.max_pool2d(x, 2)
    forward, asked = len(compiled), list(warmup.asked.values())
    while not all(answer.done() for answer in asked):
        time.sleep(0.01)
    y.backward(np.ones_like(y.data))
    print(len(asked), forward > 0, compiled[forward:], x.grad.sum())
"""


def test_what_it_compiles_is_found_on_disk(tmp_path):
    from tinyqnn.kernels import use_reference

    if use_reference():
        pytest.skip("nothing is compiled")
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(POOLING, **folder, TINYQNN_THREADS="2") == "1 True [] 32768.0\n"
    assert run(POOLING, **folder, TINYQNN_THREADS="2") == "0 False [] 32768.0\n"


def test_with_one_thread_there_is_none(tmp_path):
    from tinyqnn.kernels import use_reference

    if use_reference():
        pytest.skip("nothing is compiled")
    told = run(POOLING, NUMBA_CACHE_DIR=str(tmp_path), TINYQNN_THREADS="1")
    assert told == "0 True ['_max_pool_grad'] 32768.0\n"
