"""Answers to the exercises of tutorials/11_a_matrix_product_without_multiplications.md."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ["kernels.BinaryGemm", "kernels.BitSerialGemm"]


def test_1_ternary_numbers_take_two_popcounts(page, rng):
    names = page("11", skip=KERNELS)
    words, popcount = names["words"], names["popcount"]
    x, w = rng.integers(-1, 2, (20, 300)), rng.integers(-1, 2, (30, 300))
    # Where both are not zero the product is a sign; of these, those that differ count −1 and not +1.
    both = words(x != 0)[:, None] & words(w != 0)
    differ = both & (words(x < 0)[:, None] ^ words(w < 0))
    assert np.array_equal(popcount(both).sum(-1) - 2 * popcount(differ).sum(-1), x @ w.T)


def test_2_four_full_adders_and_three_popcounts_count_seven_words(page, rng):
    popcount = page("11", skip=KERNELS)["popcount"]

    def add(a, b, c):
        return a ^ b ^ c, a & b | c & (a ^ b)

    seven = rng.integers(0, 2**64, (7, 100), np.uint64)
    ones, two_a = add(*seven[:3])
    ones, two_b = add(ones, *seven[3:5])
    ones, two_c = add(ones, *seven[5:])
    twos, fours = add(two_a, two_b, two_c)
    assert np.array_equal(popcount(ones) + 2 * popcount(twos) + 4 * popcount(fours), popcount(seven).sum(0))


def test_3_a_missing_sign_counts_as_plus_one(page, rng):
    names = page("11", skip=KERNELS)
    w, x = rng.choice([-1, 1], (6, 40)), rng.choice([-1, 1], (5, 40))
    inside = rng.random(40) < 0.7
    # A border of zeros adds nothing. Its bits are 0, which says +1, and so adds each hidden weight once too often.
    right = (x * inside) @ w.T
    counted = names["sign_product"](np.where(inside, x, 1), w)
    assert not np.array_equal(counted, right)
    assert np.array_equal(counted - w[:, ~inside].sum(1), right)


def test_the_popcount_by_hand_is_that_of_every_word(page):
    popcount = page("11", skip=KERNELS)["popcount"]
    numbers = np.array([0, 1, 2**64 - 1, 2**63, 0x0123456789ABCDEF], np.uint64)
    assert popcount(numbers).tolist() == [f"{int(n):b}".count("1") for n in numbers]


def test_the_block_of_speeds_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "figures"))
    spec = importlib.util.spec_from_file_location("bench_gemm_figure", ROOT / "figures" / "bench_gemm.py")
    figure = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, figure)
    spec.loader.exec_module(figure)
    told = figure.tell(json.loads((ROOT / "figures" / "bench_gemm.json").read_text(encoding="utf-8")))
    (text,) = (ROOT / "tutorials").glob("11_*.md")
    (block,) = re.findall(
        r"<!-- generated from figures/bench_gemm.txt -->\n```console\n(.*?)```\n<!-- end -->",
        text.read_text("utf-8"),
        re.S,
    )
    assert told == block == (ROOT / "figures" / "bench_gemm.txt").read_text("utf-8"), "run python figures/bench_gemm.py"
