"""Anything that quantizes, seen from one side: a NumPy function, a PyTorch module, an object with encode and decode."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyqnn.quant import PACT, Quantizer, Uniform
from tinyqnn.tensor import Array, Tensor


class UsageError(ValueError):
    """What was given cannot be asked: it is no quantizer, cannot be imported or cannot be made."""


class Subject:
    """A quantizer under examination. What it cannot do is None.

    quantize    x -> values
    encode      (x, params=None) -> codes, params
    decode      (codes, params) -> values
    codebook    params -> all values
    gradient    (x, gradient of Q(x)) -> gradient of x
    held        the same with parameters given: (x, gradient of Q(x), params)
    make        other quantizers of its kind: make(bits=4), make(axis=0); None where they cannot be had
    exact       one of our own pages, which keep the laws to the last bit
    dtypes      what it takes

    >>> subject = Subject(np.round, bits=8)
    >>> subject.quantize(np.array([1.7])).tolist(), subject.encode is None
    ([2.0], True)
    """

    def __init__(self, target: Any, bits: int | None = None, gradient: Callable[..., Any] | None = None) -> None:
        self.name = getattr(target, "__qualname__", None) or repr(target)
        self._class = target if isinstance(target, type) else None
        if self._class is not None:
            target = _construct(self._class, bits)
        self._target = target
        self._made: dict[Any, Subject | None] = {}
        self.exact = isinstance(target, Quantizer)
        self.bits: int | None = bits if bits is not None else _whole(getattr(target, "bits", None))
        self.axis = getattr(target, "axis", None)
        self.takes_params = False
        quantize, self.encode, self.decode = getattr(target, "quantize", None), None, None
        if callable(getattr(target, "encode", None)) and callable(getattr(target, "decode", None)):
            self.encode, self.decode = self._encode, self._decode
            self.takes_params = len(_parameters(target.encode)) > 1
        if not callable(quantize):
            if callable(target):
                quantize = target
            elif self.encode is None:
                raise UsageError(
                    f"{self.name} cannot be called on an array and has neither quantize nor encode and decode; "
                    "give a function of an array, or a class of such"
                )
        self._quantize = quantize
        self.codebook = self._codebook if callable(getattr(target, "codebook", None)) and self.encode else None
        if getattr(target, "alphabet", None) is not None:
            self.alphabet = np.asarray(target.alphabet)
        self._style, self.dtypes = self._find_style()
        self.gradient: Callable[[Array, Array], Array] | None = self._find_gradient(gradient)
        self.held = self._tensor_gradient if self.exact else None

    def quantize(self, x: Array) -> Array:
        """Q(x); one that works in place is given its x back, so that it breaks one law and not all of them."""
        if self.exact:
            return self._target.quantize(x)
        before = x.copy(order="K")
        values = self.untended(x)
        if x.tobytes() != before.tobytes():
            values = values.copy()
            x[...] = before
        return values

    def untended(self, x: Array) -> Array:
        """Q(x) and whatever else happens to x."""
        if self._quantize is None:
            codes, params = self._encode(x)
            return self._decode(codes, params)
        return _array(self._quantize(self._wrap(x)))

    def _encode(self, x: Array, params: Any = None) -> tuple[Array, Any]:
        found = self._target.encode(self._wrap(x), *(() if params is None or not self.takes_params else (params,)))
        if isinstance(found, tuple):
            codes, params = found if len(found) == 2 else (found[0], found[1:])
            return _array(codes), params
        return _array(found), None

    def _decode(self, codes: Array, params: Any) -> Array:
        one = len(_parameters(self._target.decode)) == 1
        wrapped = self._torch().from_numpy(codes) if self._style == "torch" else codes
        return _array(self._target.decode(wrapped) if one else self._target.decode(wrapped, params))

    def _codebook(self, params: Any) -> Array:
        return _array(self._target.codebook(params))

    def make(self, **changes: Any) -> Subject | None:
        """Another of its kind with other bits or another axis."""
        key = tuple(sorted(changes.items()))
        if key not in self._made:
            self._made[key] = self._make(**changes)
        return self._made[key]

    def _make(self, **changes: Any) -> Subject | None:
        if self._class is not None:
            names = _parameters(self._class)
            wanted = {"bits": self.bits, **changes}
            if not set(changes) <= set(names):
                return None
            return Subject(_named(self._class, {k: v for k, v in wanted.items() if k in names and v is not None}))
        if isinstance(self._target, PACT):
            return None if "axis" in changes else Subject(PACT(changes["bits"], clip=self._target.clip.item()))
        if isinstance(self._target, Uniform):
            even = self._target.signed and self._target.levels % 2 == 0
            wanted = {"bits": self.bits, "axis": self.axis, "signed": self._target.signed, **changes}
            return Subject(Uniform(**wanted, levels=2 ** wanted["bits"] if even else None))
        if isinstance(self._target, Quantizer):
            return Subject(type(self._target)(**{"bits": self.bits, "axis": self.axis, **changes}))
        return None

    def _wrap(self, x: Array) -> Any:
        if self._style == "torch":
            return self._torch().from_numpy(x if x.flags.writeable and min(x.strides, default=1) > 0 else x.copy())
        return Tensor(x) if self._style == "tensor" else x

    @staticmethod
    def _torch() -> Any:
        return importlib.import_module("torch")

    def _find_style(self) -> tuple[str, tuple[type, ...]]:
        """How it wants its numbers: as NumPy arrays, PyTorch tensors or our own; and whether float64 will do."""
        if self.exact:
            return "array", (np.float64, np.float32)
        styles = ["array", "tensor"]
        if "torch" in sys.modules:
            styles.insert(0 if _speaks_torch(self._quantize or self._target) else 1, "torch")
        reasons = []
        for style in styles:
            self._style, taken = style, []
            for dtype in (np.float64, np.float32):
                try:
                    with np.errstate(all="ignore"):
                        found = self.quantize(np.array([1.0, -2.0, 0.5], dtype))
                except Exception as error:
                    reasons.append(f"{type(error).__name__}: {error}")
                    continue
                if found.dtype.kind in "fiu" and found.ndim <= 1:
                    taken.append(dtype)
                else:
                    reasons.append(f"it returned {type(found).__name__} of {found.dtype}, not numbers")
            if taken:
                return style, tuple(taken)
        raise UsageError(f"{self.name} cannot quantize [1.0, -2.0, 0.5] ({reasons[0]}); give a function of an array")

    def _find_gradient(self, given: Callable[..., Any] | None) -> Callable[[Array, Array], Array] | None:
        given = given or getattr(self._target, "gradient", None) or getattr(self._target, "vjp", None)
        if callable(given):
            return lambda x, grad: _array(given(x, grad))
        if self.exact or self._style == "tensor":
            return self._tensor_gradient
        return self._autograd if self._style == "torch" else None

    def _tensor_gradient(self, x: Array, grad: Array, params: Any = None) -> Array:
        leaf = Tensor(x, requires_grad=True)
        f: Any = self._target if self.exact else self._quantize
        y = f(leaf, params) if params is not None else f(leaf)
        if y.requires_grad:
            y.backward(grad)
        return np.zeros_like(x) if leaf.grad is None else leaf.grad

    def _autograd(self, x: Array, grad: Array) -> Array:
        torch = self._torch()
        leaf = torch.from_numpy(np.ascontiguousarray(x).copy()).requires_grad_()
        assert self._quantize is not None
        y = self._quantize(leaf)
        if y.requires_grad:
            y.backward(torch.from_numpy(np.ascontiguousarray(grad)))
        return np.zeros_like(x) if leaf.grad is None else _array(leaf.grad)


def find(name: str, bits: int | None = None, gradient: str | None = None) -> Subject:
    """The subject that `package.module:Name` names, looked for from the current folder on.

    >>> find("numpy:round", bits=8).quantize(np.array([1.7])).tolist()
    [2.0]
    """
    subject = Subject(_import(name), bits, None if gradient is None else _import(gradient))
    subject.name = name
    return subject


def _import(name: str) -> Any:
    """What `package.module:Name` names."""
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise UsageError(f"{name!r} names no quantizer; write package.module:Name")
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"cannot import {module} ({error}); run this from the folder that it lies in") from error
    finally:
        sys.path[:] = before
    for part in path.split("."):
        if not hasattr(found, part):
            known = ", ".join(sorted(n for n in vars(found) if not n.startswith("_"))[:8]) or "nothing"
            raise UsageError(f"{module} has no {path}; it has {known}")
        found = getattr(found, part)
    return found


def _construct(made: type, bits: int | None) -> Any:
    """An instance of a class, with `bits=` if it takes that."""
    wants = bits is not None and "bits" in _parameters(made)
    try:
        return made(bits=bits) if wants else made()
    except Exception as error:
        hint = "give its width with --bits or --as" if bits is None else "make one in a module, and give its name"
        raise UsageError(f"{made.__name__} cannot be made ({type(error).__name__}: {error}); {hint}") from error


def _named(made: type, keywords: dict[str, Any]) -> Any:
    try:
        return made(**keywords)
    except Exception as error:
        raise UsageError(f"{made.__name__} refuses {keywords} ({type(error).__name__}: {error})") from error


def _parameters(f: Any) -> list[str]:
    """The names of a function's parameters (of all keywords, where it says **)."""
    try:
        return [name for name, p in inspect.signature(f).parameters.items() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):
        return []


def _speaks_torch(f: Any) -> bool:
    """Does a function come from a module that uses PyTorch?"""
    for part in (f, getattr(f, "forward", None), vars(type(f)).get("__call__")):
        spoken = getattr(getattr(part, "__func__", part), "__globals__", {})
        if any(getattr(value, "__name__", "") == "torch" for value in spoken.values()):
            return True
    return False


def _array(found: Any) -> Array:
    """An array of whatever came back."""
    if isinstance(found, Tensor):
        return found.data
    if hasattr(found, "detach"):
        return found.detach().cpu().numpy()
    return np.asarray(found)


def _whole(bits: Any) -> int | None:
    """A width, if it is one."""
    return int(bits) if isinstance(bits, (int, np.integer)) and not isinstance(bits, bool) else None
