"""An LSTM on codes: the inputs' share of the gates in one product, then a product of the state's codes every step.

gates = s_x·(Wx codes) + b_ih + b_hh + s_h·(Wh codes)       the sums of codes exact, the rest float32 as the model does
i, f, o = σ,  g = tanh,  c ← f·c + i·g,  h ← o·tanh(c),  and h is encoded again
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.deploy.layers import Layer
from tinyqnn.deploy.operand import Coded, kind
from tinyqnn.deploy.product import Product, integer
from tinyqnn.deploy.stairs import FloatStairs

Array = np.ndarray


def run_lstm(layer: Layer, x: Coded | None) -> Callable[[dict[str, Any], list[int]], None]:
    """The step of the engine that runs an LSTM layer; `x` is the scheme of its input's codes, if they are codes."""
    hidden = layer.coded.get("hidden")
    of_input, of_state = _multiply(layer, "weight_ih", x), _multiply(layer, "weight_hh", hidden)
    encode = _encoder(hidden)
    biases = [layer.numbers[name] for name in ("bias_ih", "bias_hh") if name in layer.numbers]
    sources = layer.arguments
    from_zeros = layer.options["from_zeros"]
    inputs, size = (_shape(layer, name)[1] for name in ("weight_ih", "weight_hh"))

    def step(values: dict[str, Any], lengths: list[int]) -> None:
        codes, h, c = (_value(values, port) for port in sources)
        if codes.ndim != 3 or codes.shape[2] != inputs or not h.shape == c.shape == (codes.shape[1], size):
            raise ValueError(
                f"{layer.name} takes (T, N, {inputs}) and states (N, {size}), got {codes.shape}, {h.shape}, {c.shape}"
            )
        gates = of_input(codes)  # (T, N, in) -> (T, N, 4·hidden)
        for bias in biases:
            gates += bias
        outputs = np.empty((*gates.shape[:2], gates.shape[2] // 4), np.float32)
        states: list[Array] = []
        scale, shift = _squashing(gates.shape[2] // 4)
        if isinstance(of_state, _OnCodes) and of_state.serves(gates.shape[1]) and isinstance(encode, FloatStairs):
            h, c = _few(gates, h, c, of_state.rows, encode, from_zeros, states, outputs)
        else:
            for t, a in enumerate(gates):
                if not (t == 0 and from_zeros):
                    states.append(encode(h))
                    of_state(states[-1], a)
                elif hidden is None:
                    of_state(h, a)
                h, c = advance(a, c, scale, shift)
                outputs[t] = h
        values[layer.name] = (outputs, h, c)
        values[f"{layer.name}/states"] = states

    return step


def _few(
    gates: Array, h: Array, c: Array, rows: Any, stairs: FloatStairs, from_zeros: bool, states: list[Array], y: Array
) -> tuple[Array, Array]:
    """All steps for a few samples: two compiled calls a step, and NumPy's tanh. Writes states and y."""
    count, hidden = h.shape
    scale, shift = _squashing(hidden)
    edges, first, direction = stairs.edges[:, 0], int(stairs.first[0]), int(stairs.direction[0])
    codes, cells = np.empty(y.shape, stairs.first.dtype), np.empty_like(y)
    h, before, c = h.copy(), np.ones((count, 4 * hidden), np.float32), np.ascontiguousarray(c)
    for t, a in enumerate(gates):
        if t == 0 and from_zeros:
            a *= scale
        else:
            rows.step(h, before, edges, first, direction, scale, codes[t], a)
            states.append(codes[t])
        np.tanh(a, out=a)
        kernels.gates.cell(a, scale, shift, c, cells[t])
        h, before, c = y[t], a, cells[t]
        np.tanh(c, out=h)
    h *= before[:, 3 * hidden :]
    return h.copy(), c


@cache
def _squashing(hidden: int) -> tuple[Array, Array]:
    """½ and ½ for each gate that is a σ, 1 and 0 for the one that is a tanh."""
    is_sigmoid = np.repeat([True, True, False, True], hidden)
    return np.where(is_sigmoid, 0.5, 1).astype(np.float32), np.where(is_sigmoid, 0.5, 0).astype(np.float32)


def advance(a: Array, c: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """One step from the gates' sums (N, 4·hidden), which are overwritten, and the cell: the new state and cell.

    >>> h, c = advance(np.zeros((1, 4), np.float32), np.ones((1, 1), np.float32), *_squashing(1))
    >>> c.tolist()
    [[0.5]]
    """
    hidden = a.shape[1] // 4
    a *= scale
    np.tanh(a, out=a)
    a *= scale
    a += shift  # σ(x) = ½ + ½ · tanh(x/2)
    kept = a[:, hidden : 2 * hidden] * c
    kept += a[:, :hidden] * a[:, 2 * hidden : 3 * hidden]
    return a[:, 3 * hidden :] * np.tanh(kept), kept


def _multiply(layer: Layer, name: str, x: Coded | None) -> Callable[..., Array]:
    """The product with one of the two weights: alone, or added to a second argument."""
    weight = layer.coded.get(name)
    if weight is not None and x is not None and integer(weight, x):
        return _OnCodes(weight, x)
    values = layer.numbers[name] if weight is None else weight.values()

    def run(given: Array, to: Array | None = None) -> Array:
        real = given if x is None else x.quantizer.decode(given, x.params)
        rows = kernels.gemm.matmul(real.reshape(-1, real.shape[-1]), values.T)
        y = rows.reshape(*real.shape[:-1], len(values))
        return y if to is None else np.add(to, y, out=to)

    return run


class _OnCodes:
    """A product of codes; for a few rows by the kernel that was made for them."""

    def __init__(self, weight: Coded, x: Coded) -> None:
        self.product = Product(weight, x)
        kinds, bits = (kind(weight.quantizer), kind(x.quantizer)), weight.quantizer.bits * x.quantizer.bits
        most = kernels.fastest.PAIRS["few", True]
        self.few = self.product.single and not {"power", "residual"} & set(kinds) and bits <= most

    def serves(self, rows: int) -> bool:
        """Is the kernel for a few rows the one to take?"""
        return self.few and rows <= kernels.fastest.FEW_ROWS and not kernels.use_reference()

    @cached_property
    def rows(self) -> Any:
        weight, x = self.product.weight.quantizer, self.product.x.quantizer
        return kernels.gates.BitRows(
            self.product.codes, weight.bits, kind(weight), x.bits, kind(x), self.product.factor
        )

    def __call__(self, codes: Array, to: Array | None = None) -> Array:
        count = codes.size // codes.shape[-1]
        if not self.serves(count):
            y = self.product(codes)
            return y if to is None else np.add(to, y, out=to)
        if to is not None:
            return self.rows(codes, to)
        rows = np.ascontiguousarray(codes).reshape(count, -1)
        return self.rows(rows).reshape(*codes.shape[:-1], -1)


def _encoder(coded: Coded | None) -> Callable[[Array], Array]:
    """How a state becomes what it is multiplied as."""
    if coded is None:
        return lambda h: h
    return FloatStairs(coded) if coded.quantizer.axis is None else coded.encode


def _shape(layer: Layer, name: str) -> tuple[int, ...]:
    found = layer.coded[name].codes if name in layer.coded else layer.numbers[name]
    assert found is not None
    return found.shape


def _value(values: dict[str, Any], port: Any) -> Array:
    found = values[port.vertex]
    return found[port.output] if isinstance(found, tuple) else found
