"""Every product of codes against the plain one in 64-bit integers, for all kinds, widths, shapes and thread counts."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn import kernels, quant
from tinyqnn.kernels import (
    BinaryGemm,
    BitSerialGemm,
    Int8Gemm,
    ShiftGemm,
    binary,
    jit,
    shift,
    simd,
    tiled,
    tiles,
    turns,
)
from tinyqnn.kernels.bitserial import KINDS, Alphabet, plan_pairs
from tinyqnn.kernels.signbits import SignBits

sizes = st.integers(1, 200)
seeds = st.integers(0, 1000)
WIDTHS = [(kind, bits) for kind in KINDS for bits in range(1, 9)
          if (kind != "binary" or bits == 1) and (kind != "ternary" or bits == 2)]  # fmt: skip
alphabets = st.sampled_from(WIDTHS)


def plain(x, w):
    return x.astype(np.int64) @ np.swapaxes(w, -1, -2).astype(np.int64)


def draw(rng, kind, bits, shape):
    """Codes of a kind, all of them equally often."""
    low, high = Alphabet.of(kind, bits).low, Alphabet.of(kind, bits).high
    return rng.choice([-1, 1], shape) if kind == "binary" else rng.integers(low, high + 1, shape)


def value(kind, bits, codes):
    """What codes stand for, from the definitions: halves are counted, and ResQ's signs come first."""
    if kind in ("midrise", "zoom"):
        return 2 * codes + 1
    if kind == "residual":
        return np.stack([2 * (codes >> (bits - 1 - i) & 1) - 1 for i in range(bits)])
    return codes


def same(g, x, expected):
    """g(x) on one thread, and on two the steps apart, into an array that is there, are `expected`, as int32."""
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(1)
        y = g(x)
        assert y.dtype == np.int32
        assert np.array_equal(y, expected)
        jit.set_num_threads(2)
        out = np.full(expected.shape, 7, np.int32)
        packed = g.pack(x)
        assert g.multiply(packed, out) is out
        assert np.array_equal(out, expected)
    finally:
        jit.set_num_threads(before)


@contextmanager
def without_tiles(masked=True):
    """Inside, as on a processor that has no tiles, if `masked`."""
    with patch.object(tiles, "allowed", lambda: False) if masked else nullcontext():
        yield


@given(sizes, sizes, sizes, st.booleans(), seeds)
@example(1, 1, 1, True, 0)
@example(200, 33, 64, True, 0)
@example(5, 200, 5000, True, 0)  # several blocks of k
@example(100, 70, 1300, False, 0)  # on tiles, k in two parts: sums that are gone on with
@example(70, 200, 5000, False, 1)  # in nine, and weights in several pieces
@example(32, 9, 65, False, 0)  # narrow tiles, one strip
@example(33, 40, 1152, False, 1)  # a strip of few rows behind a whole one
def test_products_of_signs_are_exact(m, n, k, masked, seed):
    rng = np.random.default_rng(seed)
    w, x = draw(rng, "binary", 1, (n, k)), draw(rng, "binary", 1, (m, k)).astype([np.int8, np.float32][seed % 2])
    with without_tiles(masked):
        same(BinaryGemm(w), x, plain(x, w))


@pytest.mark.skipif(kernels.use_reference() or not tiles.allowed(), reason="no tiles here")
def test_many_rows_of_signs_go_to_tiles_and_others_are_counted(rng):
    """Few rows, and those whose sums start from a table, as at the border of an image."""
    w, x = draw(rng, "binary", 1, (37, 130)), draw(rng, "binary", 1, (64, 130))
    g = BinaryGemm(w)
    packed, calls = g.pack(x), []
    with patch.object(tiled, "multiply", lambda *args: calls.append(args[0])):
        g.multiply(packed)
        assert calls[0] is packed.data
        few = g.multiply(g.pack(x[:31]))
        table = g.multiply(packed._replace(start=g.start + 5))
        assert len(calls) == 1
    assert np.array_equal(few, plain(x[:31], w))
    assert np.array_equal(table, plain(x, w) + 5)
    with without_tiles():
        assert not BinaryGemm(w).on_tiles


