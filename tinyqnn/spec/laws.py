"""The laws, one entry each: what it says, whom it is asked of, and for which schemes it does not hold, and why.

The questions themselves are the functions of the same names in `tinyqnn/checks.py`. Which cells of the table "laws ×
schemes" are empty is found out by asking (`matrix.py`); what is written here is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from tinyqnn import checks
from tinyqnn.quant import Quantizer
from tinyqnn.quant.lambdas import clip_cells, clip_lambda, pot_cells, pot_lambda
from tinyqnn.spec.subject import Subject
from tinyqnn.tensor import Array


@dataclass(frozen=True)
class Case:
    """What is asked: a subject, and the scheme that it claims to be (None: it claims nothing)."""

    subject: Subject
    scheme: Quantizer | None = None

    @property
    def bits(self) -> int | None:
        return self.subject.bits if self.scheme is None else self.scheme.bits

    @property
    def rtol(self) -> float:
        """How exactly sums are taken: our pages to the last bit, others to about float32's digits."""
        return 0.0 if self.subject.exact else 1e-5

    @property
    def agreement(self) -> float:
        """How near values have to be to the scheme's: where λ is printed with four digits, they may be those."""
        if self.scheme is None or form(self.scheme)[0] not in "QCP" or self.scheme.letter == "PACT":
            return 1e-5
        solved = pot_lambda if self.scheme.letter == "P" else clip_lambda
        return 6e-5 / solved(self.scheme.bits)


Reason = str


@dataclass(frozen=True)
class Law:
    """One law.

    ask       does it hold for this case and array? None: it says nothing about such an array
    needs     why it cannot be asked in this case; None if it can
    letters   the schemes that it is about; None: all
    general   True if it is asked of a quantizer that claims to be no scheme in particular
    unless    the schemes, by `form`, for which it does not hold, and why
    show      what to print with a counterexample beside x and Q(x)
    once      it brings numbers of its own, and need not be asked about one array after another

    >>> from tinyqnn.quant import scheme
    >>> law = BY_NAME["is_odd"]
    >>> law.is_asked_of(scheme("C-3")), law.unless["C"]
    (False, '0 and −0 both go up')
    """

    name: str
    statement: str
    ask: Callable[[Case, Array], bool | None]
    needs: Callable[[Case], Reason | None] = lambda case: None
    letters: str | None = None
    general: bool = False
    unless: Mapping[str, Reason] = field(default_factory=dict)
    show: Callable[[Case, Array], dict[str, Any]] = lambda case, x: {}
    once: bool = False

    def is_about(self, scheme: Quantizer) -> bool:
        """Does the law say anything about this scheme?"""
        return self.letters is None or scheme.letter in self.letters.split()

    def is_asked_of(self, scheme: Quantizer | None) -> bool:
        """Must it hold, for a quantizer that claims to be `scheme`?"""
        if scheme is None:
            return self.general
        return self.is_about(scheme) and form(scheme) not in self.unless


def form(scheme: Quantizer) -> str:
    """The scheme's letter, and for Uniform which of its three forms."""
    if scheme.letter == "U":
        return "U unsigned" if not getattr(scheme, "signed", True) else "U even" if scheme._lift else "U"  # type: ignore[attr-defined]
    return scheme.letter


def tame(x: Array) -> bool:
    """Are all numbers far from the ends of float32's range, so that no scale underflows?"""
    sizes = np.abs(x[x != 0])
    return bool(sizes.size == 0 or (sizes.min() >= 2.0**-40 and sizes.max() <= 2.0**40))


def _when_tame(ask: Callable[[Case, Array], bool | None]) -> Callable[[Case, Array], bool | None]:
    return lambda case, x: ask(case, x) if tame(x) else None


def _needs_codes(case: Case) -> Reason | None:
    return None if case.subject.encode else "it has no encode and decode"


def _needs_params(case: Case) -> Reason | None:
    if not case.subject.encode or not case.subject.takes_params:
        return "it has no encode(x, params) to hold parameters with"
    return None


def _needs_codebook(case: Case) -> Reason | None:
    return None if case.subject.codebook else "it has no codebook(params)"


def _needs_gradient(case: Case) -> Reason | None:
    return None if case.subject.gradient else "no gradient was given"


