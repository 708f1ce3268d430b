"""Is it right? Gradients held against differences, and the laws of quantizers as plain yes-or-no questions.

Nothing here needs more than NumPy and the engine, so that anyone can point it at code of their own.
"""

from __future__ import annotations

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


def _values(quantizer: Any, x: Array) -> Array:
    """What the quantizer makes of `x`."""
    return np.asarray(quantizer.quantize(x) if hasattr(quantizer, "quantize") else quantizer(x))


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
    """The same numbers give the same bits, whatever was quantized in between: no hidden state."""
    first = _values(quantizer, x).tobytes()
    _values(quantizer, 3 * x + 1)
    return first == _values(quantizer, x).tobytes()


def stays_finite(quantizer: Any, x: Array) -> bool:
    """Finite numbers in, finite numbers out."""
    return bool(np.isfinite(_values(quantizer, x)).all())


def keeps_zeros(quantizer: Any, x: Array) -> bool:
    """A tensor of zeros of x's shape stays zeros; no 0/0.

    >>> keeps_zeros(lambda x: x / np.abs(x).max(initial=1), np.ones(2)), keeps_zeros(np.cos, np.ones(2))
    (True, False)
    """
    return bool((_values(quantizer, np.zeros_like(x)) == 0).all())


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


def has_at_most_2b_levels(quantizer: Any, x: Array, bits: int | None = None) -> bool:
    """No more than 2^bits different values (`bits` may be left out if the quantizer has it).

    >>> has_at_most_2b_levels(np.sign, np.array([-1.0, 0.0, 1.0]), bits=1)
    False
    """
    return len(np.unique(_values(quantizer, x))) <= 2 ** (quantizer.bits if bits is None else bits)


def codes_fit(quantizer: Any, x: Array) -> bool:
    """Codes are integers of x's shape that span at most 2^bits of the quantizer's own alphabet."""
    codes, _ = quantizer.encode(x)
    codes = np.asarray(codes)
    return (
        codes.dtype.kind in "iu"
        and codes.shape == x.shape
        and len(quantizer.alphabet) <= 2**quantizer.bits
        and bool(np.isin(codes, quantizer.alphabet).all())
    )


def is_decode_of_encode(quantizer: Any, x: Array) -> bool:
    """quantize(x) is decode(encode(x)), bit for bit: training and packed inference mean the same values."""
    return _values(quantizer, x).tobytes() == np.asarray(quantizer.decode(*quantizer.encode(x))).tobytes()


def codes_round_trip(quantizer: Any, x: Array) -> bool:
    """With the parameters held, a value's code is the code that it came from: encode(decode(codes)) = codes."""
    codes, params = quantizer.encode(x)
    again, _ = quantizer.encode(np.asarray(quantizer.decode(codes, params)), params)
    return bool(np.array_equal(codes, again))


def is_monotone(quantizer: Any, x: Array) -> bool:
    """A larger number never gets a smaller value.

    >>> is_monotone(np.round, np.array([0.2, 0.7, -3.0])), is_monotone(np.abs, np.array([-1.0, 0.0]))
    (True, False)
    """
    order = np.argsort(x, axis=None, kind="stable")
    return bool((np.diff(_values(quantizer, x).ravel()[order]) >= 0).all())


def is_odd(quantizer: Any, x: Array) -> bool:
    """Q(−x) = −Q(x), exactly.

    >>> is_odd(np.round, np.array([0.2, 1.7])), is_odd(np.floor, np.array([0.2, 1.7]))
    (True, False)
    """
    return bool(np.array_equal(_values(quantizer, -x), -_values(quantizer, x)))


def is_scale_equivariant(quantizer: Any, x: Array, factors: Sequence[float] = (0.5, 2.0, 1024.0)) -> bool:
    """Q(k·x) = k·Q(x), exactly, for positive factors k; powers of two, which no rounding touches, unless given.

    >>> is_scale_equivariant(np.round, np.array([0.2, 0.7])), is_scale_equivariant(np.sin, np.zeros(2))
    (False, True)
    """
    q = _values(quantizer, x)
    return all(np.array_equal(_values(quantizer, x * x.dtype.type(k)), q * q.dtype.type(k)) for k in factors)


def is_permutation_equivariant(quantizer: Any, x: Array, seed: int = 0) -> bool:
    """Shuffled numbers give the shuffled values, exactly: no number's value hangs on where it stands.

    >>> is_permutation_equivariant(np.cumsum, np.array([1.0, 2.0, 3.0]))
    False
    """
    order = np.random.default_rng(seed).permutation(x.size)
    shuffled = x.ravel()[order].reshape(x.shape)
    return bool(np.array_equal(_values(quantizer, shuffled).ravel(), _values(quantizer, x).ravel()[order]))


def is_idempotent(quantizer: Any, x: Array, rtol: float = 1e-6) -> bool:
    """Q(Q(x)) = Q(x) with parameters measured anew (`codes_round_trip` asks the same with them held).

    >>> is_idempotent(np.round, np.array([0.2, 1.7])), is_idempotent(lambda x: x / 2, np.ones(1))
    (True, False)
    """
    once = _values(quantizer, x)
    return bool(np.allclose(_values(quantizer, once), once, rtol=rtol, atol=0.0))


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


def error_falls_with_bits(quantizers: Sequence[Any], x: Array) -> bool:
    """Of quantizers with more and more bits, none has a larger squared error on x than the one before it."""
    errors = [float(((x.astype(np.float64) - _values(q, x)) ** 2).sum()) for q in quantizers]
    return all(errors[i + 1] <= errors[i] * (1 + 1e-6) for i in range(len(errors) - 1))


def equals_a_loop_over_channels(per_channel: Any, per_tensor: Any, x: Array, axis: int) -> bool:
    """Quantizing per channel is quantizing one channel after another, bit for bit."""
    channels = [_values(per_tensor, x.take(c, axis)) for c in range(x.shape[axis])]
    return bool(np.array_equal(_values(per_channel, x), np.stack(channels, axis)))
