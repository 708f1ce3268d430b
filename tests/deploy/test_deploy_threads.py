"""Threads that take samples through the whole network change no number."""

from __future__ import annotations

import numpy as np

from tinyqnn import deploy, graph, models
from tinyqnn.deploy import engine
from tinyqnn.kernels import jit


def test_samples_shared_out_give_the_same_codes_and_answers(rng):
    x = rng.standard_normal((2 * engine.FEW_SAMPLES + 3, 1, 28, 28), dtype=np.float32)
    model = graph.generate(models.create("lenet-bn", rng=rng), x, weights="C-2", activations="C-2").eval()
    packed = deploy.pack(model, x)
    assert packed.engine.by_sample
    before, found = jit.get_num_threads(), []
    try:
        for threads in (1, 2):
            jit.set_num_threads(threads)
            found.append((packed(x), packed.trace(x)))
    finally:
        jit.set_num_threads(before)
    (y, codes), (shared_y, shared_codes) = found
    assert np.array_equal(y, shared_y)
    assert codes.keys() == shared_codes.keys()
    assert all(np.array_equal(codes[name], shared_codes[name]) for name in codes)
