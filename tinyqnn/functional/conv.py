"""Convolution and its flat relative, the linear layer: every output is a weighted sum of a patch of the input.

The loops themselves live in `tinyqnn.kernels`: `kernels/reference.py` is the version to read.
"""

from __future__ import annotations

from typing import Any, Union

import numpy as np

from tinyqnn import kernels
from tinyqnn.kernels.channels import Affine
from tinyqnn.tensor import Array, Function, Node, Tensor, is_unseen

Size = Union[int, tuple[int, int]]


def pair(value: Size, name: str) -> tuple[int, int]:
    """One number means the same for height and width.

    >>> pair(3, "stride")
    (3, 3)
    """
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(item, (int, np.integer)) for item in both):
        raise ValueError(f"{name} is a whole number or a pair (height, width), got {value!r}")
    return int(both[0]), int(both[1])


class Linear(Function):
    """y = x Wᵀ + b."""

    @staticmethod
    def forward(ctx: Node, x: Array, weight: Array, bias: Array | None, *, relu: bool = False) -> Array:
        rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # (…, in) -> (n, in)
        y = kernels.gemm.linear(rows, weight, bias, relu)
        ctx.save(rows, weight, x.shape, y if relu else None)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
        rows, weight, shape, y = ctx.saved
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grad = grad if grad.ndim == 2 else grad.reshape(-1, grad.shape[-1])
        grad_x, grad_weight, grad_bias = kernels.gemm.linear_grad(grad, rows, weight, y, need_x, need_weight)
        return None if grad_x is None else grad_x.reshape(shape), grad_weight, grad_bias if need_bias else None


class LinearReLU(Linear):
    """y = max(x Wᵀ + b, 0). Where y = 0 no gradient passes."""

    @staticmethod
    def forward(ctx: Node, x: Array, weight: Array, bias: Array | None, *, relu: bool = True) -> Array:
        return Linear.forward(ctx, x, weight, bias, relu=relu)


class Conv2d(Function):
    """y[n, o, i, j] = b[o] + Σ over c, u, v of w[o, c, u, v] · x[n, c, i·stride + u·dilation − padding, …]."""

    @staticmethod
    def forward(
        ctx: Node,
        x: Array,
        weight: Array,
        bias: Array | None,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        then: Affine | None = None,  # only where no derivative is asked for
    ) -> Array:
        window = (stride, padding, dilation, groups)
        ctx.save(x, weight, window)
        return kernels.conv.conv2d(x, weight, bias, *window, then=then)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window = ctx.saved
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grad_x = None
        if need_x:  # what a shortcut around this layer has brought is added on the way
            grad_x = kernels.conv.conv2d_grad_input(grad, weight, x.shape, *window, plus=ctx.take_grad(0))
        grad_weight = kernels.conv.conv2d_grad_weight(grad, x, weight.shape, *window) if need_weight else None
        return grad_x, grad_weight, kernels.channels.totals(grad) if need_bias else None


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b.

    input    (…, in_features)
    weight   (out_features, in_features)
    bias     (out_features,) or None
    result   (…, out_features)

    >>> linear(Tensor([[1.0, 2.0]]), Tensor([[3.0, 4.0]]), Tensor([0.5])).data.tolist()
    [[11.5]]
    """
    return _linear(Linear, input, weight, bias)


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`relu(linear(input, weight, bias))`, to the last bit, in one pass: what a small layer spends most on is the way.

    As one operation it is one vertex of a graph. In a model call `nn.linear_relu`, which shows a tracer the parts.

    >>> linear_relu(Tensor([[1.0]]), Tensor([[3.0], [-3.0]])).data.tolist()
    [[3.0, 0.0]]
    """
    return _linear(LinearReLU, input, weight, bias)


def _linear(function: type[Linear], input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    check_linear(input.data.shape, weight, bias)
    return function.apply(input, weight, bias)


def check_linear(shape: tuple[int, ...], weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    """The result's shape; a ValueError for an input's shape, a weight and a bias that do not belong together."""
    of_weight = weight.data.shape
    if len(of_weight) != 2 or not shape or shape[-1] != of_weight[1]:
        raise ValueError(f"linear: the input's last axis must be the weight's second, got {shape} and {of_weight}")
    outputs = of_weight[:1]
    if bias is not None and bias.data.shape != outputs:
        raise ValueError(f"linear: the bias has one number an output, expected {outputs}, got {bias.shape}")
    return shape[:-1] + outputs


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    then: Affine | None = None,
) -> Tensor:
    """The 2-D cross-correlation that is called convolution.

    input    (N, in_channels, H, W)
    weight   (out_channels, in_channels / groups, kh, kw)
    bias     (out_channels,) or None
    result   (N, out_channels, H', W') with H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1

    then     what each image of the result goes through while it is near, for `nn.conv_norm_relu`; only where nothing is
             recorded and nobody looks on

    `groups` splits the channels into groups that do not see each other; groups = in_channels is depthwise convolution.

    >>> image = Tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv2d(image, Tensor([[[[1.0, 1.0], [1.0, 1.0]]]])).item()
    10.0
    """
    if input.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"conv2d wants input (N, C, H, W), weight (out, C / groups, kh, kw), got {input.shape}, {weight.shape}"
        )
    out_channels, in_per_group, kh, kw = weight.shape
    if groups < 1 or input.shape[1] != in_per_group * groups or out_channels % groups:
        raise ValueError(
            f"conv2d: {input.shape[1]} input channels in {groups} groups do not fit a weight of shape {weight.shape}; "
            f"the weight asks for {in_per_group} × groups channels, and groups must divide {out_channels}"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(
            f"conv2d: the bias has one number an output channel, expected ({out_channels},), got {bias.shape}"
        )
    stride, padding, dilation = pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation")
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"conv2d: stride and dilation are 1 or more, padding 0 or more, got {stride}, {dilation}, {padding}"
        )
    for axis, (size, kernel) in enumerate(zip(input.shape[2:], (kh, kw))):
        if size + 2 * padding[axis] < dilation[axis] * (kernel - 1) + 1:
            raise ValueError(
                f"conv2d: the kernel {(kh, kw)} with dilation {dilation} is larger than the padded input "
                f"{input.shape[2:]} + 2·{padding}"
            )
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if then is not None:
        if not is_unseen():
            raise RuntimeError("conv2d: `then` hides a step and has no derivative; leave it out or use no_grad()")
        options["then"] = then
    return Conv2d.apply(input, weight, bias, **options)
