"""Modules: what they find in themselves, the modes they are in, and each layer against its function."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn import nn
from tinyqnn.checks import gradcheck
from tinyqnn.kernels import use_reference
from tinyqnn.nn.module import Parameter
from tinyqnn.tensor import Observer, Tensor


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)),
    )


class Tied(nn.Module):
    """Two names for one layer and one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.other = nn.Linear(3, 3, bias=False)
        self.other.weight = self.first.weight

    def forward(self, x):
        return self.other(self.again(self.first(x)))


class Names(Observer):
    """The names of the operations that ran."""

    def __init__(self, parts):
        self.parts, self.names = parts, []

    def on_forward(self, function, args, options, outputs, seconds):
        self.names.append(function.__name__)


class TestFinding:
    def test_parameters_by_dotted_name_in_the_order_of_their_making(self):
        assert [name for name, _ in network().named_parameters()] == [
            "0.weight",
            "0.bias",
            "1.weight",
            "1.bias",
            "4.2.weight",
            "4.2.bias",
        ]

    def test_modules_and_children(self):
        net = network()
        assert [name for name, _ in net.named_modules()] == ["", "0", "1", "2", "3", "4", "4.0", "4.1", "4.2"]
        assert next(net.modules()) is net
        assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3", "4"]
        assert list(net.children()) == [net[i] for i in range(len(net))]
        assert [name for name, _ in net.named_modules("net")][:2] == ["net", "net.0"]

    def test_buffers(self):
        assert [name for name, _ in network().named_buffers()] == [
            "1.running_mean",
            "1.running_var",
            "1.num_batches_tracked",
        ]

    def test_shared_parameters_count_once_and_get_both_gradients(self, rng):
        tied = Tied()
        assert [name for name, _ in tied.named_parameters()] == ["first.weight", "first.bias"]
        assert [name for name, _ in tied.named_modules()] == ["", "first", "other"]
        tied.to(np.float64)
        assert tied.other.weight is tied.first.weight
        x = Tensor(rng.normal(size=(2, 3)))
        assert gradcheck(lambda *_: tied(x), list(tied.parameters()))

    def test_a_parameter_that_is_left_out(self):
        layer = nn.Linear(3, 2, bias=False)
        assert layer.bias is None
        assert [name for name, _ in layer.named_parameters()] == ["weight"]
        assert list(layer.state_dict()) == ["weight"]

    def test_a_layer_that_is_replaced_keeps_its_place(self, rng):
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        setattr(net, "0", nn.Linear(3, 4))
        assert [name for name, _ in net.named_children()] == ["0", "1", "2"]
        assert net(Tensor(rng.normal(size=(5, 3)))).shape == (5, 2)
        net[0].weight = Parameter(np.zeros((4, 3)))
        assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]

    def test_what_a_name_stood_for_before_is_forgotten(self):
        layer = nn.Linear(3, 2)
        layer.weight = 5
        assert [name for name, _ in layer.named_parameters()] == ["bias"]
        layer.weight = nn.ReLU()
        assert [name for name, _ in layer.named_children()] == ["weight"]
        layer.weight = Parameter(np.zeros(2))
        assert list(layer.named_children()) == []
        assert layer.weight.shape == (2,)
        del layer.weight
        assert not hasattr(layer, "weight")
        with pytest.raises(AttributeError, match="Linear has no attribute 'weight'"):
            del layer.weight

    def test_a_buffer_that_is_assigned_stays_a_buffer(self):
        layer = nn.BatchNorm1d(2)
        layer.running_mean = np.ones(2)
        layer.num_batches_tracked += 1
        assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        assert layer.state_dict()["running_mean"].tolist() == [1, 1]
        assert layer.state_dict()["num_batches_tracked"] == 1

    def test_attributes_before_init_are_refused(self):
        class Hasty(nn.Module):
            def __init__(self):
                self.layer = nn.ReLU()

        with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before setting attributes of Hasty"):
            Hasty()

    def test_a_module_without_a_forward_says_so(self):
        with pytest.raises(NotImplementedError, match="Module defines no forward"):
            nn.Module()(1)

    def test_a_copy_is_independent(self):
        net = network()
        twin = copy.deepcopy(net)
        for parameter in twin.parameters():
            parameter.data[...] = 7
        twin[1].running_mean[...] = 7
        assert not any((parameter.data == 7).any() for parameter in net.parameters())
        assert not net[1].running_mean.any()
        assert list(twin.state_dict()) == list(net.state_dict())

    def test_zero_grad_forgets_all_gradients(self, rng):
        net = network()
        net(Tensor(rng.normal(size=(2, 1, 4, 4)).astype(np.float32))).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        net.zero_grad()
        assert all(parameter.grad is None for parameter in net.parameters())

    def test_to_changes_the_kind_of_all_but_counters(self):
        net = network()
        net[0].weight.grad = np.ones_like(net[0].weight.data)
        assert net.to(np.float64) is net
        assert {array.dtype.name for array in net.state_dict().values()} == {"float64", "int64"}
        assert net[0].weight.grad.dtype == np.float64
        x = Tensor(np.ones((2, 1, 4, 4)))
        assert net(x).dtype == np.float64


