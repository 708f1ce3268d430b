"""No kernel uses memory that nobody wrote: with every fresh array and work space full of NaN, results stay finite."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinyqnn.kernels import conv, gemm, jit, loops


def compile_all():
    """Numba compiles `np.empty` itself, and must find it as it was."""
    for groups in (1, 2):
        x, w = np.ones((1, 5, 5, 2), np.float32).transpose(0, 3, 1, 2), np.ones((2, 2 // groups, 3, 3), np.float32)
        y = conv.conv2d(x, w, None, groups=groups)
        conv.conv2d_grad_input(y, w, x.shape, groups=groups)
        conv.conv2d_grad_weight(y, x, w.shape, groups=groups)
    jit._looks(1)  # what threads wait in
    a = np.ones((100, 100), np.float32)
    gemm.matmul(a, a)
    gemm.matmul(a, gemm.pack(a))


@pytest.fixture
def poisoned(monkeypatch):
    """Fresh memory is NaN, and so is a work space each time it is asked for."""
    compile_all()
    empty, empty_like, scratch = np.empty, np.empty_like, jit.scratch

    def filled(make):
        def call(*args, **options):
            array = make(*args, **options)
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        return call

    monkeypatch.setattr(np, "empty", filled(empty))
    monkeypatch.setattr(np, "empty_like", filled(empty_like))
    monkeypatch.setattr(conv, "scratch", filled(scratch))
    monkeypatch.setattr(gemm, "scratch", filled(scratch))


def image(rng, *shape):
    n, c, h, w = shape
    return np.ascontiguousarray(rng.standard_normal((n, h, w, c), dtype=np.float32)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 0)]
)
def test_convolution(poisoned, rng, kernel, stride, padding):
    for channels, outputs, size in itertools.product((1, 3, 16, 20), (6, 16, 33), (6, 13)):
        x = image(rng, 2, channels, size, size)
        w = rng.standard_normal((outputs, channels, kernel, kernel), dtype=np.float32)
        window = ((stride, stride), (padding, padding), (1, 1), 1)
        y = conv.conv2d(x, w, np.zeros(outputs, np.float32), *window)
        g = image(rng, *y.shape)
        assert np.isfinite(y).all()
        assert np.isfinite(conv.conv2d_grad_input(g, w, x.shape, *window)).all()
        assert np.isfinite(conv.conv2d_grad_weight(g, x, w.shape, *window)).all()


def test_depthwise_convolution(poisoned, rng):
    for channels, stride in itertools.product((3, 16, 40), (1, 2)):
        x = image(rng, 2, channels, 9, 9)
        w = rng.standard_normal((channels, 1, 3, 3), dtype=np.float32)
        window = ((stride, stride), (1, 1), (1, 1), channels)
        y = conv.conv2d(x, w, None, *window)
        g = image(rng, *y.shape)
        assert np.isfinite(y).all()
        assert np.isfinite(conv.conv2d_grad_input(g, w, x.shape, *window)).all()
        assert np.isfinite(conv.conv2d_grad_weight(g, x, w.shape, *window)).all()


@pytest.mark.parametrize("size", [6, 7])  # windows that tile the image, and some that leave a row and a column over
def test_pooling(poisoned, rng, size):
    x = image(rng, 2, 16, size, size)
    window = ((2, 2), (2, 2), (0, 0))
    y, winner = loops.max_pool(x, *window)
    g = image(rng, *y.shape)
    gx = loops.max_pool_grad(g, winner, x.shape, *window)
    np.testing.assert_allclose(gx.sum(axis=(2, 3)), g.sum(axis=(2, 3)), rtol=1e-5, atol=1e-5)
    assert not gx[:, :, 6:].any()
    assert not gx[:, :, :, 6:].any()


def test_a_product_whose_second_factor_is_packed_as_it_is_used(poisoned, rng):
    a, b = rng.standard_normal((250, 400), dtype=np.float32), rng.standard_normal((400, 1400), dtype=np.float32)
    for right in (b, b.T.copy().T):
        assert np.isfinite(gemm.matmul(a, right)).all()


def test_products(poisoned, rng):
    for m, k, n in itertools.product((1, 7, 100), (1, 3, 84, 130), (1, 10, 120)):
        a, b = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
        for left, right in ((a, b), (a.T.copy().T, b), (a, b.T.copy().T), (a.T.copy().T, b.T.copy().T)):
            np.testing.assert_allclose(gemm.matmul(left, right), a.astype(float) @ b, rtol=1e-4, atol=1e-4)


def test_every_lane_of_a_packed_factor_is_written(poisoned, rng):
    """What no column needs is multiplied as well, and products of denormal numbers take a hundred times as long."""
    for k, n in itertools.product((1, 4, 15, 16, 84), (1, 4, 16, 40, 130)):
        b = rng.standard_normal((k, n), dtype=np.float32)
        for right in (b, b.T.copy().T):
            assert np.isfinite(gemm.pack(right).data).all()
