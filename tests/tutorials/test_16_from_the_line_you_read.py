"""Answers to the exercises of tutorials/16_from_the_line_you_read.md."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

COMPILED = ["numba.njit", "set_num_threads", "def of_panels"]


def test_1_five_rows_of_five_registers():
    fit = [(r, c) for r in range(1, 32) for c in range(1, 32) if r * c + c + 1 <= 32]
    reads = {(r, c): (r + c) / (r * c) for r, c in fit}
    assert min(reads, key=reads.get) == (5, 5)
    # The kernel takes 6 × 4: next to nothing behind, and four registers, 64 numbers, divide the widths of layers.
    assert reads[6, 4] < 1.05 * reads[5, 5]


def test_2_the_inner_loop_decides_and_it_wants_to_be_j(page):
    names = page("16", skip=COMPILED)
    size = 48

    def lines(order):
        def addresses():
            for at in product(range(size // 4), range(size), range(size)):  # the outer loop goes on in the same way
                i, j, k = (at[order.index(name)] for name in "ijk")
                yield from (names["A"](i, k), names["B"](k, j), names["Y"](i, j))

        return names["fetched"](addresses())[1]

    found = {"".join(order): lines("".join(order)) for order in permutations("ijk")}
    by_inner = {inner: [found[order] for order in found if order[-1] == inner] for inner in "ijk"}
    assert max(by_inner["j"]) < 0.1 * min(by_inner["k"]) < 0.1 * min(by_inner["i"])
    # With i inside, a and y are both walked down a column; with k inside only b is; with j inside nothing.


def test_3_a_transposed_b_is_walked_along_its_rows(page):
    names = page("16", skip=COMPILED)

    def addresses():
        for i, j, k in product(range(48), repeat=3):
            yield from (names["A"](i, k), 1_000_000 + j * 48 + k)

    assert names["fetched"](addresses())[1] < 0.07 * names["fetched"](names["of_dots"]())[1]
    # To the memory it is as good as the exchanged loops. But each y is still a sum in one order, which a compiler may
    # not spread over the lanes of a register: that would be another rounding.


def test_reads_of_a_tile(page):
    names = page("16", skip=COMPILED)
    for r, c in ((2, 3), (6, 16), (12, 24)):
        reads, _ = names["fetched"](names["of_tiles"](r, c))
        assert reads / 48**3 == pytest.approx(1 / r + 1 / c)


def test_the_bound_of_rounding_says_no_to_a_wrong_number(page, rng):
    within = page("16", skip=COMPILED)["within_rounding"]
    a, b = (rng.normal(size=(20, 20)).astype(np.float32) for _ in range(2))
    y = a @ b
    assert within(y, a, b)
    y[3, 4] += 1e-3
    assert not within(y, a, b)
