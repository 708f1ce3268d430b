"""A sum that is exactly 0 may lie exactly on an edge of the next scheme; what is its code then?

C-b and Q-2 step at 0, from −½ to ½, and P, R and B take the sign. Behind a product without a bias or a batch norm, such
as a depthwise convolution in front of a pointwise one, sums of 0 are frequent. In whole numbers they are 0, and get one
code. The quantized model adds up rounded float32 products: it misses 0 by a billionth, to either side, and has learned
with codes that come out of this like the toss of a coin.

So such a product is marked "float32": its weights are stored as codes like all others, and it is added up as the model
adds, value by value, so that the packed model tosses the same coins. `pack(model, exact=True)` marks none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn.deploy.layers import FLOAT, ON_CODES, Layer
from tinyqnn.deploy.operand import Coded, terms
from tinyqnn.deploy.product import integer
from tinyqnn.graph.vertices import Port

TINY = np.float32(1e-30)


def mark_ties(layers: list[Layer]) -> None:
    """Mark each product of codes whose sums of 0 lie on an edge, and are not exact in float32 anyway."""
    made = {layer.name: layer for layer in layers}
    users: dict[str, list[Layer]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for argument in layer.arguments:
            if isinstance(argument, Port):
                users[argument.vertex].append(layer)
    for layer in layers:
        if layer.op in ("conv2d", "linear"):
            weight, x = layer.coded.get("weight"), made[layer.arguments[0].vertex].coded.get("x")
            if not integer(weight, x) or (_power_of_two(weight) and _power_of_two(x)):
                continue
            if not any(np.any(number) for name, number in layer.numbers.items() if name != "multiplier") and any(
                steps_at_zero(coded, relu) for coded, relu in _next_schemes(layer, users)
            ):
                layer.options["sums"] = FLOAT


def steps_at_zero(coded: Coded, relu: bool = False) -> bool:
    """Has a number just above 0 another code than 0, or than one just below (which ReLU makes 0)?

    >>> from tinyqnn.quant import ClipQ, FixedQ
    >>> [steps_at_zero(Coded(scheme, {"scale": np.float32(1)})) for scheme in (ClipQ(3), FixedQ(3))]
    [True, False]
    >>> steps_at_zero(Coded(ClipQ(3), {"scale": np.float32(1)}), relu=True)
    False
    """
    if coded.quantizer.axis is not None:
        return True
    around = np.array([0 if relu else -TINY, 0, TINY], np.float32)
    with np.errstate(under="ignore"):
        return len(set(coded.encode(around).tolist())) > 1


def _next_schemes(layer: Layer, users: dict[str, list[Layer]], relu: bool = False) -> list[tuple[Coded, bool]]:
    """The schemes that what a layer makes flows into, and whether through a ReLU."""
    found: list[tuple[Coded, bool]] = []
    for user in users[layer.name]:
        if user.op == "quantize":
            found.append((user.coded["x"], relu))
        elif user.op in ON_CODES:
            found += _next_schemes(user, users, relu or user.op == "relu")
    return found


def _power_of_two(coded: Any) -> bool:
    """Are all scales powers of two, so that float32 products and their sums are exact?"""
    return all(math.frexp(float(s))[0] in (0.0, 0.5) for term in terms(coded) for s in term.scale)
