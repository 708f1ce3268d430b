"""Every page against a transcription of the paper with Python loops and exact fractions."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from quant_tensors import EDGES, MAIN, each, tensors

import tinyqnn as tq
from tinyqnn.quant import lambdas

LAMBDA_CLIP = {bits: lambdas.clip_lambda(bits) for bits in range(1, 9)}
LAMBDA_POT = {bits: lambdas.pot_lambda(bits) for bits in range(2, 5)}


def exact(values: np.ndarray) -> tuple[Fraction, ...]:
    return tuple(Fraction(float(v)) for v in values.ravel())


@lru_cache
def mean_abs(xs: tuple[Fraction, ...]) -> Fraction:
    return sum(abs(x) for x in xs) / Fraction(len(xs))


@lru_cache
def sd(xs: tuple[Fraction, ...]) -> Fraction:
    mean = sum(xs) / len(xs)
    variance = sum((x - mean) ** 2 for x in xs) / len(xs)
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**6, -(10**6)
        return Fraction((Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt())


def sign(x: Fraction) -> int:
    return 1 if x > 0 else -1


def clip(n: int, low: int, high: int) -> int:
    return min(max(n, low), high)


def paper_parameters(q: tq.quant.Quantizer, xs: tuple[Fraction, ...]) -> dict[str, Fraction | list[Fraction]] | None:
    """The parameters as the paper writes them, exactly; None for the least-squares step, which has tests of its own."""
    b = q.bits
    if q.letter == "B":
        return {"scale": mean_abs(xs)}
    if q.letter == "T":
        step = Fraction(1.4) * mean_abs(xs)
        return {"step": step}
    if q.letter == "Q":
        return {"scale": Fraction(LAMBDA_CLIP[2]) * sd(xs)}
    if q.letter == "F":
        top = max(abs(x) for x in xs)
        if top == 0:
            return {"scale": Fraction(0)}
        floor_log2 = top.numerator.bit_length() - top.denominator.bit_length()
        while Fraction(2) ** floor_log2 > top:
            floor_log2 -= 1
        while Fraction(2) ** (floor_log2 + 1) <= top:
            floor_log2 += 1
        return {"scale": Fraction(2) ** (floor_log2 - (b - 2))}
    if q.letter == "R":
        scales: list[Fraction] = []
        for _ in range(b):
            scales.append(mean_abs(xs))
            xs = tuple(x - scales[-1] * sign(x) for x in xs)
        return {"scale": scales}
    if q.letter == "Z":
        return {"scale": (max(xs) - min(xs)) / 2**b, "low": min(xs)}
    if q.letter == "C":
        return {"scale": Fraction(LAMBDA_CLIP[b]) * sd(xs)}
    if q.letter == "P":
        return {"scale": Fraction(LAMBDA_POT[b]) * sd(xs)}
    if q.letter == "PACT":
        return {"scale": Fraction(6, 2**b - 1)}
    return None


def paper_code(q: tq.quant.Quantizer, x: Fraction, scale: Fraction, low: Fraction, step: Fraction) -> int:
    """The code of one number, by the paper's formula in exact arithmetic. A scale of 0 sends everything to code 0."""
    b = q.bits
    half = 2 ** (b - 1)
    u = x / scale if scale else Fraction(0)
    if q.letter == "B":
        return sign(x)
    if q.letter == "T":
        return clip(math.floor((x / step if step else 0) + Fraction(1, 2)), -1, 1)
    if q.letter == "F":
        return clip(math.floor(u + Fraction(1, 2)), -half, half - 1)
    if q.letter == "Z":
        return clip(math.floor((x - low) / scale if scale else 0), 0, 2**b - 1)
    if q.letter in "QC":
        return clip(math.floor(u), -half, half - 1)
    if q.letter == "P":
        n = sum(u * u >= 2 * 4 ** (k - 1) for k in range(1, half))  # round(log2 |u|) ≥ k  ⇔  |u| ≥ √2·2^(k − 1)
        return n if x > 0 and scale else -1 - n
    if q.letter == "PACT":
        return clip(math.floor(u + Fraction(1, 2)), 0, 2**b - 1)
    assert q.letter == "U"
    if not q.signed:
        return clip(math.floor(u + Fraction(1, 2)), 0, 2**b - 1)
    if q.levels % 2:
        return clip(math.floor(u + Fraction(1, 2)), 1 - half, half - 1)
    return clip(math.floor(u), -half, half - 1)


