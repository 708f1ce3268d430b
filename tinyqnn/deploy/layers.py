"""What a packed model is made of: a list of layers, each a name, an operation, where its inputs come from, and numbers.

quantize                     real numbers -> codes, by a scheme with frozen parameters
conv2d, linear               codes · codes, or real numbers where a factor is no code
embedding, lstm              tables looked up; four gates a step
batch_norm                   where it could not be folded into a product
relu, add, max_pool2d, …     the functions that the model itself calls, on real numbers
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyqnn.functional.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from tinyqnn.functional.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinyqnn.functional.shape import Concat, Pad, Stack
from tinyqnn.quant.whole import Coded
from tinyqnn.tensor import (
    Abs,
    Add,
    Clip,
    Div,
    Exp,
    Flatten,
    Function,
    GetItem,
    Max,
    Mean,
    Min,
    Mul,
    Neg,
    Permute,
    Reshape,
    Sub,
    Sum,
)

Array = np.ndarray

# Operations that run as they are: the model's own functions.
PLAIN: dict[str, type[Function]] = {
    "relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh, "softmax": Softmax, "log_softmax": LogSoftmax,
    "max_pool2d": MaxPool2d, "avg_pool2d": AvgPool2d, "adaptive_avg_pool2d": AdaptiveAvgPool2d,
    "add": Add, "sub": Sub, "mul": Mul, "div": Div, "neg": Neg, "exp": Exp, "abs": Abs, "clip": Clip,
    "sum": Sum, "mean": Mean, "max": Max, "min": Min,
    "flatten": Flatten, "reshape": Reshape, "permute": Permute, "getitem": GetItem,
    "concat": Concat, "stack": Stack, "pad": Pad,
}  # fmt: skip
EXACT, FLOAT = "exact", "float32"  # how a product of codes is added up: `pack` says "exact", a file may say "float32"
ON_CODES = ("relu", "max_pool2d", "flatten", "reshape")  # what may lie between a product and the next codes
OWN = ("input", "constant", "quantize", "conv2d", "linear", "embedding", "lstm", "batch_norm")


@dataclass
class Layer:
    """One entry of the list.

    name        of the vertex it was
    op          a key of PLAIN, or one of OWN
    arguments   for each argument a `Port` (a layer before it) or a plain value
    options     keyword arguments, plain values
    numbers     float32 arrays by name: bias, multiplier, addend, mean, scale, shift, a weight left in float, a constant
    coded       by name ("x", "weight", "hidden", …): schemes with their parameters, and the codes of weights
    """

    name: str
    op: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)
    coded: dict[str, Coded] = field(default_factory=dict)
