"""One definition of bits: averages by elements, bytes as packed, operations at their widths."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graph_networks import make

import tinyqnn as tq
from tinyqnn import nn
from tinyqnn.graph.cost import average_bits, cost

VGG_CONV = [3 * 64, 64 * 64, 64 * 128, 128 * 128, 128 * 256, 256 * 256]
FC7 = 4096 * 1024


def test_the_averages_that_autoqnn_prints_for_vgg_like():
    weights = [9 * n for n in VGG_CONV] + [FC7]
    assert round(average_bits([7, 8, 6, 6, 7, 5, 2], weights), 2) == 2.82
    outputs = [64 * 32 * 32] * 2 + [128 * 16 * 16] * 2 + [256 * 8 * 8] * 2 + [1024]
    assert round(average_bits([2, 3, 3, 4, 5, 4, 6], outputs), 2) == 3.08


def test_the_average_that_autoqnn_prints_for_alexnet():
    conv2_to_5 = [25 * 96 * 256, 9 * 256 * 384, 9 * 384 * 384, 9 * 384 * 256]
    assert round(average_bits([4, 4, 4, 4, 2, 2], [*conv2_to_5, 9216 * 4096, 4096 * 4096]), 2) == 2.13


def test_the_average_of_nothing_is_0_and_lengths_must_match():
    assert average_bits([], []) == 0.0
    with pytest.raises(ValueError, match="zip"):
        average_bits([1, 2], [3])


def by_name(quantized):
    return {layer.name: layer for layer in cost(quantized).layers}


def test_elements_and_operations_are_those_of_one_sample_whatever_the_batch():
    model, draw = make("conv")
    for batch in (1, 2, 5):
        layers = by_name(tq.graph.generate(model, draw(batch), "C-3", "C-4"))
        assert layers["conv"].elements("weights") == 4 * 2 * 9
        assert layers["conv"].elements("activations") == 2 * 6 * 6
        assert layers["conv"].operations == 4 * 6 * 6 * (2 * 9)
        assert layers["fc"].operations == 36 * 5
        assert layers["conv"].bit_operations == 4 * 6 * 6 * (2 * 9) * 3 * 4


def test_operations_of_groups_strides_and_sequences():
    model, draw = make("separable")
    layers = by_name(tq.graph.generate(model, draw(2)))
    assert layers["depthwise"].operations == 4 * 8 * 8 * 9
    assert layers["grouped"].operations == 4 * 4 * 4 * (3 * 9)
    model, draw = make("residual")
    assert by_name(tq.graph.generate(model, draw(2)))["shortcut.0"].operations == 4 * 3 * 3 * 2
    model, draw = make("words")
    layers = by_name(tq.graph.generate(model, draw(3, t=5), "C-2", "C-3", batch_axis=1))
    assert layers["lstm"].operations == 5 * (4 * 4) * (3 + 4)
    assert layers["lstm"].elements("activations") == 5 * 3 + 5 * 4  # the input, and the state at every step
    assert layers["embedding"].operations == 0
    assert layers["decoder"].operations == 5 * 4 * 11


def test_bytes_are_codes_in_whole_bytes_scales_and_what_stays_float():
    model, draw = make("conv")
    quantized = tq.graph.generate(model, draw(2), weights={"conv": "C-3", "fc": "Q-2"})
    counted, layers = cost(quantized), by_name(quantized)
    assert layers["conv"].weight_bytes == 72 * 3 // 8 + 4
    assert layers["fc"].weight_bytes == 180 * 2 // 8 + 4
    biases, norm = 4 + 5, 4 * 4
    assert counted.float_bytes == 4 * (biases + norm)
    assert counted.bytes == 31 + 49 + counted.float_bytes
    assert counted.float32_bytes == 4 * (72 + 180 + biases + norm) == 2 * counted.float16_bytes
    odd = tq.graph.generate(nn.Linear(3, 1, bias=False), np.eye(3, dtype=np.float32), "C-3")
    assert cost(odd).bytes == 2 + 4


def test_scales_per_channel_and_per_bit_are_counted():
    x = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    layer = nn.Linear(8, 16, bias=False)
    for quantizer, scales in (
        (tq.quant.ClipQ(bits=2), 1),
        (tq.quant.ClipQ(bits=2, axis=0), 16),
        (tq.quant.ResQ(bits=2), 2),
    ):
        assert cost(tq.graph.generate(layer, x, quantizer)).bytes == 8 * 16 * 2 // 8 + 4 * scales


def test_a_shared_weight_is_stored_once_if_it_is_quantized_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8, bias=False)

        def forward(self, x):
            return self.fc(self.fc(x))

    x = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    assert cost(tq.graph.generate(Twice(), x)).bytes == cost(tq.graph.generate(Twice(), x)).float32_bytes == 256
    assert cost(tq.graph.generate(Twice(), x, "C-3")).bytes == 24 + 4
    assert cost(tq.graph.generate(Twice(), x, {"fc": "C-3", "fc:2": "C-2"})).bytes == 24 + 4 + 16 + 4
    assert cost(tq.graph.generate(Twice(), x, "C-3")).float32_bytes == 256


def test_what_is_in_the_slots_now_is_counted():
    model, draw = make("dense")
    quantized = tq.graph.generate(model, draw(2), "C-3", "C-3")
    assert cost(quantized).operations_by_width == {"W3A3": 3 * 6 + 36 + 36}
    for slot in quantized.quantizers():
        slot.module.scheme = tq.quant.scheme("C-2" if slot.role == "weights" else "C-4")
    assert cost(quantized).operations_by_width == {"W2A4": 3 * 6 + 36 + 36}

    class Bare(nn.Module):
        pass

    next(quantized.quantizers()).put(Bare())
    with pytest.raises(ValueError, match=r"Bare in a quantizing vertex has no \.bits"):
        cost(quantized)


def test_averages_weigh_by_elements_and_leave_out_what_is_kept():
    model, draw = make("dense")
    quantized = tq.graph.generate(model, draw(2), weights={"layers.0": "C-8", "layers.1": "C-2"}, activations="C-4")
    assert cost(quantized).average_bits("weights") == (18 * 8 + 36 * 2) / 54
    assert cost(quantized).average_bits("activations") == 4
    assert cost(tq.graph.generate(model, draw(2))).average_bits("weights") == 32


def test_the_table_has_a_row_a_layer_fits_a_hundred_columns_and_says_what_json_says():
    model = tq.graph.generate(tq.nn.Sequential(*deep_names(6)), np.eye(64, dtype=np.float32), "C-3", "C-4", keep="last")
    summary = tq.graph.summary(model)
    lines = str(summary).split("\n")
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line.startswith(("0.", "1", "…"))]
    told = json.loads(summary.to_json())
    assert told == {"rows": summary.rows, "totals": summary.totals}
    assert [row["weights"] for row in told["rows"]] == ["C-3"] * 6 + ["float"]
    assert [row["weight_bits"] for row in told["rows"]] == [3] * 6 + [32]
    assert sum(row["bytes"] for row in told["rows"]) + told["totals"]["float_bytes"] == told["totals"]["bytes"]
    (total,) = [line for line in lines if line.startswith("total")]
    assert f"{told['totals']['bytes']:,}" in total
    assert "3/4" in total
    smaller = told["totals"]["float32_bytes"] / told["totals"]["bytes"]
    assert f"{smaller:.1f}× smaller than float32" in lines[-2]


def deep_names(depth):
    """Layers whose dotted names are too long for any table."""
    inner = nn.Sequential()
    layers = [nn.Linear(64, 64) for _ in range(depth)]
    for index, layer in enumerate(layers):
        inner.add_module(f"a_layer_with_a_name_that_goes_on_and_on_and_on_for_eighty_letters_or_more_{index}", layer)
    return inner, nn.Linear(64, 1000)


def test_a_float_model_has_a_table_too_and_wants_an_example_for_it():
    model, draw = make("residual")
    summary = tq.graph.summary(model, draw(2))
    assert {row["weights"] for row in summary.rows} == {"float"}
    assert summary.totals["bytes"] == summary.totals["float32_bytes"]
    assert list(summary.totals["operations_by_width"]) == ["float"]
    with pytest.raises(TypeError, match="Residual has not been traced; pass an example"):
        tq.graph.summary(model)


def test_a_network_without_expensive_layers_has_an_empty_table():
    summary = tq.graph.summary(nn.ReLU(), np.zeros((1, 2), np.float32))
    assert summary.rows == []
    assert "no multiply-accumulates" in str(summary)
