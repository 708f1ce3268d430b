"""The network for segmentation keeps the place of what it sees, sees far, and learns; mIOU counts what it should."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, graph, optim
from tinyqnn.data import Split
from tinyqnn.models import Segmenter
from tinyqnn.models.segmentation import bilinear
from tinyqnn.papers.holistic.table3 import fit, mean_iou, predicted


def test_the_picture_shrinks_four_times_and_comes_back(rng):
    model = Segmenter(width=4, classes=5, rng=rng)
    x = Tensor(rng.normal(size=(2, 3, 24, 16)).astype(np.float32))
    assert model.encoder(x).shape == (2, 32, 6, 4)
    assert model(x).shape == (2, 5, 24, 16)


def test_dilation_lets_it_see_far_without_shrinking(rng):
    """Which input pixels move the output in the middle: nearly the whole picture."""
    model = Segmenter(width=4, rng=rng).eval()
    x = Tensor(rng.normal(size=(1, 3, 64, 64)).astype(np.float32), requires_grad=True)
    model(x)[:, :, 32, 32].sum().backward()
    seen = np.abs(x.grad[0]).sum(axis=0) > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert min(np.ptp(rows), np.ptp(columns)) >= 60


def test_a_picture_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        Segmenter(width=4)(Tensor(np.zeros((1, 3, 18, 16), np.float32)))


def test_bilinear_rows_sum_to_one_and_keep_straight_lines():
    matrix = bilinear(5, 4)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(20))
    inner = (matrix @ np.arange(5))[2:-2]
    assert np.diff(inner) == pytest.approx(np.full(15, 0.25))


def test_a_quantized_copy_is_made_and_its_batch_may_have_any_size(rng):
    x = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
    model = Segmenter(width=2, rng=rng).eval()
    copy = graph.generate(model, x)
    assert (copy(x[:3]).data == model(Tensor(x[:3])).data).all()


def test_mean_iou_by_hand():
    right = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = np.array([0, 0, 1, 1, 1, 1, 2, 0])
    assert mean_iou(found, right, 4) == pytest.approx(100 * (2 / 5 + 2 / 4 + 1 / 2) / 3)
    assert mean_iou(right, right, 4) == 100


def test_it_learns_where_a_bright_square_lies(rng):
    images, labels = rng.integers(0, 100, (32, 3, 16, 16)).astype(np.uint8), np.zeros((32, 16, 16), np.int64)
    for image, label, (top, left) in zip(images, labels, rng.integers(0, 9, (32, 2))):
        image[:, top : top + 8, left : left + 8] += 120
        label[top : top + 8, left : left + 8] = 1
    split = Split(images, labels)
    model = Segmenter(4, classes=2, rng=rng)
    fit(model, split, 25, 0.1, optim.PolynomialLR(25, 0.9), 0, [])
    assert mean_iou(predicted(model, split), labels, 2) > 50  # all ground would be 38
