"""Every operation answers the same questions, asked of every row of `op_table.OPS`.

Is the value that of the slow version, is the kind of number kept, do the gradients of every operand agree with
differences and with PyTorch, what if an operand is used twice, lies strangely in memory, or must not be written to?
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from op_table import OPS, Op, as_tuple, channels_last, close, positive, slow_conv2d, tensors, values_and_gradients

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn.checks import gradcheck
from tinyqnn.tensor import Observer, Tensor

every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
every_image_op = pytest.mark.parametrize("op", [op for op in OPS if op.image], ids=lambda op: op.name)


def is_channels_last(x: np.ndarray) -> bool:
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


@every_op
def test_the_value_is_that_of_the_definition(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    expected = [np.asarray(y) for y in as_tuple(op.slow(*arrays))]
    close([y.data for y in as_tuple(op.f(*tensors(arrays)))], expected, op.rtol)


@every_op
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kind_of_number_is_kept_by_values_and_gradients(op: Op, dtype: type, rng: np.random.Generator):
    values, gradients = values_and_gradients(op, [array.astype(dtype) for array in op.operands(rng)])
    assert {array.dtype for array in values + gradients} == {np.dtype(dtype)}
    assert all(type(array) is np.ndarray for array in values + gradients)


@every_op
def test_float32_agrees_with_float64(op: Op, rng: np.random.Generator):
    arrays = [array.astype(np.float32) for array in op.operands(rng)]
    values, gradients = values_and_gradients(op, arrays)
    exact_values, exact_gradients = values_and_gradients(op, [array.astype(np.float64) for array in arrays])
    for got, exact in zip(values + gradients, exact_values + exact_gradients, strict=True):
        np.testing.assert_allclose(got, exact, rtol=2e-5, atol=2e-5)


@every_op
def test_the_gradient_of_every_operand_agrees_with_differences(op: Op, rng: np.random.Generator):
    assert gradcheck(op.f, tensors(op.operands(rng)), eps=1e-6, atol=1e-7, rtol=1e-5)


@every_op
def test_the_gradient_of_an_operand_is_the_same_whichever_others_want_one(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    _, together = values_and_gradients(op, arrays)
    for i in range(len(arrays)):
        xs = [Tensor(array, requires_grad=j == i) for j, array in enumerate(arrays)]
        ys, weights = as_tuple(op.f(*xs)), np.random.default_rng(1)
        sum(((y * weights.normal(size=y.shape)).sum() for y in ys), Tensor(np.zeros(()))).backward()
        np.testing.assert_array_equal(xs[i].grad, together[i])
        assert all(x.grad is None for j, x in enumerate(xs) if j != i)


@every_op
def test_a_leaf_that_is_used_again_gets_the_sum_of_its_gradients(op: Op, rng: np.random.Generator):
    def f(*xs: Tensor) -> tuple[Tensor, ...]:
        return (*as_tuple(op.f(*xs)), *(x * x for x in xs), *as_tuple(op.f(*xs)))

    assert gradcheck(f, tensors(op.operands(rng)))


OF_ONE_SHAPE = [op for op in OPS if len({array.shape for array in op.operands(np.random.default_rng(0))}) == 1]


@pytest.mark.parametrize(
    "op", [op for op in OF_ONE_SHAPE if len(op.operands(np.random.default_rng(0))) > 1], ids=lambda op: op.name
)
def test_one_leaf_as_all_operands(op: Op, rng: np.random.Generator):
    first, *others = op.operands(rng)
    assert gradcheck(lambda x: op.f(x, *[x] * len(others)), tensors([first]))


@every_op
def test_operands_may_lie_anyhow_in_memory(op: Op, rng: np.random.Generator):
    def every_second(x: np.ndarray) -> np.ndarray:
        wide = np.full([2 * n for n in x.shape], np.nan)
        strided = wide[(..., *(slice(None, None, 2) for _ in x.shape))]
        strided[...] = x
        return strided

    def backwards(x: np.ndarray) -> np.ndarray:
        everything = tuple(slice(None, None, -1) for _ in x.shape)
        return np.ascontiguousarray(x[everything])[everything] if x.ndim else x

    def columns_first(x: np.ndarray) -> np.ndarray:
        return np.array(x, order="F")

    arrays = op.operands(rng)
    expected = values_and_gradients(op, arrays)
    # Dropout draws in the order of memory, so its draws are others there.
    for view in (every_second, backwards, columns_first)[: 2 if op.name == "dropout" else 3]:
        got = values_and_gradients(op, [view(array) for array in arrays])
        close(got[0] + got[1], expected[0] + expected[1], 1e-9)


@every_op
def test_operands_and_gradients_that_come_in_are_only_read(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    for array in arrays:
        array.flags.writeable = False  # writing to it would raise
    xs = tensors(arrays)
    ys = as_tuple(op.f(*xs))
    for y in ys:
        if y._node is not None:
            node, index = y._node
            node.grads[index] = np.broadcast_to(np.ones((), y.dtype), y.shape)
    ys[0].backward(np.ones(ys[0].shape))
    assert all(x.grad.shape == x.shape for x in xs)


@every_op
def test_gradients_of_leaves_are_memory_of_their_own(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    xs = tensors(arrays)
    ys = as_tuple(op.f(*xs))
    seed = np.ones(ys[0].shape)
    ys[0].backward(seed)
    others = [*arrays, seed, *(y.data for y in ys)]
    for i, x in enumerate(xs):
        assert x.grad.flags.writeable
        assert not any(np.shares_memory(x.grad, other) for other in [*others, *(y.grad for y in xs[:i])])


@every_op
def test_nothing_is_recorded_where_nothing_is_wanted(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    with tq.no_grad():
        silent = as_tuple(op.f(*tensors(arrays)))
    plain = as_tuple(op.f(*tensors(arrays, requires_grad=False)))
    assert not any(y.requires_grad or y._node for y in (*silent, *plain))
    close([y.data for y in silent], [y.data for y in plain], 0)


@every_image_op
def test_images_stay_channels_last_in_memory(op: Op, rng: np.random.Generator):
    arrays = op.operands(rng)
    results = []
    for memory in (np.ascontiguousarray, channels_last):
        xs = tensors([memory(x) if x.ndim == 4 else x for x in arrays])
        y = op.f(*xs)
        y.backward(memory(np.random.default_rng(1).normal(size=y.shape)))
        results.append([y.data, *(x.grad for x in xs)])
    close(*results, 1e-9)
    assert is_channels_last(results[1][0])
    assert is_channels_last(results[1][1])


@every_op
def test_values_and_gradients_are_pytorchs(op: Op, rng: np.random.Generator):
    torch = pytest.importorskip("torch")
    if op.torch is None:
        pytest.skip("PyTorch has no such operation, or draws other random numbers")
    arrays = op.operands(rng)
    xs = [torch.tensor(array, requires_grad=True) for array in arrays]
    ys = as_tuple(op.torch(torch, *xs))
    weights = np.random.default_rng(1)
    sum((y * torch.tensor(np.asarray(weights.normal(size=tuple(y.shape))))).sum() for y in ys).backward()
    values, gradients = values_and_gradients(op, arrays)
    close(values, [y.detach().numpy() for y in ys], 1e-9)
    close(gradients, [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in xs], 1e-9)


@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_operands_are_repeated_in_every_direction(name: str, shapes: Any, seed: int):
    op = next(op for op in OPS if op.name == name)
    arrays = positive(*shapes.input_shapes)(np.random.default_rng(seed))
    xs = tensors(arrays)
    y = op.f(*xs)
    np.testing.assert_allclose(y.data, op.slow(*arrays), rtol=1e-14, strict=True)
    assert y.shape == shapes.result_shape
    assert gradcheck(op.f, xs)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1), (1, 3)], ids=lambda s: f"stride {s}")
def test_conv2d_in_every_geometry(dtype: type, stride: tuple[int, int], rng: np.random.Generator):
    """Value by definition. Linear in each operand, so <g, conv(x, w)> = <grad x, x> = <grad w, w> for all x, w."""
    rtol = 1e-12 if dtype == np.float64 else 2e-5
    kinds = [
        (1, 4, 3),
        (2, 4, 2),
        (2, 4, 6),
        (4, 4, 4),
        (3, 3, 6),
    ]  # groups, channels in and out; the last two depthwise
    for padding, dilation, (groups, c_in, c_out), bias in itertools.product(
        [(0, 0), (1, 1), (2, 1)], [(1, 1), (2, 1)], kinds, [True, False]
    ):
        arrays = [
            rng.normal(size=(2, c_in, 5, 4)),
            rng.normal(size=(c_out, c_in // groups, 3, 2)),
            rng.normal(size=c_out),
        ]
        arrays = [array.astype(dtype) for array in arrays][: 2 + bias]
        window = (stride, padding, dilation, groups)
        xs = tensors([channels_last(arrays[0]), *arrays[1:]])
        y = F.conv2d(*xs, *[None] * (not bias), *window)
        exact = [array.astype(np.float64) for array in arrays]
        np.testing.assert_allclose(
            y.data, slow_conv2d(*exact, *[None] * (not bias), *window), rtol=rtol, atol=10 * rtol
        )
        g = rng.normal(size=y.shape).astype(dtype)
        y.backward(g)
        x, w = (rng.normal(size=array.shape) for array in exact[:2])  # another point: the gradient is the whole map
        for gradient, direction, moved in ((xs[0].grad, x, (x, exact[1])), (xs[1].grad, w, (exact[0], w))):
            expected = float((g * slow_conv2d(*moved, None, *window)).sum())
            assert float((gradient * direction).sum()) == pytest.approx(expected, rel=20 * rtol, abs=200 * rtol)
        if bias:
            np.testing.assert_allclose(xs[2].grad, g.sum(axis=(0, 2, 3)), rtol=20 * rtol, atol=20 * rtol)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv2d_gradients_of_every_element(groups: int, rng: np.random.Generator):
    for stride, padding, dilation in itertools.product([(1, 1), (2, 1)], [(0, 0), (2, 1)], [(1, 1), (1, 2)]):
        x, w, b = tensors([rng.normal(size=shape) for shape in ((1, 4, 3, 4), (4, 4 // groups, 2, 2), (4,))])
        assert gradcheck(lambda *xs: F.conv2d(*xs, stride, padding, dilation, groups), [x, w, b])  # noqa: B023


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "matmul", "linear", "conv2d", "lstm"])
def test_a_gradient_that_nobody_wants_is_not_computed(name: str, rng: np.random.Generator):
    class Watcher(Observer):
        computed: list[bool]

        def on_backward(self, function, grads, seconds):
            if len(grads) >= len(arrays) > 1:
                self.computed = [grad is not None for grad in grads]

    op = next(op for op in OPS if op.name == name)
    arrays = op.operands(rng)
    for i in range(len(arrays)):
        xs = [Tensor(array, requires_grad=j == i) for j, array in enumerate(arrays)]
        with Watcher() as seen:
            as_tuple(op.f(*xs))[0].sum().backward()
        for j, computed in enumerate(seen.computed):
            falls_off = name == "lstm" and j in (1, 2)  # the initial state's gradient is the last step's by-product
            both_biases = name == "lstm" and {i, j} == {5, 6}
            assert computed == (j == i) or falls_off or both_biases, f"operand {j} when only {i} wants a gradient"
