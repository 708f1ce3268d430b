"""Batch normalisation: every channel is brought to mean 0 and variance 1, then scaled and shifted as learned."""

from __future__ import annotations

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
    ) -> Array:
        if training or running_mean is None or running_var is None:
            mean, var = channels.moments(x)
            if training and running_mean is not None and running_var is not None:
                n = x.size // x.shape[1]
                running_mean += momentum * (mean - running_mean)
                running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
        else:
            mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)
        inv = 1 / np.sqrt(var + x.dtype.type(eps))  # 1 / √(σ² + ε)
        ctx.save(x, mean, inv, weight, training or running_mean is None or running_var is None)
        return channels.affine(
            x, mean, inv if weight is None else inv * weight, np.zeros_like(mean) if bias is None else bias
        )

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
        x, mean, inv, weight, of_batch = ctx.saved
        scale = inv if weight is None else inv * weight
        sum_grad, sum_product = channels.sums(grad, x, mean)  # Σ g and Σ g·(x − μ)
        grad_weight, grad_bias = sum_product * inv, sum_grad
        if of_batch:
            # μ and σ² moved with x, and their share is taken out:
            # grad_x = scale · (g − Σg / n − (x − μ) / (σ² + ε) · Σ g·(x − μ) / n)
            n = grad.size // grad.shape[1]
            grad_x = channels.combine(grad, x, scale, mean, -scale * inv * inv * sum_product / n, -scale * sum_grad / n)
        else:
            grad_x = channels.affine(grad, np.zeros_like(mean), scale, np.zeros_like(mean))
        _, need_weight, need_bias = ctx.needs_input_grad
        return grad_x, grad_weight if need_weight else None, grad_bias if need_bias else None


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
    if input.ndim < 2:
        raise ValueError(f"batch_norm wants an input (N, C, …), got {input.shape}")
    if training and input.size == input.shape[1]:
        raise ValueError(
            f"batch_norm in training wants more than one value a channel, got an input of shape {input.shape}"
        )
    for name, given in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if given is not None and given.shape != (input.shape[1],):
            raise ValueError(
                f"batch_norm: {name} has one number a channel, expected ({input.shape[1]},), got {given.shape}"
            )
    return BatchNorm.apply(
        input,
        weight,
        bias,
        running_mean=running_mean,
        running_var=running_var,
        training=training,
        momentum=momentum,
        eps=eps,
    )
