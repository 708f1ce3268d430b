"""A state is PyTorch's: the same names, shapes and results; and one that does not fit changes nothing."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tinyqnn import nn
from tinyqnn.tensor import Tensor

# Each network is written once, for `nn` of either library; beside it the keys and shapes of PyTorch's state_dict.
BATCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
ARCHITECTURES: dict[str, tuple[Any, dict[str, tuple[int, ...]], Any]] = {
    "linear": (lambda nn: nn.Linear(3, 2), {"weight": (2, 3), "bias": (2,)}, (4, 3)),
    "linear without bias": (lambda nn: nn.Linear(3, 2, bias=False), {"weight": (2, 3)}, (4, 3)),
    "conv": (
        lambda nn: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        {"weight": (6, 2, 3, 3), "bias": (6,)},
        (2, 4, 5, 5),
    ),
    "depthwise": (
        lambda nn: nn.Conv2d(4, 4, (3, 1), padding=(1, 0), dilation=(1, 1), groups=4, bias=False),
        {"weight": (4, 1, 3, 1)},
        (2, 4, 5, 5),
    ),
    "batch norm": (
        lambda nn: nn.BatchNorm2d(3),
        {name: (3,) if name != "num_batches_tracked" else () for name in BATCH_NORM},
        (2, 3, 4, 4),
    ),
    "embedding": (lambda nn: nn.Embedding(5, 3), {"weight": (5, 3)}, "words"),
    "lstm": (
        lambda nn: nn.LSTM(3, 2, num_layers=2),
        {
            "weight_ih_l0": (8, 3),
            "weight_hh_l0": (8, 2),
            "bias_ih_l0": (8,),
            "bias_hh_l0": (8,),
            "weight_ih_l1": (8, 2),
            "weight_hh_l1": (8, 2),
            "bias_ih_l1": (8,),
            "bias_hh_l1": (8,),
        },
        (5, 2, 3),
    ),
    "lstm without bias": (
        lambda nn: nn.LSTM(3, 2, bias=False, batch_first=True),
        {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2)},
        (5, 2, 3),
    ),
    "network": (
        lambda nn: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Dropout(0.5),
            nn.AvgPool2d(2),
            nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Tanh()),
            nn.Identity(),
            nn.Linear(8, 3),
            nn.Sigmoid(),
        ),
        {
            "0.weight": (4, 1, 3, 3),
            **{f"1.{name}": (4,) if name != "num_batches_tracked" else () for name in BATCH_NORM},
            "6.2.weight": (8, 16),
            "6.2.bias": (8,),
            **{f"6.3.{name}": (8,) if name != "num_batches_tracked" else () for name in BATCH_NORM},
            "8.weight": (3, 8),
            "8.bias": (3,),
        },
        (2, 1, 8, 8),
    ),
}


def draw(shape: Any, rng: np.random.Generator) -> np.ndarray:
    return np.array([[1, 4, 1], [0, 2, 4]]) if shape == "words" else rng.normal(size=shape).astype(np.float32)


def random_state(module: nn.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: rng.uniform(0.5, 1.5, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array + 3
        for name, array in module.state_dict().items()
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keys_and_shapes_are_those_typed_here(name):
    make, expected, _ = ARCHITECTURES[name]
    state = make(nn).state_dict()
    assert {key: array.shape for key, array in state.items()} == expected
    assert list(state) == list(expected)  # in this order, too


@pytest.fixture(scope="module")
def torch_nn() -> ModuleType:
    return pytest.importorskip("torch").nn


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keys_and_shapes_are_pytorchs(name, torch_nn):
    make, expected, _ = ARCHITECTURES[name]
    theirs = make(torch_nn).state_dict()
    assert {key: tuple(value.shape) for key, value in theirs.items()} == expected
    assert list(theirs) == list(expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_state_from_pytorch_loads_and_computes_the_same(name, training, torch_nn, rng):
    import torch

    make, _, shape = ARCHITECTURES[name]
    ours, theirs = make(nn), make(torch_nn)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    x = draw(shape, rng)
    for module in (*ours.modules(), *theirs.modules()):
        module.train(training)
        if type(module).__name__ == "Dropout":
            module.eval()  # the two libraries draw other numbers
    y = ours(Tensor(x))
    with torch.no_grad():
        expected = theirs(torch.tensor(x))
    pairs = [(y, expected)] if isinstance(y, Tensor) else [(y[0], expected[0]), *zip(y[1], expected[1])]
    for got, wanted in pairs:
        np.testing.assert_allclose(got.data, wanted.numpy(), rtol=1e-4, atol=1e-5)
    for key, array in ours.state_dict().items():  # running averages moved alike
        np.testing.assert_allclose(array, theirs.state_dict()[key].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_our_state_loads_into_pytorch(name, torch_nn):
    import torch

    make, _, _ = ARCHITECTURES[name]
    state = {key: torch.tensor(array) for key, array in make(nn).state_dict().items()}
    make(torch_nn).load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_state_goes_out_and_in_unchanged(name, rng):
    make, _, _ = ARCHITECTURES[name]
    module = make(nn)
    state = random_state(module, rng)
    assert module.load_state_dict(state) == ([], [])
    for key, array in module.state_dict().items():
        np.testing.assert_array_equal(array, state[key])
        assert array.dtype == state[key].dtype


def test_a_state_is_a_copy_and_loading_copies():
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    before = state["weight"].copy()
    layer.weight.data[...] = 7
    np.testing.assert_array_equal(state["weight"], before)
    held = layer.weight.data
    layer.load_state_dict(state)
    state["weight"][...] = 9
    np.testing.assert_array_equal(layer.weight.data, before)
    assert layer.weight.data is held  # in place: an optimizer that holds the array sees it


def test_every_name_of_a_shared_parameter_is_in_the_state():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    state = net.state_dict()
    assert list(state) == ["0.weight", "1.weight"]
    assert nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).load_state_dict(state) == ([], [])


def test_tensors_and_other_kinds_of_number_are_taken():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": Tensor([[1.0, 2.0]]), "bias": np.array([3.0])})
    assert layer.weight.data.tolist() == [[1, 2]]
    assert (layer.weight.dtype, layer.bias.dtype) == (np.float32, np.float32)


MISFIT = {"0.weight": np.ones((2, 2)), "0.bais": np.ones(2), "2.weight": np.ones((3, 2)), "old": np.ones(1)}


class TestWhatDoesNotFit:
    def network(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))

    def test_missing_unexpected_and_misshapen_keys_are_all_named(self):
        net = self.network()
        before = net.state_dict()
        with pytest.raises(ValueError, match="the state does not fit this Sequential") as error:
            net.load_state_dict(MISFIT)
        assert str(error.value).splitlines() == [
            "the state does not fit this Sequential:",
            "  missing: 0.bias, 2.bias",
            "  unexpected: 0.bais, old",
            "  2.weight: expected shape (2, 2), got (3, 2)",
            "load what fits with strict=False",
        ]
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_what_fits_is_loaded_if_asked_for_and_the_rest_is_named(self):
        net = self.network()
        bias = net[0].bias.data.copy()
        keys = net.load_state_dict({k: v for k, v in MISFIT.items() if k != "2.weight"}, strict=False)
        assert keys.missing == ["0.bias", "2.weight", "2.bias"]
        assert keys.unexpected == ["0.bais", "old"]
        assert (net[0].weight.data == 1).all()
        np.testing.assert_array_equal(net[0].bias.data, bias)

    @pytest.mark.parametrize("bad", [np.ones((3, 2)), np.array([["1", "2"], ["3", "4"]]), np.full((2, 2), None)])
    def test_an_array_that_does_not_fit_changes_nothing_even_if_not_strict(self, bad):
        net = self.network()
        before = net.state_dict()
        with pytest.raises(ValueError, match=r"2\.weight: expected"):
            net.load_state_dict({"0.weight": np.ones((2, 2)), "2.weight": bad}, strict=False)
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])
