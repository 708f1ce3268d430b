"""The laws themselves: what each one still accepts at its edge, and what it refuses just beyond.

test_laws.py asks the schemes; here those who ask are asked. A law that never refuses holds for everything.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinyqnn import checks

F32, F64 = np.float32, np.float64


def array(*numbers: float) -> np.ndarray:
    return np.array(numbers, F64)


def by(relative: float):
    """The identity, too large by a part of each number."""
    return lambda x: x * (1 + relative)


class Told:
    """A quantizer whose codes, values and codebook are those it is given, right or wrong."""

    def __init__(self, codes=(), values=(), book=(), bits=2, axis=0, alphabet=None, again=None):
        self.codes, self.values, self.book = np.asarray(codes), np.asarray(values), np.asarray(book, F64)
        self.bits, self.axis, self.again = bits, axis, self.codes if again is None else np.asarray(again)
        if alphabet is not None:
            self.alphabet = alphabet

    def encode(self, x, params=None):
        assert params in (None, "held")
        return (self.codes if params is None else self.again), "held"

    def decode(self, codes, params):
        assert params == "held"
        return self.values

    def codebook(self, params):
        assert params == "held"
        return self.book

    def quantize(self, x):
        return self.values

    def __call__(self, x):
        raise AssertionError("a quantizer that has `quantize` is asked by it")


def nan_elsewhere(x):
    return np.append(0.0, x[:-1])


def refuse(x):
    raise ValueError("no")


def warn_of_nothing(x):
    np.zeros(0).mean()
    return x


def warn_of_a_root(x):
    return np.sqrt(-np.ones_like(x)) > 0


def alternating(*factors: float):
    """Multiplies by another factor at each call."""
    factor = itertools.cycle(factors)
    return lambda x: x * next(factor)


class Remembers:
    """Divides by the largest number that it ever saw."""

    largest = 0.0

    def __call__(self, x):
        self.largest = max(self.largest, float(np.abs(x).max()))
        return x / self.largest


def in_place(x):
    x += 1
    return x.copy()


def twice_if(condition):
    """Doubles arrays of which the condition says True, and leaves all others as they are."""
    return lambda x: 2 * x if condition(x) else 1 * x


def gaps(x):
    return not (x.flags.c_contiguous or x.flags.f_contiguous)


TABLE = np.arange(1.0, 7.0).reshape(2, 3)

ACCEPTED, REFUSED = True, False
QUESTIONS = [
    # law, quantizer, x, further arguments, answer
    ("keeps_dtype_and_shape", np.round, TABLE, {}, ACCEPTED),
    ("keeps_dtype_and_shape", np.round, TABLE.astype(F32), {}, ACCEPTED),
    ("keeps_dtype_and_shape", Told(values=TABLE), TABLE, {}, ACCEPTED),
    ("keeps_dtype_and_shape", np.ravel, TABLE, {}, REFUSED),
    ("keeps_dtype_and_shape", lambda x: x.astype(F32), TABLE, {}, REFUSED),
    ("keeps_dtype_and_shape", lambda x: x.tolist(), TABLE, {}, ACCEPTED),
    ("leaves_its_input_alone", np.round, TABLE, {}, ACCEPTED),
    ("leaves_its_input_alone", np.round, TABLE.T[:, ::2], {}, ACCEPTED),
    ("leaves_its_input_alone", lambda x: x, TABLE, {}, REFUSED),
    ("leaves_its_input_alone", lambda x: x[:], TABLE, {}, REFUSED),
    ("leaves_its_input_alone", in_place, TABLE, {}, REFUSED),
    ("leaves_its_input_alone", lambda x: np.negative(x, out=x) * 1, array(0.0), {}, REFUSED),
    ("is_deterministic", np.round, TABLE, {}, ACCEPTED),
    ("stays_finite", np.round, TABLE, {}, ACCEPTED),
    ("stays_finite", np.square, array(1, 1e200), {}, REFUSED),
    ("stays_finite", lambda x: x / x, array(1, 0), {}, REFUSED),
    ("keeps_zeros", np.round, TABLE, {}, ACCEPTED),
    ("keeps_zeros", lambda x: -x, TABLE, {}, ACCEPTED),
    ("keeps_zeros", lambda x: x / np.abs(x).max(), TABLE, {}, REFUSED),
    ("keeps_zeros", lambda x: x + np.eye(*x.shape), TABLE, {}, REFUSED),
    ("does_not_hide_nan", np.round, TABLE, {}, ACCEPTED),
    ("does_not_hide_nan", refuse, TABLE, {}, ACCEPTED),
    ("does_not_hide_nan", lambda x: (x > 0).astype(int), TABLE, {}, REFUSED),
    ("does_not_hide_nan", np.nan_to_num, TABLE, {}, REFUSED),
    ("does_not_hide_nan", nan_elsewhere, array(1, 2, 3), {}, REFUSED),
    ("does_not_hide_nan", warn_of_a_root, TABLE, {}, REFUSED),
    ("does_not_hide_nan", lambda x: np.array(["?"]), TABLE, {}, None),
    ("knows_emptiness", np.round, TABLE, {}, ACCEPTED),
    ("knows_emptiness", refuse, TABLE, {}, ACCEPTED),
    ("knows_emptiness", lambda x: x - x.mean(), TABLE, {}, REFUSED),
    ("knows_emptiness", warn_of_nothing, TABLE, {}, REFUSED),
    ("knows_emptiness", np.ravel, TABLE, {}, REFUSED),
    ("knows_emptiness", lambda x: np.zeros((0, 2)), TABLE, {}, REFUSED),
    ("ignores_memory_layout", np.round, TABLE, {}, ACCEPTED),
    ("ignores_memory_layout", lambda x: x.ravel(order="K").reshape(x.shape), TABLE, {}, REFUSED),
    ("ignores_memory_layout", twice_if(gaps), TABLE, {}, REFUSED),
    ("ignores_memory_layout", twice_if(lambda x: not x.flags.c_contiguous), TABLE, {}, REFUSED),
    ("ignores_memory_layout", lambda x: x + 1e-9 * gaps(x), TABLE, {}, REFUSED),
    ("ignores_memory_layout", lambda x: x + 1e-9 * gaps(x), TABLE, {"rtol": 1e-6}, ACCEPTED),
    ("ignores_memory_layout", twice_if(gaps), TABLE, {"rtol": 1e-6}, REFUSED),
    ("ignores_memory_layout", twice_if(lambda x: x.flags.c_contiguous), np.asfortranarray(TABLE), {}, REFUSED),
    ("is_on_codebook", np.round, array(0.2, 1.7), {"codebook": array(0, 1, 2)}, ACCEPTED),
    ("is_on_codebook", np.round, array(0.2, 3.1), {"codebook": array(0, 1, 2)}, REFUSED),
    ("is_on_codebook", Told([0, 1], [0.0, 1.0], [0, 1]), array(3, 4), {}, ACCEPTED),
    ("is_on_codebook", Told([0, 1], [0.0, 1 + 1e-15], [0, 1]), array(3, 4), {}, REFUSED),
    ("is_on_codebook", Told(0, [[0.0, 1], [5, 5]], [[0, 1], [5, 6]]), TABLE, {}, ACCEPTED),
    ("is_on_codebook", Told(0, [[0.0, 1], [5, 1]], [[0, 1], [5, 6]]), TABLE, {}, REFUSED),
    ("is_on_codebook", Told(0, [[0.0, 5], [5, 6]], [[0, 1], [5, 6]]), TABLE, {}, REFUSED),
    ("is_on_codebook", Told(0, [[0.0, 1], [5, 5]], [[0, 1], [5, 6]], axis=1), TABLE, {}, REFUSED),
    ("is_on_codebook", Told(0, [[0.0, 5], [1, 5]], [[0, 1], [5, 6]], axis=1), TABLE, {}, ACCEPTED),
    ("has_at_most_2b_levels", np.sign, array(-1, 0, 1), {"bits": 2}, ACCEPTED),
    ("has_at_most_2b_levels", np.sign, array(-1, 0, 1), {"bits": 1}, REFUSED),
    ("has_at_most_2b_levels", np.sign, array(-1, 1), {"bits": 1}, ACCEPTED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 2, 3]), TABLE, {}, ACCEPTED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 2, 3, 4]), TABLE, {}, REFUSED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 2, 3, 4]), TABLE, {"bits": 3}, ACCEPTED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 2, 3]), TABLE, {"bits": 1}, REFUSED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 1 + 1e-9], bits=1), TABLE, {}, REFUSED),
    ("has_at_most_2b_levels", Told(values=[0.0, 1, 1 + 1e-9], bits=1), TABLE, {"rtol": 1e-6}, ACCEPTED),
    ("has_at_most_2b_levels", Told(values=[0.0, 9e-4, -1e3], bits=1), TABLE, {"rtol": 1e-6}, ACCEPTED),
    ("has_at_most_2b_levels", Told(values=[0.0, 2e-3, -1e3], bits=1), TABLE, {"rtol": 1e-6}, REFUSED),
    ("codes_fit", Told([-2, 1], alphabet=range(-2, 2)), array(5, 6), {}, ACCEPTED),
    ("codes_fit", Told(np.array([2, 1], np.uint8), alphabet=[0, 1, 2, 3]), array(5, 6), {}, ACCEPTED),
    ("codes_fit", Told([-2.0, 1.0], alphabet=range(-2, 2)), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([True, False], alphabet=[0, 1]), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([-2, 1, 1], alphabet=range(-2, 2)), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([-2, 2], alphabet=range(-2, 2)), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([-2, 1], alphabet=range(-2, 3)), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([-2, 1], alphabet=range(-2, 3)), array(5, 6), {"bits": 3}, ACCEPTED),
    ("codes_fit", Told([-2, 1], alphabet=range(-2, 2)), array(5, 6), {"bits": 1}, REFUSED),
    ("codes_fit", Told([2, 3, 4, 5]), array(1, 2, 3, 4), {}, ACCEPTED),
    ("codes_fit", Told([2, 3, 4, 6]), array(1, 2, 3, 4), {}, REFUSED),
    ("codes_fit", Told([0, 2, 9]), array(1, 2, 3), {}, REFUSED),
    ("codes_fit", Told([-1, 1], bits=1), array(5, 6), {}, ACCEPTED),
    ("codes_fit", Told([-1, 1], bits=0), array(5, 6), {}, REFUSED),
    ("codes_fit", Told([-1, -1], bits=0), array(5, 6), {}, ACCEPTED),
    ("codes_fit", Told([-1, 0, 1], bits=1), array(4, 5, 6), {}, REFUSED),
    ("is_decode_of_encode", Told([0], array(1.0)), array(5), {}, ACCEPTED),
    ("is_decode_of_encode", type("Other", (Told,), {"quantize": lambda self, x: -self.values})([0], array(0.0)),
     array(5), {}, REFUSED),
    ("codes_round_trip", Told([1, 2], again=[1, 2]), array(5, 6), {}, ACCEPTED),
    ("codes_round_trip", Told([1, 2], again=[1, 1]), array(5, 6), {}, REFUSED),
    ("is_monotone", np.round, TABLE - 3.3, {}, ACCEPTED),
    ("is_monotone", np.abs, TABLE - 3, {}, REFUSED),
    ("is_monotone", lambda x: x * array(1, 1, 1 - 1e-9), array(1, 7, 7), {}, REFUSED),
    ("is_monotone", lambda x: x * array(1, 1, 1 - 1e-9), array(1, 7, 7), {"rtol": 1e-6}, ACCEPTED),
    ("is_monotone", lambda x: x * array(1, 1, 1 - 1e-5), array(1, 7, 7), {"rtol": 1e-6}, REFUSED),
    ("is_monotone", lambda x: x - array(0, 0, 1e-4), array(-7e4, 1, 1), {"rtol": 1e-6}, ACCEPTED),
    ("is_monotone", lambda x: x - array(0, 1e-8), array(1e-3, 1e-3), {"rtol": 1e-6}, REFUSED),
    ("is_monotone", np.round, array(), {"rtol": 1e-6}, ACCEPTED),
    ("is_odd", np.round, array(0.2, 1.5), {}, ACCEPTED),
    ("is_odd", np.floor, array(0.2, 1.5), {}, REFUSED),
    ("is_odd", lambda x: np.floor(x + 0.5), array(0.5), {}, REFUSED),
    ("is_odd_up_to_ties", lambda x: np.floor(x + 0.5), array(0.5, 1.2), {}, ACCEPTED),
    ("is_odd_up_to_ties", lambda x: np.floor(x + 0.5), array(0.5 + 1e-8), {}, ACCEPTED),
    ("is_odd_up_to_ties", np.floor, array(0.2), {}, REFUSED),
    ("is_odd_up_to_ties", np.floor, array(0.5, 0.2), {}, REFUSED),
    ("is_odd_up_to_ties", lambda x: x + 4e-7 * (x < 0), array(1, 1), {}, ACCEPTED),
    ("is_odd_up_to_ties", lambda x: x + 4e-6 * (x < 0), array(1, 1), {}, REFUSED),
    ("is_odd_up_to_ties", lambda x: x + 4e-4 * (x < 0), array(1, 1e3), {}, ACCEPTED),
    ("is_odd_up_to_ties", lambda x: x[: 2 - int(x[0] < 0)], array(1, 1), {}, REFUSED),
    ("is_scale_equivariant", np.round, array(0.2, 0.7), {}, REFUSED),
    ("is_scale_equivariant", by(0.5), array(0.2, 0.7), {}, ACCEPTED),
    ("is_scale_equivariant", by(0.5), array(0.2, 0.7).astype(F32), {"factors": (3.0, 0.25)}, ACCEPTED),
    ("is_scale_equivariant", twice_if(lambda x: x.max() > 1000), array(1, 2), {}, REFUSED),
    ("is_scale_equivariant", twice_if(lambda x: x.max() < 2), array(1, 2), {}, REFUSED),
    ("is_scale_equivariant", twice_if(lambda x: 2 < x.max() < 9), array(1, 2), {}, REFUSED),
    ("is_scale_equivariant", twice_if(lambda x: x.max() > 2.5), array(1, 2), {"factors": (1.25,)}, ACCEPTED),
    ("is_scale_equivariant", lambda x: x + 1e-9, array(1, 2), {}, REFUSED),
    ("is_scale_equivariant", lambda x: x + 1e-9, array(1, 2), {"rtol": 1e-6}, ACCEPTED),
    ("is_scale_equivariant", lambda x: x + 1e-5, array(1, 2), {"rtol": 1e-6}, REFUSED),
    ("is_permutation_equivariant", np.round, TABLE, {}, ACCEPTED),
    ("is_permutation_equivariant", lambda x: np.cumsum(x).reshape(x.shape), TABLE, {}, REFUSED),
    ("is_permutation_equivariant", twice_if(lambda x: x.flat[0] > 1), array(1, 2), {}, REFUSED),
    ("is_permutation_equivariant", twice_if(lambda x: x.shape != (2, 3)), TABLE, {}, ACCEPTED),
    ("is_permutation_equivariant", lambda x: x + 1e-9 * x.flat[0], array(1, 2), {}, REFUSED),
    ("is_permutation_equivariant", lambda x: x + 1e-9 * x.flat[0], array(1, 2), {"rtol": 1e-6}, ACCEPTED),
    ("is_permutation_equivariant", lambda x: x + 1e-4 * x.flat[0], array(1, 2), {"rtol": 1e-6}, REFUSED),
    ("is_permutation_equivariant", lambda x: array(0, 1), array(0.5, 0.5), {}, REFUSED),
    ("is_permutation_equivariant", lambda x: array(0, 1), array(0.5, 0.5), {"rtol": 1e-6}, ACCEPTED),
    ("is_idempotent", np.round, array(0.2, 1.7), {}, ACCEPTED),
    ("is_idempotent", by(4e-7), array(1, 2), {}, ACCEPTED),
    ("is_idempotent", by(4e-6), array(1, 2), {}, REFUSED),
    ("is_idempotent", by(4e-7), array(1, 2), {"rtol": 0.0}, REFUSED),
    ("is_idempotent", np.round, array(0.2, 1.7), {"rtol": 0.0}, ACCEPTED),
    ("is_idempotent", by(1e-4), array(1e-3, 2e-3), {}, REFUSED),
    ("is_idempotent", np.round, array(), {}, ACCEPTED),
    ("is_idempotent", lambda x: x + 4e-4 * (x < 2), array(1, 1e3), {}, ACCEPTED),
    ("is_idempotent", lambda x: x[:-1], array(1, 1, 1), {}, REFUSED),
    ("is_idempotent", lambda x: x + array(0, 1), array(1, 2), {}, REFUSED),
    ("takes_the_nearest_level", Told(0, [0.0, 1.0], [0, 1]), array(0.4, 0.6), {}, ACCEPTED),
    ("takes_the_nearest_level", Told(0, [0.0, 0.0], [0, 1]), array(0.4, 0.5), {}, ACCEPTED),
    ("takes_the_nearest_level", Told(0, [0.0, 1.0], [0, 1]), array(0.4, 0.5), {}, ACCEPTED),
    ("takes_the_nearest_level", Told(0, [0.0, 0.0], [0, 1]), array(0.4, 0.5 + 1e-14), {}, REFUSED),
    ("takes_the_nearest_level", Told(0, [1.0, 1.0], [0, 1]), array(0.4, 0.6), {}, REFUSED),
    ("takes_the_nearest_level", Told(0, [[0.0, 0.0]], [0, 1]), np.array([[0.4, 0.6]], F32), {}, REFUSED),
    ("takes_the_nearest_level", Told(0, [[0.0, 0.0]], [0, 1]), np.array([[0.4, 0.5 + 1e-7]], F32), {}, ACCEPTED),
    ("takes_the_nearest_level", Told(0, [0.0], [0, 1e14, -1e15]), array(0.5e14 + 0.25), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [0.0, 2.0], [0, 1, 2]), array(0.5, 1.5), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [0.0, 2.0], [0, 1, 2]), array(0.5 + 1e-13, 1.5), {}, REFUSED),
    ("error_within_half_step", Told(0, [0.0, 2.0], [0, 1, 2]), array(0.5, 9.0), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [0.0, 2.0], [0, 1, 2]), array(-9.0, 2.5), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [0.0, 1.0], [0, 1, 2]), array(0.5, 2.5), {}, REFUSED),
    ("error_within_half_step", Told(0, [1.0, 2.0], [0, 1, 2]), array(-0.5, 2.5), {}, REFUSED),
    ("error_within_half_step", Told(0, [0.0], [0, 1, 2]), np.array([0.5 + 1e-7], F32), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [7.0], [7]), array(7.0), {}, ACCEPTED),
    ("error_within_half_step", Told(0, [8.0], [7]), array(7.0), {}, REFUSED),
    ("error_is_least", np.round, array(0.5, 0), {"least": 0.125}, ACCEPTED),
    ("error_is_least", np.round, array(0.5, 0), {"least": 0.125 / 1.0005}, ACCEPTED),
    ("error_is_least", np.round, array(0.5, 0), {"least": 0.125 / 1.002}, REFUSED),
    ("error_is_least", np.round, array(0.5, 0), {"least": 0.125 / 1.2, "rtol": 0.5}, ACCEPTED),
    ("error_is_least", np.round, array(0.5, 0), {"least": 0.125, "rtol": 0.0}, ACCEPTED),
    ("equals_a_loop_over_channels", np.round, TABLE, {"per_tensor": np.round, "axis": 1}, ACCEPTED),
    ("equals_a_loop_over_channels", np.cumsum, TABLE, {"per_tensor": np.round, "axis": 1}, REFUSED),
    ("equals_a_loop_over_channels", lambda x: np.cumsum(x, 0), TABLE, {"per_tensor": np.cumsum, "axis": 1}, ACCEPTED),
    ("equals_a_loop_over_channels", lambda x: np.cumsum(x, 0), TABLE, {"per_tensor": np.cumsum, "axis": 0}, REFUSED),
    ("equals_a_loop_over_channels", by(1e-9), TABLE, {"per_tensor": by(0), "axis": 0}, REFUSED),
    ("equals_a_loop_over_channels", by(1e-9), TABLE, {"per_tensor": by(0), "axis": 0, "rtol": 1e-6}, ACCEPTED),
    ("scale_is_least_squares", lambda x: 2 * np.sign(x), array(1, 3), {}, ACCEPTED),
    ("scale_is_least_squares", lambda x: (2 + 1e-5) * np.sign(x), array(1, 3), {}, ACCEPTED),
    ("scale_is_least_squares", lambda x: (2 + 1e-4) * np.sign(x), array(1, 3), {}, REFUSED),
    ("scale_is_least_squares", lambda x: (2 - 1e-4) * np.sign(x), array(1, 3), {}, REFUSED),
    ("scale_is_least_squares", lambda x: 2.1 * np.sign(x), array(1, 3), {"rtol": 0.1}, ACCEPTED),
    ("scale_is_least_squares", lambda x: 2e200 * np.sign(x), array(1e200, 3e200), {}, ACCEPTED),
    ("scale_is_least_squares", lambda x: 3e200 * np.sign(x), array(1e200, 3e200), {}, REFUSED),
    ("scale_is_least_squares", lambda x: x, array(0, 0), {}, ACCEPTED),
    ("residual_falls_by_squares", lambda x: 2 * np.sign(x), array(1, 3), {"bits": 1}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[1.0, 3], bits=2), array(1, 3), {}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[2.0, 2], bits=2), array(1, 3), {}, REFUSED),
    ("residual_falls_by_squares", Told(values=[2.0, 2], bits=2), array(1, 3), {"bits": 1}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[2.0, 2.005], bits=1), array(1, 3), {}, REFUSED),
    ("residual_falls_by_squares", Told(values=[2.0, 2 + 1e-5], bits=1), array(1, 3), {}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[2e200, 2e200], bits=1), array(1e200, 3e200), {}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[0.0, 0], bits=1), array(0, 0), {}, ACCEPTED),
    ("residual_falls_by_squares", Told(values=[-1.0, 1, 1], bits=1), array(-1, 1, 1), {}, ACCEPTED),
    ("products_are_shifts", lambda x: 3 * 2**x, array(0, 1, 5), {}, ACCEPTED),
    ("products_are_shifts", lambda x: -3 * 2**x, array(0, 1, 5), {}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(0, 3, 6), {}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(3, 4), {}, REFUSED),
    ("products_are_shifts", lambda x: x, array(0, 0), {}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(3, 6 + 1e-9), {}, REFUSED),
    ("products_are_shifts", lambda x: x, array(3, 6 + 1e-9), {"rtol": 1e-6}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(3, 6 + 1e-4), {"rtol": 1e-6}, REFUSED),
    ("products_are_shifts", lambda x: x, array(1, 2 ** (1 + 2.5e-6)), {"rtol": 1e-6}, REFUSED),
    ("products_are_shifts", lambda x: x, array(1, 2 ** (1 + 1.5e-6)), {"rtol": 1e-6}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(3, 7e-7), {"rtol": 1e-6}, ACCEPTED),
    ("products_are_shifts", lambda x: x, array(3, 4e-6), {"rtol": 1e-6}, REFUSED),
    ("products_are_shifts", lambda x: x, array(0, 0), {"rtol": 1e-6}, ACCEPTED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("law", "quantizer", "x", "more", "answer"),
    [pytest.param(*row, id=f"{row[0]}-{number}") for number, row in enumerate(QUESTIONS)],
)
def test_a_law_answers_right(law, quantizer, x, more, answer):
    ask = getattr(checks, law)
    if law == "equals_a_loop_over_channels":
        found = ask(quantizer, more["per_tensor"], x.copy(), **{k: v for k, v in more.items() if k != "per_tensor"})
    elif answer is None:
        with pytest.raises(ValueError, match="could not convert"):
            ask(quantizer, x.copy())
        return
    else:
        found = ask(quantizer, x.copy() if x.flags.owndata else x, **more)
    assert found is answer


@pytest.mark.parametrize(
    ("make", "x", "answer"),
    [
        (lambda: alternating(1, 1, 2), array(1, 2), REFUSED),
        (lambda: alternating(1, 2, 1), array(1, 2), ACCEPTED),
        (lambda: alternating(1, 1, -1), array(0.0), REFUSED),
        (Remembers, array(1, 2), REFUSED),
        (Remembers, array(0, 0.25), REFUSED),
    ],
)
def test_a_hidden_state_is_found(make, x, answer):
    assert checks.is_deterministic(make(), x) is answer


class TestErrorFallsWithBits:
    def test_it_compares_neighbours(self):
        x = array(1, 2)
        good, fair, bad = by(0.01), by(0.1), by(0.5)
        assert checks.error_falls_with_bits([bad, fair, good], x) is True
        assert checks.error_falls_with_bits([bad, good, fair], x) is False
        assert checks.error_falls_with_bits([fair, bad, good], x) is False
        assert checks.error_falls_with_bits([fair, fair], x) is True
        assert checks.error_falls_with_bits([fair], x) is True

    @pytest.mark.parametrize(("more", "answer"), [(2e-7, True), (2e-6, False)])
    def test_a_millionth_more_is_no_rise(self, more, answer):
        """The squared error rises by twice the part that the error rises by."""
        assert checks.error_falls_with_bits([by(0.1), by(0.1 * (1 + more))], array(1, 2)) is answer
        assert checks.error_falls_with_bits([by(0.1), by(0.1 * (1 + more))], array(1, 2), rtol=1e-5) is True

    @pytest.mark.parametrize("dtype", [F32, F64])
    def test_nor_is_what_rounding_leaves_of_no_error(self, dtype):
        eps = float(np.finfo(dtype).eps)
        x = np.array([-8, 8, 8], dtype)
        assert checks.error_falls_with_bits([by(0), lambda x: x.astype(F64) * (1 + 60 * eps)], x) is True
        assert checks.error_falls_with_bits([by(0), lambda x: x.astype(F64) * (1 + 80 * eps)], x) is False


class Steps:
    """Rounds to whole steps, ties upwards; a scheme with a parameter that `fit` measures."""

    bits = 1

    def __init__(self, step=1.0, shift=0.5):
        self.step, self.shift = step, shift

    def fit(self, x):
        return {"step": np.float64(self.step)}

    def quantize(self, x, params):
        return (np.floor(x / params["step"] + self.shift) * params["step"]).astype(x.dtype)


def rounds(x):
    """Rounds, ties to even."""
    return np.round(x)


class TestAgreement:
    @pytest.mark.parametrize(
        ("quantizer", "x", "more", "answer"),
        [
            (rounds, array(0.2, 0.7), {}, True),
            (rounds, array(0.2, 0.5), {}, True),
            (np.floor, array(0.2, 0.7), {}, False),
            (np.floor, array(0.2, 0.5 + 2e-6), {}, True),
            (np.floor, array(0.2, 0.5 + 9e-6), {}, False),
            (np.floor, array(0.2, 0.5 - 2e-6, 0.5 + 9e-6), {"rtol": 1e-4}, True),
            (lambda x: np.round(x) * (1 + 1e-5), array(0.2, 0.7), {}, True),
            (lambda x: np.round(x) * (1 + 2.5e-5), array(0.2, 0.7), {}, False),
            (lambda x: np.round(x) + 1e-2 * (x < 5), array(0.2, 1000.2), {}, True),
            (lambda x: np.round(x) + 3e-2 * (x < 5), array(0.2, 1000.2), {}, False),
            (lambda x: np.round(x)[:1], array(0.2, 0.7), {}, False),
            (lambda x: np.round(x)[None], array(0.2, 0.7), {}, False),
        ],
    )
    def test_values_are_the_schemes_wherever_a_small_change_does_not_matter(self, quantizer, x, more, answer):
        assert checks.agrees_with(quantizer, x, Steps(), **more) is answer

    def test_the_slack_grows_with_the_values_too(self):
        """A scheme may answer with numbers far above x."""

        class Thousands(Steps):
            def quantize(self, x, params):
                return 1000 * super().quantize(x, params)

        assert checks.agrees_with(lambda x: 1000 * np.round(x) + 1e-2, array(0.2, 0.7), Thousands()) is True
        assert checks.agrees_with(lambda x: 1000 * np.round(x) + 1e-1, array(0.2, 0.7), Thousands()) is False

    def test_sums_of_more_bits_are_rounded_more_often(self):
        """In float32 with rtol=0: eight roundings a bit, of the largest number."""
        eps = float(np.finfo(F32).eps)
        x = np.array([0.5 + 10 * eps, 1.2], F32)
        few, many = Steps(), Steps()
        many.bits = 2
        assert checks.agrees_with(np.floor, x, few, rtol=1e-9) is False
        assert checks.agrees_with(np.floor, x, many, rtol=1e-9) is True
        del Steps.bits
        try:
            assert checks.agrees_with(np.floor, x, few, rtol=1e-9) is False
        finally:
            Steps.bits = 1

    @pytest.mark.parametrize(
        ("quantizer", "x", "scheme", "answer"),
        [
            (Steps().quantize, array(0.5, 1.5), Steps(), True),
            (rounds, array(1.5), Steps(), True),
            (rounds, array(0.5), Steps(), False),
            (rounds, array(0.5, 1.5), Steps(), False),
            (rounds, array(0.5, 1 / 3), Steps(), True),  # 1/3 has many digits: nobody is asked about ties
            (rounds, array(0.3, 0.7), Steps(), True),
            (np.ceil, array(0.25), Steps(), True),  # far from an edge: `agrees_with` asks there
            (np.floor, array(0.7), Steps(), True),
            (np.ceil, array(0.5), Steps(shift=0.49999999), False),
            (np.floor, array(0.5), Steps(shift=0.49999999), True),
            (lambda x: np.where(x == 0, -1, 1), array(0.0, 1 / 3), Steps(step=1.0, shift=0.0), False),
            (lambda x: np.floor(x + 0.5)[:0], array(0.5), Steps(), False),
            (lambda x: np.floor(x + 0.5) - 0.3, array(0.5), Steps(), True),
            (lambda x: np.floor(x + 0.5) - 0.5, array(0.5), Steps(), False),
        ],
    )
    def test_a_tie_goes_where_the_scheme_sends_it(self, quantizer, x, scheme, answer):
        if quantizer.__name__ == "quantize":
            quantizer = lambda x: Steps().quantize(x, {"step": 1.0})  # noqa: E731
        assert checks.breaks_ties_as(quantizer, x, scheme) is answer

    def test_ties_are_asked_only_where_the_scheme_itself_measured_few_digits(self):
        third = Steps(step=1 / 3)
        assert checks.breaks_ties_as(lambda x: x * 0, np.array([1 / 6]), third) is True
        assert checks.breaks_ties_as(lambda x: x * 0, array(0.5), third) is True

    def test_how_near_an_edge_is_asked_follows_rtol(self):
        x = array(0.5 + 2.0**-9)
        assert checks.breaks_ties_as(np.floor, x, Steps()) is True
        assert checks.breaks_ties_as(np.floor, x, Steps(), rtol=0.01) is True
        assert checks.breaks_ties_as(np.floor, array(0.5 + 2.0**-8), Steps(), rtol=0.01) is False


@pytest.mark.parametrize(
    ("x", "few"),
    [
        (array(0, 0), True), (array(0.5, 1.0), True), (array(1.0, 2.0**-7), True), (array(1.0, 2.0**-8), False),
        (array(-1.0, 2.0**-8), False), (array(1 - 2.0**-8), True), (array(1 - 2.0**-9), False), (array(1 / 3), False),
        (array(1e300, 0), False), (array(2.0**1000, 2.0**999), True), (np.array([3.0], F32), True), (array(), True),
    ],
)  # fmt: skip
def test_few_digits_are_eight_below_the_largest(x, few):
    assert checks._has_few_digits(x) is few


ONES, EDGES = array(0.5, 2.0), array(-1.0, 1.0, 2.0)


class TestGradients:
    @pytest.mark.parametrize(
        ("gradient", "x", "answer"),
        [
            (lambda x, g: g * (abs(x) < 1), array(0.5, 2.0, -0.5), True),
            (lambda x, g: g, array(0.5, 2.0), True),
            (lambda x, g: g * (abs(x) < 1), array(-1.0, 1.0), True),
            (lambda x, g: g * (x > 0), array(0.5, -0.5), False),
            (lambda x, g: np.sign(g), array(0.5, -0.5), False),
            (lambda x, g: g[::-1], array(0.5, -0.5), False),
        ],
    )
    def test_inside_it_passes(self, gradient, x, answer):
        assert checks.gradient_passes_inside(gradient, x, -1, 1) is answer

    def test_without_bounds_it_passes_everywhere(self):
        assert checks.gradient_passes_inside(lambda x, g: g, ONES) is True
        assert checks.gradient_passes_inside(lambda x, g: g * (x < 1), ONES) is False

    @pytest.mark.parametrize(
        ("gradient", "x", "answer"),
        [
            (lambda x, g: g * (abs(x) <= 1), array(-1.0, 1.0, 0.5), True),
            (lambda x, g: g * (x <= 1), array(-2.0, 0.5), False),
            (lambda x, g: g * (x >= -1), array(2.0, 0.5), False),
            (lambda x, g: g * (abs(x) <= 2), array(3.0, 1.5), False),
        ],
    )
    def test_outside_it_stops(self, gradient, x, answer):
        assert checks.gradient_stops_outside(gradient, x, -1, 1) is answer

    @pytest.mark.parametrize(
        ("wanted", "answer"),
        [((0, 0, 0), True), ((0, 1, 0), False), ((1, 0, 0), False), ((0, np.nan, 0), True), ((np.nan,) * 3, True)],
    )
    def test_at_the_boundary_it_is_what_is_wanted(self, wanted, answer):
        assert checks.gradient_at_the_boundary(lambda x, g: g * (abs(x) < 1), EDGES, array(*wanted)) is answer

    @pytest.mark.parametrize(
        ("gradient", "answer"),
        [
            (lambda x, g: 3 * g, True),
            (lambda x, g: g + 1, False),
            (lambda x, g: g + (np.arange(g.size) == 1), False),
            (lambda x, g: g.astype(F32), False),
            (lambda x, g: g[:2], False),
            (lambda x, g: (3 * g).tolist(), True),
        ],
    )
    def test_it_is_linear_in_what_comes_from_above(self, gradient, answer):
        assert checks.gradient_is_linear(gradient, EDGES) is answer

    def test_what_is_sent_back_tells_neighbours_apart(self):
        for x in (np.zeros((20, 30), F32), np.zeros(300)):
            g = checks._upstream(x)
            assert g.shape == x.shape
            assert g.dtype == x.dtype
            assert g.min() >= 1
            assert (np.diff(g.ravel()) != 0).all()
            assert (g == np.rint(g)).all()
            assert g.max() < 100  # whole numbers that float32 keeps, also after a sum over many
