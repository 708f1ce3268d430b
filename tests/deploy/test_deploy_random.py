"""Random small networks with a random scheme on every vertex: packed, written, read, and the same codes."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tinyqnn import deploy, graph, nn, quant
from tinyqnn import functional as F
from tinyqnn.functional.conv import Conv2d, Linear

WEIGHTS = ("B-1", "T-2", "Q-2", "F-3", "R-2", "Z-3", "C-1", "C-2", "C-5", "P-2", "P-4", "U-3", "F-8", "C-8", None)
ACTIVATIONS = ("F-3", "R-2", "Z-2", "C-1", "C-3", "P-3", "U-2", "PACT-4", "C-8", "PACT-8", None)
BLOCKS = ("conv", "strided", "depthwise", "grouped", "residual", "relu", "max", "average", "norm", "sigmoid")


class Network(nn.Module):
    """4 channels all the way, blocks in any order, two linear layers."""

    def __init__(self, blocks, rng):
        super().__init__()
        self.blocks = blocks
        for i, block in enumerate(blocks):
            groups = {"depthwise": 4, "grouped": 2}.get(block, 1)
            if block in ("conv", "strided", "depthwise", "grouped", "residual"):
                bias, stride = bool(rng.integers(2)), 2 if block == "strided" else 1
                self.add_module(f"conv{i}", nn.Conv2d(4, 4, 3, stride, 1, groups=groups, bias=bias, rng=rng))
            elif block == "norm":
                self.add_module(f"norm{i}", nn.BatchNorm2d(4))
        self.fc1, self.fc2 = nn.Linear(4, 6, rng=rng), nn.Linear(6, 3, rng=rng)

    def forward(self, x):
        for i, block in enumerate(self.blocks):
            if block in ("conv", "strided", "depthwise", "grouped"):
                x = getattr(self, f"conv{i}")(x)
            elif block == "residual":
                x = x + getattr(self, f"conv{i}")(F.relu(x))
            elif block == "norm":
                x = getattr(self, f"norm{i}")(x)
            elif block == "max":
                x = F.max_pool2d(x, 2, 1, 1)
            elif block == "average":
                x = F.avg_pool2d(x, 2, 1, 1)
            else:
                x = {"relu": F.relu, "sigmoid": F.sigmoid}[block](x)
        return self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1).flatten(1))))


@example(blocks=["norm", "sigmoid"], seed=20562)  # a scale of 0: all numbers have one code
@given(blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5), seed=st.integers(0, 2**20))
def test_random_networks_agree(blocks, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    model = Network(tuple(blocks), rng)
    for name, array in [*model.named_buffers(), *[(name, p.data) for name, p in model.named_parameters()]]:
        if array.ndim == 1 and array.dtype.kind == "f":
            array[...] = rng.uniform(0.3, 2, array.shape) if "var" in name else rng.normal(size=array.shape)
    x = images(rng)
    names = [v.name for v in graph.trace(model, x) if v.function in (Conv2d, Linear)]
    weights = {name: _scheme(rng, WEIGHTS, (None, 0)) for name in names}
    qmodel = graph.generate(model, x, weights=weights, activations={name: _activation(rng) for name in names})
    if any(True for _ in qmodel.quantizers()):
        quant.calibrate(qmodel, [x])
    packed = deploy.pack(qmodel.eval())
    x = images(rng)
    found = deploy.agreement(qmodel, packed, x)
    assert found.equal, str(found)
    assert found.outputs == 0

    path = tmp_path_factory.getbasetemp() / "random.npz"
    packed.save(path)
    loaded = deploy.load(path)
    np.testing.assert_array_equal(loaded(x), packed(x))
    assert path.stat().st_size == packed.nbytes


def images(rng):
    return rng.normal(size=(2, 4, 6, 5)).astype(np.float32)


def _scheme(rng, notations, axes):
    notation = notations[rng.integers(len(notations))]
    return None if notation is None else quant.scheme(notation, axis=axes[rng.integers(len(axes))])


def _activation(rng):
    notation = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
    if notation is None or not notation.startswith("U"):
        return notation
    return quant.Uniform(int(notation[2:]), signed=bool(rng.integers(2)), levels=None)
