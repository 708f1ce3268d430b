"""The decorator, the threads, and what happens where there is no cache, no compiler or no second thread."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

import tinyqnn
from tinyqnn.kernels import board as boards
from tinyqnn.kernels import jit, use_reference, using
from tinyqnn.kernels.board import opened
from tinyqnn.kernels.seats import NUMBER, RANGE, add
from tinyqnn.kernels.turns import again, finish, leave, take


def python(code: str, folder: str | os.PathLike[str] | None = None, **environment: str) -> str:
    """What a fresh interpreter prints, started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_does_not_import_numba():
    code = "import sys, tinyqnn.kernels as k; k.use_reference(); k.reference; print('numba' in sys.modules)"
    assert python(code) == "False"


def test_an_unknown_kernel_module_is_an_attribute_error():
    import tinyqnn.kernels as kernels

    with pytest.raises(AttributeError, match="nonsense"):
        _ = kernels.nonsense


def test_without_compiled_kernels_the_twins_give_the_same_integers():
    """Sums of small integers are exact in float32, so the order of summation cannot show."""
    code = """
        import numpy as np
        from tinyqnn.kernels import conv, gemm, use_reference
        x, w = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6), np.ones((2, 1, 3, 3), np.float32)
        y = conv.conv2d(x, w, stride=(2, 2), padding=(1, 1))
        gx = conv.conv2d_grad_input(y, w, x.shape, (2, 2), (1, 1))
        gw = conv.conv2d_grad_weight(y, x, w.shape, (2, 2), (1, 1))
        a = np.arange(8000, dtype=np.float32).reshape(80, 100) % 7
        print(use_reference(), y.sum(), gx.sum(), gw.sum(), gemm.matmul(a, a.T).sum())
    """
    compiled = python(code, TINYQNN_KERNELS="compiled", NUMBA_DISABLE_JIT="0").split()
    assert compiled[0] == "False"
    for variable in ({"TINYQNN_KERNELS": "reference"}, {"NUMBA_DISABLE_JIT": "1"}):
        assert python(code, **variable).split() == ["True", *compiled[1:]]


