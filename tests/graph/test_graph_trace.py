"""A traced graph says what the model does, for any batch, or says why it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from graph_networks import Words, make

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn import nn
from tinyqnn.graph.lengths import Length
from tinyqnn.graph.vertices import Edge, FollowsMode, Graph, Stored, Vertex


class Call(nn.Module):
    """A model out of a plain function, with one Linear(3, 3) to use."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(3, 3), function
        self.register_buffer("mask", np.array([1.0, 0.0, 1.0], np.float32))

    def forward(self, *args):
        return self.function(self, *args)


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 3)).astype(np.float32)


def test_vertices_are_named_after_the_module_that_called_and_biases_belong_to_their_vertex():
    model, draw = make("conv")
    graph = tq.graph.trace(model, draw(2))
    assert [v.name for v in graph if v.kind == "operation"] == [
        "conv", "bn", "relu", "pool", "reshape", "drop", "fc",
    ]  # fmt: skip
    assert [(e.source, e.argument) for e in graph.in_edges("conv")] == [("x", 0), ("conv.weight", 1)]
    assert graph["conv"].held == {2: Stored("conv.bias")}
    assert graph["bn"].options["running_mean"] == Stored("bn.running_mean")
    assert graph["conv"].options["padding"] == (1, 1)


def test_printing_shows_a_line_a_vertex_with_what_flows_in():
    model, draw = make("conv")
    lines = str(tq.graph.trace(model, draw(2))).split("\n")
    assert lines[0] == "11 vertices (1 input, 3 parameter, 7 operation), 10 edges"
    (conv,) = [line for line in lines if line.startswith("conv ")]
    assert "2×4×6×6" in conv
    assert conv.endswith("← x, conv.weight  (+ conv.bias)")


def test_modes_and_lengths_are_kept_as_rules_not_as_what_they_were():
    model, draw = make("conv")
    graph = tq.graph.trace(model, draw(2))
    assert graph["drop"].options["training"] == graph["bn"].options["training"] == FollowsMode()
    batch, features = graph["reshape"].options["shape"]
    assert isinstance(batch, Length)
    assert batch.at([7]) == 7
    assert features == 36


def test_a_product_of_two_lengths_is_understood():
    model, draw = make("words")
    graph = tq.graph.trace(model, draw(3))
    length, _ = graph["reshape"].options["shape"]
    assert length.at([5, 7]) == 35


def test_tracing_leaves_model_and_random_numbers_as_they_were():
    model, draw = make("conv")
    example, before = draw(2), model.state_dict()
    model.bn.eval()
    modes = [module.training for module in model.modules()]
    states = [tq.default_rng().bit_generator.state, model.drop.rng.bit_generator.state]
    attributes = [set(vars(module)) for module in model.modules()]
    tq.graph.trace(model, example)
    assert [tq.default_rng().bit_generator.state, model.drop.rng.bit_generator.state] == states
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_a_module_called_twice_makes_two_vertices_on_one_parameter(x):
    graph = tq.graph.trace(Call(lambda self, x: self.fc(self.fc(x))), x)
    assert [e.target for e in graph.out_edges("fc.weight")] == ["fc", "fc:2"]
    assert len([v for v in graph if v.kind == "parameter"]) == 1


def test_a_tied_weight_is_one_parameter_and_each_layer_keeps_its_name(x):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    graph = tq.graph.trace(model, x)
    assert [e.target for e in graph.out_edges("0.weight")] == ["0", "1"]
    assert graph["1"].held == {2: Stored("1.bias")}


def test_several_inputs_and_outputs_nested_as_they_came(x):
    model = Call(lambda self, a, pair: {"sum": (a + pair[0], pair[1])})
    q = tq.graph.generate(model, (x, (x, tq.Tensor(x))))
    result = q(x, (2 * x, 3 * x))
    assert np.array_equal(result["sum"][0].data, 3 * x)
    assert np.array_equal(result["sum"][1].data, 3 * x)
    with pytest.raises(TypeError, match="2 things when the graph was traced, got a tuple of 1"):
        q(x, (x,))


def test_buffers_and_constants_are_vertices_of_their_own(x):
    graph = tq.graph.trace(Call(lambda self, x: x * tq.Tensor(self.mask) + np.float32(2) * np.ones(3, np.float32)), x)
    kinds = {v.name: v.kind for v in graph}
    assert kinds["mask"] == "buffer"
    assert kinds["y"] == "constant"


