"""Every scheme's values are whole numbers times scales, so a product of two quantized tensors is one of whole numbers:

    y[o] = Σ_ij s_i[o] · t_j · m[o] · (Σ_k w_i[o, k] · x_j[k]) + a[o]

over the terms w_i of the weight (scales s_i) and x_j of the activation (scales t_j), nearly always one of each. The
inner sums are exact, in whatever order they are made. The outer sum is made in float64 and rounded once. m and a are
a batch norm's, or 1 and a bias.

    scheme                      value of a code k                     terms: whole number × scale
    B T F, U and PACT           α·k                                   k × α
    Q C, U with even levels     α·(k + ½)                             (2k + 1) × α/2
    P                           ±α·{½, 2, 4, …}                       ±{1, 4, 8, …} × α/2
    Z                           α·(k + ½) + min                       (2k + 1) × α/2  +  1 × min
    R                           Σᵢ ±αᵢ                                ±1 × αᵢ, for each i

The whole number 0 is the value 0 in every term. So a border of zeros is exact, also for schemes without a 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tinyqnn import kernels
from tinyqnn.quant.base import Params, Quantizer
from tinyqnn.quant.binary import Binary
from tinyqnn.quant.clip import ClipQ
from tinyqnn.quant.fixed import FixedQ
from tinyqnn.quant.pact import PACT
from tinyqnn.quant.power_of_two import PotQ
from tinyqnn.quant.quaternary import Quaternary
from tinyqnn.quant.residual import ResQ
from tinyqnn.quant.ste import kernel_pays
from tinyqnn.quant.ternary import Ternary
from tinyqnn.quant.uniform import Uniform
from tinyqnn.quant.zoom import ZoomQ

Array = np.ndarray


@dataclass(frozen=True)
class Coded:
    """A scheme with its frozen parameters; of a packed weight, with its codes as well.

    quantizer   the scheme
    params      its parameters, float32
    codes       whole numbers of the alphabet, in the weight's shape, or None
    """

    quantizer: Quantizer
    params: Params
    codes: Array | None = None

    def values(self) -> Array:
        """The weight as the quantized model sees it, float32.

        >>> Coded(Binary(), {"scale": np.float32(2)}, np.array([-1, 1], np.int8)).values().tolist()
        [-2.0, 2.0]
        """
        assert self.codes is not None
        return self.quantizer.decode(self.codes, self.params)

    def encode(self, x: Array) -> Array:
        """The codes of real numbers."""
        return self.quantizer.encode(x, self.params)[0]

    def numbers(self, x: Array) -> list[Array]:
        """What `encode` makes of x as whole numbers, float32: an array for each of the `terms`, in x's memory order.

        Of a term that is always 1 there is one sample for all.

        >>> x, by = np.zeros((4, 3)), Coded(ZoomQ(2), {"scale": np.float32(1), "low": np.float32(-1)})
        >>> [array.shape for array in by.numbers(x)], by.numbers(x)[0][0].tolist()
        ([(4, 3), (1, 3)], [3.0, 3.0, 3.0])
        """
        name = kind(self.quantizer)
        if kernel_pays(x) and name != "residual" and self.quantizer.axis is None:
            params = self.quantizer._params_for(self.quantizer._checked(x), self.params)
            one = self.quantizer.compiled(**params)
            if one is not None:
                one = one.in_units(2 if name in HALVED else 1)
                return [one(x - params["low"]), np.ones((1, *x.shape[1:]), np.float32)] if name == "zoom" else [one(x)]
        alphabet = self.quantizer.alphabet.astype(np.int64)
        places = (self.encode(x) - alphabet[0]) // (alphabet[1] - alphabet[0])
        one = np.ones((1, *x.shape[1:]), np.float32)
        return [one if term.constant else term.numbers.astype(np.float32)[places] for term in terms(self)]


class Term(NamedTuple):
    """One whole number for each code, and what it is to be multiplied by.

    numbers    (levels,) for each code of the alphabet, in its order
    scale      float64, (1,) or (channels,)
    constant   whether it is 1 for every code
    """

    numbers: Array
    scale: Array
    constant: bool = False


def terms(coded: Coded) -> list[Term]:
    """The terms of a scheme.

    >>> [(t.numbers.tolist(), t.scale.tolist()) for t in terms(Coded(ClipQ(2), {"scale": np.float32(1)}))]
    [([-3, -1, 1, 3], [0.5])]
    """
    q = coded.quantizer
    numbers, scale = _numbers(q), np.asarray(coded.params["scale"], np.float64)
    if isinstance(q, ResQ):
        return [Term(sign, alpha.reshape(-1)) for sign, alpha in zip(numbers, scale)]
    first = Term(numbers[0], scale.reshape(-1) / (2 if kind(q) in HALVED else 1))
    if isinstance(q, ZoomQ):
        return [first, Term(numbers[1], np.asarray(coded.params["low"], np.float64).reshape(-1), constant=True)]
    return [first]


HALVED = ("midrise", "power", "zoom")  # kinds whose whole numbers are times α/2


def _numbers(q: Quantizer) -> list[Array]:
    """The whole numbers of each term, for each code of the alphabet."""
    k, name = q.alphabet.astype(np.int64), kind(q)
    if name == "residual":
        return [2 * (k >> (q.bits - 1 - i) & 1) - 1 for i in range(q.bits)]
    if name == "zoom":
        return [2 * k + 1, np.ones_like(k)]
    if name == "power":
        n = np.where(k >= 0, k, -1 - k)
        return [np.where(k >= 0, 1, -1) << (n + (n > 0))]
    return [2 * k + 1 if name == "midrise" else k]


def kind(q: Quantizer) -> str:
    """What `kernels.BitSerialGemm` calls the codes of this scheme; "power" for PotQ's, which are no planes.

    Raises ValueError for a scheme whose values are not known as whole numbers.

    >>> kind(ClipQ(3)), kind(Uniform(3)), kind(Uniform(2, levels=4))
    ('midrise', 'signed', 'midrise')
    """
    name = _kind(q)
    if name is None:
        known = ", ".join(["Uniform", *(page.__name__ for page in _KINDS)])
        raise ValueError(f"{q!r} cannot be packed: its values are not known as whole numbers; there are {known}")
    return name


_KINDS: dict[type[Quantizer], str] = {
    Binary: "binary", Ternary: "ternary", FixedQ: "signed", PACT: "unsigned", Quaternary: "midrise",
    ClipQ: "midrise", ZoomQ: "zoom", ResQ: "residual", PotQ: "power",
}  # fmt: skip


def _kind(q: Quantizer) -> str | None:
    """The kind, None for a scheme of somebody else's, also if it is made from one of these."""
    if isinstance(q, Uniform) and type(q).to_values is Uniform.to_values:
        return "unsigned" if not q.signed else "signed" if q.levels % 2 else "midrise"
    found = (name for page, name in _KINDS.items() if isinstance(q, page) and type(q).to_values is page.to_values)
    return next(found, None)


