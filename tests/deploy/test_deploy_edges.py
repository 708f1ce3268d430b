"""Where the quantized model's code and the packed one's may differ: where an edge lies within the model's rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn import deploy, graph, kernels, nn
from tinyqnn import functional as F
from tinyqnn.deploy.agreement import recording
from tinyqnn.nn.module import evaluating
from tinyqnn.tensor import Tensor, no_grad

U = 2.0**-24  # half a unit of float32's last place
NEXT = "last.quant.input"


class Layers(nn.Module):
    """A convolution, a batch norm or none, and the quantizer of what follows."""

    def __init__(self, channels, bias, norm, rng):
        super().__init__()
        self.first = nn.Conv2d(channels, 5, 3, padding=1, bias=bias, rng=rng)
        self.norm = nn.BatchNorm2d(5) if norm else None
        self.last = nn.Conv2d(5, 2, 1, rng=rng)

    def forward(self, x):
        y = self.first(x)
        return self.last(F.relu(self.norm(y)) if self.norm is not None else y)


@given(
    channels=st.integers(1, 30), bias=st.booleans(), norm=st.booleans(), exact=st.booleans(), seed=st.integers(0, 9999),
    weights=st.sampled_from(["B-1", "T-2", "C-2", "C-3", "P-3", "U-3", "F-3"]),
    activations=st.sampled_from(["C-1", "C-2", "C-3", "P-3", "U-4", "PACT-3", "F-3"]),
)  # fmt: skip
@example(channels=2, bias=False, norm=False, exact=True, seed=0, weights="C-3", activations="C-3")
def test_codes_differ_only_where_an_edge_is_nearer_than_the_models_rounding(
    channels, bias, norm, exact, seed, weights, activations
):
    rng = np.random.default_rng(seed)
    model = Layers(channels, bias, norm, rng)
    for name, array in [*model.named_buffers(), *((name, p.data) for name, p in model.named_parameters())]:
        if array.ndim == 1:
            array[...] = rng.uniform(0.5, 2, 5) if "var" in name else rng.normal(size=array.shape)
    x = rng.normal(size=(4, channels, 7, 7)).astype(np.float32)
    qmodel = graph.generate(model, x, weights=weights, activations=activations).eval()
    with evaluating(qmodel), recording(qmodel) as seen, no_grad():
        qmodel(Tensor(x))
    ((real, ours),) = seen[NEXT]
    packed = deploy.pack(qmodel, exact=exact)
    theirs = packed.trace(x)[NEXT]

    y, reach = sum_and_rounding(qmodel, packed, x)
    then = (lambda y: np.maximum(y, 0)) if norm else np.asarray
    assert (abs(real - then(y)) <= reach).all()
    encode = next(layer for layer in packed.layers if layer.name == NEXT).coded["x"].encode
    ends = (np.nextafter((y + side * reach).astype(np.float32), np.float32(side * np.inf)) for side in (-1, 1))
    below, above = (encode(then(end)) for end in ends)
    settled = below == above
    np.testing.assert_array_equal(ours[settled], theirs[settled])
    assert settled.mean() > 0.99 or not (bias or norm)


def sum_and_rounding(qmodel, packed, x):
    """The sum, normalised, in float64, and how far float32 may be from it, in whatever order it adds.

    A sum of K products is off by (K + 1)·U·Σ|w·x| at most, U more for each rounded factor; each further operation by U
    times what it handles.
    """
    inner = qmodel.without_quantizers()
    parameters, buffers = dict(inner.named_parameters()), dict(inner.named_buffers())
    layers = {layer.name: layer for layer in packed.layers}
    coded = layers["first.quant.input"].coded["x"]
    values = coded.quantizer.decode(coded.encode(x), coded.params).astype(np.float64)
    w = layers["first"].coded["weight"].values().astype(np.float64)
    y, size = (kernels.reference.conv2d(f(values), f(w), None, (1, 1), (1, 1)) for f in (np.asarray, abs))
    k = w[0].size

    def of(table, name):
        return np.asarray(table[name].data, np.float64).reshape(-1, 1, 1) if name in table else np.zeros((1, 1, 1))

    bias = of(parameters, "first.bias")
    y, size = y + bias, (k + 6) * size + 2 * (size + abs(bias))
    if "norm.weight" in parameters:
        mean, shift = of(buffers, "norm.running_mean"), of(parameters, "norm.bias")
        scale = of(parameters, "norm.weight") / np.sqrt(of(buffers, "norm.running_var") + 1e-5)
        size = abs(scale) * (size + 8 * (abs(y) + abs(bias) + abs(mean))) + 4 * abs(shift)
        y = scale * (y - mean) + shift
    return y, 1.01 * U * size


def test_the_law_is_not_empty(rng):
    """With whole-number sums of exactly 0 on an edge, codes do differ, and only there."""
    found = []
    for seed in range(3):
        model = Layers(2, False, False, np.random.default_rng(seed))
        x = np.random.default_rng(seed).normal(size=(4, 2, 7, 7)).astype(np.float32)
        qmodel = graph.generate(model, x, weights="C-3", activations="C-3").eval()
        found.append(deploy.agreement(qmodel, deploy.pack(qmodel, exact=True), x).differing)
    assert sum(found) > 0


@pytest.mark.parametrize("notation", ["F-2", "F-3", "F-5"])
def test_with_powers_of_two_every_code_is_equal(rng, notation):
    """The model's float32 sums are exact then, in any order."""
    model = Layers(20, False, False, rng)
    x = rng.normal(size=(4, 20, 7, 7)).astype(np.float32)
    qmodel = graph.generate(model, x, weights=notation, activations=notation).eval()
    assert deploy.agreement(qmodel, deploy.pack(qmodel), x).equal
