"""Which laws hold for which scheme, and the counterexamples where one does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from quant_tensors import MAIN, each, tensors

import tinyqnn as tq
from tinyqnn import checks

EVERYWHERE = [
    checks.keeps_dtype_and_shape, checks.leaves_its_input_alone, checks.is_deterministic, checks.stays_finite,
    checks.keeps_zeros, checks.is_on_codebook, checks.has_at_most_2b_levels, checks.codes_fit,
    checks.is_decode_of_encode, checks.is_permutation_equivariant,
]  # fmt: skip


@each()
@given(x=tensors())
def test_laws_that_hold_for_every_scheme(q, x):
    broken = [law.__name__ for law in EVERYWHERE if not law(q, x)]
    assert broken == []


@each(but="R")
@given(x=tensors())
def test_larger_numbers_never_get_smaller_values(q, x):
    assert checks.is_monotone(q, x)


@each(but="PACT")
def test_powers_of_two_go_through_every_scheme_that_measures_its_scale(q, rng):
    for dtype in (np.float32, np.float64):
        assert checks.is_scale_equivariant(q, rng.standard_normal((7, 9)).astype(dtype))


@pytest.mark.parametrize("name", ["Q-2", "F-4", "Z-3", "C-3", "U-3", "PACT-4"])
def test_evenly_spaced_levels_are_nearest_and_err_by_half_a_step_at_most(name, rng):
    q = tq.quant.scheme(name)
    for x in (rng.standard_normal(300), rng.laplace(size=300).astype(np.float32), rng.uniform(0, 6, 300)):
        assert checks.error_within_half_step(q, x)
        assert checks.takes_the_nearest_level(q, x)


@pytest.mark.parametrize("letter", "FRZCU")
def test_error_falls_with_bits(letter, rng):
    ladder = [tq.quant.scheme(f"{letter}-{bits}") for bits in range(2, 9)]
    assert checks.error_falls_with_bits(ladder, rng.standard_normal(4000))


@pytest.mark.parametrize("name", ["B-1", "T-2", "Q-2", "R-3", "C-3", "P-3", "U-3"])
def test_symmetric_schemes_are_odd_away_from_zero_and_edges(name, rng):
    assert checks.is_odd(tq.quant.scheme(name), rng.standard_normal(300))


COUNTEREXAMPLES = [
    (checks.is_idempotent, "R-2", [3.0, 1.0, 1.0, -1.0], "the mean magnitude shrinks at every round"),
    (checks.is_idempotent, "C-2", [1.0, -1.0], "a quantized tensor has another standard deviation"),
    (checks.is_monotone, "R-2", [9.0, 0.0, 0.0, 0.0, 0.25, -0.25], "α₁ < α₂"),
    (checks.is_odd, "B-1", [0.0, 1.0], "0 goes to −α, and so does −0"),
    (checks.is_odd, "C-2", [0.0, 1.0], "0 goes up, and so does −0"),
    (checks.is_odd, "F-2", [1.75, -1.75], "there is a code −2 and no code 2"),
    (checks.is_odd, "Z-2", [0.0, 1.0, 4.0], "cells begin at the smallest number, and edges go up"),
    (checks.is_scale_equivariant, "PACT-2", [1.0, 2.0], "the clip is learned, not measured"),
    (checks.takes_the_nearest_level, "P-3", [0.3, -1.0, 1.0], "edges are halfway in log2"),
]


@pytest.mark.parametrize(("law", "name", "x", "why"), COUNTEREXAMPLES, ids=lambda v: getattr(v, "__name__", None))
def test_laws_that_do_not_hold_have_these_counterexamples(law, name, x, why):
    assert not law(tq.quant.scheme(name), np.array(x)), why


@pytest.mark.parametrize("name", ["B-1", "T-2"])
def test_binary_and_ternary_are_idempotent(name, rng):
    assert checks.is_idempotent(tq.quant.scheme(name), rng.standard_normal(100))


def test_each_law_refuses_a_quantizer_that_breaks_it():
    x = np.array([-1.3, 0.2, 0.7, 2.4])
    wrong = {
        checks.keeps_dtype_and_shape: lambda x: x.astype(np.float32),
        checks.leaves_its_input_alone: lambda x: np.round(x, out=x),
        checks.stays_finite: lambda x: x / 0.0 if x.any() else x,
        checks.keeps_zeros: lambda x: x + 1,
        checks.is_monotone: lambda x: -x,
        checks.is_odd: np.floor,
        checks.is_scale_equivariant: np.round,
        checks.is_permutation_equivariant: np.cumsum,
        checks.is_idempotent: lambda x: x / 2,
    }
    with np.errstate(divide="ignore"):
        for law, quantizer in wrong.items():
            assert not law(quantizer, x.copy()), law.__name__
    calls: list[int] = []
    assert not checks.is_deterministic(lambda x: (calls.append(1), x * len(calls))[1], x)
    assert not checks.has_at_most_2b_levels(np.sign, np.array([-1.0, 0.0, 1.0]), bits=1)
    assert not checks.is_on_codebook(np.round, x, codebook=np.array([0.0, 1.0]))


@pytest.mark.parametrize("q", [q for q in MAIN if q.sees_data], ids=repr)
def test_per_channel_law_tells_per_channel_from_per_tensor(q, rng):
    x = rng.standard_normal((3, 20)) * np.array([[1.0], [10.0], [100.0]])
    keywords = {"signed": q.signed, "levels": q.levels} if q.letter == "U" else {}
    assert checks.equals_a_loop_over_channels(type(q)(q.bits, axis=0, **keywords), q, x, 0)
    assert not checks.equals_a_loop_over_channels(q, q, x, 0)
