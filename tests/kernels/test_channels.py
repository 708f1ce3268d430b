"""Work channel by channel takes gradients as they come."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.kernels import channels


@pytest.mark.parametrize("relu", [False, True])
def test_a_gradient_that_must_not_be_written_to_counts_like_another(rng, relu):
    g, x, y = (rng.normal(size=(70, 100)).astype(np.float32) for _ in range(3))
    mean, scale, shift = rng.normal(size=(3, 100)).astype(np.float32)
    options = {"y": y} if relu else {"floor": 0.0}
    expected = channels.sums(g, x, mean, scale, shift, **options)
    kept = g * (y > 0 if relu else (x - mean) * scale + shift > 0)
    np.testing.assert_allclose(expected[0], kept.sum(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(expected[1], (kept * (x - mean)).sum(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(expected[2], kept if relu else g)
    for array in (g, x, y):
        array.flags.writeable = False
    for found, wanted in zip(channels.sums(g, x, mean, scale, shift, **options), expected):
        np.testing.assert_array_equal(found, wanted)