@pytest.mark.skipif(kernels.use_reference() or not tiles.allowed(), reason="no tiles here")
def test_who_multiplies_a_tile_that_was_moved_up_has_packed_all_of_its_rows(rng):
    """Of 141 rows the last item has 13, and its tile begins among those that the item before has not packed yet."""
    w, x = draw(rng, "binary", 1, (37, 192)), draw(rng, "binary", 1, (141, 192)).astype(np.int8)
    before = jit.get_num_threads()

    def the_last_alone(kernel, items, *args):
        job = jit._Job()
        job.items, job.ranges = items, items
        for other in range(items - 1):
            job.numbers[turns.LINE * (1 + other)] = 1  # taken
        kernel(job.sit(items - 1), *args)

    try:
        jit.set_num_threads(2)
        with patch.object(binary, "share", the_last_alone), patch.object(binary, "empty_words", zero_words):
            assert np.array_equal(BinaryGemm(w)(x)[125:], plain(x, w)[125:])
    finally:
        jit.set_num_threads(before)


def zero_words(count):
    return np.zeros(count, np.uint64)


def test_results_begin_on_a_cache_line(rng):
    w, x = draw(rng, "binary", 1, (3, 70)), draw(rng, "binary", 1, (5, 70))
    for make in (BinaryGemm, Int8Gemm):
        for _ in range(3):
            assert make(w).multiply(make(w).pack(x)).__array_interface__["data"][0] % 64 == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("make", "dtype"),
    [(BinaryGemm, np.int8), (BinaryGemm, np.float32), (BinaryGemm, np.int64), (Int8Gemm, np.int8), (SignBits, np.int8)],
)
def test_many_rows_from_codes_are_those_of_packed_ones(rng, make, dtype, threads):
    """Who packs a block multiplies it; bytes that fill whole steps are read where they lie."""
    w, before = draw(rng, "binary", 1, (37, 192)), jit.get_num_threads()
    try:
        jit.set_num_threads(threads)
        for m in (70, 141, 145, 333):
            for x in (draw(rng, "binary", 1, (m, 192)).astype(dtype), draw(rng, "binary", 1, (192, m)).astype(dtype).T):
                g, out = make(w), np.full((m, 37), 7, np.int32)
                assert g(x, out) is out
                assert np.array_equal(out, plain(x, w))
                assert np.array_equal(out, g.multiply(g.pack(x)))
    finally:
        jit.set_num_threads(before)


def test_what_is_no_sign_is_refused_among_many_rows_as_well(rng):
    x = draw(rng, "binary", 1, (300, 70)).astype(np.int8)
    g = BinaryGemm(x[:5])
    for row, column in ((0, 0), (299, 69), (150, 64)):
        wrong = x.copy()
        wrong[row, column] = 0
        with pytest.raises(ValueError, match="1 and −1 alone"):
            g(wrong)
    with pytest.raises(ValueError, match="expected out to be int32"):
        g(x, np.zeros((300, 6), np.int32))


@given(sizes, sizes, sizes, alphabets, alphabets, st.booleans(), seeds)
@example(3, 40, 5000, ("signed", 3), ("midrise", 2), True, 0)
@example(40, 40, 5000, ("signed", 3), ("midrise", 2), True, 0)
@example(9, 17, 65, ("residual", 2), ("residual", 3), False, 0)
@example(1, 70, 5000, ("signed", 2), ("midrise", 6), False, 0)  # groups of planes against one row
@example(2, 33, 65, ("residual", 2), ("ternary", 2), False, 0)
@example(33, 17, 130, ("zoom", 6), ("midrise", 6), False, 0)  # on tiles, the widest that bytes hold
@example(33, 17, 130, ("unsigned", 7), ("signed", 7), False, 0)
@example(33, 17, 130, ("signed", 8), ("unsigned", 8), False, 0)  # and too wide for them
def test_bit_serial_products_of_any_kinds_and_widths_are_exact(m, n, k, w_alphabet, x_alphabet, masked, seed):
    rng = np.random.default_rng(seed)
    w, x = draw(rng, *w_alphabet, (n, k)), draw(rng, *x_alphabet, (m, k))
    wide_w, wide_x = value(*w_alphabet, w), value(*x_alphabet, x)
    if w_alphabet[0] == x_alphabet[0] == "residual":
        wide_w = wide_w[:, None]
    with without_tiles(masked):
        g = BitSerialGemm(w, w_alphabet[1], w_alphabet[0], x_alphabet[1], x_alphabet[0])
        same(g, x, plain(wide_x, wide_w))


