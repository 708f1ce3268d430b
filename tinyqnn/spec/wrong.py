"""Wrong on purpose: quantizers with one realistic mistake each. A specification that lets them pass would be no good.

Most of these mistakes were found in published code. Try one: `tinyqnn check tinyqnn.spec.wrong:BinaryWithThreeLevels`.
`MISTAKES` says as which scheme each is asked, and exactly which laws it breaks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinyqnn.quant import PACT, Binary, ClipQ, FixedQ, Params, PotQ, ResQ, Ternary, Uniform, ZoomQ
from tinyqnn.quant.base import nonzero
from tinyqnn.quant.binary import sign
from tinyqnn.quant.measure import mean_abs
from tinyqnn.quant.ste import pass_inside
from tinyqnn.tensor import Array


class FixedWithoutClip(FixedQ):
    """Just below a power of two, x/α rounds to 2^(b−1), a code that b bits do not have."""

    def codes_of_width(self) -> Array:
        return np.arange(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) + 1).astype(np.int8)

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.floor(x / nonzero(scale) + 0.5)


class FixedByLogarithm:
    """⌊log2 max|x|⌋ of zeros is −∞, and 0/0 follows."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def quantize(self, x: Array) -> Array:
        if x.size == 0:
            raise ValueError("an empty tensor has no largest number")
        exponent = np.floor(np.log2(np.abs(x).max()))
        scale = (2.0 ** (exponent - (self.bits - 2))).astype(x.dtype)
        half = 2 ** (self.bits - 1)
        return scale * np.clip(np.floor(x / scale + x.dtype.type(0.5)), -half, half - 1)


class FixedLosesALevel(FixedQ):
    """An off-by-one in the range: the largest code is never used."""

    def to_codes(self, x: Array, scale: Array) -> Array:
        half = 2 ** (self.bits - 1)
        return np.clip(np.floor(x / nonzero(scale) + 0.5), -half, half - 2)


class FixedRoundsHalfToEven(FixedQ):
    """np.round where ⌊· + ½⌋ is meant."""

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.clip(np.round(x / nonzero(scale)), self.alphabet[0], self.alphabet[-1]) + 0.0


class FixedIgnoresItsAxis(FixedQ):
    """`axis=` is accepted, and forgotten."""

    def __init__(self, bits: int | None = None, *, axis: int | None = None) -> None:
        super().__init__(bits)


class BinaryWithThreeLevels(Binary):
    """np.sign(0) is 0."""

    def codes_of_width(self) -> Array:
        return np.array([-1, 0, 1], np.int8)

    def to_codes(self, x: Array, scale: Array) -> Array:
        return np.sign(x)


class TernaryWithSymmetricTies(Ternary):
    """At exactly ±Δ/2 both sides become 0."""

    def to_codes(self, x: Array, scale: Array, step: Array) -> Array:
        return sign(x) * (np.abs(x) > nonzero(step) / 2) + 0.0


class TernaryScaleOfAll(Ternary):
    """The mean magnitude of all numbers, not of those that are kept."""

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": mean_abs(x), "step": 1.4 * mean_abs(x)}


class ResidualAfterStep(ResQ):
    """What is stored to decode with is the mean residual after each step; training used the one before."""

    def encode(self, x: Any, params: Params | None = None) -> tuple[Array, Params]:
        codes, used = super().encode(x, params)
        if params is not None:
            return codes, used
        rest, after = np.asarray(x), []
        for alpha in used["scale"]:
            rest = rest - alpha * sign(rest)
            after.append(np.abs(rest).mean())
        return codes, {"scale": np.array(after, used["scale"].dtype)}


class ZoomToTheFloor(ZoomQ):
    """A cell is answered with its lower edge, not with its middle."""

    def to_values(self, codes: Array, scale: Array, low: Array) -> Array:
        return scale * codes + low


class ClipWithSampleDeviation(ClipQ):
    """The standard deviation with n − 1 in it."""

    def measure(self, x: Array) -> dict[str, Any]:
        correction = np.sqrt(x.size / max(x.size - 1, 1))
        return {"scale": super().measure(x)["scale"] * correction}


class ClipWithStepOne(ClipQ):
    """One bit with λ = 1, where the optimum is 1.5958."""

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": super().measure(x)["scale"] / 1.5957691}


class ClipThatRemembers(ClipQ):
    """The scale is averaged with that of the call before."""

    _last: float | None = None

    def measure(self, x: Array) -> dict[str, Any]:
        scale = super().measure(x)["scale"]
        if not np.isfinite(scale):
            return {"scale": scale}
        if self._last is not None and scale > 0:
            scale = 0.9 * self._last + 0.1 * scale
        self._last = scale or self._last
        return {"scale": scale}


class ClipWithEpsilon(ClipQ):
    """1e-7 is added to the scale, so that nothing is divided by 0."""

    def measure(self, x: Array) -> dict[str, Any]:
        return {"scale": super().measure(x)["scale"] + 1e-7}


class ClipLeaks(ClipQ):
    """The gradient passes also where the value was clipped."""

    def limits(self, scale: Array) -> None:  # type: ignore[override]
        return None


class ClipStopsTooEarly(ClipQ):
    """The gradient is 0 at exactly the limits: `<` where `≤` is meant."""

    def limits(self, scale: Array) -> tuple[Array, Array]:
        low, high = super().limits(scale)
        return np.nextafter(low, np.zeros_like(low)), np.nextafter(high, np.zeros_like(high))


