"""From a quantized network to packed whole numbers that give the same answers.

    lower.py       the graph to a list of layers (layers.py)
    product.py     sums of products of codes, on the kernel that serves the widths
    stairs.py      from sums to the next codes: the one rounding
    recurrent.py   an LSTM on codes
    engine.py      runs the list
    model.py       `pack`, and what it returns
    agreement.py   compares code by code
    format.py      the file

What codes are as whole numbers stands in `quant/whole.py`, what becomes of a batch norm in `functional/fold.py`.
Start with `model.py`.
"""

from __future__ import annotations

from tinyqnn.deploy.agreement import Agreement, First, agreement
from tinyqnn.deploy.format import load
from tinyqnn.deploy.model import Packed, pack

__all__ = ["Agreement", "First", "Packed", "agreement", "load", "pack"]
