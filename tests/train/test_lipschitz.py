"""The Lipschitz term is zero where lengths are kept, has the gradient it claims, and brings singular values to one."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, data, graph, nn, optim
from tinyqnn.checks import gradcheck
from tinyqnn.train import Trainer
from tinyqnn.train.lipschitz import Lipschitz, NotOrthonormal, lipschitz


def conv(weight, groups=1):
    out, inside, kernel, _ = weight.shape
    layer = nn.Conv2d(inside * groups, out, kernel, groups=groups, dtype=np.float64)
    layer.weight.data[...] = weight
    return layer


def by_hand(weight):
    matrix = weight.reshape(len(weight), -1).T  # (k·k·C_in) × C_out, as the paper has it
    return ((matrix.T @ matrix - np.eye(len(weight))) ** 2).sum()


def test_it_is_the_papers_formula(rng):
    weight = rng.normal(size=(5, 2, 3, 3))
    assert lipschitz(conv(weight)).item() == pytest.approx(by_hand(weight), rel=1e-12)


def test_it_is_zero_exactly_where_columns_are_orthonormal(rng):
    orthonormal = np.linalg.qr(rng.normal(size=(18, 5)))[0].T.reshape(5, 2, 3, 3)
    assert lipschitz(conv(orthonormal)).item() < 1e-24
    assert lipschitz(conv(orthonormal * 1.1)).item() == pytest.approx(5 * (1.21 - 1) ** 2)


def test_a_grouped_convolution_is_its_groups(rng):
    weight = rng.normal(size=(6, 1, 3, 3))
    apart = sum(by_hand(weight[2 * g : 2 * g + 2]) for g in range(3))
    assert lipschitz(conv(weight, groups=3)).item() == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient(groups, rng):
    weight = Tensor(rng.normal(size=(4, 2, 2, 2)), requires_grad=True)
    assert gradcheck(lambda w: NotOrthonormal.apply(w, groups=groups), [weight])


def test_a_quantized_copy_has_the_same_term_and_every_layer_takes_part(rng):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3, rng=rng))
    x = rng.normal(size=(2, 1, 4, 4)).astype(np.float32)
    quantized = graph.generate(model, x, weights="U-2")
    term = lipschitz(quantized)
    assert term.item() == lipschitz(model).item()
    term.backward()
    assert all(p.grad is not None for name, p in quantized.named_parameters() if name.endswith("weight"))


def test_training_with_it_brings_singular_values_to_one(rng):
    """With nothing else to learn, every singular value becomes 1, and noise passes with its length."""
    model = nn.Linear(6, 4, rng=rng)
    split = data.Split(rng.normal(size=(64, 6)).astype(np.float32), rng.integers(0, 4, 64))
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.02), lambda y, t: y.sum() * 0.0, hooks=[Lipschitz(1.0)])
    trainer.fit(split, epochs=200, progress=False)
    assert np.linalg.svd(model.weight.data)[1] == pytest.approx(np.ones(4), abs=1e-3)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="neither convolutions nor linear"):
        lipschitz(nn.ReLU())
