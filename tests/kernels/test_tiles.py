"""The words for tile registers do what they say, and who asks for tiles gets an answer that holds."""

from __future__ import annotations

import ctypes
import sys
import threading

import numpy as np
import pytest

from tinyqnn.kernels import Int8Gemm, jit, seats, simd, tiled, tiles, use_reference
from tinyqnn.kernels.jit import aligned
from tinyqnn.kernels.pack import pack_words

needs_tiles = pytest.mark.skipif(use_reference() or not tiles.allowed(), reason="no tiles here")


@jit.jit
def _one_product(table, a, b, y, columns, signed):
    tiles.configure(table)
    tiles.zero(0)
    tiles.load(4, tiles.address(a), 64)
    tiles.load(6, tiles.address(b), 64)
    if signed:
        tiles.dot_bytes(0, 4, 6, True)
    else:
        tiles.dot_bytes(0, 4, 6, False)
    tiles.store(0, tiles.address(y), 4 * columns)
    tiles.release()


@needs_tiles
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (1, 16), (5, 3)])
def test_a_product_of_two_tiles(rng, signed, rows, columns):
    a, b = aligned(256).view(np.int8), aligned(256).view(np.int8)
    a[:], b[:] = rng.integers(-128, 128, (2, 1024))
    y = np.full((rows + 1, columns), 7, np.int32)
    _one_product(tiles.shape(rows, columns), a, b, y, columns, signed)
    x = (a if signed else a.view(np.uint8)).reshape(16, 64)[:rows].astype(int)
    w = b.reshape(16, 16, 4).transpose(0, 2, 1).reshape(64, 16)[:, :columns].astype(int)  # four, column, k -> k, column
    assert np.array_equal(y[:rows], x @ w)
    assert (y[rows:] == 7).all()


@jit.jit
def _begun(table, before, y, known):
    tiles.configure(table)
    tiles.load(0, tiles.address(before), 64)
    tiles.begin(0, tiles.address(before) if known else 0)
    tiles.store(0, tiles.address(y), 64)
    tiles.release()


@needs_tiles
def test_sums_begin_with_those_that_are_known_or_with_0(rng):
    before, y = aligned(256).view(np.int32), aligned(256).view(np.int32)
    before[:] = rng.integers(-100, 100, 256)
    for known in (True, False):
        _begun(tiles.shape(16, 16), before, y, known)
        assert np.array_equal(y, before * known)


@jit.jit
def _widen(y, words):
    tiles.put_signs(tiles.address(y), tiles.address(words))


@pytest.mark.skipif(use_reference(), reason="compiled code alone")
def test_a_word_becomes_64_signs(rng):
    signs, y = rng.choice(np.array([-1, 1], np.int8), 64), np.full(65, 7, np.int8)
    _widen(y, pack_words((signs < 0).astype(np.uint8)))
    assert np.array_equal(y, [*signs, 7])


@pytest.mark.parametrize("m", [1, 31, 64, 333, 5000])
@pytest.mark.parametrize("n", [5, 64, 1000])
@pytest.mark.parametrize("depth", [1, 16, 130])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_shares_are_whole_blocks_of_what_there_is(m, n, depth, threads):
    many, piece = tiled.shares(m, n, depth, threads)
    assert many == m if threads == 1 else many % tiled.PAIR == 0
    assert 1 <= piece <= -(-n // tiled.PAIR)
    assert piece == 1 or piece * depth * 2 * tiled.TILE <= tiled.CACHED


@needs_tiles
def test_each_thread_takes_another_number():
    @jit.jit
    def many(counter, found):
        while True:
            mine = seats.add(tiles.address(counter), 0, 1)
            if mine >= len(found):
                return
            found[mine] += 1

    counter, found = np.zeros(1, np.int64), np.zeros(100_000, np.int64)
    threads = [threading.Thread(target=many, args=(counter, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found == 1).all()


def test_runs_are_where_neighbours_end():
    assert tiled.runs_of(np.array([5])) == ((5, 1),)
    assert tiled.runs_of(np.array([0, 1, 9, 10, 11, 4])) == ((0, 2), (9, 3), (4, 1))


FEATURES = {"amx-tile", "amx-int8", "amx-bf16"}


class TestPermission:
    """Bytes are multiplied in any case; with tiles only where all three agree."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """Every number that Linux was asked with; it answers what `answer` holds."""
        calls, answer = [], [0]

        class Library:
            def syscall(self, *numbers):
                calls.append([n.value for n in numbers])
                return answer[0]

        monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
        monkeypatch.setattr(simd, "_FEATURES", FEATURES)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(tiles.platform, "machine", lambda: "x86_64")
        return calls, answer

    def test_linux_is_asked_for_the_tiles_data(self, asked):
        calls, answer = asked
        assert tiles.allowed.__wrapped__()
        assert calls == [[158, 0x1023, 18]]
        answer[0] = -1
        assert not tiles.allowed.__wrapped__()

    @pytest.mark.parametrize("missing", sorted(FEATURES))
    def test_nobody_is_asked_where_a_feature_is_missing_or_hidden(self, asked, monkeypatch, missing):
        monkeypatch.setattr(simd, "_FEATURES", FEATURES - {missing})
        assert not tiles.allowed.__wrapped__()
        assert asked[0] == []

    @pytest.mark.parametrize(("system", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
    def test_nor_on_other_systems(self, asked, monkeypatch, system, machine):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(tiles.platform, "machine", lambda: machine)
        assert not tiles.allowed.__wrapped__()
        assert asked[0] == []

    def test_a_library_without_the_call(self, asked, monkeypatch):
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
        assert not tiles.allowed.__wrapped__()

    def test_a_product_that_was_refused_tiles_packs_for_the_byte_dot(self, monkeypatch):
        monkeypatch.setattr(tiles, "allowed", lambda: False)
        g = Int8Gemm(np.array([[1, -2]]))
        assert not g.tiles
        assert g.zero == 128
        assert g(np.array([[100, 3]])).tolist() == [[94]]
