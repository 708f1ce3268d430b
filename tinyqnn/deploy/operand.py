"""Every scheme's values are whole numbers times scales, so a product of two quantized tensors is one of whole numbers.

    scheme                      value of a code k                     terms: whole number × scale
    B T F, U and PACT           α·k                                   k × α
    Q C, U with even levels     α·(k + ½)                             (2k + 1) × α/2
    P                           ±α·{½, 2, 4, …}                       ±{1, 4, 8, …} × α/2
    Z                           α·(k + ½) + min                       (2k + 1) × α/2  +  1 × min
    R                           Σᵢ ±αᵢ                                ±1 × αᵢ, for each i

The whole number 0 is the value 0 in every term. So a border of zeros is exact, also for schemes without a 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyqnn.quant import (
    PACT,
    Binary,
    ClipQ,
    FixedQ,
    Params,
    PotQ,
    Quantizer,
    Quaternary,
    ResQ,
    Ternary,
    Uniform,
    ZoomQ,
)

Array = np.ndarray


@dataclass(frozen=True)
class Coded:
    """A scheme with its frozen parameters; of a weight, with its codes as well.

    quantizer   the scheme
    params      its parameters, float32
    codes       whole numbers of the alphabet, in the weight's shape; None for an activation
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
        """The codes of an activation."""
        return self.quantizer.encode(x, self.params)[0]


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
    q, k = coded.quantizer, coded.quantizer.alphabet.astype(np.int64)
    scale = np.asarray(coded.params["scale"], np.float64)
    if isinstance(q, ResQ):
        signs = [2 * (k >> (q.bits - 1 - i) & 1) - 1 for i in range(q.bits)]
        return [Term(sign, alpha.reshape(-1)) for sign, alpha in zip(signs, scale)]
    scale = scale.reshape(-1)
    if isinstance(q, ZoomQ):
        low = np.asarray(coded.params["low"], np.float64).reshape(-1)
        return [Term(2 * k + 1, scale / 2), Term(np.ones_like(k), low, constant=True)]
    if isinstance(q, PotQ):
        n = np.where(k >= 0, k, -1 - k)
        return [Term(np.where(k >= 0, 1, -1) << (n + (n > 0)), scale / 2)]
    if kind(q) == "midrise":
        return [Term(2 * k + 1, scale / 2)]
    return [Term(k, scale)]


def kind(q: Quantizer) -> str:
    """What `kernels.BitSerialGemm` calls the codes of this scheme; "power" for PotQ's, which are no planes.

    >>> kind(ClipQ(3)), kind(Uniform(3)), kind(Uniform(2, levels=4))
    ('midrise', 'signed', 'midrise')
    """
    if isinstance(q, Uniform):
        return "unsigned" if not q.signed else "signed" if q.levels % 2 else "midrise"
    kinds: dict[type, str] = {
        Binary: "binary", Ternary: "ternary", FixedQ: "signed", PACT: "unsigned", Quaternary: "midrise",
        ClipQ: "midrise", ZoomQ: "zoom", ResQ: "residual", PotQ: "power",
    }  # fmt: skip
    found = [name for page, name in kinds.items() if isinstance(q, page)]
    if not found:
        known = ", ".join(page.__name__ for page in kinds)
        raise ValueError(f"{q!r} cannot be packed: its values are not known as whole numbers; there are {known}")
    return found[0]
