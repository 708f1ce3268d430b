"""What a quantizer does at chosen numbers: the table of corner cases on every page is this function's output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyqnn.quant.base import Quantizer
from tinyqnn.tensor import Tensor


def card(quantizer: Quantizer, points: Sequence[float], **params: object) -> None:
    """Print code, value and gradient of each point, for the parameters given.

    >>> from tinyqnn.quant import ClipQ
    >>> card(ClipQ(bits=2), [0.0, 1.5, 1.75], scale=1.0)
           x  code   Q(x)  dQ/dx
         0.0     0    0.5      1
         1.5     1    1.5      1
        1.75     1    1.5      0
    """
    frozen = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = Tensor(np.array(points, np.float64), requires_grad=True)
    codes, _ = quantizer.encode(x.data, frozen)
    y = quantizer(x, frozen)
    y.backward(np.ones_like(x.data))
    assert x.grad is not None
    print(f"{'x':>8}{'code':>6}{'Q(x)':>7}{'dQ/dx':>7}")
    for row in zip(x.data.tolist(), codes.tolist(), y.data.tolist(), x.grad.tolist()):
        print(f"{row[0]:>8}{row[1]:>6}{row[2]:>7}{row[3]:>7.0f}")
