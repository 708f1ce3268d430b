"""Schedules are functions of time alone, and agree with PyTorch's at whole epochs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn import Tensor
from tinyqnn.optim import (
    SGD,
    ConstantLR,
    CosineAnnealingLR,
    DiscreteCyclicLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
    clip_grad_norm,
)

ALL = [
    ConstantLR(),
    ConstantLR(0.1, total_iters=3),
    StepLR(4, gamma=0.3),
    MultiStepLR([5, 2], gamma=0.1),
    PolynomialLR(9, power=2.0),
    CosineAnnealingLR(10, eta_min=0.01),
]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_equals_pytorchs_at_whole_epochs(schedule):
    torch = pytest.importorskip("torch")
    options = vars(schedule)
    if isinstance(schedule, ConstantLR):
        options = {"factor": schedule.factor, "total_iters": schedule.total_iters}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = getattr(torch.optim.lr_scheduler, type(schedule).__name__)(optimizer, **options)
    for t in range(10):
        assert schedule(t, lr=0.5) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-17)
        optimizer.step()
        theirs.step()


@given(st.sampled_from([*ALL, DiscreteCyclicLR(2)]), st.floats(0, 100), st.floats(1e-6, 10))
def test_time_is_all_that_a_schedule_knows(schedule, t, lr):
    first = schedule(t, lr)
    schedule(t + 1, lr)
    assert schedule(t, lr) == first
    assert math.isfinite(first)
    assert first >= 0
    if not isinstance(schedule, CosineAnnealingLR):  # its eta_min is a rate, not a factor
        assert first == pytest.approx(schedule(t) * lr)


def test_discrete_cyclic_follows_appendix_b():
    schedule = DiscreteCyclicLR(step_size=1)
    rates = [schedule(t, lr=1e-4) for t in range(16)]
    exponents = [1, 0.5, 0, -0.5, -1, -0.5, 0, 0.5]
    assert rates == pytest.approx([1e-4 * 10**e for e in exponents] * 2)
    assert (max(rates), min(rates)) == pytest.approx((1e-3, 1e-5))
    assert schedule(3.999) == schedule(3)


def test_a_step_is_not_lost_to_rounding():
    assert 0.3 / 0.1 < 3
    assert StepLR(0.1, gamma=0.5)(0.3) == 0.5**3


@pytest.mark.parametrize("schedule", [PolynomialLR(5), CosineAnnealingLR(5, eta_min=0.1)])
def test_after_its_end_a_schedule_stays(schedule):
    assert schedule(5) == schedule(5.1) == schedule(500)
    assert schedule(4.9) > schedule(5)


def test_every_group_starts_from_its_own_rate():
    a, b = Tensor([0.0], requires_grad=True), Tensor([0.0], requires_grad=True)
    optimizer = SGD([{"params": [a], "lr": 1.0}, {"params": [b]}], lr=0.1)
    for t in (3, 1, 2):
        StepLR(1, gamma=0.5).set_lr(optimizer, t)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5**t, 0.1 * 0.5**t])


@pytest.mark.parametrize("make", [StepLR, PolynomialLR, CosineAnnealingLR, DiscreteCyclicLR])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_length_that_is_no_length_is_refused(make, value):
    with pytest.raises(ValueError, match="number of epochs above 0"):
        make(value)


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_clipping_equals_pytorchs(max_norm, rng):
    torch = pytest.importorskip("torch")
    ours = [Tensor(np.zeros(shape), requires_grad=True) for shape in [(), (3,), (70000,), (2, 3, 4)]]
    theirs = [torch.zeros(p.shape, dtype=torch.float64, requires_grad=True) for p in ours]
    for p, q in zip(ours[:-1], theirs):  # the last one has no gradient
        p.grad = rng.normal(size=p.shape)
        p.grad = np.asarray(p.grad)
        q.grad = torch.tensor(p.grad)
    assert clip_grad_norm(ours, max_norm) == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm).item())
    for p, q in zip(ours[:-1], theirs):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_reports_a_gradient_that_is_not_finite_and_leaves_it(bad):
    w = Tensor([1.0, 1.0], requires_grad=True)
    w.grad = np.array([bad, 3.0], np.float32)
    assert not math.isfinite(clip_grad_norm([w], 1.0))
    assert w.grad[1] == 3.0


def test_a_gradient_whose_square_is_no_float32_is_clipped_all_the_same():
    w = Tensor(np.zeros((2, 2), np.float32), requires_grad=True)
    w.grad = np.array([[3e30, 0.0], [0.0, -4e30]], np.float32)
    assert clip_grad_norm([w], 1.0) == pytest.approx(5e30)
    np.testing.assert_allclose(w.grad, [[0.6, 0.0], [0.0, -0.8]], rtol=1e-6)


def test_clipping_to_nothing_is_refused():
    with pytest.raises(ValueError, match="max_norm is a number above 0, got 0"):
        clip_grad_norm([], 0)