def _needs_scheme(case: Case) -> Reason | None:
    return None if case.scheme else "it claims to be no scheme; give one with --as"


def _needs_bits(case: Case) -> Reason | None:
    return None if case.bits else "its width is not known; give it with --bits"


def _needs_scheme_and_gradient(case: Case) -> Reason | None:
    return _needs_scheme(case) or _needs_gradient(case)


def _limits(case: Case, x: Array) -> tuple[Any, Any] | None:
    """Between which numbers the scheme's gradient passes; None: everywhere."""
    assert case.scheme is not None
    return case.scheme.limits(**case.scheme.fit(x))


def _passes_inside(case: Case, x: Array) -> bool | None:
    assert case.subject.gradient is not None
    limits = _limits(case, x)
    if limits is None:
        return checks.gradient_passes_inside(case.subject.gradient, x)
    margin = 2 * (case.agreement if case.rtol else 0.0) * np.abs(limits[1])
    return checks.gradient_passes_inside(case.subject.gradient, x, limits[0] + margin, limits[1] - margin)


def _stops_outside(case: Case, x: Array) -> bool | None:
    assert case.subject.gradient is not None
    limits = _limits(case, x)
    if limits is None:
        return None
    margin = 2 * (case.agreement if case.rtol else 0.0) * np.abs(limits[1])
    return checks.gradient_stops_outside(case.subject.gradient, x, limits[0] - margin, limits[1] + margin)


def _needs_boundary(case: Case) -> Reason | None:
    if (missing := _needs_scheme_and_gradient(case)) is not None:
        return missing
    assert case.scheme is not None
    if case.scheme.letter == "C" and case.subject.held is None:
        return "the boundary moves with the numbers; only a gradient with parameters held can be asked there"
    return None


def _at_the_boundary(case: Case, x: Array) -> bool | None:
    """At exactly the limits: both pass, but PACT's upper one goes to the clip."""
    scheme, subject = case.scheme, case.subject
    assert scheme is not None
    assert subject.gradient is not None
    x = x.reshape(-1)
    if scheme.letter == "C":
        params, held = scheme.fit(x), subject.held
        limits = scheme.limits(**params)
        if limits is None or held is None or limits[1] == 0:
            return None
        points = np.array([*x, *limits], x.dtype)
        wanted = np.array([*np.full(len(x), np.nan), 1, 1])
        return checks.gradient_at_the_boundary(lambda y, g: held(y, g, params), points, wanted)
    if scheme.letter == "PACT":
        points = np.array([*x, 0, scheme.clip.item()], x.dtype)  # type: ignore[attr-defined]
        wanted = np.array([*np.full(len(x), np.nan), 1, 0])
    elif form(scheme) == "U unsigned":
        points = np.arange(2**scheme.bits).astype(x.dtype)  # fits without error: the step is 1
        wanted = np.ones(len(points))
    else:
        return None
    return checks.gradient_at_the_boundary(subject.gradient, points, wanted)


def _per_channel(case: Case, x: Array) -> bool | None:
    if x.ndim == 0:
        return None
    other = case.subject.make(axis=0)
    assert other is not None
    rows = np.stack([x.reshape(-1), 4 * x.reshape(-1), -x.reshape(-1)[::-1]])  # (3, n)
    return checks.equals_a_loop_over_channels(other, case.subject, rows, 0, case.rtol)


def _needs_axis(case: Case) -> Reason | None:
    return None if case.subject.make(axis=0) else "it cannot be made with axis="


@lru_cache(maxsize=64)
def _ladder(case: Case) -> list[Subject]:
    """The subject with a bit less, itself, and with a bit more."""
    widths = case.scheme.widths if case.scheme else range(2, 9)
    bits = case.bits or 0
    first = 2 if case.scheme is not None and form(case.scheme) in ("U", "U even") else 1  # signed Uniform begins at 2
    near = [b for b in (bits - 1, bits, bits + 1) if b in widths and b >= first]
    made = [case.subject if b == bits else case.subject.make(bits=b) for b in near]
    return [one for one in made if one is not None]


def _needs_ladder(case: Case) -> Reason | None:
    if (missing := _needs_bits(case)) is not None:
        return missing
    if case.scheme is not None and len(case.scheme.widths) == 1:
        return "it has one width"
    return None if case.subject.make(bits=case.bits) else "it cannot be made with bits="


