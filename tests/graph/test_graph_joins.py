"""Neighbours that run as one operation when nobody looks: which they are, and that no bit depends on it."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn import nn
from tinyqnn.tensor import Observer


class Names(Observer):
    """The names of what runs, with or without asking for the parts."""

    def __init__(self, parts):
        self.parts, self.names = parts, []

    def on_forward(self, function, args, options, outputs, seconds):
        self.names.append(function.__name__)


class Net(nn.Module):
    """`forward` is a lambda of (self, x), with a batch norm, a convolution and a linear layer at hand."""

    def __init__(self, forward):
        super().__init__()
        rng = np.random.default_rng(0)
        self.norm, self.other, self.conv = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, rng=rng)
        self.linear, self.shift = nn.Linear(5, 5, rng=rng), nn.Parameter(np.ones((1, 3, 4, 5), np.float32))
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def run(model, x, parts):
    """Names of the operations, and every number that comes out: result, gradients, state."""
    leaf = tq.Tensor(x, requires_grad=True)
    with Names(parts) as seen:
        y = model(leaf)
    model.zero_grad()
    (y * y).sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return seen.names, [y.data, leaf.grad, *grads, *model.state_dict().values()]


JOINED = {
    "norm": (lambda m, x: F.relu(m.norm(x)), ["BatchNormReLU"]),
    "linear": (lambda m, x: F.relu(m.linear(x)), ["LinearReLU"]),
    "shortcut": (lambda m, x: F.relu(m.norm(m.conv(x)) + x), ["Conv2d", "BatchNormReLU"]),
    "shortcut first": (lambda m, x: F.relu(x + m.norm(m.conv(x))), ["Conv2d", "BatchNormReLU"]),
    "two norms": (lambda m, x: F.relu(m.norm(x) + m.other(m.conv(x))), ["Conv2d", "BatchNorm", "BatchNormReLU"]),
    "the norm is read twice": (lambda m, x: F.relu(y := m.norm(x)) + y, ["BatchNorm", "ReLU", "Add"]),
    "one norm twice": (lambda m, x: F.relu((y := m.norm(x)) + y), ["BatchNorm", "Add", "ReLU"]),
    "another sum": (lambda m, x: F.relu(m.conv(x) + x), ["Conv2d", "Add", "ReLU"]),
    "no relu": (lambda m, x: F.sigmoid(m.norm(x)), ["BatchNorm", "Sigmoid"]),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("what", JOINED)
def test_a_graph_joins_what_nobody_else_reads_and_no_bit_depends_on_it(what, training, rng):
    forward, names = JOINED[what]
    x, found = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), []
    for parts in (True, False):
        model = Net(forward)
        model.norm.weight.data[:] = model.other.bias.data[:] = [-1, 2, 3]
        found.append(run(tq.graph.generate(model, x).train(training), x, parts))
    assert found[1][0] == names
    assert not any(name.endswith("ReLU") and name != "ReLU" for name in found[0][0])
    for part, whole in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(part, whole)


def test_what_is_returned_as_well_is_not_joined(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    replayed = tq.graph.generate(Net(lambda m, x: (y := m.norm(x), F.relu(y))), x)
    with Names(parts=False) as seen:
        y, z = replayed(x)
    assert seen.names == ["BatchNorm", "ReLU"]
    np.testing.assert_array_equal(np.maximum(y.data, 0), z.data)


def test_a_shortcut_that_is_repeated_along_the_batch_is_added_in_parts(rng):
    """In an example of one sample its shape is that of the norm."""
    x = rng.normal(size=(4, 3, 4, 5)).astype(np.float32)
    replayed = tq.graph.generate(Net(lambda m, x: F.relu(m.norm(x) + m.shift)), x[:1]).eval()
    for batch, names in ((x[:1], ["BatchNormReLU"]), (x, ["BatchNorm", "Add", "ReLU"])):
        assert run(replayed, batch, parts=False)[0] == names
    np.testing.assert_array_equal(replayed(x).data[2:3], replayed(x[2:3]).data)
