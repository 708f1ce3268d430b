"""tinyqnn: quantized neural networks from scratch, in NumPy and Numba, to read, to run and to check against.

>>> import tinyqnn as tq
>>> x = tq.Tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
array([2., 4.], dtype=float32)
"""

from __future__ import annotations

import importlib
from types import ModuleType

from tinyqnn import functional, nn
from tinyqnn.random import default_rng, manual_seed
from tinyqnn.tensor import Function, Observer, Tensor, no_grad

__version__ = "0.1.0"

__all__ = [
    "Function",
    "Observer",
    "Tensor",
    "bench",
    "checks",
    "data",
    "default_rng",
    "deploy",
    "files",
    "functional",
    "graph",
    "kernels",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "optim",
    "quant",
    "search",
    "spec",
    "train",
]

_ROOMS = frozenset(name for name in __all__ if name.islower() and name not in globals())


def __getattr__(name: str) -> ModuleType:
    """Rooms that are not needed at once are opened when they are first named."""
    if name in _ROOMS:
        try:
            return importlib.import_module(f"tinyqnn.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"tinyqnn.{name}":
                raise
    raise AttributeError(f"module 'tinyqnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