@pytest.mark.skipif(kernels.use_reference() or not tiles.allowed(), reason="no tiles here")
def test_planes_of_many_rows_go_to_tiles_and_others_are_counted(rng):
    """Few rows, those whose sums start from a table, and numbers that no byte holds."""
    w, x = draw(rng, "midrise", 2, (37, 130)), draw(rng, "unsigned", 3, (64, 130))
    g, expected = BitSerialGemm(w, 2, "midrise", 3), plain(x, 2 * w.astype(int) + 1)
    packed, calls = g.pack(x), []
    with patch.object(tiled, "multiply", lambda *args: calls.append(args)):
        g.multiply(packed)
        assert len(calls) == 1
        few = g.multiply(g.pack(x[:31]))
        table = g.multiply(packed._replace(start=g.start + 5))
        wide = BitSerialGemm(w, 2, "midrise", 8)(x)
        assert len(calls) == 1
    assert np.array_equal(few, expected[:31])
    assert np.array_equal(table, expected + 5)
    assert np.array_equal(wide, expected)
    with without_tiles():
        assert not BitSerialGemm(w, 2, "midrise", 3).on_tiles


@given(sizes, sizes, sizes, st.booleans(), st.booleans(), seeds)
@example(1, 65, 1031, False, True, 0)
@example(7, 64, 4, True, True, 1)
@example(17, 15, 64, False, False, 0)  # tiles moved up, and narrow ones
@example(200, 200, 4, True, False, 0)
@example(40, 70, 20_000, False, False, 0)  # weights in several pieces
def test_products_of_bytes_are_exact(m, n, k, unsigned, masked, seed):
    rng = np.random.default_rng(seed)
    low = 0 if unsigned else -128
    w, x = rng.integers(-128, 128, (n, k)), rng.integers(low, low + 256, (m, k))
    with without_tiles(masked):
        same(Int8Gemm(w, unsigned), x, plain(x, w))


@given(sizes, sizes, sizes, st.booleans(), seeds)
@example(70, 20, 40_000, False, 0)  # shared out while they are packed
def test_products_of_midrise_bytes_are_exact(m, n, k, masked, seed):
    rng = np.random.default_rng(seed)
    w, x = rng.integers(-128, 128, (n, k)), rng.integers(-64, 64, (m, k)).astype(np.int8)
    with without_tiles(masked):
        g = Int8Gemm(w, midrise=True)
        same(g, x, plain(2 * x.astype(int) + 1, w))
        x[-1, -1] = [64, -65][seed % 2]
        with pytest.raises(ValueError, match="expected whole numbers from -64 to 63"):
            g.pack(x)


@given(sizes, sizes, sizes, st.integers(2, 4), st.booleans(), st.booleans(), seeds)
@example(70, 3, 3000, 2, False, False, 0)  # more numbers of one shift than 16 bits hold
@example(8, 65, 9, 4, True, False, 0)
@example(8, 65, 9, 4, True, True, 0)
@example(9, 65, 9, 4, True, False, 0)
@example(130, 40, 600, 4, False, False, 0)  # several batches, blocks of k, and blocks of columns
def test_products_with_powers_of_two_are_exact(m, n, k, bits, unsigned, by_shifts, seed):
    """One row by shifts, and by looked-up bytes where the processor has that."""
    rng = np.random.default_rng(seed)
    half, low = 2 ** (bits - 1), 0 if unsigned else -128
    codes, x = rng.integers(-half, half, (n, k)), rng.integers(low, low + 256, (m, k))
    power = np.where(codes >= 0, codes, -1 - codes)
    w = np.where(codes >= 0, 2, -2) * 2.0 ** (power - (power == 0))
    with patch.object(shift, "BY_BYTES", shift.BY_BYTES and not by_shifts):
        same(ShiftGemm(codes, bits, unsigned), x, plain(x, w))


