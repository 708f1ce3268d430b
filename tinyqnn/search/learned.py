"""A quantizing vertex whose width is learned: a real number of bits with a gradient, used rounded (AutoQNN §4.1).

Backwards the width gets eq. (5) from `quant/learned_bits.py`. The running average of an activation belongs to one
width: the step of 3 bits says nothing about that of 2, so it starts anew whenever the rounded width changes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyqnn.graph.cost import average_bits
from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.quant import SCHEMES, ActivationQuantizer, Quantizer, WeightQuantizer, quantize_with_bits
from tinyqnn.tensor import Tensor


class LearnedBits(Module):
    """Takes the place of a quantizer and learns its width.

    quantizer   a WeightQuantizer or an ActivationQuantizer, whose scheme and width it starts from

    `bits` is the Parameter b, `width` what it is rounded to, `quantizer` what evaluation uses: the width that was
    trained last.

    >>> learned = LearnedBits(WeightQuantizer("C-3"))
    >>> learned.bits.data[...] = 2.4
    >>> learned(Tensor(np.array([-1.0, 0.2, 1.0]))).sum().backward()
    >>> learned.width, learned.scheme, round(learned.bits.grad.item(), 3)
    (2, ClipQ(bits=2), -0.179)
    """

    def __init__(self, quantizer: WeightQuantizer | ActivationQuantizer) -> None:
        super().__init__()
        self.bits = Parameter(np.array(quantizer.scheme.bits, np.float32))
        # Not a child: the averages of ResQ change their shape with the width, so the search keeps them (`averages`).
        self.__dict__["quantizer"] = quantizer

    def forward(self, x: Tensor) -> Tensor:
        quantizer = self.quantizer
        quantizer.__dict__["training"] = self.training
        if self.training and quantizer.scheme.bits != self.width:
            quantizer.scheme = SCHEMES[quantizer.scheme.letter](self.width)
        if not self.training or not self.bits.requires_grad:
            return quantizer(x)
        letter = quantizer.scheme.letter
        if isinstance(quantizer, WeightQuantizer):
            return quantize_with_bits(letter, x, self.bits)
        params = quantizer.scheme.fit(x)
        quantizer._average(params)
        return quantize_with_bits(letter, x, self.bits, params)

    @property
    def widths(self) -> range:
        """The widths that the scheme has."""
        return SCHEMES[self.quantizer.scheme.letter].widths

    @property
    def width(self) -> int:
        """b rounded, in the scheme's range."""
        return min(max(math.floor(self.bits.item() + 0.5), self.widths[0]), self.widths[-1])

    @property
    def scheme(self) -> Quantizer:
        """What the vertex counts as."""
        found: Quantizer = self.quantizer.scheme
        return found

    def averages(self) -> dict[str, Any]:
        """The width trained last and the running averages that belong to it, for a checkpoint."""
        return {"width": self.scheme.bits, "buffers": {name: a.copy() for name, a in self.quantizer.named_buffers()}}

    def load_averages(self, state: dict[str, Any]) -> None:
        """What `averages` gave."""
        self.quantizer.scheme = SCHEMES[self.scheme.letter](state["width"])
        self.quantizer.load_state_dict(state["buffers"])


def learnable(quantizer: Any) -> bool:
    """Has its scheme more than one width?

    >>> learnable(WeightQuantizer("C-3")), learnable(WeightQuantizer("T-2"))
    (True, False)
    """
    return len(SCHEMES[quantizer.scheme.letter].widths) > 1


def rounded(
    bits: Sequence[float], widths: Sequence[range], elements: Sequence[int], target: float, tolerance: float = 0.1
) -> list[int]:
    """Whole widths near the learned `bits`, within `widths`, whose average is at most `target` + `tolerance`.

    Each is rounded to the nearest. While the average is too high, one vertex loses a bit: the one whose learned width
    is the least harmed, by the growth of (b − w)². What was taken away and still fits is then given back, the largest
    loss first. If the average lies below `target` − `tolerance`, bits are added in the same way as long as they fit;
    where none does, one vertex gains a bit and another loses some, if that helps.

    >>> sizes = [100, 1000, 50_000]
    >>> rounded([4.4, 3.2, 2.6], [range(1, 9)] * 3, sizes, target=2)
    [4, 3, 2]
    """
    chosen = [min(max(math.floor(b + 0.5), r[0]), r[-1]) for b, r in zip(bits, widths)]
    nearest = list(chosen)

    def average(i: int, step: int) -> float:
        return average_bits([w + step * (k == i) for k, w in enumerate(chosen)], elements)

    def harm(i: int, step: int) -> float:
        return (bits[i] - chosen[i] - step) ** 2 - (bits[i] - chosen[i]) ** 2

    while average(0, 0) > target + tolerance:
        lower = [i for i, r in enumerate(widths) if chosen[i] > r[0]]
        if not lower:
            break
        chosen[min(lower, key=lambda i: harm(i, -1))] -= 1
    while True:
        back = [i for i in range(len(chosen)) if chosen[i] < nearest[i] and average(i, 1) <= target + tolerance]
        if not back:
            break
        chosen[min(back, key=lambda i: harm(i, 1))] += 1
    while average(0, 0) < target - tolerance:
        more = [i for i, r in enumerate(widths) if chosen[i] < r[-1] and average(i, 1) <= target + tolerance]
        if not more:
            break
        chosen[min(more, key=lambda i: harm(i, 1))] += 1
    if average(0, 0) < target - tolerance:
        trades = []
        for i, j in itertools.permutations(range(len(chosen)), 2):
            for step in range(1, chosen[j] - widths[j][0] + 1 if chosen[i] < widths[i][-1] else 0):
                traded = [w + (k == i) - step * (k == j) for k, w in enumerate(chosen)]
                if abs(average_bits(traded, elements) - target) <= tolerance:
                    trades.append((harm(i, 1) + harm(j, -step), traded))
        chosen = min(trades)[1] if trades else chosen
    return chosen