@lru_cache
def _normal_numbers() -> Array:
    """Numbers that are as normal as can be: quantiles of N(0, 1), stretched to sd 1."""
    count = 50_001
    x = np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])
    return x / x.std()


def _best_on_normal(case: Case, x: Array) -> bool | None:
    """Within 2 ‰ of the least error that any scale gives on these very numbers."""
    scheme, numbers = case.scheme, _normal_numbers().astype(x.dtype)
    assert scheme is not None
    return checks.error_is_least(case.subject, numbers, _least_error(scheme.letter, scheme.bits), 2e-3)


@lru_cache
def _least_error(letter: str, bits: int) -> float:
    """The least mean squared error of the codebook on the normal numbers, over all scales near λ."""
    if letter == "P":
        best, cells = pot_lambda(bits), pot_cells(bits)
    else:
        best, cells = clip_lambda(bits), clip_cells(bits)
    levels, edges, x = np.array(cells[0]), np.array(cells[1][1:-1]), np.abs(_normal_numbers())
    scales = best * np.linspace(0.98, 1.02, 41)
    return min(float(((x - a * levels[np.searchsorted(a * edges, x, "right")]) ** 2).mean()) for a in scales)


def _agrees(case: Case, x: Array) -> bool | None:
    """Ternary's scale hangs on every code, Uniform's step may have a rival that is just as good: both get leave."""
    scheme = case.scheme
    assert scheme is not None
    if scheme.letter == "T":
        edge = np.abs(np.abs(x) / (scheme.fit(x)["step"] or 1) - 0.5)
        if (edge < 1e-4).any():
            return None
    if checks.agrees_with(case.subject, x, scheme, case.agreement):
        return True
    if scheme.letter != "U":
        return False
    errors = [float(((x.astype(np.float64) - q.quantize(x)) ** 2).sum()) for q in (case.subject, scheme)]
    return errors[0] <= errors[1] * (1 + 1e-5)


def _breaks_ties(case: Case, x: Array) -> bool | None:
    return checks.breaks_ties_as(case.subject, x, case.scheme, case.agreement)


def _scheme_says(case: Case, x: Array) -> dict[str, Any]:
    return {} if case.scheme is None else {case.scheme.notation: case.scheme.quantize(x)}


def _gradient_of(case: Case, x: Array) -> dict[str, Any]:
    return {} if case.subject.gradient is None else {"dQ/dx": case.subject.gradient(x, np.ones_like(x))}


def _decoded(case: Case, x: Array) -> dict[str, Any]:
    if case.subject.encode is None or case.subject.decode is None:
        return {}
    codes, params = case.subject.encode(x)
    return {"codes": codes, "decoded": case.subject.decode(codes, params)}


def _recoded(case: Case, x: Array) -> dict[str, Any]:
    assert case.subject.encode is not None
    assert case.subject.decode is not None
    codes, params = case.subject.encode(x)
    values = case.subject.decode(codes, params)
    return {"codes": codes, "codes of Q(x)": case.subject.encode(values, params)[0]}


def _book(case: Case, x: Array) -> dict[str, Any]:
    assert case.subject.encode is not None
    return {"codebook": case.subject.codebook(case.subject.encode(x)[1])} if case.subject.codebook else {}


_HELD = {"R": "a value's residuals are not those of the number it stands for"}
_LEARNED = {"PACT": "the clip is learned, not measured"}
_UNEVEN = {
    "T": "the threshold is 0.7·E|x|, wherever the levels are",
    "P": "edges are halfway between logarithms, not between levels",
    "R": "a sign is taken for good, also where the next steps cannot make up for it",
}
_NEGATIVE = {
    "PACT": "numbers below 0 are clipped at 0",
    "U unsigned": "numbers below 0 are clipped at 0",
}