def test_a_kernel_compiles_where_no_cache_folder_can_be_written(monkeypatch):
    calls = []
    real = jit.numba.njit

    def no_locator(*args, **options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return real(*args, **options)

    monkeypatch.setattr(jit.numba, "njit", no_locator)

    @jit.jit
    def double(x):
        return 2 * x

    assert double(21) == 42
    assert [options.get("cache", False) for options in calls[:2]] == [True, False]


@pytest.mark.skipif(use_reference(), reason="nothing is compiled")
def test_whatever_literals_kernels_give_one_another_they_are_compiled_once():
    @jit.jit
    def power(x, exponent, minus):
        return -(x**exponent) if minus else x**exponent

    @jit.jit
    def polynomial(x, exponent):
        return power(x, 2, True) + power(x, 3, minus=False) + power(x, exponent, False)

    assert polynomial(2.0, 4) == -4 + 8 + 16
    assert len(power.signatures) == 1


@pytest.mark.skipif(use_reference(), reason="nothing is cached where nothing is compiled")
def test_a_change_in_a_neighbouring_file_makes_the_cache_stale(tmp_path):
    """Numba looks at the kernel's own file only; the decorator adds the folder's files."""
    shutil.copytree(Path(tinyqnn.__file__).parent, tmp_path / "tinyqnn", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
        from tinyqnn.kernels import gemm
        gemm.panel_width(40)
        print(sum(gemm.panel_width.stats.cache_hits.values()), sum(gemm.panel_width.stats.cache_misses.values()))
    """
    there = {"folder": tmp_path, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert python(code, **there) == "0 1"
    assert python(code, **there) == "1 0"
    with open(tmp_path / "tinyqnn" / "kernels" / "simd.py", "a") as file:
        file.write("# changed\n")
    assert python(code, **there) == "0 1"


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_run_covers_every_item_once(threads, chunk):
    before, counts = jit.get_num_threads(), np.zeros(50, int)
    try:
        jit.set_num_threads(threads)

        def body(first, last):
            counts[first:last] += 1

        jit.run(body, 50, chunk)
        jit.run(body, 0, chunk)
    finally:
        jit.set_num_threads(before)
    assert (counts == 1).all()


@pytest.mark.parametrize("work", [1, jit.FEW - 1, jit.FEW])
def test_few_multiplications_are_done_by_the_caller_in_one_range(work):
    before, ranges = jit.get_num_threads(), []
    try:
        jit.set_num_threads(2)
        jit.run(lambda first, last: ranges.append((first, last, threading.get_ident())), 50, 10, work)
    finally:
        jit.set_num_threads(before)
    few = [(0, 50, threading.get_ident())]
    assert ranges == few if work < jit.FEW else sorted(r[:2] for r in ranges) == [(i, i + 10) for i in range(0, 50, 10)]


def test_an_error_in_any_chunk_reaches_the_caller_and_the_pool_lives_on():
    def fail(first, last):
        if first <= 7 < last:
            raise ZeroDivisionError("chunk seven")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="chunk seven"):
            jit.run(fail, 20, 1)
    done = []
    jit.run(lambda first, last: done.append(first), 20, 1)
    assert sorted(done) == list(range(20))


def test_a_chunk_may_itself_call_run_and_callers_may_be_threads():
    counts = np.zeros((8, 8), int)

    def row(first, last):
        for i in range(first, last):

            def cell(a, b, i=i):
                counts[i, a:b] += 1

            jit.run(cell, 8, 1)

    callers = [threading.Thread(target=jit.run, args=(row, 8, 1)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert (counts == 3).all()


@jit.jit
def count_items(seat, counts):
    item = take(seat)
    while item >= 0:
        counts[item] += 1
        item = take(seat)
    leave(seat)


@jit.ByLetter
def count_in_letter(at, told):
    """The letter is what is counted in."""
    seat, counts = opened(at, told)
    count_items(seat, counts)


KERNELS = pytest.mark.parametrize("kernel", [count_items, count_in_letter], ids=["arrays", "letter"])


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("items", [0, 1, 2, 5000])
@KERNELS
def test_shared_items_are_taken_once_each(kernel, threads, items):
    before, counts = jit.get_num_threads(), np.zeros(items, int)
    try:
        jit.set_num_threads(threads)
        for _ in range(20):
            jit.share(kernel, items, counts)
    finally:
        jit.set_num_threads(before)
    assert (counts == 20).all()


@jit.ByLetter
def wait_for_company(at, told):
    """Who takes an item waits, but not for ever, until the other one is taken: the letter tells by whom."""
    seat, letter = opened(at, told)
    item = take(seat)
    while item >= 0:
        letter[item] = 1 + seat[NUMBER]
        patience = 1_000_000
        while patience > 0 and add(told, 1 - item, 0) == 0:
            patience -= 1
        item = take(seat)
    leave(seat)


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
def test_helpers_come_to_what_is_posted_awake_or_asleep():
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(2)
        for pause in (0, 0.01):  # after which a helper has fallen asleep
            came = 0
            for _ in range(100):
                time.sleep(pause)
                letter = np.zeros(2, int)
                jit.share(wait_for_company, 2, letter)
                came += letter.tolist() == [1, 2]
                if came == 3:
                    break
            assert came == 3
    finally:
        jit.set_num_threads(before)


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
def test_a_helper_does_what_is_posted_once_and_only_if_so_many_are_wanted():
    nobody, board, letter = jit._Job(), np.zeros(boards.BOARD, np.int64), np.zeros(5, int)
    posted = {
        boards.POSTED: 1, boards.THREADS: 2, boards.HOW_MANY: 5, boards.KERNEL: count_in_letter.address,
        boards.LETTER: letter.ctypes.data,
    }  # fmt: skip
    for place, number in posted.items():
        board[place] = number
    for helper, count in ((2, 0), (1, 1), (1, 1)):
        jit._linger(nobody.address, 10, board.ctypes.data, helper)
        assert letter.tolist() == [count] * 5
        assert board[boards.INSIDE] == 0


@jit.jit
def count_twice(seat, first, second):
    """The second loop adds up what the first has counted, so it may not begin before."""
    mine, item = seat[RANGE], take(seat)
    while item >= 0:
        first[item] += 1
        item = take(seat)
    other = again(seat, mine, len(second))
    item = take(other)
    while item >= 0:
        second[item] += first.sum()
        item = take(other)
    finish(other)
    leave(seat)


@jit.ByLetter
def count_twice_in_letter(at, told):
    """The same; the letter is the number of items, `second` and `first`."""
    seat, letter = opened(at, told)
    count_twice(seat, letter[8 : 8 + letter[0]], letter[1:8])


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("items", [1, 2, 500])
def test_a_second_loop_begins_when_the_first_is_done_and_takes_each_item_once(threads, items):
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(threads)
        for _ in range(50):
            first, second = np.zeros(items, int), np.zeros(7, int)
            jit.share(count_twice, items, first, second)
            letter = np.array([items, *second * 0, *first * 0])
            jit.share(count_twice_in_letter, items, letter)
            assert (first == 1).all()
            assert (second == items).all()
            assert letter.tolist() == [items, *second, *first]
    finally:
        jit.set_num_threads(before)


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
def test_who_waits_for_a_second_loop_goes_when_the_caller_was_interrupted():
    job, second = jit._Job(), np.zeros(7, int)
    job.items = 3
    coming, board = jit._Job(), np.zeros(boards.BOARD, np.int64)
    caller, helper = job.sit(), job.sit(1, coming, board.ctypes.data)
    jit._take(caller)  # and is interrupted before it has done this item
    jit._close(job.sit())
    count_twice(helper, np.zeros(3, int), second)
    assert not second.any()


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
def test_many_callers_share_at_once_even_from_inside_a_range():
    counts = np.zeros((3, 8, 500), int)

    def ask(caller):
        for turn in range(20):
            kernel = (count_items, count_in_letter)[turn % 2]
            jit.run(lambda i, j: [jit.share(kernel, 500, counts[caller, k]) for k in range(i, j)], 7, 1)  # noqa: B023
            jit.share(kernel, 500, counts[caller, 7])

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert (counts == 20).all()


@pytest.mark.skipif(use_reference(), reason="what takes items is compiled")
def test_after_an_error_nobody_works_any_more_and_the_next_job_goes_well():
    """What helpers have begun is waited for: nothing is written behind the caller's back."""
    before, counts = jit.get_num_threads(), np.zeros(100, int)

    def slow(first, last):
        time.sleep(0.001)
        counts[first:last] += 1
        if first == 10:
            raise KeyboardInterrupt

    try:
        jit.set_num_threads(3)
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                jit.run(slow, 100, 1)
            seen = counts.copy()
            time.sleep(0.01)
            assert np.array_equal(counts, seen)
        for kernel in (count_items, count_in_letter):
            jit.share(kernel, 100, counts)
        assert (counts > seen + 1).all()
    finally:
        jit.set_num_threads(before)


@pytest.mark.skipif(use_reference() or not hasattr(signal, "SIGINT"), reason="what takes items is compiled")
@pytest.mark.parametrize("kernel", ["count_items", "count_in_letter"])
def test_ctrl_c_in_the_midst_of_shared_work_ends_the_program(kernel):
    code = """
        import os, signal, sys, threading
        sys.path.insert(0, {folder!r})
        import numpy as np
        from tinyqnn.kernels import jit
        from test_jit import {kernel}
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C
        jit.set_num_threads(2)
        jit.share({kernel}, 10, np.zeros(10, int))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                jit.share({kernel}, 5000, np.zeros(5000, int))
        except KeyboardInterrupt:
            counts = np.zeros(5000, int)
            jit.share({kernel}, 5000, counts)
            print(counts.sum())
    """
    assert python(code.format(folder=str(Path(__file__).parent), kernel=kernel)) == "5000"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_threads_of_its_own():
    code = """
        import os, sys
        sys.path.insert(0, {folder!r})
        import numpy as np
        from tinyqnn.kernels import jit, use_reference
        from test_jit import count_in_letter
        jit.set_num_threads(2)
        def count():
            done, letter = [], np.zeros(50, int)
            jit.run(lambda first, last: done.append(first), 50, 1)
            if not use_reference():
                jit.share(count_in_letter, 50, letter)
            return len(done) + letter.sum()
        count()
        child = os.fork()
        if child == 0:
            os._exit(0 if count() == {count} and jit.get_num_threads() == 2 else 1)
        print(os.waitpid(child, 0)[1], count())
    """
    count = 50 if use_reference() else 100
    assert python(code.format(folder=str(Path(__file__).parent), count=count)) == f"0 {count}"


def test_ctrl_c_waits_until_a_function_is_compiled():
    """What somebody set for it is called then, once for each time; in between it is as it was."""
    told = []

    def first(*what):
        told.append(what)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    watch, compiling = jit._Watch(), types.SimpleNamespace(data={"dispatcher": types.SimpleNamespace(_cache=None)})
    before = signal.signal(signal.SIGINT, first)
    try:
        watch.on_start(compiling)
        watch.on_start(compiling)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        watch.on_end(compiling)
        assert told == []
        with pytest.raises(KeyboardInterrupt):
            watch.on_end(compiling)
        assert [number for number, _ in told] == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

        watch.on_start(compiling)
        watch.on_end(compiling)
        assert len(told) == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_versions_that_two_processes_compile_at_once_are_not_mixed_up(tmp_path):
    def file():
        return jit._CacheFile(str(tmp_path), "kernel", "stamp")

    one, other = file(), file()
    look = one._load_index

    def look_before_the_other_is_done():
        found = look()
        other.save("for integers", "the other's")
        return found

    one._load_index = look_before_the_other_is_done
    one.save("for numbers", "mine")
    assert file().load("for numbers") == "mine"
    assert file().load("for integers") in (None, "the other's")
    one._load_index = look
    one.save("for numbers", "mine again")
    assert file().load("for numbers") == "mine again"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_version_is_whole_before_the_index_names_it(tmp_path, monkeypatch):
    file = jit._CacheFile(str(tmp_path), "kernel", "stamp")
    monkeypatch.setattr(file, "_save_data", lambda name, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        file.save("key", "data")
    assert not list(tmp_path.iterdir())


def test_scratch_is_aligned_private_to_a_thread_and_kept():
    mine = jit.scratch(1000)
    assert mine.ctypes.data % 64 == 0
    assert jit.scratch(10).ctypes.data == mine.ctypes.data
    assert jit.scratch(10, slot=1).ctypes.data != mine.ctypes.data
    others = []
    thread = threading.Thread(target=lambda: others.append(jit.scratch(1000).ctypes.data))
    thread.start()
    thread.join()
    assert others != [mine.ctypes.data]


@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_a_thread_count_that_is_none_is_refused(value, monkeypatch):
    monkeypatch.setenv("TINYQNN_THREADS", value)
    with pytest.raises(ValueError, match=f"TINYQNN_THREADS is '{value}'"):
        jit._Pool()
    with pytest.raises(ValueError, match="at least one thread"):
        jit.set_num_threads(0)


def test_and_so_at_the_first_import():
    code = """
        try:
            import tinyqnn.kernels.jit
        except ValueError as error:
            print(error)
    """
    assert "TINYQNN_THREADS is 'two'" in python(code, TINYQNN_THREADS="two")


def test_an_unknown_choice_of_kernels_is_refused():
    code = """
        from tinyqnn import kernels
        try:
            kernels.use_reference()
        except ValueError as error:
            print(error)
    """
    assert "'fast', expected 'compiled' or 'reference'" in python(code, TINYQNN_KERNELS="fast")
    with pytest.raises(ValueError, match="'compiled' or 'reference'"), using("fast"):
        pass


def test_kernels_are_switched_for_a_while_even_by_a_block_that_fails():
    before = use_reference()
    with using("reference"):
        assert use_reference()
        with pytest.raises(ZeroDivisionError), using("compiled"):
            raise ZeroDivisionError
        assert use_reference()
    assert use_reference() == before
