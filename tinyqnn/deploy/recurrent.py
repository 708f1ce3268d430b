"""An LSTM on codes: the inputs' share of the gates in one product, then a product of the state's codes every step.

gates = s_x·(Wx codes) + b_ih + b_hh + s_h·(Wh codes)       the sums of codes exact, the rest float32 as the model does
i, f, o = σ,  g = tanh,  c ← f·c + i·g,  h ← o·tanh(c),  and h is encoded again
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.deploy.layers import Layer
from tinyqnn.deploy.operand import Coded
from tinyqnn.deploy.product import Product, integer
from tinyqnn.deploy.stairs import FloatStairs, few_edges

Array = np.ndarray


def run_lstm(layer: Layer, x: Coded | None) -> Callable[[dict[str, Any], list[int]], None]:
    """The step of the engine that runs an LSTM layer; `x` is the scheme of its input's codes, if they are codes."""
    hidden = layer.coded.get("hidden")
    of_input, of_state = _multiply(layer, "weight_ih", x), _multiply(layer, "weight_hh", hidden)
    encode = _encoder(hidden)
    biases = [layer.numbers[name] for name in ("bias_ih", "bias_hh") if name in layer.numbers]
    sources = layer.arguments
    from_zeros = layer.options["from_zeros"]

    def step(values: dict[str, Any], lengths: list[int]) -> None:
        codes, h, c = (_value(values, port) for port in sources)
        gates = of_input(codes)  # (T, N, in) -> (T, N, 4·hidden)
        for bias in biases:
            gates += bias
        outputs = np.empty((*gates.shape[:2], gates.shape[2] // 4), np.float32)
        states = []
        for t, a in enumerate(gates):
            if not (t == 0 and from_zeros):
                states.append(encode(h))
                a += of_state(states[-1])
            elif hidden is None:
                a += of_state(h)
            h, c = advance(a, c)
            outputs[t] = h
        values[layer.name] = (outputs, h, c)
        values[f"{layer.name}/states"] = states

    return step


def advance(a: Array, c: Array) -> tuple[Array, Array]:
    """One step from the gates' sums (N, 4·hidden) and the cell: the new state and cell.

    >>> h, c = advance(np.zeros((1, 4), np.float32), np.ones((1, 1), np.float32))
    >>> c.tolist()
    [[0.5]]
    """
    hidden = a.shape[1] // 4
    half, is_sigmoid = np.float32(0.5), np.repeat([True, True, False, True], hidden)
    scale, shift = np.where(is_sigmoid, half, 1).astype(a.dtype), np.where(is_sigmoid, half, 0).astype(a.dtype)
    a = np.tanh(a * scale) * scale + shift  # σ(x) = ½ + ½ · tanh(x/2)
    i, f, g, o = (a[:, n * hidden : (n + 1) * hidden] for n in range(4))
    c = f * c + i * g
    return o * np.tanh(c), c


def _multiply(layer: Layer, name: str, x: Coded | None) -> Callable[[Array], Array]:
    """The product with one of the two weights."""
    weight = layer.coded.get(name)
    if weight is not None and integer(weight, x):
        assert x is not None
        return Product(weight, x)
    values = layer.numbers[name] if weight is None else weight.values()

    def run(given: Array) -> Array:
        real = given if x is None else x.quantizer.decode(given, x.params)
        rows = kernels.gemm.matmul(real.reshape(-1, real.shape[-1]), values.T)
        return rows.reshape(*real.shape[:-1], len(values))

    return run


def _encoder(coded: Coded | None) -> Callable[[Array], Array]:
    """How a state becomes what it is multiplied as."""
    if coded is None:
        return lambda h: h
    return FloatStairs(coded) if few_edges(coded) else coded.encode


def _value(values: dict[str, Any], port: Any) -> Array:
    found = values[port.vertex]
    return found[port.output] if isinstance(found, tuple) else found