@pytest.mark.skipif(kernels.use_reference(), reason="a product of NumPy has one way")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("make", "low", "high"),
    [(lambda w: BitSerialGemm(w, 2, "midrise", 3, "signed"), -4, 4), (lambda w: ShiftGemm(w, 2), -128, 128)],
)
def test_one_row_is_the_same_forwards_and_backwards(rng, make, low, high, threads):
    """Large enough for two threads to share."""
    w, x, before = rng.integers(-2, 2, (710, 9000)), rng.integers(low, high, (1, 9000)), jit.get_num_threads()
    g = make(w)
    try:
        jit.set_num_threads(threads)
        ways = set()
        for _ in range(3):
            assert np.array_equal(g(x), plain(x, g.values.reshape(w.shape)))
            ways.add(g.back)
        assert ways == {False, True}
    finally:
        jit.set_num_threads(before)


@pytest.mark.parametrize("x", [-128, 127])
@pytest.mark.parametrize("codes", [(7, 7), (-8, -8), (7, -8), (0, 0), (-1, 0)])
def test_sums_of_equal_shifts_do_not_overflow(x, codes):
    """The largest numbers, all shifted equally far: sums of 16 bits are taken in parts, and those of 32 bits fit."""
    w = np.resize(np.repeat(codes, 200), (3, 1100)).astype(np.int8)
    rows = np.full((20, 1100), x, np.int8)
    rows[1::2] = -1 - x
    g = ShiftGemm(w, 4)
    same(g, rows, plain(rows, g.values))


@pytest.mark.parametrize(
    ("scheme", "kind", "unit"),
    [(quant.Binary(), "binary", 1), (quant.Ternary(), "ternary", 1), (quant.FixedQ(bits=3), "signed", 1),
     (quant.Quaternary(), "midrise", 0.5), (quant.ClipQ(bits=3), "midrise", 0.5)],
)  # fmt: skip
def test_the_codes_of_a_scheme_are_those_of_its_kind(rng, scheme, kind, unit):
    """scale · unit · (integer product) is the product of the quantized matrices."""
    w, x = rng.normal(size=(7, 90)), rng.normal(size=(5, 90))
    w_codes, w_params = scheme.encode(w)
    x_codes, x_params = scheme.encode(x)
    y = BitSerialGemm(w_codes, scheme.bits, kind, scheme.bits, kind)(x_codes)
    scale = float(w_params["scale"] * x_params["scale"]) * unit**2
    expected = scheme.decode(x_codes, x_params) @ scheme.decode(w_codes, w_params).T
    np.testing.assert_allclose(scale * y, expected, rtol=1e-12, atol=1e-12 * abs(expected).max())


def test_zoomq_needs_one_sum_more_for_its_minimum(rng):
    scheme, w, x = quant.ZoomQ(bits=3), rng.integers(-1, 2, (7, 90)), rng.normal(size=(5, 90))
    codes, params = scheme.encode(x)
    g = BitSerialGemm(w, 2, "ternary", 3, "zoom")
    y = params["scale"] / 2 * g(codes) + params["low"] * g.weight_sums
    np.testing.assert_allclose(y, scheme.decode(codes, params) @ w.T, rtol=1e-12, atol=1e-12)
    back = BitSerialGemm(codes, 3, "zoom", 2, "ternary")
    y = params["scale"] / 2 * back(w) + params["low"] * back.row_sums(w)[:, None]
    np.testing.assert_allclose(y, w @ scheme.decode(codes, params).T, rtol=1e-12, atol=1e-12)


