"""Kernels: the few loops where the time goes. Each is the fast second name of a slow twin in `reference.py`.

They work on plain NumPy arrays and know nothing of tensors. Importing this package does not import Numba (0.5 s and
more): a submodule is loaded when it is first used.

    BinaryGemm, BitSerialGemm, Int8Gemm, ShiftGemm      exact products of codes: weights packed once, then g(x)
    IntConv2d                                           a convolution made of any of the first three

    TINYQNN_KERNELS=reference    every kernel is its NumPy twin: slow, and easy to step through in a debugger
    TINYQNN_THREADS=1            how many threads the compiled kernels use (default: the cores this process may use)
    TINYQNN_MALLOC=system        do not ask for freed memory to be kept, nor for large pages, see `memory.py`

They are read once, when they are first asked for; within a program, `with kernels.using("reference"):` switches.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["use_reference", "using"]

_SUBMODULES = frozenset(
    {
        "reference",
        "addresses",
        "requantize",
        "gates",
        "jit",
        "seats",
        "board",
        "turns",
        "memory",
        "simd",
        "tiles",
        "tiled",
        "near",
        "widened",
        "tiledconv",
        "conv",
        "gemm",
        "channels",
        "mlp",
        "exponential",
        "squash",
        "thirdgemm",
        "rows",
        "loops",
        "lstm",
        "updates",
        "pack",
        "bits",
        "binary",
        "signbits",
        "bitserial",
        "bitrow",
        "shift",
        "equalshifts",
        "int8",
        "product",
        "count",
        "intconv",
        "fastest",
        "limits",
    }
)


_choice: str | None = None  # None: the environment has not been asked yet


def use_reference() -> bool:
    """Whether the plain NumPy twins do the work: `TINYQNN_KERNELS=reference`, or Numba's own `NUMBA_DISABLE_JIT=1`.

    >>> with using("reference"):
    ...     use_reference()
    True
    """
    if _choice is None:
        _choose(os.environ.get("TINYQNN_KERNELS", "compiled"))
    return _choice == "reference"


@contextmanager
def using(choice: str) -> Iterator[None]:
    """Inside, "reference" kernels do the work, or "compiled" ones; afterwards whichever did before.

    >>> with using("reference"), using("compiled"):
    ...     pass
    """
    global _choice
    before = _choice
    _choose(choice)
    try:
        yield
    finally:
        _choice = before


def _choose(choice: str) -> None:
    global _choice
    if choice not in ("compiled", "reference"):
        raise ValueError(f"TINYQNN_KERNELS is {choice!r}, expected 'compiled' or 'reference'; set one, or unset it")
    _choice = "reference" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else choice


_CLASSES = {
    "BinaryGemm": "binary",
    "BitSerialGemm": "bitserial",
    "ShiftGemm": "shift",
    "Int8Gemm": "int8",
    "IntConv2d": "intconv",
}


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
