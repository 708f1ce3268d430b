"""Kernels: the few loops where the time goes. Each is the fast second name of a slow twin in `reference.py`.

They work on plain NumPy arrays and know nothing of tensors. Importing this package does not import Numba (0.5 s and
more): a submodule is loaded when it is first used.

    TINYQNN_KERNELS=reference    every kernel is its NumPy twin: slow, and easy to step through in a debugger
    TINYQNN_THREADS=1            how many threads the compiled kernels use (default: the cores this process may use)
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["use_reference"]

_SUBMODULES = frozenset(
    {
        "reference",
        "jit",
        "simd",
        "conv",
        "gemm",
        "channels",
        "rows",
        "loops",
        "pack",
        "binary",
        "bitserial",
        "shift",
        "int8",
    }
)


def use_reference() -> bool:
    """Whether the plain NumPy twins do the work: `TINYQNN_KERNELS=reference`, or Numba's own `NUMBA_DISABLE_JIT=1`.

    >>> import os
    >>> before, os.environ["TINYQNN_KERNELS"] = os.environ.get("TINYQNN_KERNELS"), "reference"
    >>> use_reference()
    True
    >>> _ = os.environ.pop("TINYQNN_KERNELS") if before is None else os.environ.update(TINYQNN_KERNELS=before)
    """
    choice = os.environ.get("TINYQNN_KERNELS", "compiled")
    if choice not in ("compiled", "reference"):
        raise ValueError(f"TINYQNN_KERNELS is {choice!r}, expected 'compiled' or 'reference'; set one, or unset it")
    return choice == "reference" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