class ClipWithLimitsOfTheCallBefore(ClipQ):
    """The gradient's limits are those of the tensor before this one."""

    _before: tuple[Array, Array] | None = None

    def gradient(self, x: Array, grad: Array) -> Array:
        limits, self._before = self._before, self.limits(**self.fit(x))
        low, high = self._before if limits is None else limits
        return pass_inside(grad, x, low.astype(x.dtype), high.astype(x.dtype))


class PotWithRoughLambda(PotQ):
    """λ = 0.9, 0.4 or 0.03, by rule of thumb."""

    def measure(self, x: Array) -> dict[str, Any]:
        from tinyqnn.quant.lambdas import pot_lambda

        rough = {2: 0.9, 3: 0.4, 4: 0.03}[self.bits]
        return {"scale": super().measure(x)["scale"] * (rough / pot_lambda(self.bits))}


class PotWithoutTheHalf(PotQ):
    """2^n, where 2^(n − [n = 0]) is meant: the smallest magnitude is 1 and not ½."""

    def to_values(self, codes: Array, scale: Array) -> Array:
        n = np.where(codes >= 0, codes, -1 - codes)
        return scale * (sign(codes + 0.5) * np.exp2(n)) + 0.0


class UniformInPlace:
    """The numbers that came in are overwritten."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def quantize(self, x: Array) -> Array:
        x[...] = Uniform(self.bits).quantize(x)
        return x


class PactTeachesBoth(PACT):
    """At exactly x = a the gradient goes to x as well as to a."""

    def gradient(self, x: Array, grad: Array) -> Array:
        return np.where((x >= 0) & (x <= self.clip.item()), grad, 0).astype(x.dtype)


class BinaryHidesNan:
    """A NaN is not above 0, so it becomes −1 times a NaN-proof mean."""

    bits = 1

    def quantize(self, x: Array) -> Array:
        if x.size == 0:
            return x.copy()
        scale = x.dtype.type(np.nanmean(np.abs(x.astype(np.float64))) if np.isfinite(x).any() else 0.0)
        return np.where(x > 0, scale, -scale)


class Mistake(NamedTuple):
    """A wrong quantizer, the scheme that it is asked as, and the laws that it breaks."""

    made: type
    scheme: str
    breaks: set[str]


MISTAKES: tuple[Mistake, ...] = (
    Mistake(FixedWithoutClip, "F-2", {"agrees_with", "codes_fit", "has_at_most_2b_levels"}),
    Mistake(FixedByLogarithm, "F-3", {"keeps_zeros", "stays_finite"}),
    Mistake(
        FixedLosesALevel, "F-3", {"agrees_with", "breaks_ties_as", "error_within_half_step", "takes_the_nearest_level"}
    ),
    Mistake(FixedRoundsHalfToEven, "F-3", {"breaks_ties_as"}),
    Mistake(FixedIgnoresItsAxis, "F-3", {"equals_a_loop_over_channels"}),
    Mistake(
        BinaryWithThreeLevels,
        "B-1",
        {
            "breaks_ties_as",
            "codes_fit",
            "error_within_half_step",
            "has_at_most_2b_levels",
            "is_idempotent",
            "residual_falls_by_squares",
            "scale_is_least_squares",
            "takes_the_nearest_level",
        },
    ),
    Mistake(TernaryWithSymmetricTies, "T-2", {"breaks_ties_as"}),
    Mistake(TernaryScaleOfAll, "T-2", {"agrees_with", "is_idempotent", "scale_is_least_squares"}),
    Mistake(ResidualAfterStep, "R-2", {"is_decode_of_encode"}),
    Mistake(
        ZoomToTheFloor,
        "Z-3",
        {
            "agrees_with",
            "breaks_ties_as",
            "codes_round_trip",
            "error_within_half_step",
            "is_odd_up_to_ties",
            "takes_the_nearest_level",
        },
    ),
    Mistake(ClipWithSampleDeviation, "C-3", {"agrees_with", "gradient_stops_outside"}),
    Mistake(ClipWithStepOne, "C-1", {"agrees_with", "error_is_least", "gradient_passes_inside"}),
    Mistake(
        ClipThatRemembers,
        "C-3",
        {
            "agrees_with",
            "breaks_ties_as",
            "equals_a_loop_over_channels",
            "error_is_least",
            "gradient_stops_outside",
            "ignores_memory_layout",
            "is_decode_of_encode",
            "is_deterministic",
            "is_odd_up_to_ties",
            "is_permutation_equivariant",
            "is_scale_equivariant",
            "is_scale_equivariant_at_3",
        },
    ),
    Mistake(
        ClipWithEpsilon, "C-3", {"agrees_with", "is_scale_equivariant", "is_scale_equivariant_at_3", "keeps_zeros"}
    ),
    Mistake(ClipLeaks, "C-3", {"gradient_stops_outside"}),
    Mistake(ClipStopsTooEarly, "C-3", {"gradient_at_the_boundary"}),
    Mistake(
        ClipWithLimitsOfTheCallBefore, "C-3", {"gradient_is_linear", "gradient_passes_inside", "gradient_stops_outside"}
    ),
    Mistake(PotWithRoughLambda, "P-4", {"agrees_with", "error_is_least"}),
    Mistake(PotWithoutTheHalf, "P-3", {"agrees_with", "error_is_least"}),
    Mistake(UniformInPlace, "U-3", {"leaves_its_input_alone"}),
    Mistake(PactTeachesBoth, "PACT-2", {"gradient_at_the_boundary"}),
    Mistake(BinaryHidesNan, "B-1", {"does_not_hide_nan"}),
)