def test_resq_is_a_sum_of_signs(rng):
    scheme, w, x = quant.ResQ(bits=3), rng.normal(size=(7, 90)), rng.integers(0, 4, (5, 90))
    codes, params = scheme.encode(w)
    y = np.tensordot(params["scale"], BitSerialGemm(codes, 3, "residual", 2, "unsigned")(x), 1)
    np.testing.assert_allclose(y, x @ scheme.decode(codes, params).T, rtol=1e-12, atol=1e-12)


def test_potqs_codes_are_those_of_the_shift_product(rng):
    scheme, x = quant.PotQ(bits=4), rng.integers(-128, 128, (70, 90))
    codes, params = scheme.encode(rng.normal(size=(7, 90)))
    y = float(params["scale"]) / 2 * ShiftGemm(codes, 4)(x)
    np.testing.assert_allclose(y, x @ scheme.decode(codes, params).T, rtol=1e-12, atol=1e-9)


@given(st.lists(st.sampled_from([1, -1, 2, -2, 4, 8, -128]), min_size=1, max_size=5),
       st.lists(st.sampled_from([1, 2, -4, 16]), min_size=1, max_size=5))  # fmt: skip
def test_horners_rule_weighs_every_pair_of_planes(w, x):
    total, seen = 0, {}
    for i, j, up, flip in plan_pairs(list(enumerate(w)), list(enumerate(x))).tolist():
        seen = {pair: (-1 if flip else 1) * weight << up for pair, weight in seen.items()}
        if i >= 0:
            seen[i, j] = 1
        total += 1
    assert seen == {(i, j): p * q for i, p in enumerate(w) for j, q in enumerate(x)}
    assert total == len(w) * len(x) + 1


class TestLargestK:
    """The extreme sum fits at the largest K that is accepted, and K + 1 is refused."""

    def check(self, make, w, x, largest):
        k = (2**31 - 1) // largest
        g = make(np.broadcast_to(np.int8(w), (1, k)))
        y = g(np.broadcast_to(np.array(x, np.int16), (1, k)))
        assert int(y[0, 0]) == int(g.values.reshape(-1)[0]) * x * k
        with pytest.raises(ValueError, match=f"the largest K is {k}; cut K in parts"):
            make(np.broadcast_to(np.int8(w), (1, k + 1)))

    def test_of_bytes(self):
        for masked in (False, True):
            with without_tiles(masked):
                self.check(Int8Gemm, -128, -128, 128 * 128)
                self.check(lambda w: Int8Gemm(w, unsigned=True), -128, 255, 128 * 255)

    def test_of_planes(self):
        self.check(lambda w: BitSerialGemm(w, 8, "signed", 8, "unsigned"), -128, 255, 128 * 255)

    def test_of_shifts(self):
        self.check(lambda w: ShiftGemm(w, 4), -8, -128, 256 * 128)


class TestRefusals:
    def test_shapes(self):
        g = BinaryGemm(np.ones((3, 5)))
        with pytest.raises(ValueError, match=r"expected activations \(M, 5\), got \(2, 6\)"):
            g(np.ones((2, 6)))
        with pytest.raises(ValueError, match="expected out to be int32"):
            g.multiply(g.pack(np.ones((2, 5))), np.zeros((2, 3)))
        with pytest.raises(ValueError, match="expected packed rows of K = 5"):
            g.multiply(BinaryGemm(np.ones((3, 6))).pack(np.ones((2, 6))))
        with pytest.raises(ValueError, match="at least one number"):
            BinaryGemm(np.ones((3, 0)))

    def test_codes(self):
        with pytest.raises(ValueError, match="binary weights are 1 and −1"):
            BitSerialGemm(np.array([[0, 1]]), 1, "binary")
        with pytest.raises(ValueError, match="unsigned activations of 2 bits: expected whole numbers from 0 to 3"):
            BitSerialGemm(np.array([[1, 1]]), 2)(np.array([[4, 0]]))
        with pytest.raises(ValueError, match="there is no kind of codes 'sined'"):
            BitSerialGemm(np.array([[1, 1]]), 2, "sined")
        with pytest.raises(ValueError, match="ternary codes have from 2 to 2 bits, got 3"):
            BitSerialGemm(np.array([[1, 1]]), 3, "ternary")
        with pytest.raises(ValueError, match="from -128 to 127"):
            Int8Gemm(np.array([[1, 200]]))
        with pytest.raises(ValueError, match="2, 3 or 4 bits"):
            ShiftGemm(np.array([[1]]), 5)