def test_detach_stays_a_wall_for_the_gradient(x):
    model = Call(lambda self, x: self.fc(x) * self.fc(x).detach())
    q = tq.graph.generate(model, x)
    q(x).sum().backward()
    model(tq.Tensor(x)).sum().backward()
    assert np.array_equal(model.fc.weight.grad, q.fc.weight.grad)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.fc(x) if x.sum().item() > 0 else x,
        lambda self, x: x * float(x.data.mean()),
        lambda self, x: x + np.abs(x.data),
        lambda self, x: x[x.data[:, 0].argsort()],
    ],
    ids=["branch", "number", "array", "index"],
)
def test_what_depends_on_the_data_is_refused(function):
    x = np.array([[1, 2, 3], [-5, -6, -7]], np.float32)[::-1]
    with pytest.raises(ValueError, match=r"cannot be traced: .* depends on the values"):
        tq.graph.trace(Call(function), x)


def test_chance_in_the_graph_is_refused(x):
    with pytest.raises(ValueError, match="'y' depends on the values in its input, on chance"):
        tq.graph.trace(Call(lambda self, x: x + tq.default_rng().normal(size=x.shape).astype("f")), x)


def test_other_operations_in_training_are_refused(x):
    with pytest.raises(ValueError, match="which operations run"):
        tq.graph.trace(Call(lambda self, x: F.dropout(x) if self.training else x), x)


def test_a_batch_that_is_unrolled_cannot_change_and_the_error_says_so(x):
    q = tq.graph.generate(Call(lambda self, x: F.stack([self.fc(row) for row in x])), x)
    q(x)
    with pytest.raises(ValueError, match=r"input input0 of shape \(3, 3\): axis 0 has length 2 .*other operations"):
        q(np.zeros((3, 3), np.float32))


def test_a_length_that_pooling_rounded_is_not_taken_for_a_constant():
    class Fixed(nn.Module):
        def forward(self, x):
            x = F.max_pool2d(x, 2)
            return x.reshape(x.shape[0], -1, x.shape[2] * x.shape[3])

    graph = tq.graph.trace(Fixed(), np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("f"))
    assert graph.lengths.free == (((0, 0),), ((0, 1),))
    assert set(graph.lengths.fixed) == {(0, 2), (0, 3)}


def test_lengths_shared_by_inputs_are_found_and_checked():
    model, draw = make("words")
    _, state = model(draw(1))
    q = tq.graph.generate(model, (draw(1), state))
    tokens = draw(3, 6)
    state = tuple(tq.Tensor(np.random.default_rng(1).normal(size=(2, 3, 4)).astype("f")) for _ in range(2))
    assert np.array_equal(q.eval()(tokens, state)[0].data, model.eval()(tokens, state)[0].data)
    with pytest.raises(ValueError, match=r"one length together, got \[2, 3\]"):
        q(draw(2), state)


@pytest.mark.parametrize(
    ("example", "error", "says"),
    [
        (None, TypeError, "a Tensor, an array or a tuple of them, got NoneType"),
        (np.zeros((0, 3), np.float32), ValueError, "the example is empty"),
        (np.zeros((2, 4), np.float32), ValueError, "linear: the input's last axis"),
    ],
)
def test_a_bad_example_is_named(example, error, says):
    with pytest.raises(error, match=says):
        tq.graph.trace(nn.Linear(3, 3), example)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="trace takes a Module, got function"):
        tq.graph.trace(lambda x: x, np.zeros(3))


def test_one_sample_is_refused_only_where_training_needs_more():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm1d(3)

        def forward(self, x):
            return F.concat([self.bn(row.reshape(1, 3)) for row in x])

    tq.graph.trace(nn.BatchNorm1d(3), np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"does not run in training mode .* two samples or more"):
        tq.graph.trace(Fixed(), np.zeros((1, 3), np.float32))


def test_a_graph_wants_its_vertices_ordered_along_its_edges():
    a, b = Vertex("a", "input"), Vertex("b", "input")
    with pytest.raises(ValueError, match="'b' comes before 'a'"):
        Graph([b, a], [Edge("a", "b")])
    with pytest.raises(ValueError, match="no such vertex"):
        Graph([a], [Edge("a", "c")])
    with pytest.raises(ValueError, match="unique"):
        Graph([a, a], [])
    with pytest.raises(KeyError, match="no vertex 'c'"):
        Graph([a], [])["c"]


def test_words_is_what_the_tests_above_take_it_for():
    assert Words(np.random.default_rng(0))(np.zeros((2, 3), int))[0].shape == (6, 11)
