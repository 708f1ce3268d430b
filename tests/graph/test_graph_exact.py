"""Evaluating, products of codes are exact and rounded once: no order of adding, no machine and no thread has a say."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn import graph, kernels, nn, optim, quant
from tinyqnn.deploy import agreement, pack
from tinyqnn.functional.fold import fold
from tinyqnn.graph.exact import CUT, EXACT_IN_FLOAT32, ExactProduct, products
from tinyqnn.quant.whole import Coded, terms
from tinyqnn.tensor import Observer

WEIGHTS = ("B-1", "T-2", "Q-2", "F-3", "R-2", "Z-3", "C-3", "P-4", "U-3", "C-8")
ACTIVATIONS = ("F-3", "R-2", "Z-2", "C-1", "C-3", "P-3", "U-4", "PACT-3", "PACT-8")


class Block(nn.Module):
    """A convolution, a batch norm or none, a shortcut and a ReLU."""

    def __init__(self, channels, norm, rng, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=not norm, rng=rng)
        self.norm = nn.BatchNorm2d(channels) if norm else None

    def forward(self, x):
        y = self.conv(x)
        return F.relu((y if self.norm is None else self.norm(y)) + x)


def settled(model, rng):
    """Norms and biases as after training."""
    for name, array in [*model.named_buffers(), *((name, p.data) for name, p in model.named_parameters())]:
        if array.ndim == 1 and array.dtype.kind == "f":
            array[...] = rng.uniform(0.3, 2, array.shape) if "var" in name else rng.normal(size=array.shape)
    return model


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def evaluated(model, x):
    with tq.no_grad():
        return model(tq.Tensor(x)).data


class Parts(Observer):
    """While it looks on, the ordinary operations run."""

    def on_forward(self, function, args, options, outputs, seconds):
        pass


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_product_is_its_sums_of_whole_numbers_rounded_once(rng, weights, activations, norm):
    layers = [nn.Linear(40, 6, rng=rng), nn.BatchNorm1d(6)]
    x = normal(rng, 9, 40)
    model = settled(nn.Sequential(*layers[: 1 + norm]), rng)
    qmodel = graph.generate(model, x, weights=weights, activations=activations)
    by = {slot.role: slot.module for slot in qmodel.eval().quantizers()}
    parameters, buffers = dict(qmodel.named_parameters()), dict(qmodel.named_buffers())
    w, bias = parameters["0.weight"].data, parameters["0.bias"].data
    coded_w, coded_x = by["weights"].frozen(w), by["activations"].frozen(x)

    def whole(coded, codes):
        places = np.searchsorted(coded.quantizer.alphabet, codes)
        return [(term.numbers[places], term.scale) for term in terms(coded)]

    m, a = np.ones(6), bias
    if norm:
        learned = (parameters[f"1.{name}"].data for name in ("weight", "bias"))
        m, a = fold(bias, buffers["1.running_mean"], buffers["1.running_var"], *learned, 1e-5)
    total = np.float64(0)
    for numbers_w, s in whole(coded_w, coded_w.encode(w)):
        for numbers_x, t in whole(coded_x, coded_x.encode(x)):
            total = total + (s * t * m.astype(np.float64)) * (numbers_x @ numbers_w.T)  # sums of int64
    expected = (total + a.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(evaluated(qmodel, x), expected)
    with kernels.using("reference"):
        np.testing.assert_array_equal(evaluated(qmodel, x), expected)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("weights", "activations"), [("C-3", "C-3"), ("P-4", "Z-3"), ("C-2", "R-3"), ("C-8", "U-8")])
def test_neither_the_order_nor_the_batch_has_a_say(rng, weights, activations, norm):
    """Channels in another order, a sample alone: the same bits. In float32 sums they are others."""
    model, x = settled(Block(40, norm, rng), rng), normal(rng, 4, 40, 6, 5)
    qmodel = graph.generate(model, x, weights=weights, activations=activations).eval()
    order = rng.permutation(40)
    state = {name: array[order] if array.shape == (40,) else array for name, array in qmodel.state_dict().items()}
    state["conv.weight"] = state["conv.weight"][order][:, order]
    other = graph.generate(model, x, weights=weights, activations=activations).eval()
    other.load_state_dict(state)
    np.testing.assert_array_equal(evaluated(qmodel, x)[:, order], evaluated(other, x[:, order]))
    for i in range(len(x)):
        np.testing.assert_array_equal(evaluated(qmodel, x[i : i + 1])[0], evaluated(qmodel, x)[i])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_ordinary_operations_are_as_near_as_float32_is(rng, groups):
    """They run in training, and where an observer wants to see them."""
    model, x = settled(Block(4, True, rng, groups), rng), normal(rng, 3, 4, 6, 5)
    for weights, activations in (("C-3", "C-3"), ("Z-3", "Z-2"), ("R-2", "F-3")):
        qmodel = graph.generate(model, x, weights=weights, activations=activations).eval()
        exact = evaluated(qmodel, x)
        with Parts():
            ordinary = evaluated(qmodel, x)
        assert not np.array_equal(exact, ordinary)
        np.testing.assert_allclose(exact, ordinary, rtol=1e-5, atol=1e-5)
        qmodel.train()
        with Parts():
            seen = qmodel(tq.Tensor(x)).data
        np.testing.assert_array_equal(qmodel(tq.Tensor(x)).data, seen)


@pytest.mark.parametrize("depth", [1, 9, 576, 5000])
def test_sums_of_float32_are_off_by_no_more_than_page_13_says(rng, depth):
    """(K + 6) · 2⁻²⁴ · Σ |w·x| for K products."""
    x = normal(rng, 20, depth)
    qmodel = graph.generate(nn.Linear(depth, 8, bias=False, rng=rng), x, weights="C-3", activations="P-3").eval()
    by = {slot.role: slot.module for slot in qmodel.quantizers()}
    w = dict(qmodel.named_parameters())["weight"].data
    reach = (
        abs(by["activations"].scheme.quantize(x, by["activations"].params)) @ abs(by["weights"].scheme.quantize(w)).T
    )
    exact = evaluated(qmodel, x)
    with Parts():
        ordinary = evaluated(qmodel, x)
    assert (abs(exact - ordinary) <= 1.01 * (depth + 6) * 2.0**-24 * reach).all()


def test_the_gradient_is_the_ordinary_operations(rng):
    """Value and derivative in evaluation, with a norm behind the product and an LSTM."""
    for model, shape in ((settled(Block(4, True, rng), rng), (3, 4, 6, 5)), (LSTM(rng), (4, 3, 5))):
        x = normal(rng, *shape)
        qmodel = graph.generate(model, x, weights="C-3", activations="C-3", batch_axis=int(len(shape) == 3)).eval()
        grads = []
        for ordinary in (False, True):
            leaf = tq.Tensor(x, requires_grad=True)
            qmodel.zero_grad()
            if ordinary:
                with Parts():
                    y = qmodel(leaf)
            else:
                y = qmodel(leaf)
                np.testing.assert_array_equal(y.data, evaluated(qmodel, x))
            y.sum().backward()
            grads.append([leaf.grad, *(p.grad for p in qmodel.parameters())])
        for one, two in zip(*grads, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


class LSTM(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.lstm = nn.LSTM(5, 6, rng=rng)

    def forward(self, x):
        return self.lstm(x)[0]


@pytest.mark.parametrize("depth", [200, 3000, 60_000])
def test_sums_that_no_float32_holds_are_exact(rng, depth):
    """In one piece, with a factor cut in two, in float64."""
    q = quant.scheme("C-8")
    by = Coded(q, {"scale": np.float32(1)})
    w, x = (q.decode(rng.integers(0, 128, (n, depth)).astype(np.int8), by.params) for n in (3, 5))  # nothing cancels
    product = ExactProduct(F.conv.Linear, {}, w, by)
    ways = [product.reach * 255 <= EXACT_IN_FLOAT32, product.reach * CUT <= EXACT_IN_FLOAT32]
    assert ways == [depth < 1000, depth < 10_000]
    m, n = (2 * by.encode(numbers).astype(np.int64) + 1 for numbers in (w, x))
    np.testing.assert_array_equal(product(x, by), (n @ m.T / 4).astype(np.float32))


def test_only_what_nobody_else_reads_is_folded(rng):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1, rng=rng), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return y, self.norm(y)

    x = normal(rng, 3, 2, 4, 4)
    qmodel = graph.generate(settled(Both(), rng), x, weights="C-2", activations="C-2").eval()
    assert [one.norm for one in products(qmodel.graph)] == [None]
    with tq.no_grad():
        y, normed = qmodel(x)
        with Parts():
            ordinary, _ = qmodel(x)
        np.testing.assert_allclose(y.data, ordinary.data, atol=1e-6)
        np.testing.assert_array_equal(normed.data, qmodel._modules["norm"](y).data)


def test_training_goes_on_after_an_evaluation(rng):
    """Averages of norms and quantizers move in training only, and no value of the one mode is seen in the other."""
    x = normal(rng, 8, 4, 6, 5)
    ends = []
    for evaluate in (False, True):
        qmodel = graph.generate(settled(Block(4, True, np.random.default_rng(1)), np.random.default_rng(2)), x,
                                weights="C-3", activations="C-3").train()  # fmt: skip
        optimizer = optim.SGD(qmodel.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            qmodel(tq.Tensor(x)).sum().backward()
            optimizer.step()
            if evaluate:
                evaluated(qmodel.eval(), x)
                qmodel.train()
        ends.append(qmodel.state_dict())
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name])


def test_values_of_somebody_elses_making_are_not_taken_for_whole_numbers(rng):
    """A scheme made from one of ours, whose values are others: the ordinary operations evaluate it."""

    class Bent(quant.ClipQ):
        def to_values(self, codes, scale):
            return super().to_values(codes, scale) ** 3

    x = normal(rng, 3, 4, 6, 5)
    qmodel = graph.generate(Block(4, True, rng), x, weights=Bent(3), activations="C-3").eval()
    exact = evaluated(qmodel, x)
    with Parts():
        np.testing.assert_array_equal(exact, evaluated(qmodel, x))


@pytest.mark.parametrize("what", ["channels are not outputs", "the norm learns", "float64"])
def test_elsewhere_the_ordinary_operations_evaluate(rng, what):
    """A norm over another axis is not folded; one that still learns, and float64, leave all as it is."""
    if what == "channels are not outputs":
        model, x = nn.Sequential(nn.Linear(5, 6, rng=rng), nn.BatchNorm1d(4)), normal(rng, 3, 4, 5)
        qmodel = graph.generate(settled(model, rng), x, weights="C-3", activations="C-3").eval()
        assert [one.norm for one in products(qmodel.graph)] == [None]
        assert agreement(qmodel, pack(qmodel), x).outputs == 0
        return
    x = normal(rng, 3, 4, 6, 5)
    qmodel = graph.generate(settled(Block(4, True, rng), rng), x, weights="C-3", activations="C-3").eval()
    if what == "float64":
        qmodel, x = qmodel.to(np.float64), x.astype(np.float64)
    else:
        qmodel._modules["norm"].train()
    with Parts():
        ordinary = evaluated(qmodel, x)
    np.testing.assert_array_equal(evaluated(qmodel, x), ordinary)
    assert ordinary.dtype == x.dtype
