"""Trained models agree on every test image, and packed accuracy is the quantized model's."""

from __future__ import annotations

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import data, deploy, graph, models, optim, quant
from tinyqnn.train import Trainer, evaluate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "activations"),
    [("lenet-bn", "C-3", "C-2"), ("lenet-bn", "F-3", "F-3"), ("separable-8", "C-3", "C-3")],
)
def test_a_trained_network_agrees_on_every_test_image(name, weights, activations):
    rng = tq.manual_seed(0)
    glyphs = data.load("glyphs")
    train, test = glyphs.train, glyphs.test
    part = data.Split(train.x[:3000], train.y[:3000], train.mean, train.std)
    model = models.create(name, rng=rng)
    qmodel = graph.generate(model, part.inputs(slice(0, 64)), weights=weights, activations=activations)
    quant.calibrate(qmodel, [part.inputs(slice(0, 256))])
    optimizer = optim.SGD(qmodel.parameters(), lr=0.05, momentum=0.9)
    Trainer(qmodel, optimizer, batch_size=50, seed=0).fit(part, epochs=1, progress=False)
    packed = deploy.pack(qmodel.eval())
    found = deploy.Agreement()
    for start in range(0, len(test), 500):
        found.add(deploy.agreement(qmodel, packed, test.inputs(slice(start, start + 500))))
    assert found.equal, str(found)
    assert found.predictions == 0
    assert found.outputs < 1e-4
    assert evaluate(packed, test).accuracy == evaluate(qmodel, test).accuracy
    if "C-3" not in activations:
        assert evaluate(packed, test).accuracy > np.float64(0.5)
