"""Batch normalisation: every channel is brought to mean 0 and variance 1, then scaled and shifted as learned."""

from __future__ import annotations

import numpy as np

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
        axes = (0, *range(2, x.ndim))  # all but the channels
        shape = (1, -1, *(1,) * (x.ndim - 2))
        of_batch = training or running_mean is None or running_var is None
        if of_batch:
            n = x.size // x.shape[1]
            # Two passes, summed in float64: E[x²] − μ², and a float32 sum over many pixels, lose their digits where |μ| ≫ σ.
            mean = x.mean(axis=axes, dtype=np.float64).astype(x.dtype)
            var = np.square(x - mean.reshape(shape)).mean(axis=axes, dtype=np.float64).astype(x.dtype)
            if training and running_mean is not None and running_var is not None:
                running_mean += momentum * (mean - running_mean)
                running_var += momentum * (var * (n / max(n - 1, 1)) - running_var)
        else:
            mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)  # type: ignore[union-attr]
        inv = 1 / np.sqrt(var + x.dtype.type(eps))
        normal = (x - mean.reshape(shape)) * inv.reshape(shape)
        ctx.save(normal, inv, weight, of_batch)
        y = normal if weight is None else normal * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
        normal, inv, weight, of_batch = ctx.saved
        axes = (0, *range(2, grad.ndim))
        shape = (1, -1, *(1,) * (grad.ndim - 2))
        n = grad.size // grad.shape[1]
        grad_bias = grad.sum(axis=axes)  # Σ g
        grad_weight = (grad * normal).sum(axis=axes)  # Σ g·x̂
        scale = inv if weight is None else inv * weight
        if of_batch:  # μ and σ² moved with x: take their share out
            grad = grad - (grad_bias.reshape(shape) + normal * grad_weight.reshape(shape)) / n
        _, need_weight, need_bias = ctx.needs_input_grad
        return grad * scale.reshape(shape), grad_weight if need_weight else None, grad_bias if need_bias else None


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
