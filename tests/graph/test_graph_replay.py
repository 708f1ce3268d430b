"""A graph that runs again is the model: same numbers, same gradients, same state, at any batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from graph_networks import Identity, make

import tinyqnn as tq
from tinyqnn import nn

ALL = ["conv", "residual", "separable", "dense", "words"]


def flat(result):
    """All tensors of a nested result."""
    return [result] if isinstance(result, tq.Tensor) else [tensor for item in result for tensor in flat(item)]


def loss(result):
    total = 0.0
    for tensor in flat(result):
        total = total + (tensor * tensor).sum()
    return total


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_replay_is_bit_equal_at_another_batch_in_both_modes(kind, training):
    model, draw = make(kind)
    replayed = tq.graph.generate(model, draw(2)).train(training)
    x = draw(5)
    streams = {id(m.rng): m.rng for m in model.modules() if getattr(m, "rng", None) is not None}.values()
    states = [stream.bit_generator.state for stream in streams]
    expected = flat(model.train(training)(tq.Tensor(x)))
    for stream, state in zip(streams, states):
        stream.bit_generator.state = state
    assert all(np.array_equal(a.data, b.data) for a, b in zip(expected, flat(replayed(x)), strict=True))
    before, after = model.state_dict(), replayed.state_dict()
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)  # running averages and counters too


@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_the_models(kind):
    model, draw = make(kind)
    replayed = tq.graph.generate(model, draw(2)).eval()
    x = draw(3)
    loss(model.eval()(tq.Tensor(x))).backward()
    loss(replayed(x)).backward()
    grads = dict(replayed.named_parameters())
    for name, parameter in model.named_parameters():
        assert np.array_equal(parameter.grad, grads[name].grad), name


@pytest.mark.parametrize("kind", ALL)
def test_identities_in_all_slots_change_no_bit(kind):
    model, draw = make(kind)
    x = draw(3)
    quantized = tq.graph.generate(model, draw(2), weights="C-3", activations="C-3").eval()
    for slot in quantized.quantizers():
        slot.put(Identity())
    expected = flat(model.eval()(tq.Tensor(x)))
    assert all(np.array_equal(a.data, b.data) for a, b in zip(expected, flat(quantized(x)), strict=True))
    loss(model(tq.Tensor(x))).backward()
    loss(quantized(x)).backward()
    grads = dict(quantized.named_parameters())
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(grads[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_quantizers_do_change_the_result_and_every_parameter_learns(kind):
    model, draw = make(kind)
    quantized = tq.graph.generate(model, draw(2), weights="C-2", activations="C-2")
    x = draw(3)
    loss(quantized(x)).backward()
    assert all(parameter.grad is not None for parameter in quantized.parameters())
    assert not np.array_equal(flat(model.eval()(tq.Tensor(x)))[0].data, flat(quantized.eval()(x))[0].data)


def test_the_state_of_an_lstm_is_quantized_at_every_step_but_not_the_zeros_it_starts_from():
    model, draw = make("words")
    quantized = tq.graph.generate(model, draw(2), activations="C-3").eval()
    seen = []

    class Spy(Identity):
        def forward(self, x):
            seen.append(x.data.copy())
            return x

    next(slot for slot in quantized.quantizers() if slot.name == "lstm.quant.hidden").put(Spy())
    quantized(draw(3, t=6))
    assert len(seen) == 5
    assert all(h.any() for h in seen)


def test_a_state_that_is_given_is_quantized_from_the_first_step_on():
    model, draw = make("words")
    state = tuple(tq.Tensor(np.random.default_rng(1).normal(size=(2, 2, 4)).astype(np.float32)) for _ in range(2))
    quantized = tq.graph.generate(model, (draw(2), state), activations="C-3").eval()
    seen = []

    class Spy(Identity):
        def forward(self, x):
            seen.append(x.data.copy())
            return x

    dict(quantized.named_quantizers())["lstm.quant.hidden:2"].put(Spy())
    quantized(draw(2, t=4), state)
    assert len(seen) == 4
    assert np.array_equal(seen[0], state[0].data[1])


def test_a_layer_that_is_frozen_by_eval_stays_frozen():
    model, draw = make("conv")
    replayed = tq.graph.generate(model, draw(2)).train()
    replayed.bn.eval()
    before = replayed.bn.running_mean.copy()
    replayed(draw(4))
    assert np.array_equal(replayed.bn.running_mean, before)
    assert int(replayed.bn.num_batches_tracked) == 0


def test_a_float_checkpoint_loads_and_only_quantizers_are_missing():
    model, draw = make("conv", seed=1)
    other, _ = make("conv", seed=2)
    quantized = tq.graph.generate(other, draw(2), weights="P-3", activations="C-3")
    keys = quantized.load_state_dict(model.state_dict(), strict=False)
    assert not keys.unexpected
    assert keys.missing
    assert all(".quant." in name for name in keys.missing)
    assert np.array_equal(quantized.conv.weight.data, model.conv.weight.data)


def test_a_checkpoint_of_the_quantized_network_restores_it_bit_for_bit():
    model, draw = make("conv")
    x = draw(4)
    trained = tq.graph.generate(model, draw(2), "P-3", "C-3")
    trained(x)
    fresh = tq.graph.generate(make("conv", seed=9)[0], draw(2), "P-3", "C-3")
    fresh.load_state_dict(trained.state_dict())
    assert np.array_equal(fresh.eval()(x).data, trained.eval()(x).data)


def test_the_copy_shares_nothing_with_the_model_and_deepcopy_nothing_with_the_copy():
    model, draw = make("conv")
    example = draw(2)
    model(tq.Tensor(example)).sum().backward()
    quantized = tq.graph.generate(model, example, "C-3", "C-3")
    twin = copy.deepcopy(quantized)
    assert all(parameter.grad is None for parameter in quantized.parameters())
    for one, two in ((model, quantized), (quantized, twin)):
        ids = {id(array) for _, array in one._named_state()}
        assert not ids & {id(array) for _, array in two._named_state()}
    before = quantized.eval()(example).data
    for parameter in twin.parameters():
        parameter.data[...] = 0
    assert np.array_equal(quantized(example).data, before)
    assert not twin.eval()(example).data.any()


def test_to_float64_takes_parameters_buffers_and_constants_along():
    for kind in ("conv", "words"):
        model, draw = make(kind)
        x = draw(3)
        there = tq.graph.generate(model, draw(2)).to(np.float64).eval()
        x = x if kind == "words" else x.astype(np.float64)
        expected = flat(model.to(np.float64).eval()(tq.Tensor(x)))
        assert all(np.array_equal(a.data, b.data) for a, b in zip(expected, flat(there(x)), strict=True))
        back = there.to(np.float32)(x if kind == "words" else x.astype(np.float32))
        assert all(tensor.dtype == np.float32 for tensor in flat(back))


def test_without_quantizers_gives_the_float_network_back():
    model, draw = make("residual")
    quantized = tq.graph.generate(model, draw(2), "C-3", "C-3")
    back = quantized.without_quantizers().eval()
    x = draw(3)
    assert list(back.state_dict()) == list(model.state_dict())
    assert np.array_equal(back(x).data, model.eval()(tq.Tensor(x)).data)
    assert any(True for _ in quantized.quantizers())


def test_results_that_nobody_needs_any_more_are_let_go():
    import weakref

    alive = []

    class Watch(tq.Observer):
        def on_forward(self, function, args, options, outputs, seconds):
            self.seen.append(weakref.ref(outputs[0]))
            alive.append(sum(ref() is not None for ref in self.seen))

    model = nn.Sequential(*(nn.ReLU() for _ in range(50)))
    replayed = tq.graph.generate(model, np.ones((1, 2), np.float32))
    watch = Watch()
    watch.seen = []
    with tq.no_grad(), watch:
        replayed(np.ones((1, 2), np.float32))
    assert len(alive) == 50
    assert max(alive) <= 3


def test_a_model_that_is_a_single_layer_and_one_that_returns_its_input():
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    layer = nn.Linear(3, 4)
    quantized = tq.graph.generate(layer, x, "C-3", "C-3")
    assert list(quantized.state_dict())[:2] == ["weight", "bias"]
    assert [name for name, _ in quantized.named_quantizers()] == ["quant.linear_input", "quant.linear_weight"]
    assert np.array_equal(tq.graph.generate(nn.Identity(), x)(x).data, x)


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((), TypeError, r"traced with 1 inputs \(x\), got 0"),
        ((np.zeros((2, 2, 6, 6), "f"), 3), TypeError, "got 2"),
        ((None,), TypeError, "was a tensor when the graph was traced and is None now"),
        (
            (np.zeros((2, 2, 6), "f"),),
            ValueError,
            r"has 4 axes, like the example's \(2, 2, 6, 6\), got shape \(2, 2, 6\)",
        ),
        (
            (np.zeros((2, 2, 8, 6), "f"),),
            ValueError,
            "axis 2 has length 6 .* generate from an example of the new shape",
        ),
    ],
)
def test_a_call_that_does_not_fit_is_named(args, error, says):
    model, draw = make("conv")
    replayed = tq.graph.generate(model, draw(2))
    with pytest.raises(error, match=says):
        replayed(*args)