def countable(weight: Quantizer, x: Quantizer, depth: int) -> bool:
    """Can a sum of `depth` products of these codes be made of whole numbers, by kernels that count with 32 bits?

    Scales of single input channels cannot be taken out of it.

    >>> countable(ClipQ(2), ClipQ(2), 1000), countable(ClipQ(2), ClipQ(2, axis=1), 1000)
    (True, False)
    """
    if weight.axis not in (None, 0) or x.axis is not None or _kind(weight) is None or _kind(x) is None:
        return False
    return largest(weight, x, depth) < 2**31


def largest(weight: Quantizer, x: Quantizer, depth: int) -> int:
    """No sum of `depth` products is larger in magnitude; the kernels for bytes count with 255 · 128 a product."""
    high, other = (max(int(abs(term).max()) for term in _numbers(q)) for q in (weight, x))
    return depth * max(high * other, 255 * 128)


class OneRounding:
    """From the exact sums of a product to its real numbers: Σ_ij s_i t_j m · sums_ij + a in float64, rounded once.

    weight, x            what is multiplied
    outputs              O
    multiplier, addend   m and a, (O,)

    >>> w, x = (Coded(Binary(), {"scale": np.float32(s)}) for s in (2, 0.5))
    >>> OneRounding(w, x, 2, None, np.array([0.0, 7.0]))({(0, 0): np.array([[3, 5]])}, -1).tolist()
    [[3.0, 12.0]]
    """

    def __init__(
        self, weight: Coded, x: Coded, outputs: int, multiplier: Array | None = None, addend: Array | None = None
    ) -> None:
        ones = np.ones(outputs)
        self.of_weight, self.of_x = terms(weight), terms(x)
        self.multiplier = ones if multiplier is None else multiplier.astype(np.float64)
        self.addend = 0 * ones if addend is None else addend.astype(np.float64)

    @property
    def single(self) -> bool:
        """Is y an affine function of one whole number?"""
        return len(self.of_weight) == len(self.of_x) == 1

    @cached_property
    def factors(self) -> Array:
        """(terms, O) float64: what one unit of each pair's whole number is worth."""
        return np.stack([self.of_weight[i].scale * self.of_x[j].scale * self.multiplier for i, j in self.pairs])

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(i, j) in the order in which they are added."""
        return [(i, j) for i in range(len(self.of_weight)) for j in range(len(self.of_x))]

    def __call__(self, sums: dict[tuple[int, int], Array], channels: int) -> Array:
        """float32 numbers from the sums of each pair, whose outputs lie along axis `channels`, 1 or −1.

        Where sums of a constant term are the same for all samples, or all outputs, there may be one of them.
        """
        parts = np.broadcast_arrays(*[sums[pair] for pair in self.pairs])
        tables = [table(part, channels) for part in parts]
        rows, like = tables[0]
        stacked = rows[None] if len(tables) == 1 else np.stack([rows for rows, _ in tables])
        return like(kernels.requantize.affine(stacked, self.factors, self.addend))


def table(y: Array, channels: int) -> tuple[Array, Callable[[Array], Array]]:
    """(N, O, H, W), with channels = 1, or (…, O), with −1, as (pixels, O); and the way back."""
    if channels == -1:
        return y.reshape(-1, y.shape[-1]), lambda rows: rows.reshape(y.shape)
    n, o, h, w = y.shape
    rows = np.ascontiguousarray(y.transpose(0, 2, 3, 1)).reshape(-1, o)
    return rows, lambda found: found.reshape(n, h, w, o).transpose(0, 3, 1, 2)
