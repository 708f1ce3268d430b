"""Quantizers as somebody else might write them, for the kit to look at."""

from __future__ import annotations

import numpy as np


def clip3(x):
    """ClipQ with 3 bits and the published constant, in a few lines of NumPy."""
    if x.size == 0:
        return x
    step = 0.5860 * x.std(dtype=np.float64)
    if step == 0:
        return np.zeros_like(x)
    return ((np.clip(np.floor(x / step), -4, 3) + 0.5) * step).astype(x.dtype)


def clip3_gradient(x, grad):
    return grad * (np.abs(x) <= 3.5 * 0.5860 * x.std())


def clip3_leaks(x, grad):
    return grad


class PowerOfTwo:
    """PotQ with encode and decode, logarithms and all."""

    steps = {2: 0.7379, 3: 0.2695, 4: 0.0328}  # noqa: RUF012

    def __init__(self, bits, axis=None):
        self.bits, self.axis = bits, axis

    def encode(self, x, params=None):
        others = None if self.axis is None else tuple(k for k in range(x.ndim) if k != self.axis)
        if x.size == 0:
            raise ValueError("nothing to encode")
        if params is None:
            params = (self.steps[self.bits] * x.astype(np.float64).std(axis=others, keepdims=True)).astype(x.dtype)
        safe = np.where(params > 0, params, 1)
        with np.errstate(divide="ignore"):
            n = np.clip(np.round(np.log2(np.abs(x / safe))), 0, 2 ** (self.bits - 1) - 1).astype(np.int32)
        n = np.where(params > 0, n, 0)
        return np.where((x > 0) & (params > 0), n, -1 - n), params

    def decode(self, codes, params):
        n = np.where(codes >= 0, codes, -1 - codes)
        return (np.where(codes >= 0, 1, -1) * params * 2.0 ** (n - (n == 0))).astype(params.dtype)

    def quantize(self, x):
        return self.decode(*self.encode(x))


class Averse:
    def __init__(self, bits):
        raise RuntimeError("not today")


silent = 3
