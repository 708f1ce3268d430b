"""Batch normalisation: every channel is brought to mean 0 and variance 1, then scaled and shifted as learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.kernels import channels
from tinyqnn.tensor import Array, Function, Node, Tensor


class BatchNorm(Function):
    """y = γ · (x − μ) / √(σ² + ε) + β, with μ, σ² of the batch in training and the running averages in evaluation."""

    @staticmethod
    def forward(
        ctx: Node,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        running_mean: Array | None,
        running_var: Array | None,
        training: bool,
        momentum: float,
        eps: float,
        plus: Array | None = None,  # these two are for BatchNormReLU
        floor: float = -np.inf,
    ) -> Array:
        of_batch = training or running_mean is None or running_var is None
        if running_mean is None or running_var is None:
            mean, var = channels.moments(x)
        elif training:
            mean, var = channels.moments(x)
            n = x.size // x.shape[1]
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
        else:
            mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)
        inv = 1 / np.sqrt(var + x.dtype.type(eps))  # 1 / √(σ² + ε)
        scale = inv if weight is None else inv * weight
        shift = np.zeros_like(mean) if bias is None else bias
        y = channels.affine(x, mean, scale, shift, floor, plus)
        # Where the floor was reached x can tell, without y being read again; but not of a sum.
        ctx.save(x, mean, inv, scale, shift, of_batch, *((floor, None) if plus is None else (-np.inf, y)))
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        return BatchNorm.grads(ctx, grad)[:3]

    @staticmethod
    def grads(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        """Gradients of x, γ and β, and of `plus`."""
        x, mean, inv, scale, shift, of_batch, floor, y = ctx.saved
        # Σ g and Σ g·(x − μ), of g what a ReLU let through
        sum_grad, sum_product, grad = channels.sums(grad, x, mean, scale, shift, floor, y)
        grad_weight, grad_bias = sum_product * inv, sum_grad
        # If μ and σ² are the batch's, they moved with x, and their share is taken out:
        # grad_x = scale · (g − Σg / n − (x − μ) / (σ² + ε) · Σ g·(x − μ) / n)
        share = scale / (grad.size // grad.shape[1]) if of_batch else np.zeros_like(scale)
        of_sigma, of_mu = -share * inv * inv * sum_product, -share * sum_grad
        grad_x = channels.combine(grad, x, mean, scale, shift, of_sigma, of_mu, floor)
        _, need_weight, need_bias, *_ = ctx.needs_input_grad
        return grad_x, grad_weight if need_weight else None, grad_bias if need_bias else None, grad


class BatchNormReLU(Function):
    """max(y + plus, 0), y as in `BatchNorm`, each way in one pass over the memory; `plus` is a shortcut's, or None."""

    @staticmethod
    def forward(
        ctx: Node, x: Array, weight: Array | None, bias: Array | None, plus: Array | None, **options: Any
    ) -> Array:
        return BatchNorm.forward(ctx, x, weight, bias, plus=plus, floor=0.0, **options)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        *grads, grad_plus = BatchNorm.grads(ctx, grad)
        return *grads, grad_plus if ctx.needs_input_grad[3] else None


def batch_norm(
    input: Tensor,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel; arguments in PyTorch's order.

    input                       (N, C) or (N, C, …): statistics are over all axes but C
    running_mean, running_var   (C,) arrays, updated in place in training: r ← r + momentum · (batch's − r), where the
                                batch's variance is the unbiased one; used as they are in evaluation
    weight, bias                γ and β, (C,) or None

    >>> batch_norm(Tensor([[1.0], [3.0]]), training=True, eps=0).data.tolist()
    [[-1.0], [1.0]]
    """
    averages = {"running_mean": running_mean, "running_var": running_var}
    _check(input, training, {**averages, "weight": weight, "bias": bias})
    return BatchNorm.apply(input, weight, bias, **averages, training=training, momentum=momentum, eps=eps)


def batch_norm_relu(
    input: Tensor,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    plus: Tensor | None = None,
) -> Tensor:
    """`relu(batch_norm(input, …) + plus)`, to the last bit, at less than half the reading and writing.

    plus   of the input's shape, or None: what a residual network adds before its ReLU

    As one operation it is one vertex of a graph. In a model call `nn.norm_relu`, which shows a tracer the parts.

    >>> batch_norm_relu(Tensor([[1.0], [3.0]]), training=True, eps=0).data.tolist()
    [[0.0], [1.0]]
    """
    averages = {"running_mean": running_mean, "running_var": running_var}
    _check(input, training, {**averages, "weight": weight, "bias": bias})
    if plus is not None and plus.shape != input.shape:
        raise ValueError(f"batch_norm_relu: plus has the input's shape {input.shape}, got {plus.shape}")
    return BatchNormReLU.apply(input, weight, bias, plus, **averages, training=training, momentum=momentum, eps=eps)


def _check(input: Tensor, training: bool, vectors: dict[str, Any]) -> None:
    """Raise a ValueError for shapes that do not belong together."""
    if input.ndim < 2:
        raise ValueError(f"batch_norm wants an input (N, C, …), got {input.shape}")
    if training and input.size == input.shape[1]:
        raise ValueError(
            f"batch_norm in training wants more than one value a channel, got an input of shape {input.shape}"
        )
    for name, given in vectors.items():
        if given is not None and given.shape != (input.shape[1],):
            raise ValueError(
                f"batch_norm: {name} has one number a channel, expected ({input.shape[1]},), got {given.shape}"
            )
