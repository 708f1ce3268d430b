"""A quantizing vertex whose width is learned: a real number of bits with a gradient, used rounded (AutoQNN §4.1).

Backwards the width gets eq. (5) from `quant/learned_bits.py`. The running average of an activation belongs to one
width: the step of 3 bits says nothing about that of 2, so it starts anew whenever the rounded width changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.quant import SCHEMES, ActivationQuantizer, Quantizer, WeightQuantizer, quantize_with_bits
from tinyqnn.tensor import Tensor


class LearnedBits(Module):
    """Takes the place of a quantizer and learns its width.

    quantizer   a WeightQuantizer or an ActivationQuantizer, whose scheme and width it starts from

    `bits` is the Parameter b, `width` what it is rounded to, `quantizer` what evaluation uses: the width that was
    trained or settled last.

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
        if self.training:
            self._take_width()
        if not self.training or not self.bits.requires_grad:
            return quantizer(x)
        letter = quantizer.scheme.letter
        if isinstance(quantizer, WeightQuantizer):
            return quantize_with_bits(letter, x, self.bits)
        params = quantizer.scheme.fit(x)
        quantizer.observe(params)
        return quantize_with_bits(letter, x, self.bits, params)

    def settle(self, width: int) -> None:
        """Make the width whole: a running average of another width is forgotten."""
        self.bits.data[...] = width
        self._take_width()

    def _take_width(self) -> None:
        quantizer = self.quantizer
        if quantizer.scheme.bits != self.width:
            quantizer.scheme = SCHEMES[quantizer.scheme.letter](self.width)

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
    """Whole widths nearest to the learned `bits`: those with the least Σ (b − w)² whose average fits the target.

    The average lies within `tolerance` of the target; where no widths bring it there it is below that, and where all
    are above, the lowest there is. A knapsack, vertex by vertex: of all ways to choose the widths so far that are
    equally large, to a hundredth of a bit on average, the one that strays least is kept.

    >>> sizes = [100, 1000, 50_000]
    >>> rounded([4.4, 3.2, 2.6], [range(1, 9)] * 3, sizes, target=2)
    [4, 3, 2]
    """
    total = sum(elements)
    kept: dict[int, tuple[float, int, tuple[int, ...]]] = {0: (0.0, 0, ())}  # by size: (Σ (b − w)², size, widths)
    for b, choices, count in zip(bits, widths, elements):
        longer: dict[int, tuple[float, int, tuple[int, ...]]] = {}
        for strayed, size, chosen in kept.values():
            for w in choices:
                found = strayed + (b - w) ** 2, size + count * w, (*chosen, w)
                place = 100 * found[1] // total
                if place not in longer or found < longer[place]:
                    longer[place] = found
        kept = longer
    fitting = [found for found in kept.values() if found[1] <= (target + tolerance) * total]
    if not fitting:
        return [choices[0] for choices in widths]
    within = [found for found in fitting if found[1] >= (target - tolerance) * total]
    return list(min(within or fitting)[2])
