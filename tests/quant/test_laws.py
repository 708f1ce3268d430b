"""The laws: each holds for the schemes that have it, and where one does not hold, its counterexample still is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from quant_tensors import EDGES, MAIN, tensors

import tinyqnn as tq
from tinyqnn import checks
from tinyqnn.spec.laws import BY_NAME, LAWS, Case
from tinyqnn.spec.matrix import COLUMNS, pinned
from tinyqnn.spec.subject import Subject

RECORDED = Path(__file__).resolve().parents[2] / "figures" / "laws.json"


def asked(q: tq.quant.Quantizer) -> list[tuple]:
    """The laws that a scheme has, ready to be asked."""
    case = Case(Subject(q), q)
    laws = [law for law in LAWS if law.is_asked_of(q) and not law.once and law.needs(case) is None]
    return [(law, case) for law in laws]


ASKED = {"main": [pair for q in MAIN for pair in asked(q)], "edges": [pair for q in EDGES for pair in asked(q)]}


@pytest.mark.parametrize("schemes", ["main", pytest.param("edges", marks=pytest.mark.slow)])
@given(x=tensors())
@example(x=np.zeros((2, 3)))
@example(x=np.array([-0.0, 0.0], np.float32))
@example(x=np.array([7.0]))
@example(x=np.array([7.0, 13.0]))
@example(x=np.array([-7.0, 13.0]))
@example(x=np.array([1.0]))  # PotQ's scale is 0, and its codes had two signs
@example(x=np.array([1.0, 1.75, -1.75, 0.25]))
@example(x=np.array([2.0**-13, -(2.0**15)], np.float32))
@example(x=np.array([1e6, 1e6 + 0.0625, 1e6 - 0.0625], np.float32))
@example(x=np.array([5e-324, -1e-320]))
@example(x=np.array([5.39, 10.01]))
def test_every_law_holds_for_the_schemes_that_have_it(schemes, x):
    broken = [f"{law.name}: {case.scheme!r}" for law, case in ASKED[schemes] if law.ask(case, x) is False]
    assert broken == []


@pytest.mark.parametrize("q", [tq.quant.scheme(n) for n in ("Q-2", "C-1", "C-3", "C-8", "P-2", "P-3", "P-4")], ids=repr)
def test_no_other_lambda_errs_less_on_normal_numbers(q):
    law, case = BY_NAME["error_is_least"], Case(Subject(q), q)
    for dtype in (np.float32, np.float64):
        assert law.ask(case, np.zeros(1, dtype))


def test_there_are_more_than_twenty_laws_and_each_is_asked_of_somebody():
    assert len(LAWS) >= 20
    names = {law.name for pairs in ASKED.values() for law, _ in pairs} | {"error_is_least"}
    assert names == {law.name for law in LAWS}


def test_every_law_is_a_predicate_of_that_name_in_checks():
    ours = {"is_scale_equivariant_at_3": "is_scale_equivariant"}
    assert [law.name for law in LAWS if not callable(getattr(checks, ours.get(law.name, law.name), None))] == []


def recorded() -> list:
    cells = json.loads(RECORDED.read_text(encoding="utf-8"))
    return [
        pytest.param(name, law, cell, id=f"{name} {law}")
        for name, laws in cells.items()
        for law, cell in laws.items()
        if cell["verdict"] == "does not hold"
    ]


@pytest.mark.parametrize(("name", "law", "cell"), recorded())
def test_published_counterexamples_are_counterexamples_and_are_explained(name, law, cell):
    q = dict(COLUMNS)[name]
    assert BY_NAME[law].ask(Case(Subject(q), q), pinned(cell)) is False
    assert cell["why"]
    assert not BY_NAME[law].is_asked_of(q)


@pytest.mark.slow
def test_the_table_of_laws_and_schemes_is_what_asking_gives():
    from tinyqnn.spec.matrix import markdown, matrix, record, surprises

    reports = matrix()
    assert surprises(reports) == []
    assert record(reports) == json.loads(RECORDED.read_text(encoding="utf-8"))
    assert markdown(reports) in (RECORDED.with_suffix(".md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Q-2", "F-4", "Z-3", "C-3", "U-3", "PACT-4"])
def test_evenly_spaced_levels_are_nearest_and_err_by_half_a_step_at_most(name, rng):
    q = tq.quant.scheme(name)
    for x in (rng.standard_normal(300), rng.laplace(size=300).astype(np.float32), rng.uniform(0, 6, 300)):
        assert checks.error_within_half_step(q, x)
        assert checks.takes_the_nearest_level(q, x)


@pytest.mark.parametrize("letter", "FRZCU")
def test_error_falls_with_bits_on_normal_numbers(letter, rng):
    ladder = [tq.quant.scheme(f"{letter}-{bits}") for bits in range(2, 9)]
    assert checks.error_falls_with_bits(ladder, rng.standard_normal(4000))


def test_each_law_refuses_a_quantizer_that_breaks_it():
    x = np.array([-1.3, 0.2, 0.7, 2.4])
    wrong = {
        checks.keeps_dtype_and_shape: lambda x: x.astype(np.float32),
        checks.leaves_its_input_alone: lambda x: np.round(x, out=x),
        checks.stays_finite: lambda x: x / 0.0 if x.any() else x,
        checks.keeps_zeros: lambda x: x + 1,
        checks.does_not_hide_nan: np.nan_to_num,
        checks.knows_emptiness: lambda x: x - x.mean(),
        checks.is_monotone: lambda x: -x,
        checks.is_odd: np.floor,
        checks.is_odd_up_to_ties: np.floor,
        checks.is_scale_equivariant: np.round,
        checks.is_permutation_equivariant: np.cumsum,
        checks.is_idempotent: lambda x: x / 2,
        checks.scale_is_least_squares: lambda x: np.sign(x) * np.abs(x).max(),
        checks.products_are_shifts: lambda x: x,
    }
    with np.errstate(divide="ignore"):
        for law, quantizer in wrong.items():
            assert not law(quantizer, x.copy()), law.__name__
    calls: list[int] = []
    assert not checks.is_deterministic(lambda x: (calls.append(1), x * len(calls))[1], x)
    assert not checks.has_at_most_2b_levels(np.sign, np.array([-1.0, 0.0, 1.0]), bits=1)
    assert not checks.is_on_codebook(np.round, x, codebook=np.array([0.0, 1.0]))
    assert not checks.ignores_memory_layout(lambda x: x * x.strides[0], x)
    assert not checks.residual_falls_by_squares(np.round, x, bits=2)
    assert not checks.error_is_least(np.round, x, 0.01)


@pytest.mark.parametrize("q", [q for q in MAIN if q.sees_data], ids=repr)
def test_per_channel_law_tells_per_channel_from_per_tensor(q, rng):
    x = rng.standard_normal((3, 20)) * np.array([[1.0], [10.0], [100.0]])
    assert checks.equals_a_loop_over_channels(Subject(q).make(axis=0), q, x, 0)
    assert not checks.equals_a_loop_over_channels(q, q, x, 0)


def test_the_law_of_the_codebook_looks_at_each_channel(rng):
    x = rng.standard_normal((2, 50)) * np.array([[1.0], [10.0]])
    for axis, y in ((0, x), (1, x.T)):
        q = tq.quant.ClipQ(bits=2, axis=axis)
        assert checks.is_on_codebook(q, y)

        class Swapped(tq.quant.ClipQ):
            def codebook(self, params):
                return super().codebook(params)[::-1]

        assert not checks.is_on_codebook(Swapped(bits=2, axis=axis), y)


@pytest.mark.parametrize("off", [1e-3, -1e-3])
def test_nearest_levels_and_half_steps_are_told_from_nearly_nearest_ones(off):
    class Shifted(tq.quant.FixedQ):
        def to_codes(self, x, scale):
            return super().to_codes(x + off, scale=scale)

    x = np.array([1.0, 0.25 - off / 2, 3.9])  # its second number lies between the right edge and the wrong one
    assert checks.takes_the_nearest_level(tq.quant.FixedQ(bits=4), x)
    assert not checks.takes_the_nearest_level(Shifted(bits=4), x)
    assert not checks.error_within_half_step(Shifted(bits=4), x)