class TestModes:
    def test_train_and_eval_reach_every_module(self):
        net = network()
        assert all(module.training for module in net.modules())
        assert net.eval() is net
        assert not any(module.training for module in net.modules())
        assert net.train() is net
        assert all(module.training for module in net.modules())

    def test_dropout_drops_in_training_only(self):
        layer, x = nn.Dropout(0.5), Tensor(np.ones(1000))
        assert (layer(x).data == 0).any()
        np.testing.assert_array_equal(layer.eval()(x).data, x.data)

    def test_dropout_draws_from_its_own_generator(self):
        x = Tensor(np.ones(100))
        first, second = (nn.Dropout(0.5, rng=np.random.default_rng(1))(x).data for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_batch_norm_learns_in_training_and_uses_what_it_learned_in_evaluation(self, rng):
        layer = nn.BatchNorm2d(3, momentum=1.0, dtype=np.float64)
        x = rng.normal(2, 3, size=(8, 3, 4, 4))
        layer(Tensor(x))
        assert layer.num_batches_tracked == 1
        assert layer.state_dict()["num_batches_tracked"] == 1
        np.testing.assert_allclose(layer.running_mean, x.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(layer.running_var, x.var(axis=(0, 2, 3), ddof=1), rtol=1e-12)
        layer.eval()
        y = layer(Tensor(x[:1]))
        expected = (x[:1] - layer.running_mean[:, None, None]) / np.sqrt(layer.running_var[:, None, None] + 1e-5)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12)
        assert layer.num_batches_tracked == 1

    @pytest.mark.parametrize(("layer", "shape"), [(nn.BatchNorm1d, (2, 3, 4, 4)), (nn.BatchNorm2d, (2, 3))])
    def test_batch_norm_of_the_wrong_number_of_axes(self, layer, shape):
        with pytest.raises(ValueError, match=rf"{layer.__name__} wants an input of .* axes, got shape"):
            layer(3)(Tensor(np.zeros(shape)))

    @pytest.mark.parametrize("shape", [(4, 3, 2, 2), (40, 3, 16, 16)])  # by NumPy and by compiled loops
    @pytest.mark.parametrize("shortcut", [False, True])
    @pytest.mark.parametrize("training", [True, False])
    def test_norm_and_relu_give_the_same_bits_as_one_operation_and_as_two(self, shape, shortcut, training, rng):
        x, plus, grad = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
        gamma, beta, found = rng.normal(size=3), rng.normal(size=3), []
        for parts in (False, True):
            norm = nn.BatchNorm2d(3).train(training)
            norm.weight.data[:], norm.bias.data[:] = gamma, beta
            leaves = [Tensor(array, requires_grad=True) for array in (x, plus)]
            with Names(parts) as seen:
                y = nn.norm_relu(norm, nn.ReLU(), leaves[0], leaves[1] if shortcut else None)
            y.backward(grad)
            assert seen.names == (["BatchNorm", *["Add"] * shortcut, "ReLU"] if parts else ["BatchNormReLU"])
            state = list(norm.state_dict().values())
            found.append([y.data, leaves[0].grad, norm.weight.grad, norm.bias.grad, *state])
            found[-1] += [leaves[1].grad] if shortcut else []
        for whole, part in zip(*found, strict=True):
            np.testing.assert_array_equal(whole, part)

    @pytest.mark.parametrize("relu", [nn.ReLU(), F.relu])
    @pytest.mark.parametrize("shape", [(5, 3), (2, 40, 3)])
    def test_linear_and_relu_give_the_same_bits_as_one_operation_and_as_two(self, shape, relu, rng):
        x, found = rng.normal(size=shape).astype(np.float32), []
        grad = rng.normal(size=(*shape[:-1], 7)).astype(np.float32)
        for parts in (False, True):
            layer, leaf = nn.Linear(3, 7, rng=np.random.default_rng(0)), Tensor(x, requires_grad=True)
            with Names(parts) as seen:
                y = nn.linear_relu(layer, relu, leaf)
            y.backward(grad)
            assert seen.names == (["Linear", "ReLU"] if parts else ["LinearReLU"])
            found.append([y.data, leaf.grad, layer.weight.grad, layer.bias.grad])
        for whole, part in zip(*found, strict=True):
            np.testing.assert_array_equal(whole, part)

    @pytest.mark.parametrize("relu", [nn.ReLU(), F.relu])
    def test_linear_layers_give_the_same_bits_as_one_operation_and_as_many(self, relu, rng):
        x, found = rng.normal(size=(5, 3)).astype(np.float32), []
        for parts in (False, True):
            layers = [nn.Linear(n, m, rng=np.random.default_rng(n), bias=m > 4) for n, m in ((3, 7), (7, 5), (5, 4))]
            leaf = Tensor(x, requires_grad=True)
            with Names(parts) as seen:
                y = nn.mlp(layers, relu, leaf)
            y.backward(np.ones((5, 4), np.float32))
            separate = ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
            joined = ["LinearReLU", "LinearReLU", "Linear"] if use_reference() else ["MLP"]
            assert seen.names == (separate if parts else joined)
            leaves = [leaf, *(p for layer in layers for p in layer.parameters())]
            found.append([y.data, *(tensor.grad for tensor in leaves)])
        for whole, part in zip(*found, strict=True):
            np.testing.assert_array_equal(whole, part)

    def test_layers_of_another_kind_than_linear_keep_their_own_forward(self, rng):
        class Twice(nn.Linear):
            def forward(self, x):
                return super().forward(x) * 2

        layers = [nn.Linear(3, 4), Twice(4, 2)]
        with Names(parts=False) as seen:
            nn.mlp(layers, F.relu, Tensor(rng.normal(size=(5, 3)).astype(np.float32)))
        assert seen.names == ["LinearReLU", "Linear", "Mul"]

    @pytest.mark.skipif(use_reference(), reason="they are operations of their own")
    def test_frozen_layers_of_an_mlp_and_its_input_get_no_gradient(self, rng):
        class Asked(Observer):
            parts, grads = False, None

            def on_backward(self, function, grads, seconds):
                if function.__name__ == "MLP":
                    self.grads = [grad is not None for grad in grads]

        layers = [nn.Linear(3, 4), nn.Linear(4, 2)]
        layers[0].weight.requires_grad = False
        with Asked() as seen:
            nn.mlp(layers, F.relu, Tensor(rng.normal(size=(5, 3)).astype(np.float32))).sum().backward()
        assert seen.grads == [False, False, True, True, True]  # x, weights, biases

    def test_sequential_joins_a_norm_or_a_linear_layer_with_its_relu_and_nothing_else(self, rng):
        class Louder(nn.ReLU):
            def forward(self, x):
                return super().forward(x) * 2

        layers = [nn.BatchNorm1d(3), nn.ReLU(), nn.ReLU(), nn.BatchNorm1d(3), Louder(), nn.BatchNorm1d(3)]
        layers += [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), Louder(), nn.Linear(3, 3)]
        x = Tensor(rng.normal(size=(5, 3)))
        with Names(parts=False) as seen:
            y = nn.Sequential(*layers)(x)
        assert seen.names[:6] == ["BatchNormReLU", "ReLU", "BatchNorm", "ReLU", "Mul", "BatchNorm"]
        assert seen.names[6:] == ["LinearReLU", "Linear", "ReLU", "Mul", "Linear"]
        for layer in layers:
            x = layer(x)
        np.testing.assert_array_equal(y.data, x.data)

    @pytest.mark.parametrize("shortcut", [False, True])
    @pytest.mark.parametrize("groups", [1, 8])
    @pytest.mark.parametrize("size", [3, 20])  # by NumPy and by compiled loops
    def test_convolution_norm_and_relu_give_the_same_bits_image_by_image_and_one_after_the_other(
        self, size, groups, shortcut, rng
    ):
        conv, norm, relu = nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.BatchNorm2d(8).eval(), nn.ReLU()
        for array in (norm.weight.data, norm.bias.data, norm.running_mean):
            array[:] = rng.normal(size=8)
        x, plus = (Tensor(rng.normal(size=(4, 8, size, size)).astype(np.float32)) for _ in range(2))
        asked = (lambda: plus) if shortcut else None
        kept = [t.data.copy() for t in (x, plus)]
        parts = nn.norm_relu(norm, relu, conv(x), plus if shortcut else None).data
        recorded = nn.conv_norm_relu(conv, norm, relu, x, asked)
        with tq.no_grad():
            at_once = nn.conv_norm_relu(conv, norm, relu, x, asked)
            with Names(parts=True) as seen:
                nn.conv_norm_relu(conv, norm, relu, x, asked)
            without = nn.conv_norm_relu(conv, norm, None, x)
        assert recorded.requires_grad
        assert not at_once.requires_grad
        assert seen.names == ["Conv2d", "BatchNorm", *["Add"] * shortcut, "ReLU"]
        np.testing.assert_array_equal(recorded.data, parts)
        np.testing.assert_array_equal(at_once.data, parts)
        np.testing.assert_array_equal(without.data, norm(conv(x)).data)
        for tensor, before in zip((x, plus), kept):
            np.testing.assert_array_equal(tensor.data, before)

    @pytest.mark.parametrize(("of_x", "of_norm"), [(np.float64, np.float64), (np.float32, np.float64)])
    def test_image_by_image_or_not_a_norm_in_float64_is_as_exact(self, of_x, of_norm, rng):
        conv, norm = nn.Conv2d(3, 8, 3, dtype=of_x), nn.BatchNorm2d(8, dtype=of_norm).eval()
        norm.weight.data[:] = norm.running_mean[:] = rng.normal(size=8)
        x = Tensor(rng.normal(size=(4, 3, 20, 20)).astype(of_x))
        with tq.no_grad():
            y = nn.conv_norm_relu(conv, norm, nn.ReLU(), x).data
        expected = nn.ReLU()(norm(conv(x))).data
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)

    @pytest.mark.parametrize("size", [5, 20])
    @pytest.mark.parametrize("recorded", [True, False])
    def test_a_shortcut_of_another_shape_is_refused(self, recorded, size):
        x, plus = (Tensor(np.zeros(shape, np.float32)) for shape in ((4, 3, size, size), (4, 8, size - 2, 1)))
        conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()
        with contextlib.nullcontext() if recorded else tq.no_grad(), pytest.raises(ValueError, match="shape"):
            nn.conv_norm_relu(conv, norm, nn.ReLU(), x, lambda: plus)

    def test_a_norm_that_learns_sees_the_batch_though_nothing_is_recorded(self, rng):
        conv, norm, x = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=1.0), Tensor(rng.normal(size=(4, 3, 20, 20)))
        with tq.no_grad():
            nn.Sequential(conv, norm, nn.ReLU())(x)
        np.testing.assert_allclose(norm.running_mean, conv(x).data.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("which", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU])
    def test_somebody_elses_kind_of_layer_runs_its_own_forward(self, which, rng):
        class Own(which):
            def forward(self, x):
                self.kept = super().forward(x)
                return self.kept

        made = {nn.Conv2d: (3, 8, 3), nn.BatchNorm2d: (8,), nn.ReLU: ()}
        layers = [(Own if kind is which else kind)(*given) for kind, given in made.items()]
        x = Tensor(rng.normal(size=(4, 3, 20, 20)).astype(np.float32))
        network = nn.Sequential(*layers).eval()
        expected = network(x).data
        (own,) = [layer for layer in layers if type(layer) is Own]
        kept = own.kept.data.copy()
        own.kept = None
        with tq.no_grad():
            np.testing.assert_array_equal(network(x).data, expected)
        np.testing.assert_array_equal(own.kept.data, kept)

    def test_what_hides_a_step_is_refused_where_it_would_be_missed(self, rng):
        conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()
        x, then = Tensor(rng.normal(size=(1, 3, 5, 5))), norm.then(0.0, None)
        with pytest.raises(RuntimeError, match=r"`then` hides a step .* use no_grad"):
            conv(x, then)
        with tq.no_grad(), Observer(), pytest.raises(RuntimeError, match="`then` hides a step"):
            conv(x, then)

    def test_lstm_drops_between_layers_in_training_only(self, rng):
        layer = nn.LSTM(2, 3, num_layers=2, dropout=0.9)
        x = Tensor(rng.normal(size=(4, 2, 2)).astype(np.float32))
        assert (layer(x)[0].data != layer(x)[0].data).any()
        layer.eval()
        np.testing.assert_array_equal(layer(x)[0].data, layer(x)[0].data)


