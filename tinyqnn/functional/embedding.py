"""A table of vectors, looked up by number: the layer that turns words into something to compute with."""

from __future__ import annotations

import numpy as np

from tinyqnn import kernels
from tinyqnn.tensor import Array, Function, Node, Tensor


class Embedding(Function):
    """y = weight[input]."""

    @staticmethod
    def forward(ctx: Node, weight: Array, input: Array) -> Array:
        ctx.save(weight.shape, input)
        return weight[input]

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, None]:
        shape, input = ctx.saved
        # A word that occurs n times gets n gradients: sort the occurrences by word and add each word's run.
        if grad.dtype == np.float32 and not kernels.use_reference():
            return kernels.rows.add_rows(grad.reshape(-1, shape[1]), input.reshape(-1), shape[0]), None
        order = np.argsort(input, axis=None, kind="stable")
        words, starts = np.unique(input.reshape(-1)[order], return_index=True)
        grad_weight = np.zeros(shape, grad.dtype)
        if len(words):
            grad_weight[words] = np.add.reduceat(grad.reshape(-1, shape[1])[order], starts, axis=0)
        return grad_weight, None


def embedding(input: Tensor | Array, weight: Tensor) -> Tensor:
    """The rows of `weight` that `input` names.

    input    (…) integers from 0 to rows − 1
    weight   (rows, dim)
    result   (…, dim)

    >>> embedding(np.array([1, 1]), Tensor([[0.0], [5.0]])).data.tolist()
    [[5.0], [5.0]]
    """
    ids = np.asarray(input.data if isinstance(input, Tensor) else input)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding looks rows up by integers, got {ids.dtype}")
    if ids.size and (ids.min() < 0 or ids.max() >= weight.shape[0]):
        raise ValueError(f"the table has rows 0 … {weight.shape[0] - 1}, input has {int(ids.min())} … {int(ids.max())}")
    return Embedding.apply(weight, input if isinstance(input, Tensor) else ids)
