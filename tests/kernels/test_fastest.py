"""The table of kernels is what the benchmark found, and the benchmark's own parts do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tinyqnn.bench import gemm
from tinyqnn.kernels import fastest, limits, tiles

FIGURES = Path(__file__).resolve().parents[2] / "figures"
CLEAR = 1.5  # times as fast: less may be the noise of a busy machine


def recorded():
    return json.loads((FIGURES / "bench_gemm.json").read_text(encoding="utf-8"))


def test_the_table_chooses_what_was_measured_to_be_faster():
    found = gemm.choices(recorded())
    assert len(found) >= 10
    for choice in found:
        if choice["gain"] > CLEAR:
            assert choice["chosen"] != "int8", choice
        if choice["gain"] < 1 / CLEAR:
            assert choice["chosen"] == "int8", choice


def test_more_planes_never_turn_the_choice_back_to_bits():
    for rows in (1, 1000):
        for popcount, has_tiles in ((True, False), (False, False), (True, True)):
            chosen = [fastest.fastest(bits, bits, rows, popcount, has_tiles) for bits in range(1, 9)]
            assert chosen[0] == ("int8" if has_tiles and rows > fastest.FEW_ROWS else "binary")
            assert chosen == sorted(chosen, key=["binary", "bitserial", "int8"].index)


@pytest.mark.parametrize("case", [c._replace(shape=(3, 2, 4) if c.group == "layer" else (4, 70, 5)) for c in gemm.CASES
                                  if c.group != "choice"], ids=lambda case: case.key)  # fmt: skip
def test_every_case_measures_the_product_that_it_names(case):
    """Ours and NumPy's (or the plain convolution) agree on the codes; shifts count in halves."""
    w, x = gemm._codes(case)
    if case.group == "layer":
        from tinyqnn.kernels import reference

        expected = reference.conv2d(x.astype(np.int64), w.astype(np.int64), None, padding=(1, 1))
    elif case.kernel == "shift":
        n = np.where(w >= 0, w, -1 - w).astype(np.int64)
        expected = x.astype(np.int64) @ (np.where(w >= 0, 1, -1) << (n + (n > 0))).T
    else:
        expected = np.rint(gemm.numpys(case)()).astype(np.int64)
    assert np.array_equal(gemm.ours(case)(), expected.reshape(gemm.ours(case)().shape))


def test_a_share_of_the_limit_counts_pairs_of_planes():
    row = {"group": "gemm", "shape": (64, 1, 1), "serves": "bitserial", "bits": (2, 2), "operations": 1e9,
           "seconds": {"tinyqnn": {"best": 1e-2}}}  # fmt: skip
    found = {"limits": {"bits": 8e11, "bytes": 4e11}}
    assert gemm.share(row, found) == pytest.approx(0.5)
    assert gemm.share({**row, "serves": "int8"}, found) == pytest.approx(0.25)
    assert gemm.share({**row, "serves": "shift"}, found) is None
    assert gemm.share({**row, "shape": (1, 4, 4)}, found) is None
    assert gemm.share({**row, "shape": (1, 4, 4), "group": "layer"}, found) == pytest.approx(0.5)


def test_bits_on_tiles_are_held_against_tiles_as_well():
    row = {"group": "gemm", "serves": "binary", "shape": (64, 1, 1), "operations": 1e9,
           "seconds": {"tinyqnn": {"best": 1e-2}}}  # fmt: skip
    found = {"tiles": True, "limits": {"tiles": 2e11}}
    assert gemm.tiles_share(row, found) == pytest.approx(0.5)
    assert gemm.tiles_share(row, {**found, "tiles": False}) is None
    assert gemm.tiles_share({**row, "serves": "int8"}, found) is None
    assert gemm.tiles_share({**row, "group": "choice", "serves": "bitserial"}, found) == pytest.approx(0.5)
    assert gemm.tiles_share({**row, "group": "gemv"}, found) is None
    assert gemm.tiles_share({**row, "shape": (3, 1, 1)}, found) is None


def test_recorded_shares_are_of_the_limits_of_their_own_part():
    """Parts may have been measured apart: each share is of the machine as it was then."""
    results = recorded()
    for row in results["cases"]:
        host = results["measured"][row["group"]]["host"]
        assert row["share_of_limit"] == gemm.share(row, host), row["case"]
        most = row.get("share_of_tiles") or row["share_of_limit"]  # bits on tiles may leave counting behind
        assert row.get("share_of_tiles") in (None, gemm.tiles_share(row, host)), row["case"]
        assert most is None or 0 < most < 1.05, row["case"]


def test_limits_count_what_they_do():
    for loop, bits in ((limits.popcount_loop, 1), (limits.carry_save_loop, 1), (limits.bytes_loop, 8)):
        assert loop(3) == 3 * 16 * limits.VECTOR_BITS // bits * 2
    assert limits.floats_loop(3) == 3 * 12 * limits.LANES * 2
    assert limits.sixths_loop(3) == (3 * 4 * 16 * 16 * 32 * 2 // 6 if tiles.allowed() else 0)
    assert limits.tiles_loop(3) == (3 * 4 * 16 * 16 * 64 * 2 if tiles.allowed() else 0)