def test_no_rows_give_no_rows():
    for g in (BinaryGemm(np.ones((3, 5))), Int8Gemm(np.ones((3, 5))), BitSerialGemm(np.ones((3, 5), int), 2)):
        assert g(np.ones((0, 5), np.int8)).shape == (0, 3)


def test_activations_are_not_written_to_and_may_lie_anyhow(rng):
    w, x = rng.choice([-1, 1], (9, 70)), rng.choice([-1, 1], (70, 30)).astype(np.int8)
    x.setflags(write=False)
    for g in (BinaryGemm(w), Int8Gemm(w), BitSerialGemm(w, 2, "signed", 2, "signed"), ShiftGemm(w, 2)):
        assert np.array_equal(g(x.T[::2]), g(np.ascontiguousarray(x.T[::2])))


SAME = """
import numpy as np, zlib
from tinyqnn import kernels
from tinyqnn.kernels import BinaryGemm, BitSerialGemm, Int8Gemm, ShiftGemm, IntConv2d
rng = np.random.default_rng(0)
found = 0
for m, n, k in ((1, 5, 70), (21, 19, 131)):
    s, t, w, x = (rng.choice([-1, 1], (a, k)) for a in (n, m, n, m))
    b, c = rng.integers(-128, 128, (n, k)), rng.integers(-128, 128, (m, k))
    results = [BinaryGemm(s)(t), Int8Gemm(b)(c), ShiftGemm(b // 16, 4)(c)]
    results += [BitSerialGemm(b // 32, 3, kind, 4, other)(c // 16 + 8 * (other != "signed"))
                for kind in ("signed", "midrise") for other in ("unsigned", "signed", "residual")]
    for y in results:
        found = zlib.crc32(np.ascontiguousarray(y).tobytes(), found)
images = rng.choice([-1, 1], (2, 6, 5, 4))
for groups in (1, 2, 6):
    filters = rng.choice([-1, 1], (6, 6 // groups, 3, 3))
    for make in (BinaryGemm, Int8Gemm, lambda w: BitSerialGemm(w, 1, "binary", 2, "signed")):
        y = IntConv2d(filters, make, padding=1, groups=groups)(images)
        found = zlib.crc32(np.ascontiguousarray(y).tobytes(), found)
print(kernels.use_reference(), found)
"""


def answer(**variables):
    done = subprocess.run(
        [sys.executable, "-c", SAME], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def compiled():
    reference, found = answer(TINYQNN_KERNELS="compiled")
    assert reference == "False"
    return found


def test_without_a_compiler_the_answers_are_the_same(compiled):
    assert answer(NUMBA_DISABLE_JIT="1") == ["True", compiled]
    assert answer(TINYQNN_KERNELS="reference") == ["True", compiled]


@pytest.mark.slow
@pytest.mark.parametrize(
    "features",
    [
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
        {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "+avx512f,+avx512bw"},
        {"NUMBA_CPU_FEATURES": ",".join(f"+{f}" for f in sorted(simd._FEATURES) if not f.startswith("amx"))},
    ],
)
def test_a_processor_that_has_less_gives_the_same_answers(compiled, features, tmp_path):
    assert answer(**features, TINYQNN_KERNELS="compiled", NUMBA_CACHE_DIR=str(tmp_path)) == ["False", compiled]


def test_the_package_does_not_load_numba_for_its_names():
    code = "import sys, tinyqnn; 'BinaryGemm' in dir(tinyqnn.kernels); assert 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="TernaryGemm"):
        _ = kernels.TernaryGemm
