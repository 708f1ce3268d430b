"""Cross-entropy row by row: the compiled exponential and the fused loss against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, kernels, no_grad
from tinyqnn import functional as F
from tinyqnn.kernels import exponential, jit, use_reference, using


@pytest.mark.skipif(use_reference(), reason="the exponential exists in compiled code alone")
def test_the_exponential_is_right_to_the_last_place_or_two():
    @jit.jit
    def each(x, y):
        for i in range(len(x)):
            y[i] = exponential.exp(x[i])

    x = np.linspace(-103, 88.7, 200_001).astype(np.float32)
    y = np.empty_like(x)
    each(x, y)
    exact = np.exp(x.astype(np.float64))
    assert (abs(y - exact) <= 1.5 * np.spacing(exact.astype(np.float32))).all()
    special = np.array([-np.inf, -200, 0, 200, np.inf, np.nan], np.float32)
    ends = np.empty_like(special)
    each(special, ends)
    np.testing.assert_array_equal(ends, np.array([0, 0, 1, np.inf, np.inf, np.nan], np.float32))


@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (5, 2), (7, 16), (100, 37), (9, 256), (9, 257), (30, 5000)])
def test_loss_and_gradient_equal_the_float64_twins(rng, rows, classes):
    logits = (rng.standard_normal((rows, classes)) * 5).astype(np.float32)
    targets = rng.integers(classes, size=rows)
    targets[::3] = -100
    found = []
    for choice, dtype in (("compiled", np.float32), ("reference", np.float64)):
        with using(choice):
            x = Tensor(logits.astype(dtype), requires_grad=True)
            loss = F.cross_entropy(x, targets)
            (loss * 3).backward()
            with no_grad():
                assert F.cross_entropy(x, targets).item() == loss.item()
            found.append((loss.item(), x.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("classes", [40, 400])
def test_what_is_no_number_stays_in_its_row(classes):
    logits = np.zeros((3, classes), np.float32)
    logits[0, 5], logits[1, 39], logits[2, 0] = np.nan, np.inf, np.nan
    x = Tensor(logits, requires_grad=True)
    with np.errstate(invalid="ignore"):  # NumPy warns of ∞ − ∞
        loss = F.cross_entropy(x, np.array([1, 1, -100]))
        loss.backward()
    assert np.isnan(loss.item())
    assert np.isnan(x.grad[:2]).any(axis=1).all()
    assert not x.grad[2].any() or use_reference()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("words", "count", "dim"), [(0, 4, 3), (1, 1, 1), (50, 7, 5), (300, 90, 37), (9, 9000, 16)])
def test_each_word_gets_the_sum_of_its_gradients_in_their_order(rng, words, count, dim, threads):
    places, rows = rng.integers(count, size=words), rng.standard_normal((words, dim)).astype(np.float32)
    wanted = np.zeros((count, dim), np.float32)
    np.add.at(wanted, places, rows)
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(threads)
        for kind in (np.int64, np.uint16):
            np.testing.assert_array_equal(kernels.rows.add_rows(rows, places.astype(kind), count), wanted)
    finally:
        jit.set_num_threads(before)