LAYERS = {
    "Linear": (lambda: nn.Linear(3, 2), lambda m, x: F.linear(x, m.weight, m.bias), (4, 3)),
    "Linear, no bias": (lambda: nn.Linear(3, 2, bias=False), lambda m, x: F.linear(x, m.weight), (4, 3)),
    "Conv2d": (
        lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        lambda m, x: F.conv2d(x, m.weight, m.bias, (2, 1), (1, 0), (1, 2), 2),
        (2, 2, 4, 4),
    ),
    "Conv2d, no bias": (lambda: nn.Conv2d(2, 3, 2, bias=False), lambda m, x: F.conv2d(x, m.weight), (2, 2, 3, 3)),
    "BatchNorm1d": (
        lambda: nn.BatchNorm1d(3),
        lambda m, x: F.batch_norm(x, None, None, m.weight, m.bias, True),
        (4, 3),
    ),
    "BatchNorm1d, lines": (
        lambda: nn.BatchNorm1d(3, eps=0.1),
        lambda m, x: F.batch_norm(x, None, None, m.weight, m.bias, True, eps=0.1),
        (2, 3, 4),
    ),
    "BatchNorm2d": (
        lambda: nn.BatchNorm2d(2),
        lambda m, x: F.batch_norm(x, None, None, m.weight, m.bias, True),
        (2, 2, 3, 2),
    ),
    "ReLU": (nn.ReLU, lambda m, x: F.relu(x), (3, 4)),
    "Sigmoid": (nn.Sigmoid, lambda m, x: F.sigmoid(x), (3, 4)),
    "Tanh": (nn.Tanh, lambda m, x: F.tanh(x), (3, 4)),
    "Identity": (nn.Identity, lambda m, x: x * 1, (3, 4)),
    "Dropout": (
        lambda: nn.Dropout(0.25, rng=np.random.default_rng(1)),
        lambda m, x: F.dropout(x, 0.25, rng=np.random.default_rng(1)),
        (3, 4),
    ),
    "Flatten": (nn.Flatten, lambda m, x: F.flatten(x, 1), (2, 3, 2, 1)),
    "Flatten, some": (lambda: nn.Flatten(0, 1), lambda m, x: F.flatten(x, 0, 1), (2, 3, 2, 1)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), lambda m, x: F.max_pool2d(x, 3, 2, 1), (1, 2, 5, 4)),
    "MaxPool2d, side by side": (lambda: nn.MaxPool2d((2, 1)), lambda m, x: F.max_pool2d(x, (2, 1)), (1, 2, 4, 3)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), lambda m, x: F.avg_pool2d(x, 3, 2, 1), (1, 2, 5, 4)),
    "AdaptiveAvgPool2d": (
        lambda: nn.AdaptiveAvgPool2d((2, 3)),
        lambda m, x: F.adaptive_avg_pool2d(x, (2, 3)),
        (1, 2, 5, 4),
    ),
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        lambda m, x: F.tanh(F.linear(x, m[0].weight, m[0].bias)),
        (4, 3),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_parameters_and_one_call(name, rng):
    make, call, shape = LAYERS[name]
    layer = make().to(np.float64)
    x = Tensor(rng.normal(size=shape))
    np.testing.assert_array_equal(layer(x).data, call(layer, x).data)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Dropout"])
