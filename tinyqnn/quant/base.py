"""A quantizer is `decode(encode(x))` and nothing else: numbers become small integer codes, codes become numbers again.

Fake quantization in training and packed integers in inference use the very same codes, so they cannot disagree.
Every scheme is a page of its own that fills in four methods of `Quantizer`:

    measure(x)               what is measured on the tensor: the scale α, and whatever else decoding needs
    to_codes(x, …)           encode: x -> whole numbers out of `alphabet`
    to_values(codes, …)      decode: codes -> values of the codebook
    limits(…)                gradient rule: the range in which the gradient passes, or None for everywhere
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinyqnn.quant.measure import is_finite
from tinyqnn.quant.ste import StraightThrough, kernel_pays
from tinyqnn.tensor import Tensor

Array = np.ndarray
Params = dict[str, Array]


class Quantizer:
    """The contract of all schemes.

    bits   the width: how many bits a code takes. Which widths a scheme has stands in `widths`
    axis   None: one set of parameters for the tensor; a number: one for each index along that axis ("per channel"),
           equal to quantizing `x.take(i, axis)` one after another

    A scheme keeps dtype (float32 or float64), shape and memory layout. It raises ValueError for NaN, Inf and empty
    tensors, TypeError for anything but floating-point arrays. A tensor of zeros has scale 0 and stays zeros; a scale
    of 0 sends everything to one value, 0. Numbers so small that the scale underflows count as zeros.

    `params` are a dictionary of arrays of x's dtype; per channel they have length 1 along all axes but one.

    >>> from tinyqnn.quant import ClipQ
    >>> isinstance(ClipQ(3), Quantizer), ClipQ(3).notation
    (True, 'C-3')
    """

    letter: ClassVar[str]
    widths: ClassVar[range]
    parameter_names: ClassVar[tuple[str, ...]] = ("scale",)
    parameter_ndim: ClassVar[int] = 0  # a number each; ResQ has a vector
    sees_data: ClassVar[bool] = True  # False where the parameters do not depend on x (PACT)

    bits: int
    axis: int | None
    alphabet: Array  # every code there is, ascending: position i is what packing writes in `bits` bits

    def __init__(self, bits: int | None = None, *, axis: int | None = None, **unknown: Any) -> None:
        refuse_unknown(self, unknown, ("bits", "axis"))
        self.bits = self._checked_width(bits)
        self.axis = None if axis is None else _whole(axis, f"{type(self).__name__}: axis is a whole number or None")
        self.alphabet = self.codes_of_width()

    def codes_of_width(self) -> Array:
        """Every code of this width, ascending: −2^(b−1) … 2^(b−1) − 1 unless a page says otherwise."""
        half = 2 ** (self.bits - 1)
        return np.arange(-half, half).astype(np.int8)

    def measure(self, x: Array) -> dict[str, Any]:
        """Measure `x` (all of it: per channel, this is called once a channel)."""
        raise NotImplementedError

    def to_codes(self, x: Array, *_: Any, **params: Any) -> Array:
        """Whole numbers of the alphabet, still in x's dtype."""
        raise NotImplementedError

    def to_values(self, codes: Array, *_: Any, **params: Any) -> Array:
        """The value of each code; `codes` come in the dtype of the parameters."""
        raise NotImplementedError

    def limits(self, *_: Any, **params: Any) -> tuple[Array, Array] | None:
        """Smallest and largest x (both included) whose gradient passes; None: it passes everywhere."""
        return None

    def compiled(self, *_: Any, **params: Any) -> Any:
        """`to_values(to_codes(x))` as one compiled pass over float32, bit for bit the same, see `kernels.quantize`.

        None where there is no such kernel.
        """
        return None

    def fit(self, x: Any) -> Params:
        """The parameters of `x` alone.

        >>> from tinyqnn.quant import Binary
        >>> float(Binary().fit(np.array([1.0, -3.0]))["scale"])
        2.0
        """
        return self._fit(self._checked(x))

    def encode(self, x: Any, params: Params | None = None) -> tuple[Array, Params]:
        """Codes of `x`, and the parameters that decode them: those given (a frozen activation), or those of `x`."""
        x = self._checked(x)
        params = self._params_for(x, params)
        with np.errstate(over="ignore"):  # x / α of a denormal α is Inf, and is clipped
            return self.to_codes(x, **params).astype(self.alphabet.dtype), params

    def decode(self, codes: Any, params: Params) -> Array:
        """The values that `codes` stand for, in the dtype of the parameters."""
        codes, params = np.asarray(codes), self._named(params)
        dtype = np.result_type(*params.values())
        if codes.dtype.kind not in "iu" or not self._in_alphabet(codes):
            raise ValueError(
                f"codes of {self.notation} are whole numbers among {_few(self.alphabet)}, got {_few(codes)} "
                f"({codes.dtype}); decode what encode returned"
            )
        with np.errstate(over="ignore"):
            return self.to_values(codes.astype(dtype), **params)

    def quantize(self, x: Any, params: Params | None = None) -> Array:
        """`decode(encode(x))`: the nearest thing to `x` that the codes can say."""
        x = self._checked(x)
        return self._quantized(x, self._params_for(x, params))

    def codebook(self, params: Params) -> Array:
        """All values that can be reached, ascending: (levels,), or (channels, levels) per channel.

        >>> from tinyqnn.quant import ClipQ
        >>> ClipQ(bits=2).codebook({"scale": np.array(1.0)}).tolist()
        [-1.5, -0.5, 0.5, 1.5]
        """
        params = self._named(params)
        ndim = params[self.parameter_names[0]].ndim - self.parameter_ndim  # 0, or the tensor's per channel
        levels = self.decode(self.alphabet.reshape(-1, *[1] * ndim), params)  # (L,) or (L, 1, C, 1, …)
        return np.sort(levels.reshape(len(levels), -1).T if ndim else levels, axis=-1)

    def __call__(self, x: Tensor, params: Params | None = None) -> Tensor:
        """Quantize a Tensor; backwards the gradient goes straight through, as `limits` says."""
        if not isinstance(x, Tensor):
            raise TypeError(f"{self.notation}(x) takes a Tensor, got {type(x).__name__}; for arrays call .quantize(x)")
        return self.apply(x, self._params_for(self._checked(x.data), params))

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """`self(x, params)` without looking at x once more: for parameters that were fitted to x itself."""
        return StraightThrough.apply(x, quantizer=self, params=params)

    def settle(self, params: Params) -> Params:
        """Parameters of this scheme nearest to `params`, an average over batches: only FixedQ has to round them."""
        return params

    @property
    def notation(self) -> str:
        """The papers' short name: scheme and width, as in C-3 (AutoQNN §6)."""
        return f"{self.letter}-{self.bits}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(bits={self.bits}{'' if self.axis is None else f', axis={self.axis}'})"

    def _checked_width(self, bits: Any) -> int:
        """`bits` if this scheme has that width."""
        widths, name = self.widths, type(self).__name__
        if bits is None and len(widths) == 1:
            return widths[0]
        allowed = f"{widths[0]}" if len(widths) == 1 else f"a whole number from {widths[0]} to {widths[-1]}"
        if isinstance(bits, (bool, np.bool_)) or not isinstance(bits, (int, np.integer)) or bits not in widths:
            raise ValueError(f"{name}: bits must be {allowed}, got {bits!r}")
        return int(bits)

    def _checked(self, x: Any) -> Array:
        """`x` as an array that can be quantized."""
        if isinstance(x, Tensor):
            x = x.data
        x = np.asarray(x)
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"{self.notation}: expected float32 or float64, got {x.dtype}; use .astype(np.float32)")
        if x.size == 0:
            raise ValueError(f"{self.notation}: expected at least one element, got an empty tensor of shape {x.shape}")
        if self.axis is not None and not -x.ndim <= self.axis < x.ndim:
            raise ValueError(f"{self!r}: a tensor of shape {x.shape} has no axis {self.axis}; choose one that it has")
        return x

    def _fit(self, x: Array) -> Params:
        """Parameters of a checked array, cast once to its dtype."""
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf are reported below
            if self.axis is None:
                found = {name: np.asarray(value, x.dtype) for name, value in self.measure(x).items()}
            else:
                channels = [self.measure(channel) for channel in np.moveaxis(x, self.axis, 0)]
                shape = [1] * x.ndim
                shape[self.axis] = -1
                found = {}
                for name in self.parameter_names:  # C × (…) -> (…, 1, C, 1)
                    stacked = np.stack([np.asarray(channel[name], x.dtype) for channel in channels], axis=-1)
                    found[name] = stacked.reshape(*stacked.shape[:-1], *shape)
        if not all(np.isfinite(value).all() for value in found.values()):
            self._refuse_nonfinite(x)
            raise ValueError(f"{self.notation}: the scale of these numbers overflows {x.dtype}; make them smaller")
        return found

    def _params_for(self, x: Array, params: Params | None) -> Params:
        """The parameters to encode `x` with, in its dtype."""
        if params is None and self.sees_data:
            return self._fit(x)  # NaN or Inf in x shows in the parameters
        if not is_finite(x):
            self._refuse_nonfinite(x)
        if params is None:
            return self._fit(x)
        params = {name: value.astype(x.dtype) for name, value in self._named(params).items()}
        expected = [1] * x.ndim if self.axis is not None else []
        if self.axis is not None:
            expected[self.axis] = x.shape[self.axis]
        for name, value in params.items():
            shape = list(value.shape[self.parameter_ndim :])
            if shape != expected:
                raise ValueError(
                    f"{self!r}: {name} has shape {tuple(value.shape)}, which does not fit a tensor of shape {x.shape}; "
                    "use the parameters that fit() gives for such a tensor"
                )
        return params

    def _quantized(self, x: Array, params: Params) -> Array:
        """decode(encode(x)) of a checked array with its own parameters, by a kernel where there is one that pays."""
        compiled = self._pass_for(x, params)
        if compiled is not None:
            values: Array = compiled(x)
            return values
        with np.errstate(over="ignore"):
            codes = self.to_codes(x, **params)
            return self.to_values(codes, **params)

    def _quantized_with_marks(self, x: Array, params: Params, low: Array, high: Array) -> tuple[Array, Array]:
        """`_quantized`, and whether low ≤ x ≤ high."""
        compiled = self._pass_for(x, params)
        if compiled is not None:
            both: tuple[Array, Array] = compiled.marked(x, low, high)
            return both
        return self._quantized(x, params), (low <= x) & (x <= high)

    def _pass_for(self, x: Array, params: Params) -> Any:
        """The kernel for `x`, or None where there is none that pays."""
        return self.compiled(**params) if self.axis is None and kernel_pays(x) else None

    def _refuse_nonfinite(self, x: Array) -> None:
        """Say how many elements are not numbers, and where the first one is."""
        bad = ~np.isfinite(x)
        if bad.any():
            where = tuple([int(i) for i in np.unravel_index(int(np.argmax(bad)), x.shape)])
            raise ValueError(
                f"{self.notation}: expected finite numbers, got {int(bad.sum())} NaN or Inf, the first at index "
                f"{where}; look for a diverged step or bad data upstream"
            )

    def _named(self, params: Params) -> Params:
        """`params` as arrays, if they are this scheme's."""
        if not isinstance(params, dict) or set(params) != set(self.parameter_names):
            got = sorted(params) if isinstance(params, dict) else type(params).__name__
            names = ", ".join(self.parameter_names)
            raise ValueError(f"params of {self.notation} are a dictionary of {names}, got {got}")
        arrays = {name: np.asarray(params[name]) for name in self.parameter_names}
        arrays = {name: a if a.dtype == np.float32 else a.astype(np.float64) for name, a in arrays.items()}
        if not all(np.isfinite(a).all() for a in arrays.values()):
            raise ValueError(f"params of {self.notation} are finite numbers, got {arrays}")
        if "scale" in arrays and (arrays["scale"] < 0).any():
            raise ValueError(f"the scale of {self.notation} is not negative, got {arrays['scale'].min()}")
        return arrays

    def _in_alphabet(self, codes: Array) -> bool:
        """Is every code one of the alphabet's?"""
        low, high = int(self.alphabet[0]), int(self.alphabet[-1])
        if len(self.alphabet) <= high - low:
            return bool(np.isin(codes, self.alphabet).all())
        return codes.size == 0 or (int(codes.min()) >= low and int(codes.max()) <= high)


def nonzero(scale: Array) -> Array:
    """The scale to divide by: Inf where it is 0, so that x / scale is 0 there and never NaN."""
    return np.where(scale > 0, scale, scale.dtype.type(np.inf))


def refuse_unknown(owner: object, unknown: dict[str, Any], known: tuple[str, ...]) -> None:
    """A keyword that nobody reads would silently do nothing."""
    if unknown:
        got = ", ".join(sorted(unknown))
        raise TypeError(f"{type(owner).__name__} takes the keywords {', '.join(known)}; got {got}")


def _whole(value: Any, message: str) -> int:
    """An integer, not a bool."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{message}, got {value!r}")
    return int(value)


def _few(array: Array) -> str:
    """The range of an array, short enough for a message."""
    if array.size <= 4:
        return ", ".join(str(value) for value in array.ravel().tolist())
    return f"{array.min()} … {array.max()}"
