"""Quantizing vertices: weights measured anew, activations averaged, frozen, saved and calibrated."""

from __future__ import annotations

import numpy as np
import pytest
from quant_tensors import EDGES, MAIN

import tinyqnn as tq
from tinyqnn import nn
from tinyqnn.quant import ActivationQuantizer, WeightQuantizer, calibrate

AVERAGED = [q for q in MAIN + EDGES if q.sees_data]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("q", MAIN + EDGES, ids=repr)
def test_training_and_evaluation_agree_on_a_frozen_batch(q, dtype, rng):
    x = tq.Tensor(rng.standard_normal((4, 50)).astype(dtype))
    vertex = ActivationQuantizer(q)
    trained = vertex(x).data
    assert vertex.eval()(x).data.tobytes() == trained.tobytes()
    assert trained.tobytes() == q.quantize(x.data).tobytes()


def test_the_average_moves_by_a_tenth_and_the_first_batch_starts_it():
    vertex = ActivationQuantizer("B-1", momentum=0.9)
    wanted = None
    for scale in (2.0, 4.0, 1.0):
        vertex(tq.Tensor(np.array([scale, -scale])))
        wanted = scale if wanted is None else 0.9 * wanted + 0.1 * scale
        assert float(vertex.params["scale"]) == pytest.approx(wanted, rel=1e-15)
    assert vertex.batches == 3


def test_training_uses_the_batchs_own_parameters():
    vertex = ActivationQuantizer("B-1")
    vertex(tq.Tensor([100.0]))
    assert vertex(tq.Tensor([1.0, -3.0])).data.tolist() == [2.0, -2.0]


def test_evaluation_changes_nothing():
    vertex = ActivationQuantizer("C-3")
    vertex(tq.Tensor([1.0, -3.0]))
    before = vertex.state_dict()
    vertex.eval()(tq.Tensor([100.0, -50.0]))
    assert all(np.array_equal(before[key], value) for key, value in vertex.state_dict().items())


@pytest.mark.parametrize("q", MAIN + EDGES, ids=repr)
def test_the_average_survives_a_state_dict(q, rng):
    old, new = ActivationQuantizer(q), ActivationQuantizer(q)
    for _ in range(3):
        old(tq.Tensor(rng.standard_normal(60).astype(np.float32)))
    new.load_state_dict(old.state_dict())
    x = tq.Tensor(rng.standard_normal(60).astype(np.float32))
    assert new.eval()(x).data.tobytes() == old.eval()(x).data.tobytes()


def test_averages_per_channel_need_the_shape_and_survive_a_state_dict(rng):
    q = tq.quant.ClipQ(bits=3, axis=1)
    with pytest.raises(ValueError, match="pass shape="):
        ActivationQuantizer(q)
    old, new = (ActivationQuantizer(q, shape=(8, 3, 4, 4)) for _ in range(2))
    x = tq.Tensor(rng.standard_normal((8, 3, 4, 4)))
    trained = old(x).data
    new.load_state_dict(old.state_dict())
    assert new.eval()(x).data.tobytes() == trained.tobytes()
    assert new(tq.Tensor(x.data[:2])).data.tobytes() == trained[:2].tobytes()


def test_evaluating_before_any_batch_names_the_remedy():
    with pytest.raises(RuntimeError, match=r"C-3 activation quantizer has seen no batch.*calibrate"):
        ActivationQuantizer("C-3").eval()(tq.Tensor([1.0]))


def test_calibrate_fills_the_averages_and_changes_nothing_else(rng):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), ActivationQuantizer("C-3"), nn.Dropout(0.5))
    model.train()
    model.children().__next__().__dict__["training"] = False
    before = model.state_dict()
    calibrate(model, [rng.standard_normal((8, 4)).astype(np.float32) for _ in range(3)])
    after = model.state_dict()
    assert after["2.batches"] == 3
    assert [key for key in before if not np.array_equal(before[key], after[key])] == ["2.batches", "2.running_scale"]
    assert [module.training for module in model.modules()] == [True, False, True, True, True]


@pytest.mark.parametrize("name", ["B-1", "T-2", "Q-2"])
def test_symmetric_schemes_are_refused_after_relu(name):
    with pytest.raises(ValueError, match=r"never negative.*AutoQNN §6"):
        ActivationQuantizer(name, after_relu=True)


@pytest.mark.parametrize("name", ["F-3", "R-3", "Z-3", "C-3", "P-3", "PACT-3"])
def test_other_schemes_are_welcome_after_relu(name, rng):
    ActivationQuantizer(name, after_relu=True)(tq.Tensor(np.abs(rng.standard_normal(9))))


def test_a_weight_is_measured_anew_at_every_step():
    vertex = WeightQuantizer("B-1").eval()
    assert vertex(tq.Tensor([1.0, -3.0])).data.tolist() == [2.0, -2.0]
    assert vertex(tq.Tensor([10.0])).data.tolist() == [10.0]
    assert vertex.state_dict() == {}


def test_the_scheme_in_the_slot_can_be_swapped():
    vertex = ActivationQuantizer("C-3")
    vertex(tq.Tensor([1.0, -3.0]))
    vertex.scheme = tq.quant.scheme("R-4")
    vertex.reset()
    assert vertex.running_scale.shape == (4,)
    assert vertex.batches == 0
    vertex(tq.Tensor([1.0, -3.0]))


def test_pacts_clip_is_a_parameter_of_the_model():
    model = nn.Sequential(ActivationQuantizer(tq.quant.PACT(bits=4, clip=3.0)))
    assert [name for name, _ in model.named_parameters()] == ["0.scheme.clip"]
    model(tq.Tensor([5.0])).sum().backward()
    assert model[0].scheme.clip.grad == 1.0


def test_averaged_fixed_point_scales_are_powers_of_two_in_evaluation():
    vertex = ActivationQuantizer("F-4")
    for top in (1.0, 2.0, 2.0):
        vertex(tq.Tensor(np.array([top])))
    assert float(vertex.params["scale"]) == 0.25
    assert float(vertex.running_scale) not in (0.25, 0.5)


def test_another_scheme_begins_with_averages_of_its_own():
    quant = ActivationQuantizer("C-3")
    quant(tq.Tensor([-1.0, 2.0]))
    quant.scheme = tq.quant.scheme("Z-3")
    with pytest.raises(RuntimeError, match="seen no batch"):
        quant.eval()(tq.Tensor([1.0]))
    quant.train()(tq.Tensor([-1.0, 2.0]))
    assert (
        quant.eval()(tq.Tensor([-1.0, 2.0])).data.tolist()
        == tq.quant.ZoomQ(3).quantize(np.float32([-1.0, 2.0])).tolist()
    )