def test_the_gradients_of_a_layer(name, rng):
    make, _, shape = LAYERS[name]
    layer = make().to(np.float64)
    x = Tensor(rng.permutation(np.prod(shape)).reshape(shape) * 0.1 - 0.55, requires_grad=True)
    assert gradcheck(lambda x, *_: layer(x), [x, *layer.parameters()])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bias": False}, {"batch_first": True}])
def test_the_gradients_of_an_lstm(options, rng):
    layer = nn.LSTM(2, 2, dtype=np.float64, **options)
    x = Tensor(rng.normal(size=(2, 2, 2)), requires_grad=True)
    state = [Tensor(rng.normal(size=(layer.num_layers, 2, 2)), requires_grad=True) for _ in range(2)]

    def f(x, h, c, *_):
        y, (h, c) = layer(x, (h, c))
        return y, h, c

    assert gradcheck(f, [x, *state, *layer.parameters()])


def test_batch_first_is_the_same_with_two_axes_swapped(rng):
    plain, swapped = nn.LSTM(2, 3, 2), nn.LSTM(2, 3, 2, batch_first=True)
    swapped.load_state_dict(plain.state_dict())
    x = rng.normal(size=(5, 4, 2)).astype(np.float32)
    state = tuple(Tensor(rng.normal(size=(2, 4, 3)).astype(np.float32)) for _ in range(2))
    y, (h, c) = plain(Tensor(x), state)
    y2, (h2, c2) = swapped(Tensor(x.transpose(1, 0, 2)), state)
    np.testing.assert_allclose(y2.data, y.data.transpose(1, 0, 2), rtol=1e-6)
    np.testing.assert_allclose([h2.data, c2.data], [h.data, c.data], rtol=1e-6)


