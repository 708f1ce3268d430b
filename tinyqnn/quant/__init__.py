"""Quantizers: the papers' schemes, one a page, and the modules that put them into a network.

    q = ClipQ(bits=3)                    or scheme("C-3")
    codes, params = q.encode(array)      small integers, and what decodes them
    q.decode(codes, params)              the values; q.quantize(array) is both in one
    q(tensor)                            the same on a Tensor, with the straight-through gradient

Start with `base.py` for the contract, then any page: `clip.py`, `power_of_two.py`, `binary.py`, …
"""

from __future__ import annotations

from tinyqnn.quant.base import Params, Quantizer
from tinyqnn.quant.binary import Binary
from tinyqnn.quant.card import card
from tinyqnn.quant.clip import ClipQ
from tinyqnn.quant.fixed import FixedQ
from tinyqnn.quant.learned_bits import RelaxedQuantize, bits_gradient, quantize_with_bits
from tinyqnn.quant.notation import SCHEMES, scheme
from tinyqnn.quant.pact import PACT
from tinyqnn.quant.power_of_two import PotQ
from tinyqnn.quant.quaternary import Quaternary
from tinyqnn.quant.residual import ResQ
from tinyqnn.quant.ste import StraightThrough
from tinyqnn.quant.ternary import Ternary
from tinyqnn.quant.uniform import Uniform
from tinyqnn.quant.vertex import ActivationQuantizer, WeightQuantizer, calibrate
from tinyqnn.quant.zoom import ZoomQ

__all__ = [
    "PACT",
    "SCHEMES",
    "ActivationQuantizer",
    "Binary",
    "ClipQ",
    "FixedQ",
    "Params",
    "PotQ",
    "Quantizer",
    "Quaternary",
    "RelaxedQuantize",
    "ResQ",
    "StraightThrough",
    "Ternary",
    "Uniform",
    "WeightQuantizer",
    "ZoomQ",
    "bits_gradient",
    "calibrate",
    "card",
    "quantize_with_bits",
    "scheme",
]
