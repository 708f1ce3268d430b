"""A layer's product on codes: exact sums of whole numbers, by the kernel that serves the two widths.

What the whole numbers are, and how the sums become real numbers, stands in `quant/whole.py`; the quantized model
itself evaluates so (`graph/exact.py`). Here the same sums are made of bits and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyqnn import kernels
from tinyqnn.kernels.requantize import Stairs
from tinyqnn.quant.whole import Coded, OneRounding, Term, countable, kind, largest, table

Array = np.ndarray


class Window(NamedTuple):
    """The geometry of a convolution."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def integer(weight: Coded | None, x: Coded | None) -> bool:
    """Are these both codes, whose sums can be made of whole numbers?

    >>> integer(None, None)
    False
    """
    return weight is not None and x is not None and countable(weight.quantizer, x.quantizer, _depth(weight))


class Product:
    """The product of a fixed weight (O, K), or (O, C/groups, kh, kw) with a window, and the codes of an activation.

    multiplier, addend   (O,): y is multiplier · Σ w·x + addend; a folded batch norm, a bias

    >>> from tinyqnn.quant import Binary
    >>> w, x = (Coded(Binary(), {"scale": np.float32(s)}, c) for s, c in ((2, np.array([[1, -1]])), (0.5, None)))
    >>> Product(w, x)(np.array([[1, -1], [1, 1]], np.int8)).tolist()
    [[2.0], [0.0]]
    """

    def __init__(
        self,
        weight: Coded,
        x: Coded,
        window: Window | None = None,
        multiplier: Array | None = None,
        addend: Array | None = None,
    ) -> None:
        assert weight.codes is not None
        self.weight, self.x, self.window = weight, x, window
        self.codes = weight.codes
        self.outputs = len(weight.codes)
        self.channels = -1 if window is None else 1
        self.rounding = OneRounding(weight, x, self.outputs, multiplier, addend)
        self.of_weight, self.of_x = self.rounding.of_weight, self.rounding.of_x
        self._kinds = kind(weight.quantizer), kind(x.quantizer)
        self._midrise = _are_midrise(x, self.of_x[0])
        self._weight_is_bytes = len(_bytes(self.of_weight[0].numbers, self.of_weight[0], True)[1]) == 1
        self._both_are_signs = all(set(of[0].numbers.tolist()) == {-1, 1} for of in (self.of_weight, self.of_x))
        self._codes_have_signs = x.quantizer.alphabet.tolist() in ([-1, 0], [-1, 1])
        self._choices: dict[tuple[bool, bool], str] = {}
        self._kernels: dict[Any, Any] = {}
        self._borders: dict[Any, Array] = {}

    @property
    def largest(self) -> int:
        """No sum of whole numbers is larger than this in magnitude."""
        return largest(self.weight.quantizer, self.x.quantizer, _depth(self.weight))

    def sums(self, codes: Array) -> Array:
        """The whole numbers Σ w·x of a single-term product: (…, O), or (N, O, H', W')."""
        run, given = self._one(codes)
        return self._main(codes)[0][2] if run is None else run(given)

    def to_codes(self, codes: Array, stairs: Stairs) -> Array:
        """The codes to which the sums of a single-term product step up, shaped as the sums."""
        run, given = self._one(codes)
        if run is not None:
            return run.to_codes(given, stairs)
        rows, like = table(self.sums(codes), self.channels)
        return like(kernels.requantize.staircase(rows, *stairs))

    def __call__(self, codes: Array) -> Array:
        """The product as real numbers, float32."""
        if self.rounding.single:
            return self.rounding({(0, 0): self.sums(codes)}, self.channels)
        found = {(i, j): sums for i, j, sums in self._main(codes)}
        found |= {pair: self._constant(*pair, codes) for pair in self.rounding.pairs if pair not in found}
        return self.rounding(found, self.channels)

    def _one(self, codes: Array) -> tuple[Any, Array]:
        """The kernel that makes all of a single-term product in one go, and what it takes; None where there is none."""
        name = self._choice(codes)
        if name == "binary":
            return self._kernel(name), (codes if self._codes_are_signs else self._signs(codes)).astype(
                np.int8, copy=False
            )
        if name == "bitserial":
            return self._kernel(name), codes
        if not self._weight_is_bytes:
            return None, codes
        if self._midrise:
            return self._int8_kernel(0, 0, False, True), codes
        unsigned, x_parts = _bytes(_numbers(self.x, self.of_x[0], codes), self.of_x[0])
        return (self._int8_kernel(0, 0, unsigned), x_parts[0][1]) if len(x_parts) == 1 else (None, codes)

    def _main(self, codes: Array) -> list[tuple[int, int, Array]]:
        """(term of w, term of x, sums) for all terms that are not constant."""
        ws, xs = ([i for i, t in enumerate(found) if not t.constant] for found in (self.of_weight, self.of_x))
        name = self._choice(codes)
        if name == "int8":
            return [(i, j, self._int8(i, j, codes)) for i in ws for j in xs]
        sums = self._kernel(name)(codes)
        parts = sums.reshape(len(ws), len(xs), *sums.shape[sums.ndim - codes.ndim :])
        return [(i, j, parts[a, b]) for a, i in enumerate(ws) for b, j in enumerate(xs)]

    def _signs(self, codes: Array) -> Array:
        return _numbers(self.x, self.of_x[0], codes)

    def _choice(self, codes: Array) -> str:
        """The kernel for these widths and this many rows, of which it only matters whether they are few."""
        rows = codes.size // codes.shape[-1] if self.window is None else codes.size // codes.shape[1]
        key = rows <= kernels.fastest.FEW_ROWS, kernels.use_reference()
        if key not in self._choices:
            self._choices[key] = self._fastest(rows)
        return self._choices[key]

    def _fastest(self, rows: int) -> str:
        if "power" in self._kinds or (self.window is not None and self.window.groups > 1):
            return "int8"
        bits, x_bits = self.weight.quantizer.bits, self.x.quantizer.bits
        name = kernels.fastest.fastest(bits, x_bits, rows)
        if name != "int8" and rows > kernels.fastest.FEW_ROWS:
            length = self.codes.shape[1]  # of what is packed into words together; the rest of the last word is wasted
            if bits * x_bits * 64 * -(-length // 64) > length * kernels.fastest.most_pairs(rows):
                return "int8"
        if name == "binary" and not (self._both_are_signs and self.rounding.single):
            return "bitserial"
        return name

    @property
    def _codes_are_signs(self) -> bool:
        """Do the codes have the sign bits already? −1 and 0, for −½ and ½, have those of −1 and 1."""
        return self._codes_have_signs and not kernels.use_reference()

    def _kernel(self, name: str) -> Any:
        """BinaryGemm or BitSerialGemm on this weight, packed when it is first asked for."""
        key = name, kernels.use_reference()
        if key not in self._kernels:
            if name == "binary":
                weight = _numbers(self.weight, self.of_weight[0], self.codes).astype(np.int8)
                make: Any = kernels.signbits.SignBits if self._codes_are_signs else kernels.BinaryGemm
            else:
                q, x = self.weight.quantizer, self.x.quantizer
                weight = self.codes

                def make(w: Array) -> Any:
                    return kernels.BitSerialGemm(w, q.bits, kind(q), x.bits, kind(x))

            self._kernels[key] = self._made(weight, make)
        return self._kernels[key]

    def _int8(self, i: int, j: int, codes: Array) -> Array:
        """Bytes times bytes. A number that is no byte is cut into 4·a + b, which are."""
        x = _numbers(self.x, self.of_x[j], codes)
        unsigned, x_parts = _bytes(x, self.of_x[j])
        total: Any = None
        for a, (w_power, _) in enumerate(_bytes(self.of_weight[i].numbers, self.of_weight[i], True)[1]):
            run = self._int8_kernel(i, a, unsigned)
            for x_power, part in x_parts:
                sums = run(part)
                sums = sums if w_power * x_power == 1 else np.int32(w_power * x_power) * sums
                total = sums if total is None else total + sums
        return total

    def _int8_kernel(self, i: int, part: int, unsigned: bool, midrise: bool = False) -> Any:
        key = i, part, unsigned, midrise, kernels.use_reference()
        if key not in self._kernels:
            weight = _numbers(self.weight, self.of_weight[i], self.codes)
            chosen = _bytes(weight, self.of_weight[i], True)[1][part][1]
            self._kernels[key] = self._made(chosen, lambda w: kernels.Int8Gemm(w, unsigned, midrise))
        return self._kernels[key]

    def _made(self, weight: Array, make: Callable[[Array], Any]) -> Any:
        return _OnRows(make(weight)) if self.window is None else kernels.IntConv2d(weight, make, *self.window)

    def _constant(self, i: int, j: int, codes: Array) -> Array:
        """Σ of products of which one factor or both are 1 inside the image and 0 in the border."""
        w, x = self.of_weight[i], self.of_x[j]
        image: Array
        if x.constant:  # the same for every sample
            key = i, j, codes.shape[1:] if self.window is not None else codes.shape[-1:]
            if key in self._borders:
                return self._borders[key]
            image = np.ones((1, *key[2]), np.int64)
        else:
            image = _numbers(self.x, x, codes).astype(np.int64)
        weight = _numbers(self.weight, w, self.codes).astype(np.int64)
        if self.window is None:
            sums = image @ weight.T if x.constant else image.sum(-1, keepdims=True)
        else:
            groups = self.window.groups
            if not x.constant:  # then every output of a group is the same
                weight = np.ones((groups, *weight.shape[1:]), np.int64)
            sums = kernels.reference.conv2d(image.astype(np.float64), weight.astype(np.float64), None, *self.window)
            if not x.constant:
                sums = np.repeat(sums, self.outputs // groups, axis=1)
        if x.constant:
            self._borders[key] = sums
        return sums


class _OnRows:
    """A kernel for matrices on arrays (…, K)."""

    def __init__(self, gemm: Any) -> None:
        self.gemm = gemm

    def __call__(self, x: Array) -> Array:
        y = self.gemm(np.ascontiguousarray(x).reshape(-1, x.shape[-1]))
        return y if x.ndim == 2 and y.ndim == 2 else y.reshape(*y.shape[:-2], *x.shape[:-1], y.shape[-1])

    def to_codes(self, x: Array, stairs: Stairs) -> Array:
        rows = self.gemm.pack(np.ascontiguousarray(x).reshape(-1, x.shape[-1]))
        return self.gemm.to_codes(rows, stairs).reshape(*x.shape[:-1], -1)


def _are_midrise(coded: Coded, term: Term) -> bool:
    """Are a term's numbers bytes, and twice the codes and 1?"""
    numbers = term.numbers
    return bool(np.array_equal(numbers, 2 * coded.quantizer.alphabet.astype(np.int64) + 1) and abs(numbers).max() < 128)


def _depth(weight: Coded) -> int:
    """How many products a sum has."""
    assert weight.codes is not None
    return weight.codes[0].size


def _numbers(coded: Coded, term: Term, codes: Array) -> Array:
    """The whole numbers of one term, in the shape of the codes and their order in memory: int8 where they fit."""
    alphabet = coded.quantizer.alphabet.astype(np.int64)
    small = int(term.numbers.min()) >= -128 and int(term.numbers.max()) <= 127
    if np.array_equal(term.numbers, alphabet) and (small or codes.dtype == np.uint8):
        return codes
    if np.array_equal(term.numbers, 2 * alphabet + 1) and small:  # in two passes, where a table takes many
        doubled = np.add(codes, codes, dtype=np.int8, casting="unsafe")
        doubled += np.int8(1)
        return doubled
    found = np.zeros(int(alphabet[-1] - alphabet[0]) + 1, np.int16)
    found[alphabet - alphabet[0]] = term.numbers
    return found[codes.astype(np.int16) - int(alphabet[0])]


def _bytes(numbers: Array, term: Term, is_weight: bool = False) -> tuple[bool, list[tuple[int, Array]]]:
    """Numbers as Σ power · bytes, decided by what the term can hold; whether the bytes are unsigned (activations)."""
    low, high = int(term.numbers.min()), int(term.numbers.max())
    if low >= -128 and high <= 127:
        return False, [(1, numbers.astype(np.int8, copy=False))]
    if low >= 0 and high <= 255 and not is_weight:
        return True, [(1, numbers.astype(np.uint8, copy=False))]
    return False, [(4, (numbers >> 2).astype(np.int8)), (1, (numbers & 3).astype(np.int8))]
