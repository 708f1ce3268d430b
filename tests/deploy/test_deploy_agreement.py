"""Packed and quantized models give the same codes, whatever the schemes, on every kind of network."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import deploy, graph, kernels, models, nn, quant
from tinyqnn import functional as F
from tinyqnn.deploy.product import Product, Window
from tinyqnn.deploy.stairs import FloatStairs
from tinyqnn.kernels.bitserial import Alphabet
from tinyqnn.quant.whole import Coded

WEIGHTS = ("B-1", "T-2", "Q-2", "F-3", "R-2", "Z-2", "C-1", "C-3", "P-3", "P-4", "U-3", "F-8", "C-8", "Z-8")
ACTIVATIONS = ("F-3", "R-1", "R-2", "Z-3", "C-1", "C-3", "P-2", "P-4", "U-4", "PACT-3", "PACT-8", "C-8")


class Convolutions(nn.Module):
    """Strided, padded, dilated, depthwise and grouped, a residual addition, pooling of each kind, linear layers."""

    def __init__(self, rng):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(4)
        self.depthwise, self.bn2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, rng=rng), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, (3, 2), padding=(1, 0), groups=2, rng=rng)
        self.conv2, self.bn3 = nn.Conv2d(4, 6, 3, 2, 1, bias=False, rng=rng), nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(6 * 2 * 1, 8, rng=rng), nn.Linear(8, 3, rng=rng)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2, padding=1)
        y = self.bn2(self.depthwise(x))
        x = F.relu(x + y)
        x = F.avg_pool2d(self.grouped(x), 2, padding=1)
        x = F.max_pool2d(F.relu(self.bn3(self.conv2(x))), 2, 1)
        return self.fc2(F.sigmoid(self.fc1(x.flatten(1))))


class Words(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.embedding = nn.Embedding(11, 5, rng=rng)
        self.lstm = nn.LSTM(5, 6, num_layers=2, rng=rng)
        self.decoder = nn.Linear(6, 11, rng=rng)

    def forward(self, tokens, state=None):
        x, state = self.lstm(self.embedding(tokens), state)
        return self.decoder(x), state


def settled(model, rng):
    """The model with batch norms and biases as after training, some factors negative."""
    for name, buffer in model.named_buffers():
        if "running_mean" in name:
            buffer[...] = 0.1 * rng.normal(size=buffer.shape)
        if "running_var" in name:
            buffer[...] = rng.uniform(0.3, 2, size=buffer.shape)
    for _, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data[...] = rng.normal(size=parameter.shape)
    return model


def images(rng, shape=(3, 2, 15, 14)):
    return rng.normal(size=shape).astype(np.float32)


def convolutions(rng, weights, activations, keep=()):
    """A quantized model, packed, and images it has not seen."""
    model = settled(Convolutions(rng), rng)
    qmodel = graph.generate(model, images(rng), weights=weights, activations=activations, keep=keep).eval()
    return qmodel, deploy.pack(qmodel), images(rng)


def agrees(found):
    """Equal codes, and outputs equal to the last bit."""
    assert found.compared > 0
    assert found.equal, str(found)
    assert found.outputs == 0
    return True


PAIRS = [
    pytest.param(weights, activations, marks=[pytest.mark.slow] * ((i + j) % 4 > 0))  # each scheme three times, quickly
    for i, weights in enumerate(WEIGHTS)
    for j, activations in enumerate(ACTIVATIONS)
]


@pytest.mark.parametrize(("weights", "activations"), PAIRS)
def test_every_pair_of_schemes_agrees_on_convolutions(rng, weights, activations):
    qmodel, packed, x = convolutions(rng, weights, activations)
    assert agrees(deploy.agreement(qmodel, packed, x))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_scales_of_channels_agree(rng, weights):
    per_channel = quant.scheme(weights, axis=0)
    qmodel, packed, x = convolutions(rng, per_channel, "C-3")
    assert agrees(deploy.agreement(qmodel, packed, x))


def test_scales_that_cannot_leave_the_sums_stay_float(rng):
    """One scale an input channel, of weights or of activations: products in float, codes all the same."""
    for weights, activations in ((quant.ClipQ(3, axis=1), "C-3"), ("C-3", quant.ClipQ(3, axis=1))):
        qmodel, packed, x = convolutions(rng, weights, activations)
        assert deploy.agreement(qmodel, packed, x).equal


@pytest.mark.parametrize(
    ("weights", "activations", "keep"),
    [("C-3", "C-3", ("first", "last")), ("C-3", None, ()), (None, "C-3", ()), ("P-3", "Z-2", ("depthwise", "fc1"))],
)
def test_what_is_left_in_float_is_the_same_to_the_last_bit(rng, weights, activations, keep):
    qmodel, packed, x = convolutions(rng, weights, activations, keep)
    found = deploy.agreement(qmodel, packed, x)
    assert found.equal
    assert found.outputs == 0


@pytest.mark.parametrize(
    ("weights", "activations"),
    [("C-3", "C-3"), ("B-1", "C-2"), ("R-2", "Z-3"), ("P-4", "F-4"), ("F-2", "F-3"), ("C-2", "C-8"), ("C-3", None)],
)
def test_lstms_and_embeddings_agree(rng, weights, activations):
    tokens = rng.integers(0, 11, (5, 3))
    state = tuple(tq.Tensor(0.5 * images(rng, (2, 3, 6))) for _ in range(2))
    qmodel = graph.generate(Words(rng), (tokens, state), weights=weights, activations=activations, batch_axis=1).eval()
    packed = deploy.pack(qmodel, (tokens, state))
    found = deploy.agreement(qmodel, packed, tokens, state)
    assert found.equal
    assert found.outputs == 0
    assert len(found.vertices) == (5 if activations else 0)
    left_out = packed(tokens)[0]
    np.testing.assert_array_equal(left_out, packed(tokens, (np.zeros((2, 3, 6), np.float32),) * 2)[0])
    longer = rng.integers(0, 11, (7, 2)), tuple(tq.Tensor(images(rng, (2, 2, 6))) for _ in range(2))
    assert agrees(deploy.agreement(qmodel, packed, *longer)) if activations else True


def test_a_state_that_starts_from_zeros_is_not_encoded_there(rng):
    tokens = rng.integers(0, 11, (4, 3))
    qmodel = graph.generate(Words(rng), tokens, weights="C-2", activations="C-2", batch_axis=1).eval()
    packed = deploy.pack(qmodel)
    assert agrees(deploy.agreement(qmodel, packed, tokens))
    assert packed.trace(tokens)["lstm.quant.hidden"].shape == (3, 3, 6)


@pytest.mark.parametrize(("samples", "size"), [(1, 7), (3, 7), (5, 7), (1, 200), (20, 200)])
@pytest.mark.parametrize(
    ("weights", "activations"),
    [("C-3", "C-3"), ("Z-2", "R-2"), ("F-2", "F-4"), ("C-3", None), (None, None), (None, "C-3")],
)
def test_an_lstm_answers_with_the_same_bits(rng, weights, activations, samples, size):
    """Few samples and many, on codes and on numbers: the gates are those of the model."""
    if kernels.use_reference() and weights is None:
        pytest.skip("a BLAS may round one row otherwise than many")
    model, x = nn.LSTM(size, 3 * size // 2, rng=rng), images(rng, (18, samples, size))
    state = tuple(tq.Tensor(images(rng, (1, samples, 3 * size // 2))) for _ in range(2))
    qmodel = graph.generate(model, (x, state), weights=weights, activations=activations, batch_axis=1).eval()
    found = deploy.agreement(qmodel, deploy.pack(qmodel), x, state)
    assert found.equal, str(found)
    assert found.outputs == 0


@pytest.mark.parametrize(
    "name",
    ["lenet-bn", "resnet8-8", "separable-8", "vgg-8", "fcdnn-32-3", pytest.param("mobilenet", marks=pytest.mark.slow)],
)
def test_the_papers_networks_agree(rng, name):
    shape = {"lenet-bn": (1, 28, 28), "separable-8": (1, 28, 28), "fcdnn-32-3": (1, 8, 8)}.get(name, (3, 32, 32))
    model = models.create(name, channels=shape[0], classes=10, in_features=int(np.prod(shape)), rng=rng)
    x = images(rng, (2, *shape))
    qmodel = graph.generate(settled(model, rng), x, weights="P-3", activations="Z-3").eval()
    assert agrees(deploy.agreement(qmodel, deploy.pack(qmodel), images(rng, (2, *shape))))


@pytest.mark.parametrize(("weights", "activations"), [("B-1", "C-1"), ("C-2", "C-2"), ("P-4", "Z-3"), ("R-2", "U-8")])
def test_the_reference_kernels_give_the_same(rng, weights, activations):
    qmodel, packed, x = convolutions(rng, weights, activations)
    codes, y = packed.trace(x), packed(x)
    with kernels.using("reference"):
        slow = deploy.pack(qmodel)
        for name, found in slow.trace(x).items():
            np.testing.assert_array_equal(found, codes[name])
        np.testing.assert_array_equal(slow(x), y)


def test_a_batch_of_another_size_and_every_input_kind(rng):
    _, packed, x = convolutions(rng, "C-2", "C-2")
    y = packed(x)
    assert isinstance(y, np.ndarray)
    assert isinstance(packed(tq.Tensor(x)), tq.Tensor)
    np.testing.assert_array_equal(packed(np.concatenate([x, x]))[: len(x)], y)
    for i in range(len(x)):
        np.testing.assert_array_equal(packed(x[i : i + 1]), y[i : i + 1])
    with pytest.raises(ValueError, match="cannot change"):
        packed(x[:, :, :9])
    with pytest.raises(TypeError, match="float32"):
        packed(x.astype(np.float64))
    with pytest.raises(ValueError, match="NaN"):
        packed(x * np.nan)


def test_a_difference_is_named(rng):
    """One code of one weight changed: the first vertex behind it, its channel, the number and both codes."""
    qmodel, packed, x = convolutions(rng, "C-3", "C-3")
    weight = next(layer for layer in packed.layers if layer.name == "conv2").coded["weight"]
    weight.codes[5] = -weight.codes[5] - 1
    spoiled = deploy.Packed(packed.layers, packed.inputs, packed.outputs, packed.lengths)
    found = deploy.agreement(qmodel, spoiled, x)
    assert not found.equal
    assert found.first.vertex == "fc1.quant.input"
    assert found.first.model != found.first.packed
    assert found.first.index[1] // 2 == 5  # channel 5 of (6, 2, 1)
    assert "first at fc1.quant.input, channel" in str(found)


def test_a_wrong_packing_is_not_handed_out(rng, monkeypatch):
    """Given an example, pack compares; here the folded norm has been spoiled."""
    from tinyqnn.deploy import lower

    original = lower.fold
    qmodel, _, x = convolutions(rng, "C-3", "C-3")
    monkeypatch.setattr(lower, "fold", lambda *args: tuple(array + np.float32(0.5) for array in original(*args)))
    with pytest.raises(RuntimeError, match="does not agree"):
        deploy.pack(qmodel, x)


def test_what_cannot_be_packed_is_named(rng):
    with pytest.raises(TypeError, match=r"graph\.generate"):
        deploy.pack(nn.Linear(2, 2))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(RuntimeError, match="has seen no batch"):
        deploy.pack(graph.generate(nn.Linear(3, 2, rng=rng), x, weights="C-2", activations="C-2"))

    class Powers(nn.Module):
        def forward(self, x):
            return x**3

    with pytest.raises(ValueError, match="no packed form of Pow"):
        deploy.pack(graph.generate(Powers(), x + 1))

    qmodel = graph.generate(nn.Linear(3, 2, rng=rng), x + rng.normal(size=x.shape).astype("f"), weights="C-2")
    next(qmodel.quantizers()).put(nn.Identity())
    with pytest.raises(ValueError, match="no scheme of a fixed width"):
        deploy.pack(qmodel)


@pytest.mark.parametrize("window", [None, Window((1, 2), (1, 0), (1, 1), 1), Window(groups=2)])
@pytest.mark.parametrize(("weights", "activations"), [("C-1", "C-1"), ("B-1", "U-2"), ("T-2", "Z-2"), ("R-2", "C-3")])
def test_every_kernel_gives_the_same_product(rng, monkeypatch, weights, activations, window):
    """Bits or bytes, compiled or not: whole numbers are whole numbers."""
    shape = (6, 5) if window is None else (6, 4 // window.groups, 3, 3)
    q, p = quant.scheme(weights), quant.scheme(activations)
    w, x = rng.normal(size=shape).astype("f"), images(rng, (70, 5) if window is None else (3, 4, 7, 6))
    codes, params = q.encode(w)
    x_codes, x_params = p.encode(x)
    found = []
    names = ("int8", "bitserial") if window is None or window.groups == 1 else ("int8",)
    for name in names + (("binary",) if weights == activations == "C-1" and len(names) == 2 else ()):
        for choice in ("compiled", "reference"):
            monkeypatch.setattr(Product, "_choice", lambda self, codes, name=name: name)
            with kernels.using(choice):
                found.append(Product(Coded(q, params, codes), Coded(p, x_params), window)(x_codes))
    real = q.decode(codes, params).astype(np.float64), p.decode(x_codes, x_params).astype(np.float64)
    exact = real[1] @ real[0].T if window is None else kernels.reference.conv2d(real[1], real[0], None, *window)
    for y in found:
        np.testing.assert_array_equal(y, found[0])
        np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)


KINDS = (("midrise", 2), ("unsigned", 4), ("signed", 3), ("binary", 1), ("ternary", 2), ("zoom", 3), ("unsigned", 8))


@pytest.mark.parametrize(("x_kind", "x_bits"), KINDS)
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_a_few_rows_on_bits_are_the_product(rng, kind, bits, x_kind, x_bits):
    def codes(kind, bits, shape):
        alphabet = Alphabet.of(kind, bits)
        known = [code for code in range(alphabet.low, alphabet.high + 1) if code or kind != "binary"]
        return rng.choice(known, shape).astype(np.uint8 if alphabet.low >= 0 else np.int8)

    w, x = codes(kind, bits, (9, 70)), codes(x_kind, x_bits, (3, 70))
    factor = rng.normal(size=9)
    expected = kernels.BitSerialGemm(w, bits, kind, x_bits, x_kind)(x)
    rows = kernels.gates.BitRows(w, bits, kind, x_bits, x_kind, factor)
    np.testing.assert_array_equal(rows(x), (factor * expected).astype(np.float32))
    start = images(rng, (3, 9))
    np.testing.assert_array_equal(rows(x, start.copy()), start + rows(x))


@pytest.mark.parametrize("activations", ["C-3", "P-3", "R-3", "U-2", "F-4", "Z-6", "PACT-8", "B-1"])
def test_edges_are_where_encode_steps(rng, activations):
    """Counting edges is encode itself, on each side of every edge and far out."""
    scheme = quant.scheme(activations)
    x = images(rng, (50, 20))
    coded = Coded(scheme, scheme.fit(x))
    stairs = FloatStairs(coded)
    edges = stairs.edges.ravel()
    near = np.concatenate([np.nextafter(edges, np.float32(side) * np.inf) for side in (-1, 1)] + [edges])
    for numbers in (x, near, np.array([0.0, -0.0, 3e38, -3e38, 1e-45, -1e-45], np.float32), np.repeat(x, 9, 0)):
        np.testing.assert_array_equal(stairs(numbers), coded.encode(numbers))
        with kernels.using("reference"):
            np.testing.assert_array_equal(stairs(numbers), coded.encode(numbers))


def test_a_step_of_one_sample_is_that_of_many(rng):
    """The kernel for a few rows and the one for many give the same codes."""
    tokens = rng.integers(0, 11, (4, 5))
    qmodel = graph.generate(Words(rng), tokens, weights="C-2", activations="C-3", batch_axis=1).eval()
    packed = deploy.pack(qmodel)
    y, (h, c) = packed(tokens)
    for i in range(5):
        one, (h1, c1) = packed(tokens[:, i : i + 1])
        np.testing.assert_array_equal(one[:, 0], y[:, i])
        np.testing.assert_array_equal(h1[:, 0], h[:, i])
        np.testing.assert_array_equal(c1[:, 0], c[:, i])


class Stacked(nn.Module):
    """A layer whose outputs are stacked with nothing else."""

    def __init__(self, axis, rng):
        super().__init__()
        self.fc, self.axis = nn.Linear(4, 3, rng=rng), axis

    def forward(self, x):
        return F.stack([self.fc(x)], self.axis)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_a_stack_of_one_has_an_axis_more(rng, axis):
    x = images(rng, (5, 4))
    packed = deploy.pack(graph.generate(Stacked(axis, rng), x, weights="C-2", activations="C-2").eval(), x)
    assert packed(x).shape == np.stack([np.empty((5, 3))], axis).shape
    for wrong in (3, -4, 2**31, -(2**31)):  # as a damaged file may have it
        next(layer for layer in packed.layers if layer.op == "stack").options["axis"] = wrong
        damaged = deploy.Packed(packed.layers, packed.inputs, packed.outputs, packed.lengths)
        with pytest.raises(ValueError, match="cannot be stacked along axis"):
            damaged(x)


class Bare(nn.Module):
    """Products without a bias, one after another."""

    def __init__(self, rng):
        super().__init__()
        self.conv, self.depthwise = (
            nn.Conv2d(2, 4, 3, bias=False, rng=rng),
            nn.Conv2d(4, 4, 3, groups=4, bias=False, rng=rng),
        )
        self.pointwise, self.fc = nn.Conv2d(4, 6, 1, bias=False, rng=rng), nn.Linear(6, 3, bias=False, rng=rng)

    def forward(self, x):
        x = self.pointwise(self.depthwise(F.relu(self.conv(x))))
        return self.fc(F.max_pool2d(x, 5).flatten(1))


@pytest.mark.parametrize("scheme", ["C-2", "C-1", "Q-2", "B-1", "P-3", "R-2"])
def test_sums_of_zero_on_an_edge_have_one_code(rng, scheme):
    """A sum of 0 is frequent without a bias, and C-b steps there; float32 sums miss it to either side."""
    first = {"conv": "C-3", "*": scheme} if scheme in ("B-1", "Q-2") else scheme
    x = images(rng, (8, 2, 9, 9))
    schemes = {"conv": "C-3", "depthwise": "C-3", "pointwise": scheme, "fc": scheme}
    qmodel = graph.generate(Bare(rng), x, weights=first, activations=schemes).eval()
    assert agrees(deploy.agreement(qmodel, deploy.pack(qmodel), x))


def test_a_file_may_ask_for_sums_in_float32(rng, tmp_path):
    """Value by value, as the ordinary operations of the model add."""
    _, packed, x = convolutions(rng, "C-3", "F-3")
    for layer in packed.layers:
        if layer.op in ("conv2d", "linear") and "multiplier" not in layer.numbers:
            layer.options["sums"] = "float32"
    deploy.Packed(packed.layers, packed.inputs, packed.outputs, packed.lengths).save(tmp_path / "m.npz")
    np.testing.assert_allclose(deploy.load(tmp_path / "m.npz")(x), packed(x), atol=1e-4)
