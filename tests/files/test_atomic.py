"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tinyqnn.files import FileError, atomic_write, load_arrays, save_arrays


def names(folder):
    return sorted(os.listdir(folder))


def test_a_block_that_ends_well_makes_the_file_and_nothing_else(tmp_path):
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")

    def fail():
        with atomic_write(tmp_path / "a", overwrite=True) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_what_is_there_is_replaced_only_with_leave(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"mine")
    for overwrite in (False, lambda path: False):
        with pytest.raises(FileExistsError, match=r"a is there already; choose another name.*overwrite=True"):
            atomic_write(path, overwrite).__enter__()
    assert path.read_bytes() == b"mine"
    for overwrite in (True, lambda path: path.read_bytes() == b"mine"):
        path.write_bytes(b"mine")
        with atomic_write(path, overwrite) as file:
            file.write(b"new")
        assert path.read_bytes() == b"new"
    with pytest.raises(FileExistsError, match="no ordinary file"):
        atomic_write(tmp_path, overwrite=True).__enter__()
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write a into; create it first"):
        atomic_write(tmp_path / "nowhere" / "a").__enter__()


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link", overwrite=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "a") as file:
        file.write(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


class Faulty:
    """A disk on which the n-th operation fails."""

    def __init__(self, monkeypatch, fail_at):
        self.fail_at, self.count = fail_at, 0
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *args: self.wrap(fdopen(*args)))
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        def call(*args):
            self.count += 1
            if self.count == self.fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        return call

    def wrap(self, file):
        class Wrapped:
            write, flush = staticmethod(self.counted(file.write)), staticmethod(self.counted(file.flush))

            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

        return Wrapped()


def test_no_space_at_any_operation_leaves_the_old_or_the_new_file(tmp_path):
    path, old, new = tmp_path / "a.npz", {"w": np.zeros(50)}, {"w": np.ones(70)}
    fail_at, outcomes = 0, []
    while True:
        fail_at += 1
        save_arrays(path, old, overwrite=True)
        with pytest.MonkeyPatch.context() as patch:
            disk = Faulty(patch, fail_at)
            try:
                save_arrays(path, new)
                failed = False
            except OSError as error:
                failed = error.errno == errno.ENOSPC
        arrays, _ = load_arrays(path)
        assert arrays["w"].size == (50 if failed else 70)
        assert names(tmp_path) == ["a.npz"]
        outcomes.append(failed)
        if disk.count < fail_at:
            break
    assert outcomes[-2:] == [False, False]  # the folder could not be synced; nothing failed
    assert outcomes[:-2] == [True] * (len(outcomes) - 2)
    assert len(outcomes) > 10


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 4095, 4096, 8191, 8192, 8500])
def test_a_full_disk_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "a.npz"
    save_arrays(path, {"w": np.zeros(5)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # the system refuses every byte after so many
    try:
        with pytest.raises(OSError, match="File too large"):
            save_arrays(path, {"w": np.ones(1100)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_arrays(path)[0]["w"].tolist() == [0.0] * 5
    assert names(tmp_path) == ["a.npz"]


def fork_and_kill(path, kills, rng):
    """Children that write without pause, each killed at a random moment; the file is read after each."""
    n = leftovers = 0
    begun = time.perf_counter()
    for _ in range(5):
        save_arrays(path, {"n": np.full(4_000, n), "m": np.full(3, n)}, {"n": n})
    one = (time.perf_counter() - begun) / 5
    for _ in range(kills):
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                os.write(tell, b"!")
                while True:
                    n += 1
                    save_arrays(path, {"n": np.full(4_000, n), "m": np.full(3, n)}, {"n": n})
            finally:
                os._exit(1)
        os.read(ready, 1)
        time.sleep(rng.uniform(0, 3 * one))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
        leftovers += len([name for name in names(path.parent) if name.endswith(".tmp")])
        if path.exists():
            arrays, header = load_arrays(path)
            assert set(arrays["n"].tolist()) == set(arrays["m"].tolist()) == {header["n"]}
            assert header["n"] >= n
            n = header["n"]
    return n, leftovers


PROGRAM = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import numpy, test_atomic
print(*test_atomic.fork_and_kill(pathlib.Path(sys.argv[2]), int(sys.argv[3]), numpy.random.default_rng(0)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path, kills):
    path = tmp_path / "a.npz"
    command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(path), str(kills)]
    # A process of its own, without threads: those do not survive a fork.
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stderr == ""
    n, leftovers = map(int, run.stdout.split())
    assert n > kills / 4  # files were finished …
    assert leftovers > kills / 10  # … and others were not
    save_arrays(path, {"n": np.zeros(1)})
    assert names(tmp_path) == ["a.npz"]  # what the dead left behind is cleared away


def test_what_a_living_writer_has_begun_is_left_alone(tmp_path):
    with atomic_write(tmp_path / "a") as slow:
        slow.write(b"first")
        with atomic_write(tmp_path / "a") as fast:
            fast.write(b"second")
        assert (tmp_path / "a").read_bytes() == b"second"
    assert (tmp_path / "a").read_bytes() == b"first"


def test_two_writers_at_once_never_mix(tmp_path):
    path = tmp_path / "a.npz"
    save_arrays(path, {"n": np.zeros(1000)})
    errors = []

    def write(n):
        try:
            for _ in range(50):
                save_arrays(path, {"n": np.full(1000, n)})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(set(load_arrays(path)[0]["n"].tolist())) == 1
    assert errors == []
    assert names(tmp_path) == ["a.npz"]


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.npz").write_bytes(b"three years of work")
    np.savez(tmp_path / "data.npz", w=np.zeros(2))
    save_arrays(tmp_path / "packed.npz", {}, kind="packed model")
    for name in ("thesis", "data", "packed"):
        path = tmp_path / f"{name}.npz"
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match=name):
            save_arrays(path, {"w": np.ones(2)}, kind="checkpoint")
        assert path.read_bytes() == before
        save_arrays(path, {"w": np.ones(2)}, kind="checkpoint", overwrite=True)
        save_arrays(path, {"w": np.ones(2)}, kind="checkpoint")  # now it is one of ours
        with pytest.raises(FileExistsError):
            save_arrays(path, {"w": np.ones(2)}, kind="checkpoint", overwrite=False)


def test_no_ordinary_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")  # opening it would wait for ever
    with pytest.raises(FileError, match="no ordinary file, expected an"):
        load_arrays(tmp_path / "pipe.npz", kind=None)
    with pytest.raises(FileError, match="is a folder"):
        load_arrays(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing"):
        load_arrays(tmp_path / "nothing")
