"""A quantizing vertex whose width is learned: a real number of bits with a gradient, used rounded (AutoQNN §4.1).

Backwards the width gets eq. (5) from `quant/learned_bits.py`. The running average of an activation belongs to one
width: the step of 3 bits says nothing about that of 2, so it starts anew whenever the rounded width changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.nn import Module
from tinyqnn.nn.module import Parameter
from tinyqnn.quant import SCHEMES, ActivationQuantizer, Quantizer, WeightQuantizer, quantize_with_bits
from tinyqnn.tensor import Tensor


class LearnedBits(Module):
    """Takes the place of a quantizer and learns its width.

    quantizer    a WeightQuantizer or an ActivationQuantizer, whose scheme and width it starts from
    after_relu   True if the input is known not to be negative; see `widths_of`

    `bits` is the Parameter b, `width` what it is rounded to, `quantizer` what evaluation uses: the width that was
    trained or settled last.

    >>> learned = LearnedBits(WeightQuantizer("C-3"))
    >>> learned.bits.data[...] = 2.4
    >>> learned(Tensor(np.array([-1.0, 0.2, 1.0]))).sum().backward()
    >>> learned.width, learned.scheme, round(learned.bits.grad.item(), 3)
    (2, ClipQ(bits=2), -0.179)
    """

    def __init__(self, quantizer: WeightQuantizer | ActivationQuantizer, after_relu: bool = False) -> None:
        super().__init__()
        self.widths = widths_of(quantizer.scheme.letter, after_relu)
        self.bits = Parameter(np.array(max(quantizer.scheme.bits, self.widths[0]), np.float32))
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
    def width(self) -> int:
        """b rounded, within `widths`."""
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


def widths_of(letter: str, after_relu: bool = False) -> range:
    """The widths of a scheme that tell numbers apart; after a ReLU none of them is negative.

    ClipQ with one bit knows the sign alone: behind a ReLU it would make all numbers one, and the layer deaf.

    >>> widths_of("C"), widths_of("C", after_relu=True), widths_of("R", after_relu=True)
    (range(1, 9), range(2, 9), range(1, 9))
    """
    widths = SCHEMES[letter].widths
    return widths[1:] if letter == "C" and after_relu else widths


def learnable(quantizer: Any) -> bool:
    """Has its scheme more than one width?

    >>> learnable(WeightQuantizer("C-3")), learnable(WeightQuantizer("T-2"))
    (True, False)
    """
    return len(SCHEMES[quantizer.scheme.letter].widths) > 1


def rounded(
    bits: Sequence[float],
    widths: Sequence[range],
    elements: Sequence[int],
    target: float,
    wishes: Sequence[float] | None = None,
    tolerance: float = 0.1,
) -> list[int]:
    """Whole widths for the learned `bits`, of which the loss is least; the paper does not say how it rounds.

    Each is one of the two whole numbers beside its b. Of all such widths whose average is within `tolerance` of the
    target it is those with the least Σ f · 4^−w: an error, squared, shrinks by four with every bit. Where no average
    comes so near, any fewer bits are allowed, too, and then any more; where none does even so, it is below that, and if
    all are above, the lowest there is.

    wishes   f: how much the loss would like a vertex to have more bits, without the 4^−w; nothing below 0. None: all
             0, and then the widths stray from b as little as they can

    >>> sizes = [100, 1000, 50_000]
    >>> rounded([4.4, 3.2, 2.6], [range(1, 9)] * 3, sizes, target=2, wishes=[9.0, 2.0, 40.0])
    [5, 4, 2]
    """
    wishes = [0.0] * len(bits) if wishes is None else [max(wish, 0.0) for wish in wishes]
    most, least = (target + tolerance) * sum(elements), (target - tolerance) * sum(elements)
    fitting: list[Packed] = []
    inside = [min(max(b, r[0]), r[-1]) for b, r in zip(bits, widths)]
    beside = [(math.floor(b), math.ceil(b)) for b in inside]
    for limits in (beside, [(0, high) for _, high in beside], [(0, r[-1]) for r in widths]):
        choices = [[w for w in r if low <= w <= high] for r, (low, high) in zip(widths, limits)]
        fitting = [found for found in packed(bits, choices, elements, wishes) if found.size <= most]
        if within := [found for found in fitting if found.size >= least]:
            return list(min(within).widths)
    return list(min(fitting).widths) if fitting else [r[0] for r in widths]


class Packed(NamedTuple):
    """Widths of the first vertices: Σ f · 4^−w, Σ (b − w)², and how many bits all their numbers take."""

    loss: float
    strayed: float
    size: int
    widths: tuple[int, ...]


def packed(
    bits: Sequence[float], choices: Sequence[Sequence[int]], elements: Sequence[int], wishes: Sequence[float]
) -> list[Packed]:
    """For every size the best of the ways to choose, with the least loss; among equals the one that strays least.

    A knapsack, vertex by vertex: of all choices so far that are equally large, to a thousandth of a bit on average,
    the best is kept.

    >>> [found.widths for found in packed([2.6, 3.1], [[2, 3], [3, 4]], [1, 1], [1.0, 16.0])]
    [(2, 3), (2, 4), (3, 4)]
    """
    total = sum(elements)
    kept = {0: Packed(0.0, 0.0, 0, ())}
    for b, widths, count, wish in zip(bits, choices, elements, wishes):
        longer: dict[int, Packed] = {}
        for so_far in kept.values():
            for w in widths:
                found = Packed(
                    so_far.loss + wish * 4.0**-w,
                    so_far.strayed + (b - w) ** 2,
                    so_far.size + count * w,
                    (*so_far.widths, w),
                )
                place = 1000 * found.size // total
                if place not in longer or found < longer[place]:
                    longer[place] = found
        kept = longer
    return list(kept.values())