def test_the_gradient_of_an_embedding(rng):
    layer = nn.Embedding(4, 3, dtype=np.float64)
    assert gradcheck(lambda *_: layer(np.array([[1, 1], [3, 0]])), list(layer.parameters()))


class TestInitialisation:
    @pytest.mark.parametrize(
        ("make", "fan_in"),
        [
            (lambda **o: nn.Linear(50, 300, **o), 50),
            (lambda **o: nn.Conv2d(6, 200, (3, 2), **o), 36),
            (lambda **o: nn.Conv2d(6, 600, 3, groups=3, **o), 18),
            (lambda **o: nn.Conv2d(200, 200, 3, groups=200, **o), 9),
            (lambda **o: nn.LSTM(20, 40, num_layers=2, **o), 40),
        ],
    )
    def test_weights_and_biases_fill_plus_minus_one_over_root_fan_in_evenly(self, make, fan_in):
        bound = fan_in**-0.5
        for name, parameter in make(rng=np.random.default_rng(0)).named_parameters():
            u = parameter.data.ravel() / bound
            assert np.abs(u).max() <= 1 + 1e-6, name
            assert np.abs(u).max() > 0.95, name
            assert abs(u.mean()) < 4 / np.sqrt(3 * u.size), name
            assert abs((u**2).mean() - 1 / 3) < 4 * 0.3 / np.sqrt(u.size), name

    def test_embeddings_are_normal(self):
        w = nn.Embedding(200, 50, rng=np.random.default_rng(0)).weight.data
        assert abs(w.mean()) < 0.04
        assert abs(w.std() - 1) < 0.03
        assert np.abs(w).max() > 3

    def test_batch_norm_starts_as_the_identity(self):
        state = nn.BatchNorm2d(3).state_dict()
        assert {name: array.tolist() for name, array in state.items()} == {
            "weight": [1, 1, 1],
            "bias": [0, 0, 0],
            "running_mean": [0, 0, 0],
            "running_var": [1, 1, 1],
            "num_batches_tracked": 0,
        }

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_the_kind_of_number_is_chosen(self, dtype):
        for layer in (
            nn.Linear(2, 3, dtype=dtype),
            nn.Conv2d(2, 3, 2, dtype=dtype),
            nn.BatchNorm2d(2, dtype=dtype),
            nn.LSTM(2, 3, dtype=dtype),
            nn.Embedding(2, 3, dtype=dtype),
        ):
            assert {parameter.dtype for parameter in layer.parameters()} == {np.dtype(dtype)}

    def test_the_seed_decides_and_a_generator_of_ones_own_does_not_touch_it(self):
        def draw(**options):
            return nn.Linear(3, 2, **options).weight.data.tolist()

        tq.manual_seed(5)
        first = draw()
        tq.manual_seed(5)
        own = draw(rng=np.random.default_rng(1))
        assert draw() == first
        assert draw(rng=np.random.default_rng(1)) == own != first