def paper_value(q: tq.quant.Quantizer, code: int, scale: Fraction, low: Fraction) -> Fraction:
    if q.letter in "QC" or (q.letter == "U" and q.signed and q.levels % 2 == 0):
        return scale * (code + Fraction(1, 2))
    if q.letter == "Z":
        return scale * (code + Fraction(1, 2)) + low
    if q.letter == "P":
        n = code if code >= 0 else -1 - code
        return (scale if code >= 0 else -scale) * (Fraction(2) ** n if n else Fraction(1, 2))
    return scale * code


@each()
@given(x=tensors())
@example(x=np.zeros((2, 3)))
@example(x=np.array([-0.0, 0.0], np.float32))
@example(x=np.array([7.0]))
@example(x=np.array([2.0**-13, -(2.0**15)], np.float32))
@example(x=np.array([1e6, 1e6 + 0.0625, 1e6 - 0.0625], np.float32))
@example(x=np.array([5e-324, -1e-320]))
def test_parameters_are_the_papers(qs, x):
    for q in qs:
        parameters_are_the_papers(q, x)


def parameters_are_the_papers(q, x):
    found, wanted = q.fit(x), paper_parameters(q, exact(x))
    if wanted is None:
        return
    digits = np.finfo(x.dtype)
    for name, value in wanted.items():
        wanted_here = np.array([float(v) for v in value] if isinstance(value, list) else float(value))
        if q.letter == "R":  # a residual is rounded at every bit, in units of the largest number
            slack = 4 * q.bits * float(digits.eps) * float(np.abs(x).max()) + q.bits * float(digits.smallest_subnormal)
        elif name == "low":
            slack = 0.0
        else:
            slack = 2 * float(digits.eps) * np.abs(wanted_here) + float(digits.smallest_subnormal)
        np.testing.assert_array_less(np.abs(found[name].astype(np.float64) - wanted_here), slack + 5e-324)


@each(but="R")
@given(x=tensors())
@example(x=np.array([0.5, -0.5, 1.5, -1.5, 2.0, -2.0]))
@example(x=np.array([-3.0, -1.0, 1.0, 3.0], np.float32))
@example(x=np.zeros((2, 3)))
def test_codes_and_values_are_those_of_exact_arithmetic_up_to_rounding(qs, x):
    for q in qs:
        codes_and_values_are_those_of_exact_arithmetic(q, x)


def codes_and_values_are_those_of_exact_arithmetic(q, x):
    codes, params = q.encode(x)
    eps, tiny = float(np.finfo(x.dtype).eps), float(np.finfo(x.dtype).smallest_subnormal)
    p = {name: Fraction(float(value)) for name, value in params.items()}
    scale, low, step = p["scale"], p.get("low", Fraction(0)), p.get("step", Fraction(0))
    decoded = q.decode(codes, params).ravel().tolist()
    for value, code, level in zip(exact(x), codes.ravel().tolist(), decoded):
        level_wanted = float(paper_value(q, code, scale, low))
        assert abs(level - level_wanted) <= eps * (abs(level_wanted - float(low)) + abs(float(low))) + tiny
        wanted = paper_code(q, value, scale, low, step)
        if code != wanted:
            # One rounding of x − low, one of the quotient, one of + ½: as if x had been off by so much.
            off = 2 * Fraction(eps) * (abs(value) + abs(low) + (step or scale)) + Fraction(5e-324)
            near = {paper_code(q, value + off, scale, low, step), paper_code(q, value - off, scale, low, step)}
            assert code in near, (value, code, wanted, params)


@given(x=tensors())
def test_residual_codes_are_the_signs_of_the_residuals(x):
    q = tq.quant.ResQ(bits=3)
    codes, params = q.encode(x)
    for value, code in zip(x.ravel(), codes.ravel().tolist()):
        rest, total = value, x.dtype.type(0)
        for i, alpha in enumerate(params["scale"]):
            s = 1 if rest > 0 else -1
            assert (code >> (2 - i)) & 1 == (s > 0)
            rest, total = rest - s * alpha, total + s * alpha
        assert q.decode(np.array(code), params) == total


@given(x=tensors())
def test_ternary_scale_is_the_mean_magnitude_of_what_is_kept(x):
    codes, params = tq.quant.Ternary().encode(x)
    kept = [abs(v) for v, code in zip(exact(x), codes.ravel().tolist()) if code]
    wanted = float(sum(kept) / Fraction(len(kept))) if kept else 0.0
    assert params["scale"] == pytest.approx(wanted, rel=2 * float(np.finfo(x.dtype).eps), abs=5e-45)


