"""Where did the bits go? A row a layer: its shape, its schemes, its bytes, and the width its products run at.

Bytes are those of the packed codes and their scales (`graph.cost`); in training all weights are float.
"""

from __future__ import annotations

import json
from typing import Any

from tinyqnn.graph.cost import FLOAT_BITS, LayerCost, ModelCost, cost
from tinyqnn.graph.generate import generate
from tinyqnn.graph.replay import GraphModule
from tinyqnn.nn import Module

HEAD = ("layer", "shape", "weights", "activations", "bits W/A", "bytes", "float32", "operations")
WIDEST = 100


class Summary:
    """The table: `print` it, take its `rows` and `totals`, or `to_json()`.

    rows     a dictionary a layer: layer, function, shape, weights, activations (schemes), weight_bits,
             activation_bits, weight_elements, activation_elements (for one sample), bytes, float32_bytes, operations
             (multiply-accumulates for one sample), operations_by_width, bit_operations
    totals   weight_bits and activation_bits (averages by elements, AutoQNN eq. (6), over what is quantized; layers that
             were kept float do not count), parameters (with batch norm's averages), bytes, bits_per_parameter (all of
             the bytes over all parameters), float_bytes (biases, batch norm), float32_bytes, float16_bytes,
             times_smaller_than_float32 and _float16, operations, operations_by_width, bit_operations

    >>> from tinyqnn import graph, nn
    >>> table = summary(graph.generate(nn.Linear(4, 3), np.ones((2, 4), np.float32), weights="C-2"))
    >>> table.rows[0]["weights"], table.totals["weight_bits"]
    ('C-2', 2.0)
    """

    def __init__(self, counted: ModelCost) -> None:
        self.cost = counted
        self.rows = [_row(layer) for layer in counted.layers]
        size = max(counted.bytes, 1)
        self.totals: dict[str, Any] = {
            "weight_bits": counted.average_bits("weights"),
            "activation_bits": counted.average_bits("activations"),
            "parameters": counted.float32_bytes // 4,
            "bits_per_parameter": 8 * counted.bytes / max(counted.float32_bytes // 4, 1),
            "bytes": counted.bytes,
            "float_bytes": counted.float_bytes,
            "float32_bytes": counted.float32_bytes,
            "float16_bytes": counted.float16_bytes,
            "times_smaller_than_float32": counted.float32_bytes / size,
            "times_smaller_than_float16": counted.float16_bytes / size,
            "operations": sum(layer.operations for layer in counted.layers),
            "operations_by_width": counted.operations_by_width,
            "bit_operations": counted.bit_operations,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Rows and totals as JSON text."""
        return json.dumps({"rows": self.rows, "totals": self.totals}, indent=indent)

    def __str__(self) -> str:
        total, rest = self.totals, self.cost.float_bytes
        table = [HEAD, *[_cells(layer) for layer in self.cost.layers]]
        if rest:
            table.append(("biases, norms", f"{rest // 4:,}", "float", "", "32", f"{rest:,}", f"{rest:,}", ""))
        bits = _bits(total["weight_bits"], total["activation_bits"])
        sizes = f"{total['bytes']:,}", f"{total['float32_bytes']:,}", _si(total["operations"])
        table.append(("total", f"{total['parameters']:,}", "", "", bits, *sizes))
        widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
        widths[0] = max(min(widths[0], WIDEST - sum(widths[1:]) - 2 * len(widths[1:])), 12)
        lines = [
            "  ".join(
                cell.rjust(width) if i >= 5 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip((_short(row[0], widths[0]), *row[1:]), widths))
            ).rstrip()
            for row in table
        ]
        rule = "─" * max(map(len, lines))
        by_width = " + ".join(f"{_si(n)} {name}" for name, n in total["operations_by_width"].items())
        return "\n".join(
            [
                lines[0],
                rule,
                *lines[1:-1],
                rule,
                lines[-1],
                f"packed     {_bytes(total['bytes'])}, {total['times_smaller_than_float32']:.1f}× smaller than float32 "
                f"({_bytes(total['float32_bytes'])}), {total['times_smaller_than_float16']:.1f}× than float16 "
                f"({_bytes(total['float16_bytes'])})",
                f"a sample   {by_width or 'no'} multiply-accumulates, {_si(total['bit_operations'])} bit operations",
            ]
        )

    __repr__ = __str__


def summary(model: Module, example: Any = None, batch_axis: int = 0) -> Summary:
    """The table of a network made by `generate`; or of any other Module, given an `example` to trace it with.

    Raises TypeError for a Module that was not traced and comes without an example.

    >>> import numpy as np
    >>> from tinyqnn import nn
    >>> print(summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), np.zeros((1, 4))))
    layer          shape  weights  activations  bits W/A  bytes  float32  operations
    ────────────────────────────────────────────────────────────────────────────────
    0              4→3    float    float        32/32        48       48          12
    biases, norms  3      float                 32           12       12
    ────────────────────────────────────────────────────────────────────────────────
    total          15                           32/32        60       60          12
    packed     60 B, 1.0× smaller than float32 (60 B), 0.5× than float16 (30 B)
    a sample   12 float multiply-accumulates, 12.3 k bit operations
    """
    if not isinstance(model, GraphModule):
        if example is None:
            raise TypeError(f"{type(model).__name__} has not been traced; pass an example: summary(model, example)")
        model = generate(model, example, batch_axis=batch_axis)
    return Summary(cost(model))


def _row(layer: LayerCost) -> dict[str, Any]:
    by_width: dict[str, int] = {}
    for n, w, a in layer.macs:
        by_width[_width(w, a)] = by_width.get(_width(w, a), 0) + n
    return {
        "layer": layer.name,
        "function": layer.function,
        "shape": list(layer.shape),
        "weights": _schemes(layer, "weights"),
        "activations": _schemes(layer, "activations"),
        "weight_bits": layer.bits("weights"),
        "activation_bits": layer.bits("activations") if layer.of("activations") else None,
        "weight_elements": layer.elements("weights"),
        "activation_elements": layer.elements("activations"),
        "bytes": layer.weight_bytes,
        "float32_bytes": 4 * layer.elements("weights"),
        "operations": layer.operations,
        "operations_by_width": by_width,
        "bit_operations": layer.bit_operations,
    }


def _cells(layer: LayerCost) -> tuple[str, ...]:
    row = _row(layer)
    return (
        layer.name,
        _shape(layer),
        row["weights"],
        row["activations"],
        _bits(row["weight_bits"], row["activation_bits"]),
        f"{row['bytes']:,}",
        f"{row['float32_bytes']:,}",
        _si(row["operations"]) if row["operations"] else "",
    )


def _schemes(layer: LayerCost, role: str) -> str:
    """ "C-3", or "C-3, P-4" where several tensors differ."""
    return ", ".join(dict.fromkeys(operand.scheme for operand in layer.of(role)))


def _bits(weights: float, activations: float | None) -> str:
    return f"{weights:.3g}/{'–' if activations is None else f'{activations:.3g}'}"


def _width(weight_bits: float, activation_bits: float) -> str:
    return "float" if weight_bits == activation_bits == FLOAT_BITS else f"W{weight_bits:g}A{activation_bits:g}"


def _shape(layer: LayerCost) -> str:
    """in→out, and the kernel of a convolution."""
    if layer.function == "Conv2d":
        out, in_per_group, kh, kw = layer.shape
        return f"{in_per_group}→{out} {kh}×{kw}"
    if layer.function == "Embedding":
        return f"{layer.shape[0]:,}×{layer.shape[1]}"
    if layer.function == "LSTMLayer":
        return f"{layer.shape[1]}→{layer.shape[0] // 4}"
    return f"{layer.shape[1]:,}→{layer.shape[0]:,}"


def _si(count: float) -> str:
    """41.6 M"""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 10 * size or (count >= size and unit != "k"):
            return f"{count / size:.1f} {unit}"
    return f"{count:,.0f}"


def _bytes(count: int) -> str:
    """41.6 kB (1 kB is 1,000 bytes)"""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]
