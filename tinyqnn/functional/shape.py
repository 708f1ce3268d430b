"""Putting arrays together and around: padding, concatenation, stacking, flattening."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyqnn.tensor import Array, Function, Node, Tensor


class Pad(Function):
    """A border of `value` around x."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        ctx.save(tuple(slice(before, before + length) for (before, _), length in zip(widths, x.shape)))
        shape = tuple(before + length + after for (before, after), length in zip(widths, x.shape))
        y = np.full_like(x, value, shape=shape)  # keeps the order of the axes in memory
        y[ctx.saved[0]] = x
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (inside,) = ctx.saved
        return grad[inside]


class Concat(Function):
    """[x₁, x₂, …] along `axis`."""

    @staticmethod
    def forward(ctx: Node, *xs: Array, axis: int) -> Array:
        ctx.save(np.cumsum([x.shape[axis] for x in xs])[:-1], axis)
        return np.concatenate(xs, axis)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, ...]:
        cuts, axis = ctx.saved
        return tuple(np.split(grad, cuts, axis))


class Stack(Function):
    """[x₁, x₂, …] along a new `axis`."""

    @staticmethod
    def forward(ctx: Node, *xs: Array, axis: int) -> Array:
        ctx.save(axis)
        return np.stack(xs, axis)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, ...]:
        (axis,) = ctx.saved
        return tuple(np.moveaxis(grad, axis, 0))


def pad(input: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """A border of `value` around the last axes, as PyTorch gives it: (left, right, top, bottom, …), last axis first.

    >>> pad(Tensor([1.0, 2.0]), (1, 2)).data.tolist()
    [0.0, 1.0, 2.0, 0.0, 0.0]
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim or min(pad, default=0) < 0:
        raise ValueError(
            f"pad is (before, after) for each axis from the last, all 0 or more, got {tuple(pad)} for {input.shape}"
        )
    given = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    return Pad.apply(input, widths=((0, 0),) * (input.ndim - len(given)) + tuple(given), value=value)


def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors end to end along `axis`; their other lengths are equal.

    >>> concat([Tensor([1.0]), Tensor([2.0, 3.0])]).data.tolist()
    [1.0, 2.0, 3.0]
    """
    return Concat.apply(*tensors, axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis.

    >>> stack([Tensor([1.0]), Tensor([2.0])]).data.tolist()
    [[1.0], [2.0]]
    """
    return Stack.apply(*tensors, axis=axis)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the axes from `start_dim` to `end_dim` into one: (N, C, H, W) -> (N, C·H·W) for `start_dim=1`.

    >>> flatten(Tensor([[[1.0], [2.0]]]), 1).shape
    (1, 2)
    """
    return input.flatten(start_dim, end_dim)