@each()
@given(x=tensors())
@example(x=np.zeros(3, np.float32))
@example(x=np.array([[5.0]]))
def test_arrays_tensors_and_codes_give_the_same_bits(qs, x):
    for q in qs:
        codes, params = q.encode(x)
        values = q.quantize(x)
        assert values.tobytes() == q.decode(codes, params).tobytes()
        assert q(tq.Tensor(x)).data.tobytes() == values.tobytes()
        assert codes.dtype.itemsize == 1
        assert (np.diff(q.codebook(params)) >= 0).all()


@pytest.mark.parametrize("q", MAIN + EDGES, ids=repr)
def test_zeros_give_zeros(q):
    for dtype in (np.float32, np.float64):
        values = q.quantize(np.array([[0.0, -0.0], [0.0, 0.0]], dtype))
        assert values.tolist() == [[0.0, 0.0], [0.0, 0.0]]
        assert not np.signbit(values).any()


@each(but="PACT")
@given(x=tensors(ndim=2), axis=st.sampled_from([0, 1, -1]))
def test_per_channel_equals_a_loop_over_channels_bit_for_bit(qs, axis, x):
    for q in qs:
        per_channel_equals_a_loop(q, axis, x)


def per_channel_equals_a_loop(q, axis, x):
    keywords = {"signed": q.signed, "levels": q.levels} if q.letter == "U" else {}
    per_channel = type(q)(q.bits, axis=axis, **keywords)
    codes, params = per_channel.encode(x)
    values, books = per_channel.decode(codes, params), per_channel.codebook(params)
    assert len(books) == x.shape[axis]
    for c in range(x.shape[axis]):
        channel = x.take(c, axis)
        one_codes, one_params = q.encode(channel)
        np.testing.assert_array_equal(codes.take(c, axis), one_codes)
        np.testing.assert_array_equal(values.take(c, axis), q.decode(one_codes, one_params))
        np.testing.assert_array_equal(books[c], q.codebook(one_params))
    again, _ = per_channel.encode(x, params)
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("q", MAIN + EDGES, ids=repr)
def test_the_memory_layout_does_not_matter(q, dtype, rng):
    x = (rng.standard_normal((40, 30)) * 10.0 ** rng.integers(-9, 9, (40, 30))).astype(dtype)
    plain = q.quantize(np.ascontiguousarray(x))
    np.testing.assert_array_equal(q.quantize(np.asfortranarray(x)), plain)
    spread = np.zeros((*x.shape, 3), x.dtype)[..., 1]
    spread[...] = x
    np.testing.assert_array_equal(q.quantize(spread), plain)


@pytest.mark.parametrize("q", MAIN + EDGES, ids=repr)
def test_parameters_that_are_given_are_used_as_they_are(q):
    x = np.array([0.3, -2.0, 1.1, 5.0], np.float32)
    params = {name: 1.5 * value for name, value in q.fit(x).items()}
    codes, used = q.encode(x, params)
    assert all(np.array_equal(used[name], params[name]) for name in params)
    assert q.quantize(x, params).tobytes() == q.decode(codes, params).tobytes()
    np.testing.assert_array_equal(q.quantize(x[:2], params), q.quantize(x, params)[:2])


def test_the_scale_of_numbers_far_from_zero_keeps_its_digits():
    """E[x²] − (E x)² would be noise here."""
    x = (1e6 + np.random.default_rng(0).integers(-3, 4, 100_000) * 0.0625).astype(np.float32)
    wanted = float(np.std(x.astype(np.longdouble)))
    assert tq.quant.ClipQ(bits=1).fit(x)["scale"] == pytest.approx(lambdas.clip_lambda(1) * wanted, rel=1e-7)


def test_fixed_point_scales_stay_powers_of_two_when_averaged():
    q = tq.quant.FixedQ(bits=4)
    assert q.settle({"scale": np.array(0.7, np.float32)})["scale"].dtype == np.float32
    for scale, wanted in [(1.0, 1.0), (1.41, 1.0), (1.42, 2.0), (0.0, 0.0), (3 * 2.0**-100, 2.0**-98)]:
        assert q.settle({"scale": np.array(scale)})["scale"] == wanted