LAWS: tuple[Law, ...] = (
    Law("keeps_dtype_and_shape", "Q(x) has the dtype and the shape of x",
        lambda c, x: checks.keeps_dtype_and_shape(c.subject, x), general=True),
    Law("leaves_its_input_alone", "x is what it was, and Q(x) is memory of its own",
        lambda c, x: checks.leaves_its_input_alone(c.subject.untended, x.copy()), general=True),
    Law("is_deterministic", "the same numbers give the same bits, whatever came in between",
        lambda c, x: checks.is_deterministic(c.subject, x), general=True),
    Law("stays_finite", "finite numbers in, finite numbers out",
        lambda c, x: checks.stays_finite(c.subject, x), general=True),
    Law("keeps_zeros", "a tensor of zeros stays zeros",
        lambda c, x: checks.keeps_zeros(c.subject, x), general=True),
    Law("does_not_hide_nan", "a NaN is refused, or stays NaN",
        lambda c, x: checks.does_not_hide_nan(c.subject, x), general=True),
    Law("knows_emptiness", "an empty tensor is refused, or stays empty",
        lambda c, x: checks.knows_emptiness(c.subject, x), general=True),
    Law("ignores_memory_layout", "numbers elsewhere in memory get the same values",
        lambda c, x: checks.ignores_memory_layout(c.subject, x, c.rtol), general=True),
    Law("is_permutation_equivariant", "shuffled numbers get the shuffled values",
        lambda c, x: checks.is_permutation_equivariant(c.subject, x, rtol=c.rtol), general=True),
    Law("has_at_most_2b_levels", "there are at most 2^b different values",
        lambda c, x: checks.has_at_most_2b_levels(c.subject, x, c.bits, c.rtol), _needs_bits, general=True),
    Law("is_monotone", "a larger number never gets a smaller value",
        lambda c, x: checks.is_monotone(c.subject, x, c.rtol), general=True,
        unless={"R": "where α₁ < α₂ + …, +α₁ − α₂ lies below −α₁ + α₂; heavy tails bring that about"}),
    Law("is_odd", "Q(−x) = −Q(x)",
        _when_tame(lambda c, x: checks.is_odd(c.subject, x)),
        unless={"B": "0 and −0 both go to −α", "T": "ties go up", "Q": "0 and −0 both go up",
                "F": "ties go up, and there is a code −2^(b−1) but no 2^(b−1)", "R": "a residual of 0 has sign −1",
                "Z": "edges between cells go up", "C": "0 and −0 both go up", "P": "0 and −0 both go to −α/2",
                "U even": "0 and −0 both go up", **_NEGATIVE},
        show=lambda c, x: {"Q(−x)": c.subject.quantize(-x)}),
    Law("is_odd_up_to_ties", "Q(−x) = −Q(x), where no two values are equally far",
        _when_tame(lambda c, x: checks.is_odd_up_to_ties(c.subject, x, 1e-5)),
        unless={"F": "there is a code −2^(b−1) but no 2^(b−1)", "T": "its ties are not halfway between levels",
                **_NEGATIVE},
        show=lambda c, x: {"Q(−x)": c.subject.quantize(-x)}),
    Law("is_scale_equivariant", "Q(k·x) = k·Q(x) for k = ½, 2, 1024",
        _when_tame(lambda c, x: checks.is_scale_equivariant(c.subject, x, rtol=c.rtol)), unless=_LEARNED,
        show=lambda c, x: {f"Q({k:g}x)": c.subject.quantize(k * x) for k in (0.5, 2.0, 1024.0)}),
    Law("is_scale_equivariant_at_3", "Q(3·x) = 3·Q(x), up to rounding",
        _when_tame(lambda c, x: checks.is_scale_equivariant(c.subject, x, (3.0,), 1e-5)),
        unless={"F": "the step is a power of two, and max|x| may pass one", "T": "its ties are not halfway between "
                "levels, and rounding decides them", **_LEARNED},
        show=lambda c, x: {"Q(3x)": c.subject.quantize(3 * x)}),
    Law("is_idempotent", "Q(Q(x)) = Q(x), parameters measured anew",
        _when_tame(lambda c, x: checks.is_idempotent(c.subject, x, 1e-5)),
        unless={"R": "the mean magnitude shrinks at every round", "Q": "a quantized tensor has another sd",
                "C": "a quantized tensor has another sd", "P": "a quantized tensor has another sd",
                "Z": "values are cells' middles, so the span shrinks",
                "F": "a number may be rounded to the next power of two, and the step follows it"},
        show=lambda c, x: {"Q(Q(x))": c.subject.quantize(c.subject.quantize(x))}),
    Law("is_on_codebook", "every value is one of the codebook's, bit for bit",
        lambda c, x: checks.is_on_codebook(c.subject, x), lambda c: _needs_codebook(c), general=True, show=_book),
    Law("codes_fit", "codes are whole numbers in b bits",
        lambda c, x: checks.codes_fit(c.subject, x, c.bits), lambda c: _needs_codes(c) or _needs_bits(c), general=True,
        show=_decoded),
    Law("is_decode_of_encode", "quantize(x) is decode(encode(x)), bit for bit",
        lambda c, x: checks.is_decode_of_encode(c.subject, x), _needs_codes, general=True, show=_decoded),
    Law("codes_round_trip", "with parameters held, encode(decode(codes)) = codes",
        _when_tame(lambda c, x: checks.codes_round_trip(c.subject, x)), _needs_params, unless=_HELD, show=_recoded),
    Law("takes_the_nearest_level", "no other level is nearer",
        _when_tame(lambda c, x: checks.takes_the_nearest_level(c.subject, x)), _needs_codebook, unless=_UNEVEN,
        show=_book),
    Law("error_within_half_step", "inside the range |x − Q(x)| ≤ step/2",
        _when_tame(lambda c, x: checks.error_within_half_step(c.subject, x)), _needs_codebook,
        letters="B T Q F Z C U PACT", unless={"T": _UNEVEN["T"]}, show=_book),
    Law("error_falls_with_bits", "with a bit more the squared error is not larger",
        _when_tame(lambda c, x: checks.error_falls_with_bits(_ladder(c), x, 1e-5)), _needs_ladder,
        letters="F R Z C P U PACT",
        unless={"Z": "what sat in the middle of a cell comes to lie on an edge", "C": "λ is for a bell, and few "
                "numbers are none", "P": "λ is for a bell, and few numbers are none",
                "PACT": "the levels of one width are not among those of the next"},
        show=lambda c, x: {f"Q(x) at {q.bits} bits": q.quantize(x) for q in _ladder(c)}),
    Law("equals_a_loop_over_channels", "per channel is channel by channel",
        _per_channel, _needs_axis, letters="B T Q F R Z C P U", general=True),
    Law("scale_is_least_squares", "no multiple of Q(x) is nearer to x",
        _when_tame(lambda c, x: checks.scale_is_least_squares(c.subject, x, 1e-5)), letters="B T U"),
    Law("residual_falls_by_squares", "every sign and scale takes αᵢ² off E r²",
        _when_tame(lambda c, x: checks.residual_falls_by_squares(c.subject, x, c.bits, 1e-5)), _needs_bits,
        letters="B R"),
    Law("products_are_shifts", "magnitudes are one number times powers of two",
        _when_tame(lambda c, x: checks.products_are_shifts(c.subject, x, c.rtol)), letters="B T P"),
    Law("error_is_least", "on N(0, 1) no other λ errs less",
        _best_on_normal, _needs_scheme, letters="Q C P", once=True),
    Law("agrees_with", "values are the scheme's, where rounding does not decide",
        _when_tame(_agrees), _needs_scheme, show=_scheme_says),
    Law("breaks_ties_as", "0 and exact ties go where the scheme sends them",
        _when_tame(_breaks_ties), _needs_scheme, show=_scheme_says),
    Law("gradient_is_linear", "twice the gradient in gives twice the gradient out",
        lambda c, x: checks.gradient_is_linear(c.subject.gradient, x), _needs_gradient,  # type: ignore[arg-type]
        general=True, show=_gradient_of),
    Law("gradient_passes_inside", "between the limits ∂Q/∂x = 1",
        _when_tame(_passes_inside), _needs_scheme_and_gradient, show=_gradient_of),
    Law("gradient_stops_outside", "beyond the limits ∂Q/∂x = 0",
        _when_tame(_stops_outside), _needs_scheme_and_gradient, letters="C U PACT", show=_gradient_of),
    Law("gradient_at_the_boundary", "exactly at the limits, as the scheme says",
        _when_tame(_at_the_boundary), _needs_boundary, letters="C U PACT"),
)  # fmt: skip

BY_NAME = {law.name: law for law in LAWS}
