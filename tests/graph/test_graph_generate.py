"""QAG (AutoQNN, algorithm 1): a vertex on every edge into an expensive vertex, and nothing else touched."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from graph_networks import Identity, Random, make
from hypothesis import example, given

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn import nn
from tinyqnn.functional.conv import Linear
from tinyqnn.graph.generate import EXPENSIVE, quantize_edges
from tinyqnn.graph.vertices import Edge, Graph, Vertex

plans = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=25)
SHARED = [(0, 0, 0), (2, 0, 0), (0, 1, 0), (4, 2, 3)]  # a tied weight, a reused module, a branch that comes together


def network(plan):
    rng = np.random.default_rng(len(plan))
    return Random(plan, rng), rng.normal(size=(3, 4)).astype(np.float32)


def into_expensive(graph):
    """The in-edges of expensive vertices: what they multiply."""
    return [edge for edge in graph.edges if edge.argument in EXPENSIVE.get(graph[edge.target].function, {})]


@given(plans)
@example(SHARED)
def test_quantizing_vertices_are_as_many_as_the_edges_into_expensive_vertices(plan):
    model, x = network(plan)
    graph = tq.graph.trace(model, x)
    quantized = tq.graph.generate(model, x, weights="C-3", activations="C-3").graph
    edges = into_expensive(graph)
    assert len(list(quantized.quantizers())) == len(edges)
    assert len(quantized.vertices) == len(graph.vertices) + len(edges)
    assert len(quantized.edges) == len(graph.edges) + len(edges)
    for edge in into_expensive(quantized):
        assert quantized[edge.source].kind == "quantizer"
    for vertex in quantized.quantizers():
        (before,), (after,) = quantized.in_edges(vertex.name), quantized.out_edges(vertex.name)
        assert Edge(before.source, after.target, after.argument, before.output) in edges


@given(plans)
@example(SHARED)
def test_taking_the_vertices_out_gives_the_old_graph_back(plan):
    model, x = network(plan)
    graph = tq.graph.trace(model, x)
    quantized = tq.graph.generate(model, x, weights="C-3", activations="C-3")
    assert quantized.graph.without_quantizers() == graph
    assert (quantized.graph == graph) is (not into_expensive(graph))


@given(plans)
@example(SHARED)
def test_identity_quantizers_change_no_bit(plan):
    model, x = network(plan)
    quantized = tq.graph.generate(model, x, weights="C-3", activations="C-3")
    for slot in quantized.quantizers():
        slot.put(Identity())
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    for mode in (True, False):
        expected, found = model.train(mode)(tq.Tensor(x)), quantized.train(mode)(x)
        assert [a.data.tobytes() for a in expected] == [a.data.tobytes() for a in found]


def chain(n):
    """n linear vertices one after the other, each with a weight of its own, and a branch back at each."""
    vertices, edges = [Vertex("x", "input", shapes=((1, 1),), dtypes=(np.dtype("f"),))], []
    for i in range(n):
        vertices.append(Vertex(f"w{i}", "parameter", shapes=((1, 1),), dtypes=(np.dtype("f"),)))
        vertices.append(Vertex(f"v{i}", "operation", Linear, f"v{i}", ((1, 1),), (np.dtype("f"),)))
        edges += [Edge(f"v{i - 1}" if i else "x", f"v{i}", 0), Edge(f"w{i}", f"v{i}", 1)]
    return Graph(vertices, edges)


@pytest.mark.parametrize("n", [10, 1000, 50_000])
def test_every_edge_is_visited_once_up_to_a_hundred_thousand_vertices(n):
    graph, visited = chain(n), []

    def role_of(edge):
        visited.append(edge)
        return ("weights", "weight") if edge.argument == 1 else None

    quantized = quantize_edges(graph, role_of)
    assert len(graph) == 2 * n + 1
    assert visited == graph.edges
    assert len(quantized) == 3 * n + 1


def test_an_edge_each_for_what_is_used_twice():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = model[0], model[1]

        def forward(self, x):
            return self.a(x) + self.b(x) + self.a(F.relu(x))

    quantized = tq.graph.generate(Twice(), np.eye(4, dtype=np.float32), "C-3", "C-3")
    assert [name for name, _ in quantized.named_quantizers()] == [
        "a.quant.input", "a.quant.weight", "b.quant.input", "b.quant.weight", "a.quant.input:2", "a.quant.weight:2",
    ]  # fmt: skip


def schemes(quantized):
    return {name: slot.module.scheme.notation for name, slot in quantized.named_quantizers()}


def test_keep_leaves_first_last_and_named_vertices_float():
    model, draw = make("residual")
    x = draw(2)
    layers = ["conv1", "conv2", "shortcut.0", "fc"]

    def fed(**options):
        return [slot.feeds for slot in tq.graph.generate(model, x, "C-3", "C-3", **options).quantizers()][::2]

    assert fed() == layers
    assert fed(keep=("first", "last")) == ["conv2", "shortcut.0"]
    assert fed(keep="shortcut.0") == ["conv1", "conv2", "fc"]
    assert fed(keep=layers) == []


def test_one_side_alone_and_none_at_all():
    model, draw = make("dense")
    only = tq.graph.generate(model, draw(2), weights="P-3")
    assert {slot.role for slot in only.quantizers()} == {"weights"}
    only = tq.graph.generate(model, draw(2), activations="C-4")
    assert {slot.role for slot in only.quantizers()} == {"activations"}
    assert tq.graph.generate(model, draw(2)).graph == tq.graph.trace(model, draw(2))


def test_schemes_by_name_and_pattern_the_first_that_fits_counts():
    model, draw = make("dense")
    weights = {"layers.1": "P-4", "layers.2": None, "layers.*": "T-2"}
    quantized = tq.graph.generate(model, draw(2), weights=weights, activations={"layers.0": "F-8"})
    assert schemes(quantized) == {
        "layers.0.quant.input": "F-8",
        "layers.0.quant.weight": "T-2",
        "layers.1.quant.weight": "P-4",
    }


def test_an_lstm_and_an_embedding_are_expensive_vertices():
    model, draw = make("words")
    quantized = tq.graph.generate(model, draw(2), "C-3", "C-3")
    slots = {slot.name: slot.role for slot in quantized.quantizers() if slot.feeds in ("embedding", "lstm", "lstm:2")}
    assert slots == {
        "embedding.quant.weight": "weights",
        "lstm.quant.input": "activations", "lstm.quant.hidden": "activations",
        "lstm.quant.weight_ih": "weights", "lstm.quant.weight_hh": "weights",
        "lstm.quant.input:2": "activations", "lstm.quant.hidden:2": "activations",
        "lstm.quant.weight_ih:2": "weights", "lstm.quant.weight_hh:2": "weights",
    }  # fmt: skip


def test_products_of_activations_are_expensive_if_asked():
    class Attend(nn.Module):
        def forward(self, x):
            return F.softmax(x @ x.transpose(1, 2)) @ x

    from tinyqnn.tensor import MatMul

    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    both = {MatMul: {0: ("activations", "left"), 1: ("activations", "right")}}
    quantized = tq.graph.generate(Attend(), x, activations="C-4", expensive=both)
    assert len(list(quantized.quantizers())) == 4


def test_after_relu_schemes_of_few_signed_levels_are_refused_by_the_quantizer():
    model, draw = make("dense")
    with pytest.raises(ValueError, match=r"layers\.1\.quant\.input: B-1 is symmetric"):
        tq.graph.generate(model, draw(2), activations="B-1")
    assert tq.graph.generate(model, draw(2), activations={"layers.0": "T-2"})  # the input itself may be negative


@pytest.mark.parametrize(
    ("kind", "known"), [("conv", {"fc"}), ("residual", {"conv2", "fc"}), ("separable", {"grouped"})]
)
def test_what_is_never_negative_is_known_through_pooling_dropout_sums_and_reshaping(kind, known):
    """Tried on the numbers: an input known not to be negative is none, and the others are."""
    from tinyqnn.graph.generate import not_negative

    model, draw = make(kind)
    graph = tq.graph.trace(model, draw(2))
    positive = not_negative(graph)
    assert {edge.target for edge in into_expensive(graph) if edge.source in positive} == known


def test_averages_start_from_the_example_unless_it_is_a_mere_shape():
    model, draw = make("conv")
    x = draw(3)
    assert np.isfinite(tq.graph.generate(model, x, "C-3", "C-3").eval()(x).data).all()
    bare = tq.graph.generate(model, np.zeros((1, 2, 6, 6), np.float32), "C-3", "C-3")
    with pytest.raises(RuntimeError, match="has seen no batch"):
        bare.eval()(x)
    bare.train()(x)
    bare.eval()(x)


def test_a_quantizer_given_is_copied_to_every_slot():
    model, draw = make("dense")
    given_one = tq.quant.ClipQ(bits=3, axis=0)
    quantized = tq.graph.generate(model, draw(2), weights=given_one)
    in_slots = [slot.module.scheme for slot in quantized.quantizers()]
    assert len({id(q) for q in [given_one, *in_slots]}) == 4
    assert all(q.axis == 0 for q in in_slots)


def test_slots_tell_what_searches_need_and_take_another_module_without_touching_the_graph():
    model, draw = make("conv")
    quantized = tq.graph.generate(model, draw(4), "C-3", "C-3")
    slots = dict(quantized.named_quantizers())
    assert [(s.role, s.elements, s.feeds) for s in slots.values()] == [
        ("activations", 2 * 36, "conv"), ("weights", 4 * 2 * 9, "conv"),
        ("activations", 36, "fc"), ("weights", 36 * 5, "fc"),
    ]  # fmt: skip
    graph, mine = quantized.graph, tq.quant.WeightQuantizer("T-2")
    slots["conv.quant.weight"].put(mine)
    assert quantized.graph is graph
    assert quantized.conv.quant.weight is mine
    with pytest.raises(TypeError, match="takes a Module, got str"):
        slots["conv.quant.weight"].put("T-2")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": ("third",)}, "keep: 'third' is no expensive vertex; there are first, last, layers.0, layers.1"),
        ({"weights": {"conv*": "C-3"}}, r"weights: 'conv\*' fits no expensive vertex; there are layers.0"),
        ({"weights": "C-9"}, "unknown scheme 'C-9'"),
        ({"activations": {"layers.0": "X-1"}}, "unknown scheme 'X-1'"),
    ],
)
def test_what_does_not_fit_is_named(options, says):
    model, draw = make("dense")
    with pytest.raises(ValueError, match=says):
        tq.graph.generate(model, draw(2), **options)


def test_quantizing_twice_is_refused():
    model, draw = make("dense")
    quantized = tq.graph.generate(model, draw(2), "C-3")
    with pytest.raises(ValueError, match="has quantizing vertices already"):
        tq.graph.generate(quantized, draw(2), "C-3")
    again = tq.graph.generate(quantized.without_quantizers(), draw(2), "P-3", "C-3")
    assert len(list(again.quantizers())) == 6


def test_a_child_that_is_called_quant_already_is_not_overwritten():
    class Taken(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)
            self.quant = nn.ReLU()

        def forward(self, x):
            return self.quant(super().forward(x))

    with pytest.raises(ValueError, match="has a child named 'quant' of its own"):
        tq.graph.generate(nn.Sequential(Taken()), np.eye(3, dtype=np.float32), "C-3")


class LastState(nn.Module):
    """Reads a sequence and decides by the last state: output number 1 of the LSTM layer."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        _, (h, c) = self.lstm(x)
        return self.fc(h[0]), self.fc(c.reshape(-1, 4))


def test_a_second_output_that_is_quantized_is_still_the_second_without():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = nn.LSTM(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            weights = [(self.lstm.weight_ih_l0, self.lstm.weight_hh_l0, None, None)]
            from tinyqnn.functional.recurrent import LSTMLayer

            zeros = np.zeros((x.shape[1], 4), np.float32)
            return self.fc(LSTMLayer.apply(x, zeros, zeros, *weights[0])[1])

    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    for model in (LastState(), Direct()):
        quantized = tq.graph.generate(model, x, "C-3", "C-3")
        assert quantized.graph.without_quantizers() == tq.graph.trace(model, x)
    (edge,) = quantized.graph.in_edges("fc.quant.input")
    assert (edge.source, edge.output) == ("lstmlayer", 1)


def test_a_sum_with_one_signed_part_may_be_negative():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(F.relu(x) + x), self.fc(F.relu(x) + 1.0)

    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert tq.graph.generate(Sum(), x, activations={"fc": "T-2"})
    with pytest.raises(ValueError, match=r"fc\.quant\.input: T-2 is symmetric"):
        tq.graph.generate(Sum(), x, activations={"fc:2": "T-2"})
