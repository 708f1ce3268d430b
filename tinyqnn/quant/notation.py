"""The papers write a scheme and its width as C-3: this reads it."""

from __future__ import annotations

import re

from tinyqnn.quant.base import Quantizer
from tinyqnn.quant.binary import Binary
from tinyqnn.quant.clip import ClipQ
from tinyqnn.quant.fixed import FixedQ
from tinyqnn.quant.pact import PACT
from tinyqnn.quant.power_of_two import PotQ
from tinyqnn.quant.quaternary import Quaternary
from tinyqnn.quant.residual import ResQ
from tinyqnn.quant.ternary import Ternary
from tinyqnn.quant.uniform import Uniform
from tinyqnn.quant.zoom import ZoomQ

SCHEMES: dict[str, type[Quantizer]] = {
    page.letter: page
    for page in (Binary, Ternary, Quaternary, FixedQ, ResQ, ZoomQ, ClipQ, PotQ, Uniform, PACT)
}  # fmt: skip


def scheme(notation: str | Quantizer, *, axis: int | None = None) -> Quantizer:
    """The quantizer that `notation` names: B-1 T-2 Q-2 F-b R-b Z-b C-b P-b (AutoQNN §6), and U-b, PACT-b.

    A quantizer is returned as it is. Raises ValueError for anything else, saying what there is.

    >>> scheme("C-3"), scheme("P-4", axis=0)
    (ClipQ(bits=3), PotQ(bits=4, axis=0))
    """
    if isinstance(notation, Quantizer):
        if axis is not None and axis != notation.axis:
            raise ValueError(f"{notation!r} has its axis already; give axis={axis} when making it")
        return notation
    match = re.fullmatch(r"([A-Z]+)-(\d+)", notation) if isinstance(notation, str) else None
    if match is None or match[1] not in SCHEMES or int(match[2]) not in SCHEMES[match[1]].widths:
        known = ", ".join(f"{letter}-{_span(page.widths)}" for letter, page in SCHEMES.items())
        raise ValueError(f"unknown scheme {notation!r}; there are {known}")
    return SCHEMES[match[1]](int(match[2]), **({} if axis is None else {"axis": axis}))


def _span(widths: range) -> str:
    """1, or 2…8."""
    return f"{widths[0]}" if len(widths) == 1 else f"{widths[0]}…{widths[-1]}"
