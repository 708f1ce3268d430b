"""Functions of one element at a time, and the softmax family, each with its derivative."""

from __future__ import annotations

import numpy as np

from tinyqnn import kernels, random
from tinyqnn.kernels.channels import fast
from tinyqnn.tensor import Array, Function, Node, Tensor


class ReLU(Function):
    """max(x, 0). At x = 0 the gradient is 0."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        y = kernels.loops.relu(x) if fast(x) else np.maximum(x, 0)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        return relu_grad(grad, *ctx.saved)


def relu_grad(grad: Array, y: Array) -> Array:
    """The derivative of `y = relu(x)`: grad where y is above 0.

    >>> relu_grad(np.array([5.0, 5.0]), np.array([0.0, 3.0])).tolist()
    [0.0, 5.0]
    """
    return kernels.loops.relu_grad(grad, y) if fast(grad, y) else grad * (y > 0)


class Sigmoid(Function):
    """σ(x) = 1 / (1 + e⁻ˣ), computed from e^−|x|, which cannot overflow."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        e = np.exp(-np.abs(x))
        y = np.where(x >= 0, 1, e) / (1 + e)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (y,) = ctx.saved
        return grad * y * (1 - y)


class Tanh(Function):
    """tanh x."""

    @staticmethod
    def forward(ctx: Node, x: Array) -> Array:
        y = np.tanh(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        (y,) = ctx.saved
        return grad * (1 - y * y)


class Softmax(Function):
    """pⱼ = e^xⱼ / Σₖ e^xₖ along `axis`."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: int) -> Array:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        p = e / e.sum(axis=axis, keepdims=True)
        ctx.save(p, axis)
        return p

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        p, axis = ctx.saved
        return p * (grad - (grad * p).sum(axis=axis, keepdims=True))


class LogSoftmax(Function):
    """xⱼ − ln Σₖ e^xₖ along `axis`."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, axis: int) -> Array:
        x = x - x.max(axis=axis, keepdims=True)
        y = x - np.log(np.exp(x).sum(axis=axis, keepdims=True))
        ctx.save(y, axis)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        y, axis = ctx.saved
        return grad - np.exp(y) * grad.sum(axis=axis, keepdims=True)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), any shape. At x = 0 the gradient is 0.

    >>> relu(Tensor([-1.0, 0.0, 2.0])).data.tolist()
    [0.0, 0.0, 2.0]
    """
    return ReLU.apply(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ), any shape; no overflow at either end.

    >>> sigmoid(Tensor([-1000.0, 0.0, 1000.0])).data.tolist()
    [0.0, 0.5, 1.0]
    """
    return Sigmoid.apply(x)


def tanh(x: Tensor) -> Tensor:
    """tanh x, any shape.

    >>> tanh(Tensor([0.0, 100.0])).data.tolist()
    [0.0, 1.0]
    """
    return Tanh.apply(x)


def exp(x: Tensor) -> Tensor:
    """eˣ, any shape.

    >>> exp(Tensor([0.0])).item()
    1.0
    """
    return x.exp()


def log(x: Tensor) -> Tensor:
    """ln x, any shape.

    >>> log(Tensor([1.0])).item()
    0.0
    """
    return x.log()


def abs(x: Tensor) -> Tensor:
    """|x|, any shape. At x = 0 the gradient is 0.

    >>> abs(Tensor([-2.0])).item()
    2.0
    """
    return x.abs()


def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """min(max(x, lo), hi), any shape. The gradient passes where lo ≤ x ≤ hi, both ends included.

    >>> clip(Tensor([-2.0, 0.5, 2.0]), -1, 1).data.tolist()
    [-1.0, 0.5, 1.0]
    """
    return x.clip(min, max)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """e^xⱼ / Σₖ e^xₖ along `axis`; the result sums to one there.

    >>> softmax(Tensor([0.0, 0.0])).data.tolist()
    [0.5, 0.5]
    """
    return Softmax.apply(x, axis=axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """ln softmax(x) along `axis`, without taking the logarithm of a vanishing number.

    >>> log_softmax(Tensor([0.0, 1000.0])).data.tolist()
    [-1000.0, 0.0]
    """
    return LogSoftmax.apply(x, axis=axis)


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, axis: int = -1, rng: np.random.Generator | None = None
) -> Tensor:
    """softmax((logits + g) / τ) with g ~ Gumbel(0, 1): a draw from softmax(logits) that gradients flow through.

    logits   unnormalised log-probabilities, any shape
    tau      the temperature τ > 0: large τ gives nearly uniform weights, small τ nearly one-hot ones
    hard     return the one-hot draw itself; its gradient is that of the soft weights (straight-through)
    rng      where g is drawn from; `tinyqnn.random.default_rng()` if None

    AutoQNN eqs. (1) and (2).

    >>> y = gumbel_softmax(Tensor([0.0, 0.0, 9.0]), tau=0.5, hard=True, rng=np.random.default_rng(0))
    >>> y.data.tolist()
    [0.0, 0.0, 1.0]
    """
    if not tau > 0:
        raise ValueError(f"the temperature tau must be above 0, got {tau}")
    rng = random.default_rng() if rng is None else rng
    noise = rng.gumbel(size=logits.shape).astype(logits.dtype)
    soft = softmax((logits + noise) * (1 / float(tau)), axis=axis)
    if not hard:
        return soft
    one_hot = np.zeros_like(soft.data)
    np.put_along_axis(one_hot, soft.data.argmax(axis=axis, keepdims=True), 1, axis=axis)
    return soft + (one_hot - soft.data)
