"""Is it right? Gradients held against differences, and the laws of quantizers as plain yes-or-no questions.

Nothing here needs more than NumPy and the engine, so that anyone can point it at code of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyqnn.tensor import Array, Tensor


class GradientError(AssertionError):
    """A derivative disagrees with the differences of its function."""


def numerical_gradient(f: Callable[[], float], x: Array, eps: float = 1e-6) -> Array:
    """∂f/∂x by central differences, (f(x + ε) − f(x − ε)) / 2ε, one element after the other.

    f     a function of no arguments that reads `x`, which is changed in place and put back
    x     a float64 array

    >>> x = np.array([1.0, 2.0])
    >>> numerical_gradient(lambda: float((x * x).sum()), x).round(6).tolist()
    [2.0, 4.0]
    """
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + eps
        above = f()
        x[index] = before - eps
        below = f()
        x[index] = before
        grad[index] = (above - below) / (2 * eps)
    return grad


def gradcheck(
    f: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-7,
    rtol: float = 1e-5,
    seed: int = 0,
) -> bool:
    """Hold the gradients of `f(*inputs)` against central differences, for every input that requires one.

    f        a function of Tensors to a Tensor or a tuple of them; the same inputs must give the same outputs
    inputs   float64 Tensors: differences in float32 say nothing

    The outputs are weighted with random numbers and summed, so that every output element counts on its own.
    Returns True, or raises GradientError naming the input, the element and both values. The tolerance is
    |analytic − numerical| ≤ atol + rtol · |numerical|, and a difference can only ever make it fail.

    >>> gradcheck(lambda x: x * x, Tensor(np.array([3.0]), requires_grad=True))
    True
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [(i, x) for i, x in enumerate(inputs) if x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input has requires_grad=True, there is nothing to check")
    for i, x in checked:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck wants float64, input {i} is {x.dtype}: differences in float32 say nothing")
        if x._node is not None:
            raise ValueError(f"gradcheck: input {i} is itself a result and keeps no gradient; pass input.detach() on")

    def outputs() -> list[Tensor]:
        result = f(*inputs)
        return [y for y in (result if isinstance(result, tuple) else (result,)) if y.dtype.kind == "f"]

    rng = np.random.default_rng(seed)
    first = outputs()
    weights = [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in first]

    def loss() -> float:
        return sum(float((y.data * w).sum()) for y, w in zip(outputs(), weights))

    for _, x in checked:
        x.grad = None
    total = sum(((y * w).sum() for y, w in zip(first, weights)), Tensor(np.zeros(())))
    if not total.requires_grad:
        raise GradientError("the result does not depend on any input that requires a gradient")
    total.backward()
    for i, x in checked:
        analytic = np.zeros_like(x.data) if x.grad is None else x.grad
        if analytic.shape != x.shape or analytic.dtype != x.dtype:
            raise GradientError(
                f"input {i} is {x.dtype} of shape {x.shape}, its gradient {analytic.dtype} of shape {analytic.shape}"
            )
        numerical = numerical_gradient(loss, x.data, eps)
        wrong = ~(np.abs(analytic - numerical) <= atol + rtol * np.abs(numerical))
        if wrong.any():
            where = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise GradientError(
                f"input {i}, element {list(where)}: the derivative says {float(analytic[where])!r}, "
                f"differences say {float(numerical[where])!r} ({int(wrong.sum())} of {wrong.size} elements differ)"
            )
    return True


# The laws of quantizers. Each is a question about one quantizer and one array, answered True or False. A quantizer is
# anything with `quantize`, `encode`, `decode` and `codebook` as in tinyqnn.quant, or, for laws about values alone, any
# function of an array to an array of its shape.
#
# Our own pages keep their laws to the last bit. A quantizer that adds in another order is asked with `rtol`, in units
# of the largest value: values may then differ by so much, and a number halfway between two values may get either.


def _values(quantizer: Any, x: Array) -> Array:
    """What the quantizer makes of `x`."""
    return np.asarray(quantizer.quantize(x) if hasattr(quantizer, "quantize") else quantizer(x))


def _same(a: Array, b: Array, rtol: float) -> bool:
    """Equal, or as near as `rtol` of the largest magnitude."""
    if rtol == 0 or a.shape != b.shape:
        return bool(np.array_equal(a, b))
    slack = rtol * max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return bool((np.abs(a.astype(np.float64) - b) <= slack).all())


def _same_up_to_ties(a: Array, b: Array, x: Array, rtol: float) -> bool:
    """As `_same`, but where two values are equally far from x, it may be either of them."""
    if a.shape != b.shape:
        return False
    a, b, x = (part.astype(np.float64) for part in (a, b, x))
    slack = rtol * max(float(np.abs(part).max(initial=0)) for part in (a, b, x))
    return bool(((np.abs(a - b) <= slack) | (np.abs(np.abs(x - a) - np.abs(x - b)) <= slack)).all())


def keeps_dtype_and_shape(quantizer: Any, x: Array) -> bool:
    """Q(x) has the dtype and the shape of x.

    >>> keeps_dtype_and_shape(np.round, np.ones((2, 3), np.float32))
    True
    """
    q = _values(quantizer, x)
    return q.dtype == x.dtype and q.shape == x.shape


def leaves_its_input_alone(quantizer: Any, x: Array) -> bool:
    """x is what it was afterwards, and Q(x) is memory of its own.

    >>> leaves_its_input_alone(lambda x: x, np.ones(2))
    False
    """
    before = x.copy()
    q = _values(quantizer, x)
    return not np.shares_memory(q, x) and before.tobytes() == x.copy().tobytes()


def is_deterministic(quantizer: Any, x: Array) -> bool:
    """The same numbers give the same bits, whatever was quantized in between: no hidden state.

    >>> is_deterministic(lambda x: np.random.default_rng().random(x.shape), np.ones(2))
    False
    """
    first = _values(quantizer, x).tobytes()
    _values(quantizer, 3 * x + 1)
    return first == _values(quantizer, x).tobytes()


def stays_finite(quantizer: Any, x: Array) -> bool:
    """Finite numbers in, finite numbers out.

    >>> stays_finite(np.square, np.array([1e200]))
    False
    """
    with np.errstate(all="ignore"):
        return bool(np.isfinite(_values(quantizer, x)).all())


def keeps_zeros(quantizer: Any, x: Array) -> bool:
    """A tensor of zeros of x's shape stays zeros; no 0/0.

    >>> keeps_zeros(lambda x: x / np.abs(x).max(initial=1), np.ones(2)), keeps_zeros(np.cos, np.ones(2))
    (True, False)
    """
    with np.errstate(all="ignore"):
        return bool((_values(quantizer, np.zeros_like(x)) == 0).all())


def does_not_hide_nan(quantizer: Any, x: Array) -> bool:
    """A NaN among the numbers is refused with an exception, or comes out as NaN; it never becomes a number.

    >>> does_not_hide_nan(np.round, np.ones(2)), does_not_hide_nan(lambda x: np.where(x > 0, 1, -1), np.ones(2))
    (True, False)
    """
    bad = x.copy()
    bad.flat[0] = np.nan
    try:
        with np.errstate(all="ignore"):
            q = _values(quantizer, bad)
    except Exception:
        return True
    return bool(np.isnan(np.asarray(q, np.float64).ravel()[:1]).all())


def knows_emptiness(quantizer: Any, x: Array) -> bool:
    """An empty tensor is refused with an exception, or stays an empty tensor of its shape; no mean of nothing.

    >>> knows_emptiness(np.round, np.ones((2, 3))), knows_emptiness(lambda x: x - x.mean(), np.ones((2, 3)))
    (True, False)
    """
    empty = x.reshape(-1)[:0].reshape(0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return _values(quantizer, empty).shape == empty.shape
        except RuntimeWarning:
            return False
        except Exception:
            return True


def ignores_memory_layout(quantizer: Any, x: Array, rtol: float = 0.0) -> bool:
    """The same numbers elsewhere in memory, transposed or with gaps, get the same values.

    >>> ignores_memory_layout(lambda x: x.ravel(order="K").reshape(x.shape), np.arange(6.0).reshape(2, 3))
    False
    """
    plain = np.ascontiguousarray(x).reshape(x.shape)
    spread = np.zeros((*x.shape, 3), x.dtype)[..., 1]
    spread[...] = x
    q = _values(quantizer, plain)
    return all(_same_up_to_ties(_values(quantizer, y), q, plain, rtol) for y in (np.asfortranarray(plain), spread))


def is_on_codebook(quantizer: Any, x: Array, codebook: Array | None = None) -> bool:
    """Every value is one of the codebook's, bit for bit (give `codebook` for a plain function).

    >>> is_on_codebook(np.round, np.array([0.2, 1.7]), codebook=np.arange(4.0))
    True
    """
    if codebook is not None:
        return bool(np.isin(_values(quantizer, x), codebook).all())
    codes, params = quantizer.encode(x)
    book = quantizer.codebook(params)
    values = np.asarray(quantizer.decode(codes, params))
    if book.ndim == 1:
        return bool(np.isin(values, book).all())
    channels = np.moveaxis(values, quantizer.axis, 0)
    return all(bool(np.isin(channel, levels).all()) for channel, levels in zip(channels, book))


def has_at_most_2b_levels(quantizer: Any, x: Array, bits: int | None = None, rtol: float = 0.0) -> bool:
    """No more than 2^bits different values (`bits` may be left out if the quantizer has it).

    >>> has_at_most_2b_levels(np.sign, np.array([-1.0, 0.0, 1.0]), bits=1)
    False
    """
    levels = np.unique(_values(quantizer, x)).astype(np.float64)
    apart = np.diff(levels) > rtol * np.abs(levels).max(initial=0)
    return 1 + int(apart.sum()) <= 2 ** (quantizer.bits if bits is None else bits)


def codes_fit(quantizer: Any, x: Array, bits: int | None = None) -> bool:
    """Codes are whole numbers of an integer type, in x's shape, out of an alphabet of at most 2^bits.

    A quantizer that has no `alphabet` is asked for codes that span less than 2^bits.
    """
    codes, _ = quantizer.encode(x)
    codes, levels = np.asarray(codes), 2 ** (quantizer.bits if bits is None else bits)
    if codes.dtype.kind not in "iu" or codes.shape != x.shape:
        return False
    alphabet = getattr(quantizer, "alphabet", None)
    if alphabet is None:
        return int(codes.max()) - int(codes.min()) < levels or len(np.unique(codes)) <= min(2, levels)
    return len(alphabet) <= levels and bool(np.isin(codes, alphabet).all())


def is_decode_of_encode(quantizer: Any, x: Array) -> bool:
    """quantize(x) is decode(encode(x)), bit for bit: training and packed inference mean the same values."""
    return _values(quantizer, x).tobytes() == np.asarray(quantizer.decode(*quantizer.encode(x))).tobytes()


def codes_round_trip(quantizer: Any, x: Array) -> bool:
    """With the parameters held, a value's code is the code that it came from: encode(decode(codes)) = codes."""
    codes, params = quantizer.encode(x)
    again, _ = quantizer.encode(np.asarray(quantizer.decode(codes, params)), params)
    return bool(np.array_equal(codes, again))


def is_monotone(quantizer: Any, x: Array, rtol: float = 0.0) -> bool:
    """A larger number never gets a smaller value.

    >>> is_monotone(np.round, np.array([0.2, 0.7, -3.0])), is_monotone(np.abs, np.array([-1.0, 0.0]))
    (True, False)
    """
    q = _values(quantizer, x).ravel()[np.argsort(x, axis=None, kind="stable")]
    return bool((np.diff(q) >= -rtol * np.abs(q).max(initial=0)).all())


def is_odd(quantizer: Any, x: Array) -> bool:
    """Q(−x) = −Q(x), exactly.

    >>> is_odd(np.round, np.array([0.2, 1.7])), is_odd(np.floor, np.array([0.2, 1.7]))
    (True, False)
    """
    return bool(np.array_equal(_values(quantizer, -x), -_values(quantizer, x)))


def is_odd_up_to_ties(quantizer: Any, x: Array, rtol: float = 1e-6) -> bool:
    """Q(−x) = −Q(x), but a number that is equally far from two values may go up both times.

    >>> tie_goes_up = lambda x: np.floor(x + 0.5)
    >>> is_odd(tie_goes_up, np.array([0.5])), is_odd_up_to_ties(tie_goes_up, np.array([0.5]))
    (False, True)
    """
    return _same_up_to_ties(-_values(quantizer, -x), _values(quantizer, x), x, rtol)


def is_scale_equivariant(
    quantizer: Any, x: Array, factors: Sequence[float] = (0.5, 2.0, 1024.0), rtol: float = 0.0
) -> bool:
    """Q(k·x) = k·Q(x), exactly, for positive factors k; powers of two, which no rounding touches, unless given.

    Other factors need an `rtol`, and then a number halfway between two values may go to either.

    >>> is_scale_equivariant(np.round, np.array([0.2, 0.7])), is_scale_equivariant(np.sin, np.zeros(2))
    (False, True)
    """
    q = _values(quantizer, x)
    scaled = [(x * x.dtype.type(k), q * q.dtype.type(k)) for k in factors]
    if rtol == 0:
        return all(np.array_equal(_values(quantizer, kx), kq) for kx, kq in scaled)
    return all(_same_up_to_ties(_values(quantizer, kx), kq, kx, rtol) for kx, kq in scaled)


def is_permutation_equivariant(quantizer: Any, x: Array, seed: int = 0, rtol: float = 0.0) -> bool:
    """Shuffled numbers give the shuffled values, exactly: no number's value hangs on where it stands.

    >>> is_permutation_equivariant(np.cumsum, np.array([1.0, 2.0, 3.0]))
    False
    """
    order = np.random.default_rng(seed).permutation(x.size)
    orders, flat = (order, np.arange(x.size)[::-1]), x.ravel()
    q = _values(quantizer, x).ravel()
    shuffled = [(_values(quantizer, flat[o].reshape(x.shape)).ravel(), q[o], flat[o]) for o in orders]
    return all(_same_up_to_ties(found, wanted, y, rtol) if rtol else np.array_equal(found, wanted)
               for found, wanted, y in shuffled)  # fmt: skip


def is_idempotent(quantizer: Any, x: Array, rtol: float = 1e-6) -> bool:
    """Q(Q(x)) = Q(x) with parameters measured anew (`codes_round_trip` asks the same with them held).

    >>> is_idempotent(np.round, np.array([0.2, 1.7])), is_idempotent(lambda x: x / 2, np.ones(1))
    (True, False)
    """
    once = _values(quantizer, x)
    return _same(_values(quantizer, once), once, rtol)


def takes_the_nearest_level(quantizer: Any, x: Array) -> bool:
    """No other level of the codebook is nearer to a number than the one it gets (ties may go either way)."""
    codes, params = quantizer.encode(x)
    book = np.asarray(quantizer.codebook(params), np.float64)
    error = np.abs(np.asarray(quantizer.decode(codes, params), np.float64) - x).ravel()
    best = np.abs(x.astype(np.float64).ravel()[:, None] - book).min(axis=1)
    return bool((error <= best + 4 * np.finfo(x.dtype).eps * (np.abs(x).ravel() + np.abs(book).max())).all())


def error_within_half_step(quantizer: Any, x: Array) -> bool:
    """|x − Q(x)| ≤ step/2 wherever x is within half a step of the codebook's range; for evenly spaced codebooks."""
    codes, params = quantizer.encode(x)
    book = np.asarray(quantizer.codebook(params), np.float64)
    step = (book[-1] - book[0]) / max(len(book) - 1, 1)
    slack = 4 * np.finfo(x.dtype).eps * (np.abs(book).max() + np.abs(x))
    inside = (x >= book[0] - step / 2) & (x <= book[-1] + step / 2)
    error = np.abs(x - np.asarray(quantizer.decode(codes, params), np.float64))
    return bool((error <= step / 2 + slack)[inside].all())


def _squared_error(quantizer: Any, x: Array) -> float:
    """Σ (x − Q(x))²."""
    return float(((x.astype(np.float64) - _values(quantizer, x)) ** 2).sum())


def error_falls_with_bits(quantizers: Sequence[Any], x: Array, rtol: float = 1e-6) -> bool:
    """Of quantizers with more and more bits, none has a larger squared error on x than the one before it.

    >>> error_falls_with_bits([np.sign, np.round], np.array([0.4, 3.0]))
    True
    """
    errors = [_squared_error(q, x) for q in quantizers]
    noise = x.size * (64 * float(np.finfo(x.dtype).eps) * float(np.abs(x).max())) ** 2
    return all(errors[i + 1] <= errors[i] * (1 + rtol) + noise for i in range(len(errors) - 1))


def error_is_least(quantizer: Any, x: Array, least: float, rtol: float = 1e-3) -> bool:
    """E(x − Q(x))² on x is not above `least`, the smallest that the scheme could have there, by more than `rtol`.

    >>> error_is_least(np.round, np.array([0.5, 0.0]), 0.125), error_is_least(np.round, np.array([0.5, 0.0]), 0.1)
    (True, False)
    """
    return _squared_error(quantizer, x) / x.size <= least * (1 + rtol)


def equals_a_loop_over_channels(per_channel: Any, per_tensor: Any, x: Array, axis: int, rtol: float = 0.0) -> bool:
    """Quantizing per channel is quantizing one channel after another, bit for bit."""
    channels = [_values(per_tensor, x.take(c, axis)) for c in range(x.shape[axis])]
    return _same_up_to_ties(_values(per_channel, x), np.stack(channels, axis), x, rtol)


def scale_is_least_squares(quantizer: Any, x: Array, rtol: float = 1e-5) -> bool:
    """No multiple of Q(x) is nearer to x than Q(x): Σ (x − Q)·Q = 0, the normal equation of the scale.

    >>> scale_is_least_squares(lambda x: np.abs(x).mean() * np.sign(x), np.array([1.0, 3.0]))
    True
    """
    q, x = _values(quantizer, x).astype(np.float64), x.astype(np.float64)
    top = float(np.abs(x).max()) or 1.0
    q, x = q / top, x / top  # no square leaves the range of numbers
    return abs(float(((x - q) * q).sum())) <= rtol * float((q * q).sum() + (x * x).sum())


def residual_falls_by_squares(quantizer: Any, x: Array, bits: int | None = None, rtol: float = 1e-5) -> bool:
    """E(x − Q)² = E x² − Σ αᵢ²: at every step r → r − αᵢ·sign r with αᵢ = E|r|, E r² falls by exactly αᵢ².

    >>> residual_falls_by_squares(lambda x: np.abs(x).mean() * np.sign(x), np.array([1.0, 3.0]), bits=1)
    True
    """
    q, r = _values(quantizer, x).astype(np.float64), x.astype(np.float64)
    top = float(np.abs(r).max()) or 1.0
    q, r = q / top, r / top
    before, after, fallen = float((r * r).mean()), float(((r - q) ** 2).mean()), 0.0
    for _ in range(quantizer.bits if bits is None else bits):
        alpha = float(np.abs(r).mean())
        r, fallen = r - alpha * np.where(r > 0, 1, -1), fallen + alpha * alpha
    return abs(before - fallen - after) <= rtol * before


def products_are_shifts(quantizer: Any, x: Array, rtol: float = 0.0) -> bool:
    """All magnitudes but 0 are one number times powers of two, so that multiplying by them is shifting.

    >>> products_are_shifts(lambda x: 3 * 2.0 ** np.round(x), np.arange(4.0)), products_are_shifts(abs, np.arange(4.0))
    (True, False)
    """
    q = np.abs(_values(quantizer, x)).ravel()
    q = q[q > rtol * q.max(initial=0)]
    if rtol:
        octaves = np.log2(q / q[:1])
        return bool((np.abs(octaves - np.rint(octaves)) <= 2 * rtol).all())
    return len(np.unique(np.frexp(q)[0])) <= 1


def agrees_with(quantizer: Any, x: Array, scheme: Any, rtol: float = 1e-5) -> bool:
    """Q(x) is what `scheme` makes of x, wherever a small change of x (by `rtol`) would not change that.

    >>> class Scheme:
    ...     def fit(self, x): return {}
    ...     def quantize(self, x, params=None): return np.round(x)
    >>> agrees_with(np.round, np.array([0.2, 0.5]), Scheme()), agrees_with(np.floor, np.array([0.7]), Scheme())
    (True, False)
    """
    params, found = scheme.fit(x), _values(quantizer, x)
    below, wanted, above = _around(scheme, x, params, rtol)
    slack = 2 * rtol * max(float(np.abs(wanted).max()), float(np.abs(x).max()))
    settled = below == above
    return found.shape == x.shape and bool((np.abs(found.astype(np.float64) - wanted) <= slack)[settled].all())


def _around(scheme: Any, x: Array, params: Any, rtol: float) -> tuple[Array, Array, Array]:
    """What a scheme makes of numbers a little below x, of x, and of numbers a little above."""
    roundings = 8 * int(getattr(scheme, "bits", 1)) * float(np.finfo(x.dtype).eps)
    off = np.asarray(rtol * np.abs(x) + roundings * float(np.abs(x).max()), x.dtype)
    return scheme.quantize(x - off, params), scheme.quantize(x, params), scheme.quantize(x + off, params)


def breaks_ties_as(quantizer: Any, x: Array, scheme: Any, rtol: float = 1e-5) -> bool:
    """A number exactly on the edge between two values gets the one that `scheme` gives it, or nearly that.

    Only exact numbers are asked: zeros, and all where both x and the scheme's parameters have few digits.

    >>> class TieGoesUp:
    ...     def fit(self, x): return {}
    ...     def quantize(self, x, params=None): return np.floor(x + 0.5)
    >>> [breaks_ties_as(q, np.array([0.5]), TieGoesUp()) for q in (TieGoesUp(), np.round)]
    [True, False]
    """
    params, found = scheme.fit(x), _values(quantizer, x)
    below, wanted, above = _around(scheme, x, params, rtol)
    if found.shape != x.shape:
        return False
    exact = all(_has_few_digits(np.asarray(part)) for part in (x, *params.values()))
    other = np.where(wanted == below, above, below)
    right = np.abs(found - wanted) < np.abs(found - other)
    return bool(right[(below != above) & (exact | (x == 0))].all())


def _has_few_digits(x: Array, digits: int = 8) -> bool:
    """Are all numbers whole multiples of 2⁻ᵈⁱᵍⁱᵗˢ times the power of two above the largest?"""
    top = float(np.abs(x).max(initial=0))
    if top == 0:
        return True
    units = np.ldexp(x.astype(np.float64), digits - int(np.frexp(top)[1]))
    return bool((units == np.rint(units)).all())


def gradient_passes_inside(
    gradient: Callable[[Array, Array], Array], x: Array, low: Any = None, high: Any = None
) -> bool:
    """Straight through: strictly between `low` and `high` (everywhere, if not given) ∂Q/∂x is 1.

    gradient   a function of x and of the gradient of Q(x), returning the gradient of x

    >>> gradient_passes_inside(lambda x, g: g * (abs(x) < 1), np.array([0.5, 2.0]), -1, 1)
    True
    """
    g = _upstream(x)
    inside = np.full(x.shape, True) if low is None else (x > low) & (x < high)
    return bool((np.asarray(gradient(x, g)) == g)[inside].all())


def gradient_stops_outside(gradient: Callable[[Array, Array], Array], x: Array, low: Any, high: Any) -> bool:
    """Clipped straight-through: below `low` and above `high` ∂Q/∂x is 0.

    >>> gradient_stops_outside(lambda x, g: g, np.array([0.5, 2.0]), -1, 1)
    False
    """
    outside = (x < low) | (x > high)
    return bool((np.asarray(gradient(x, _upstream(x))) == 0)[outside].all())


def gradient_at_the_boundary(gradient: Callable[[Array, Array], Array], x: Array, wanted: Array) -> bool:
    """Exactly at the boundary ∂Q/∂x is what `wanted` says: 1 or 0 for each x, NaN where it is not asked.

    >>> gradient_at_the_boundary(lambda x, g: g * (abs(x) < 1), np.array([1.0, 2.0]), np.array([1.0, np.nan]))
    False
    """
    g = _upstream(x)
    asked = ~np.isnan(wanted)
    return bool((np.asarray(gradient(x, g)) == g * wanted)[asked].all())


def gradient_is_linear(gradient: Callable[[Array, Array], Array], x: Array) -> bool:
    """Twice the gradient of Q(x) gives twice the gradient of x, and the shape and dtype are those of x.

    >>> gradient_is_linear(lambda x, g: np.sign(g), np.ones(2))
    False
    """
    g = _upstream(x)
    once = np.asarray(gradient(x, g))
    return once.dtype == x.dtype and once.shape == x.shape and bool((np.asarray(gradient(x, 2 * g)) == 2 * once).all())


def _upstream(x: Array) -> Array:
    """A gradient to send back: whole numbers, another for each element, that are their neighbours' nowhere."""
    return (np.arange(x.size) % 97 + 1).astype(x.dtype).reshape(x.shape)
