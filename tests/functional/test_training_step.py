"""A training step of a convolutional network: nothing is reordered in memory, and every run gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, models, optim
from tinyqnn import functional as F
from tinyqnn.kernels import conv


def trained(name):
    """The parameters after two steps, and how many arrays were reordered on the way."""
    rng = np.random.default_rng(0)
    model = models.create(name, 3, 10, rng=np.random.default_rng(1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = np.ascontiguousarray(rng.standard_normal((4, 16, 16, 3), dtype=np.float32)).transpose(0, 3, 1, 2)
    y, before = rng.integers(10, size=4), conv.reorders
    for _ in range(2):
        loss = F.cross_entropy(model(Tensor(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.data.tobytes() for p in model.parameters()], conv.reorders - before


@pytest.mark.parametrize("name", ["resnet8-8", "resnet8-16"])
def test_a_step_reorders_nothing_and_gives_the_same_bits_again(name):
    first, reorders = trained(name)
    second, _ = trained(name)
    assert reorders == 0
    assert first == second
