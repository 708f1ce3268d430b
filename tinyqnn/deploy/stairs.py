"""One rounding: where the quantized model's own arithmetic steps from one code to the next, there the packed one steps.

A scheme's code never falls as x rises. So what leads from a layer's whole-number sum to the next layer's code,

    sum -> factor · sum + addend -> ReLU -> encode

is a staircase in the sum, for each channel its own. Its edges are found by asking: the very functions that the model
runs are evaluated at whole numbers, and each edge is closed in on by bisection. What is left for inference is to count
edges (`kernels/requantize.py`); the arithmetic cannot come out otherwise, for it is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinyqnn import kernels
from tinyqnn.quant.whole import Coded

Array = np.ndarray

MOST_EDGES = 15  # up to 4 bits; beyond, computing the code is as quick as comparing
FEW_NUMBERS = 4096  # up to which looking codes up is quicker than computing them


def few_edges(coded: Coded) -> bool:
    """Is comparing with every edge worth while?"""
    return coded.quantizer.axis is None and len(coded.quantizer.alphabet) - 1 <= MOST_EDGES


class IntegerStairs:
    """The code of `encode(f(factor · sum + addend))` for whole sums up to `largest` in magnitude, channel by channel.

    then   monotone functions of real numbers that come between, such as ReLU

    >>> from tinyqnn.quant import Binary
    >>> stairs = IntegerStairs(Coded(Binary(), {"scale": np.float32(1)}), np.array([1.0]), np.array([-2.5]), 9)
    >>> stairs(np.array([[2], [3]], np.int32)).tolist()
    [[-1], [1]]
    """

    def __init__(
        self,
        coded: Coded,
        factor: Array,
        addend: Array,
        largest: int,
        then: Sequence[Callable[[Array], Array]] = (),
    ) -> None:
        step, falling = _step(coded), factor < 0
        sign = np.where(falling, -1, 1)

        def place(sums: Array) -> Array:
            """Which step of the stairs: (E, C) sums, turned round where the factor is negative."""
            y = (factor * (sign * sums) + addend).astype(np.float32)
            for function in then:
                y = function(y)
            return _position(coded, coded.encode(y))

        count = len(coded.quantizer.alphabet) - 1
        wanted = np.arange(1, count + 1)[:, None]
        low = np.full((count, len(factor)), -largest - 1, np.int64)  # not reached there
        high = -low  # reached, or out of reach
        while (high - low > 1).any():
            middle = (low + high) // 2
            reached = place(middle) >= wanted
            high, low = np.where(reached, middle, high), np.where(reached, low, middle)
        first, kind = int(coded.quantizer.alphabet[0]), coded.quantizer.alphabet.dtype
        self.stairs = kernels.requantize.Stairs(
            np.where(falling, 1 - high, high).astype(np.int32),  # −x ≥ e is: not x ≥ 1 − e
            np.where(falling, first + step * count, first).astype(kind),
            (step * sign).astype(np.int8),
        )
        self.edges = self.stairs.edges

    def __call__(self, sums: Array) -> Array:
        """Codes of sums (P, C)."""
        return kernels.requantize.staircase(sums, *self.stairs)


class FloatStairs:
    """`encode` by counting edges: for each code the smallest float32 that has it. Many edges are looked up by halving.

    >>> from tinyqnn.quant import ClipQ
    >>> FloatStairs(Coded(ClipQ(2), {"scale": np.float32(1)})).edges.ravel().tolist()
    [-1.0, 0.0, 1.0]
    """

    def __init__(self, coded: Coded) -> None:
        self.coded, self.few = coded, few_edges(coded)
        count = len(coded.quantizer.alphabet) - 1
        wanted = np.arange(1, count + 1)
        top = int(np.float32(np.finfo(np.float32).max).view(np.int32))
        low, high = np.full(count, -top - 1, np.int64), np.full(count, top, np.int64)  # numbers in order, from −max
        while (high - low > 1).any():
            middle = np.maximum((low + high) // 2, -top)
            reached = _position(coded, coded.encode(_float_number(middle))) >= wanted
            high, low = np.where(reached, middle, high), np.where(reached, low, middle)
        never = _position(coded, coded.encode(_float_number(high))) < wanted
        self.edges = np.where(never, np.float32(np.inf), _float_number(high)).astype(np.float32)[:, None]
        self.first = coded.quantizer.alphabet[:1]
        self.direction = np.array([_step(coded)], np.int8)

    def __call__(self, x: Array) -> Array:
        """Codes of x, in its shape; channels last in memory if x is so."""
        if not self.few:
            if x.size > FEW_NUMBERS:
                return self.coded.encode(x)
            places = np.searchsorted(self.edges[:, 0], x, side="right")
            return (int(self.first[0]) + int(self.direction[0]) * places).astype(self.first.dtype)
        last = x.ndim == 4
        rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if last else x)
        codes = kernels.requantize.one_staircase(rows, self.edges[:, 0], self.first, self.direction)
        return codes.transpose(0, 3, 1, 2) if last else codes


def _step(coded: Coded) -> int:
    """How far apart neighbouring codes are: 2 for −1 and 1, else 1."""
    alphabet = coded.quantizer.alphabet
    return int(alphabet[1]) - int(alphabet[0])


def _position(coded: Coded, codes: Array) -> Array:
    """Which code of the alphabet: 0, 1, …"""
    return (codes.astype(np.int64) - int(coded.quantizer.alphabet[0])) // _step(coded)


def _float_number(number: Array) -> Array:
    """The finite float32 numbers in ascending order, 0.0 being number 0."""
    bits = abs(number).astype(np.int32).view(np.float32)
    return np.where(number >= 0, bits, -bits).astype(np.float32)
