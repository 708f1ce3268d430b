"""Pooling: a window of pixels becomes its largest one, or its average."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyqnn import kernels
from tinyqnn.functional.conv import Size, pair
from tinyqnn.kernels.channels import fast
from tinyqnn.tensor import Array, Function, Node, Tensor

Pair = tuple[int, int]


def _shifted(x: Array, window: tuple[Pair, Pair, Pair]) -> Iterator[Array]:
    """x as seen by each place of the kernel in turn: views of shape (N, C, H', W'), in reading order."""
    (kh, kw), (sh, sw), _ = window
    out_h, out_w = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    for u in range(kh):
        for v in range(kw):
            yield x[:, :, u : u + sh * out_h : sh, v : v + sw * out_w : sw]


def _bordered(x: Array, padding: Pair, value: float) -> Array:
    """x with a border of `value`, channels still last in memory."""
    ph, pw = padding
    if not (ph or pw):
        return x
    y = np.full_like(x, value, shape=(*x.shape[:2], x.shape[2] + 2 * ph, x.shape[3] + 2 * pw))
    y[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]] = x
    return y


def _unbordered(x: Array, padding: Pair) -> Array:
    ph, pw = padding
    return x[:, :, ph : x.shape[2] - ph, pw : x.shape[3] - pw] if ph or pw else x


class MaxPool2d(Function):
    """y = max over the window. The gradient goes to the first maximum in reading order; the border never wins."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
        window = (kernel_size, stride, padding)
        if fast(x) and kernel_size[0] * kernel_size[1] < 256:
            y, winner = kernels.loops.max_pool(x, *window)
            ctx.save(winner, window, x.shape)
            return y
        views = _shifted(_bordered(x, padding, -np.inf), window)
        y = np.array(next(views), order="K")
        winner = np.zeros_like(y, np.uint8 if kernel_size[0] * kernel_size[1] < 256 else np.int32)
        for place, view in enumerate(views, 1):
            higher = view > y
            winner[higher] = place
            np.maximum(y, view, out=y)
        ctx.save(winner, window, x.shape)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        winner, window, shape = ctx.saved
        if fast(grad) and winner.dtype == np.uint8:
            return kernels.loops.max_pool_grad(grad, winner, shape, *window)
        ph, pw = window[2]
        grad_x = np.zeros_like(grad, shape=(*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw))
        for place, view in enumerate(_shifted(grad_x, window)):
            view += grad * (winner == place)
        return _unbordered(grad_x, window[2])


class AvgPool2d(Function):
    """y = mean over the window; the border counts as zeros, as in PyTorch."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
        window = (kernel_size, stride, padding)
        ctx.save(window, x.shape)
        views = _shifted(_bordered(x, padding, 0), window)
        y = np.array(next(views), order="K")
        for view in views:
            y += view
        y *= 1 / (kernel_size[0] * kernel_size[1])
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        window, shape = ctx.saved
        (kh, kw), _, (ph, pw) = window
        grad_x = np.zeros_like(grad, shape=(*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw))
        share = grad * (1 / (kh * kw))
        for view in _shifted(grad_x, window):
            view += share
        return _unbordered(grad_x, window[2])


class AdaptiveAvgPool2d(Function):
    """y[i, j] = mean over rows ⌊i·H/H'⌋ … ⌈(i+1)·H/H'⌉ − 1 and columns likewise."""

    @staticmethod
    def forward(ctx: Node, x: Array, *, output_size: Pair) -> Array:
        rows, columns = _shares(x.shape[2], output_size[0], x.dtype), _shares(x.shape[3], output_size[1], x.dtype)
        ctx.save(rows, columns)
        if output_size == (1, 1):
            return x.mean(axis=(2, 3), keepdims=True)
        pixels = x.transpose(0, 2, 3, 1)  # (N, H, W, C)
        y = np.einsum("ih,nhwc->niwc", rows, pixels)
        return np.ascontiguousarray(np.einsum("jw,niwc->nijc", columns, y)).transpose(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        rows, columns = ctx.saved
        pixels = grad.transpose(0, 2, 3, 1)
        if pixels.shape[1:3] == (1, 1):
            scaled = pixels * (rows[0, 0] * columns[0, 0])
            n, _, _, c = scaled.shape
            return np.ascontiguousarray(np.broadcast_to(scaled, (n, rows.shape[1], columns.shape[1], c))).transpose(
                0, 3, 1, 2
            )
        grad_x = np.einsum("ih,niwc->nhwc", rows, np.einsum("jw,nijc->niwc", columns, pixels))
        return np.ascontiguousarray(grad_x).transpose(0, 3, 1, 2)


def _shares(length: int, parts: int, dtype: np.dtype) -> Array:
    """(parts, length): how much of each pixel goes into each part; rows sum to one."""
    shares = np.zeros((parts, length), dtype)
    for i in range(parts):
        start, stop = i * length // parts, -(-(i + 1) * length // parts)
        shares[i, start:stop] = 1 / (stop - start)
    return shares


def _window(name: str, input: Tensor, kernel_size: Size, stride: Size | None, padding: Size) -> dict[str, Pair]:
    """Check the window against the input and write everything as pairs."""
    kernel = pair(kernel_size, "kernel_size")
    window = {
        "kernel_size": kernel,
        "stride": kernel if stride is None else pair(stride, "stride"),
        "padding": pair(padding, "padding"),
    }
    if input.ndim != 4:
        raise ValueError(f"{name} wants an input (N, C, H, W), got {input.shape}")
    if min(kernel) < 1 or min(window["stride"]) < 1:
        raise ValueError(f"{name}: kernel_size and stride are 1 or more, got {kernel} and {window['stride']}")
    for size, length, border in zip(input.shape[2:], kernel, window["padding"]):
        if not 0 <= border <= length // 2:
            raise ValueError(f"{name}: padding is at most half the kernel, got {padding} for {kernel_size}")
        if size + 2 * border < length:
            raise ValueError(
                f"{name}: the window {kernel} is larger than the padded input {input.shape[2:]} + 2·{padding}"
            )
    return window


def max_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """The largest value of each window.

    input    (N, C, H, W)
    stride   how far windows are apart; None means side by side (the kernel size)
    result   (N, C, H', W') with H' = ⌊(H + 2·padding − kernel) / stride⌋ + 1

    >>> max_pool2d(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).item()
    4.0
    """
    return MaxPool2d.apply(input, **_window("max_pool2d", input, kernel_size, stride, padding))


def avg_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """The mean of each window, the border counted as zeros; shapes as `max_pool2d`.

    >>> avg_pool2d(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).item()
    2.5
    """
    return AvgPool2d.apply(input, **_window("avg_pool2d", input, kernel_size, stride, padding))


def adaptive_avg_pool2d(input: Tensor, output_size: Size) -> Tensor:
    """The mean of windows chosen so that the result is (N, C, *output_size), whatever the input's size.

    >>> adaptive_avg_pool2d(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 1).item()
    2.5
    """
    if input.ndim != 4:
        raise ValueError(f"adaptive_avg_pool2d wants an input (N, C, H, W), got {input.shape}")
    size = pair(output_size, "output_size")
    if min(size) < 1:
        raise ValueError(f"adaptive_avg_pool2d: output_size is 1 or more, got {output_size}")
    return AdaptiveAvgPool2d.apply(input, output_size=size)
