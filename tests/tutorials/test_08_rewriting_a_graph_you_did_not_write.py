"""Answers to the exercises of tutorials/08_rewriting_a_graph_you_did_not_write.md."""

from __future__ import annotations

import numpy as np

import tinyqnn as tq
from tinyqnn import nn


def test_1_a_pattern_leaves_the_image_as_it_is(page):
    names = page("08")
    # The first pattern that fits counts; None means float.
    quantized = tq.graph.generate(
        names["model"], names["images"], weights="C-3", activations={"stem": None, "*": "C-3"}
    )
    everywhere = {vertex.name for vertex in names["quantized"].graph.quantizers()}
    assert everywhere - {vertex.name for vertex in quantized.graph.quantizers()} == {"stem.quant.input"}


def test_2_a_shared_weight_gets_a_vertex_on_each_edge_and_is_stored_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 6, bias=False, rng=np.random.default_rng(0))

        def forward(self, x):
            return self.one(self.one(x))

    quantized = tq.graph.generate(Shared(), np.ones((2, 6)), weights="C-4")
    weights = [slot for slot in quantized.quantizers() if slot.role == "weights"]
    assert len(weights) == 2  # one an edge: each could be given a scheme of its own
    counted = tq.graph.cost(quantized)
    assert len(counted.stored()) == 1
    assert counted.bytes == 6 * 6 * 4 // 8 + 4  # codes of 4 bits, and one scale
    # Two schemes would be two sets of codes.
    weights[1].put(tq.quant.WeightQuantizer("C-2"))
    assert len(tq.graph.cost(quantized).stored()) == 2


def test_3_a_quantized_network_without_its_quantizers_is_the_network(page):
    names = page("08")
    model, images = names["model"], tq.Tensor(names["images"])
    quantized = tq.graph.generate(model, names["images"], weights="C-2", activations="C-2")
    assert not np.array_equal(quantized(images).data, model(images).data)
    plain = quantized.without_quantizers()
    assert np.array_equal(plain(images).data, model(images).data)
    assert plain.graph == names["graph"]
    assert list(plain.state_dict()) == list(model.state_dict())


def test_the_state_is_rounded_once_a_word_but_the_first(page):
    names = page("08")
    reader = names["quantized_reader"]
    hidden = dict(reader.named_quantizers())["lstm.quant.hidden"].module
    for length in (1, 2, 7):
        before = int(hidden.batches)
        reader(np.zeros((length, 3), int))
        assert int(hidden.batches) - before == length - 1
