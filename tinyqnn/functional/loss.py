"""How wrong a prediction is, as one number, and how that number moves with the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.tensor import Array, Function, Node, Tensor


class CrossEntropy(Function):
    """−Σᵢ ln softmax(xᵢ)[tᵢ] / n over the rows whose target counts."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, targets: Array, ignore_index: int) -> Array:
        if x.dtype == np.float32 and not kernels.use_reference():
            mean, grad_x = kernels.rows.cross_entropy(x, targets, ignore_index)
        else:
            counts = targets != ignore_index
            wrong = np.flatnonzero(counts & ((targets < 0) | (targets >= x.shape[1])))
            kernels.rows.check_class(targets, wrong[0] if wrong.size else -1, x.shape[1])
            n, places = max(int(np.count_nonzero(counts)), 1), (np.arange(len(x)), np.where(counts, targets, 0))
            top = x.max(axis=1, keepdims=True)
            e = np.exp(x - top)
            total = e.sum(axis=1, keepdims=True)  # softmax(x) = e / total, row by row
            loss = np.where(counts, np.log(total[:, 0]) + (top[:, 0] - x[places]), 0)  # not a product: 0 · ∞ is none
            grad_x = e * (counts[:, None] / (n * total))  # (softmax(x) − onehot(t)) / n
            grad_x[places] -= counts / n
            mean = loss.sum(dtype=np.float64) / n
        ctx.save(grad_x)
        return np.array(mean, x.dtype)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (grad_x,) = ctx.saved
        if grad.item() != 1:
            grad_x *= grad
        return grad_x


class MSELoss(Function):
    """Σ (x − t)² / n over all n elements."""

    @staticmethod
    def forward(ctx: Node, x: Array, target: Array) -> Array:
        difference = x - target
        ctx.save(difference)
        return np.asarray(np.mean(difference * difference, dtype=np.float64), difference.dtype)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array, Array | None]:
        (difference,) = ctx.saved
        grad_x = difference * (2 * grad / difference.size)
        return grad_x, -grad_x if ctx.needs_input_grad[1] else None


def cross_entropy(input: Tensor, target: Tensor | Array | Any, ignore_index: int = -100) -> Tensor:
    """The mean over all targets of −ln softmax(input)[target], in nats; e to it is the perplexity.

    input          logits: (N, classes), or (N, classes, d1, …) for sequences and images, or (classes,)
    target         class numbers: (N,), (N, d1, …) or one number
    ignore_index   targets of this value do not count

    Raises ValueError for shapes that do not belong together and for class numbers out of range.

    >>> cross_entropy(Tensor([[0.0, 0.0]]), np.array([1])).item()  # ln 2
    0.6931471824645996
    """
    targets = np.asarray(target.data if isinstance(target, Tensor) else target)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy wants class numbers (integers) as target, got {targets.dtype}")
    shape = input.shape
    if not shape:
        raise ValueError("cross_entropy wants logits with an axis of classes, got a single number")
    classes, expected = (shape[0], ()) if len(shape) == 1 else (shape[1], shape[:1] + shape[2:])
    if not classes:
        raise ValueError(f"cross_entropy wants logits of one class or more, got shape {shape}")
    if targets.shape != expected:
        raise ValueError(f"input of shape {shape} wants a target of shape {expected}, got {targets.shape}")
    if len(shape) == 1:
        input = input.reshape(1, classes)
    elif len(shape) > 2:
        input = input.permute(0, *range(2, len(shape)), 1).reshape(-1, classes)  # (N, C, d) -> (N·d, C)
    return CrossEntropy.apply(input, targets=targets.reshape(-1), ignore_index=ignore_index)


def mse_loss(input: Tensor, target: Tensor | Array) -> Tensor:
    """The mean of (input − target)² over all elements; both of one shape.

    >>> mse_loss(Tensor([1.0, 2.0]), Tensor([1.0, 4.0])).item()
    2.0
    """
    if input.shape != np.shape(target.data if isinstance(target, Tensor) else target):
        raise ValueError(f"input and target have one shape, got {input.shape} and {np.shape(target)}")
    return MSELoss.apply(input, target)
