"""An LSTM on codes: the inputs' share of the gates in one product, then a product of the state's codes every step.

gates = s_x·(Wx codes) + b_ih + b_hh + s_h·(Wh codes)       the sums of codes exact, the rest float32 as the model does
i, f, o = σ,  g = tanh,  c ← f·c + i·g,  h ← o·tanh(c),  and h is encoded again
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.deploy.layers import Layer
from tinyqnn.deploy.product import Product, integer
from tinyqnn.deploy.stairs import FloatStairs
from tinyqnn.functional.recurrent import advance, bias_of, forward, of_inputs
from tinyqnn.quant.whole import Coded, kind

Array = np.ndarray


def run_lstm(layer: Layer, x: Coded | None) -> Callable[[dict[str, Any], list[int]], None]:
    """The step of the engine that runs an LSTM layer; `x` is the scheme of its input's codes, if they are codes."""
    hidden, sources = layer.coded.get("hidden"), layer.arguments
    inputs, size = (_shape(layer, name)[1] for name in ("weight_ih", "weight_hh"))
    walk = _on_numbers(layer, x) if hidden is None else _on_codes(layer, x, hidden)

    def step(values: dict[str, Any], lengths: list[int]) -> None:
        x, h, c = (_value(values, port) for port in sources)
        if x.ndim != 3 or x.shape[2] != inputs or not h.shape == c.shape == (x.shape[1], size):
            raise ValueError(
                f"{layer.name} takes (T, N, {inputs}) and states (N, {size}), got {x.shape}, {h.shape}, {c.shape}"
            )
        outputs, cells = (np.empty((len(x) + 1, x.shape[1], size), np.float32) for _ in range(2))
        outputs[0], cells[0] = h, c
        values[f"{layer.name}/states"] = walk(x, outputs, cells)
        values[layer.name] = (outputs[1:], outputs[-1].copy(), cells[-1].copy())

    return step


# All steps: (x, outputs, cells), of which [0] of the last two are given -> the codes of the states, if there are any.
Walk = Callable[[Array, Array, Array], Any]


def _on_numbers(layer: Layer, x: Coded | None) -> Walk:
    """The state is not encoded: the model's own steps."""
    of_input, weight, bias = _multiply(layer, "weight_ih", x), _values(layer, "weight_hh"), _bias(layer)
    return lambda x, outputs, cells: forward(of_input(x), bias, weight, outputs, cells)


def _on_codes(layer: Layer, x: Coded | None, hidden: Coded) -> Walk:
    """Each state is encoded before it is multiplied. Zeros to start from are not, for a scheme may have no 0."""
    of_input, of_state, bias = _multiply(layer, "weight_ih", x), _multiply(layer, "weight_hh", hidden), _bias(layer)
    encode = FloatStairs(hidden) if hidden.quantizer.axis is None else hidden.encode
    from_zeros = layer.options["from_zeros"]

    def walk(x: Array, outputs: Array, cells: Array) -> Array:
        states = np.empty((len(x), *outputs.shape[1:]), hidden.quantizer.alphabet.dtype)
        if isinstance(of_state, _OnCodes) and of_state.serves(x.shape[1]) and isinstance(encode, FloatStairs):
            shares, unit = of_input.sums(x) if isinstance(of_input, _OnCodes) else (of_input(x), np.ones(len(bias)))
            of_state.rows.steps(shares, unit, bias, encode, from_zeros, states, outputs, cells)
            return states[from_zeros:]
        for t, a in enumerate(of_input(x)):  # (T, N, in) -> (T, N, 4·hidden)
            a += bias
            if t > 0 or not from_zeros:
                states[t] = encode(outputs[t])
                of_state(states[t], a)
            advance(a, cells[t], cells[t + 1], outputs[t + 1])
        return states[from_zeros:]

    return walk


def _bias(layer: Layer) -> Array:
    """Both biases in one."""
    size = _shape(layer, "weight_hh")[0]
    return bias_of([layer.numbers.get(name) for name in ("bias_ih", "bias_hh")], size, np.dtype(np.float32))


def _multiply(layer: Layer, name: str, x: Coded | None) -> Callable[..., Array]:
    """The product with one of the two weights: alone, or added to a second argument."""
    weight = layer.coded.get(name)
    if weight is not None and x is not None and integer(weight, x):
        return _OnCodes(weight, x)
    values = _values(layer, name)

    def run(given: Array, to: Array | None = None) -> Array:
        real = given if x is None else x.quantizer.decode(given, x.params)
        if to is None:
            return of_inputs(real, values)
        return np.add(to, kernels.gemm.matmul(real, kernels.gemm.packed(values.T)), out=to)  # as the model's own steps

    return run


class _OnCodes:
    """A product of codes; for a few rows by the kernel that was made for them."""

    def __init__(self, weight: Coded, x: Coded) -> None:
        self.product = Product(weight, x)
        kinds, bits = (kind(weight.quantizer), kind(x.quantizer)), weight.quantizer.bits * x.quantizer.bits
        most = kernels.fastest.PAIRS["few", True]
        self.few = self.product.rounding.single and not {"power", "residual"} & set(kinds) and bits <= most

    def serves(self, rows: int) -> bool:
        """Is the kernel for a few rows the one to take?"""
        return self.few and rows <= kernels.fastest.FEW_ROWS and not kernels.use_reference()

    @cached_property
    def rows(self) -> Any:
        weight, x = self.product.weight.quantizer, self.product.x.quantizer
        return kernels.gates.BitRows(
            self.product.codes, weight.bits, kind(weight), x.bits, kind(x), self.product.rounding.factors[0]
        )

    def sums(self, codes: Array) -> tuple[Array, Array]:
        """Whole numbers and what one is worth, (outputs,) float64; or real numbers and ones."""
        if not self.product.rounding.single or self.serves(codes.size // codes.shape[-1]):
            return self(codes), np.ones(self.product.outputs)
        return self.product.sums(codes), self.product.rounding.factors[0]

    def __call__(self, codes: Array, to: Array | None = None) -> Array:
        count = codes.size // codes.shape[-1]
        if not self.serves(count):
            y = self.product(codes)
            return y if to is None else np.add(to, y, out=to)
        if to is not None:
            return self.rows(codes, to)
        rows = np.ascontiguousarray(codes).reshape(count, -1)
        return self.rows(rows).reshape(*codes.shape[:-1], -1)


def _values(layer: Layer, name: str) -> Array:
    """A weight as real numbers."""
    return layer.coded[name].values() if name in layer.coded else layer.numbers[name]


def _shape(layer: Layer, name: str) -> tuple[int, ...]:
    found = layer.coded[name].codes if name in layer.coded else layer.numbers[name]
    assert found is not None
    return found.shape


def _value(values: dict[str, Any], port: Any) -> Array:
    found = values[port.vertex]
    return found[port.output] if isinstance(found, tuple) else found