class TestArguments:
    def test_groups_divide_both_channel_counts(self):
        for channels in ((3, 4), (4, 3)):
            with pytest.raises(ValueError, match="groups must divide both channel counts"):
                nn.Conv2d(*channels, 1, groups=2)
        with pytest.raises(ValueError, match="groups must divide"):
            nn.Conv2d(2, 2, 1, groups=0)

    def test_a_probability_lies_between_0_and_1(self):
        with pytest.raises(ValueError, match="p is a probability"):
            nn.Dropout(1.5)

    @pytest.mark.parametrize("make", [nn.Linear, nn.Conv2d, nn.LSTM])
    def test_unknown_arguments_are_refused(self, make):
        with pytest.raises(TypeError, match="unexpected keyword argument 'bits'"):
            make(2, 2, 1, bits=3)


def test_a_network_prints_its_layers_as_they_are_nested():
    assert repr(network()) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (1): BatchNorm2d(2)\n"
        "  (2): ReLU()\n"
        "  (3): MaxPool2d(2)\n"
        "  (4): Sequential(\n"
        "    (0): Flatten()\n"
        "    (1): Dropout(p=0.5)\n"
        "    (2): Linear(8, 3)\n"
        "  )\n"
        ")"
    )


def test_what_is_not_as_usual_is_printed():
    conv = nn.Conv2d(4, 6, (1, 2), stride=2, padding=0, dilation=(1, 3), groups=2, bias=False)
    assert repr(conv) == "Conv2d(4, 6, kernel_size=(1, 2), stride=(2, 2), dilation=(1, 3), groups=2, bias=False)"
    assert repr(nn.Linear(2, 3, bias=False)) == "Linear(2, 3, bias=False)"
    assert repr(nn.LSTM(2, 3)) == "LSTM(2, 3)"
    assert repr(nn.LSTM(2, 3, 2)) == "LSTM(2, 3, num_layers=2)"
    assert repr(nn.Embedding(2, 3)) == "Embedding(2, 3)"
    assert repr(nn.AvgPool2d(2)) == "AvgPool2d(2)"
    assert repr(nn.AdaptiveAvgPool2d(1)) == "AdaptiveAvgPool2d(1)"
    assert repr(nn.Module()) == "Module()"


def test_a_sequence_of_modules_is_indexed_and_counted():
    net = network()
    assert len(net) == 5
    assert isinstance(net[0], nn.Conv2d)
    assert isinstance(net[-1], nn.Sequential)
    with pytest.raises(IndexError):
        net[5]
