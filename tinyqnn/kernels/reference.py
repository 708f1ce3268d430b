"""The slow, obvious twins: what each fast kernel computes, in a few lines of NumPy.

A convolution is a sum over the kernel's taps. For the tap (i, j) the image is shifted and thinned out, and what is left
is a plain matrix product over channels:

    y[n, h, w, :] = b + Σ_ij  x[n, h·s + i·d - p, w·s + j·d - p, :] · W[:, :, i, j]ᵀ

Both gradients are the same loop read in another direction: the product goes back to where the tap took it from (input),
or is summed over all pixels (weights). No patches are ever stored.

Images are `(N, C, H, W)` by shape and channels-last in memory; float32 and float64 both stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["conv2d", "conv2d_grad_input", "conv2d_grad_weight", "conv2d_output_size", "matmul"]

Pair = tuple[int, int]


def conv2d_output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Height and width of a convolution's output: `⌊(H + 2p - d·(k - 1) - 1) / s⌋ + 1`.

    >>> conv2d_output_size((32, 32), (3, 3), (2, 2), (1, 1), (1, 1))
    (16, 16)
    """
    h, w = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation))
    return h, w


def _taps(
    kernel: tuple[int, ...], out: tuple[int, ...], stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, slice, slice]]:
    """Every tap (i, j) with the rows and columns of the padded image that it touches."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (out[0] - 1) * stride[0] + 1, stride[0])
            cols = slice(left, left + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, rows, cols


def _by_group(pixels: np.ndarray, groups: int) -> np.ndarray:
    """(N, H, W, G·C) -> (G, N·H·W, C)"""
    return pixels.reshape(-1, groups, pixels.shape[-1] // groups).transpose(1, 0, 2)


def _padded(x: np.ndarray, padding: Pair) -> np.ndarray:
    """(N, C, H, W) -> (N, H + 2p, W + 2p, C) with a border of zeros"""
    (ph, pw), nhwc = padding, x.transpose(0, 2, 3, 1)
    return np.pad(nhwc, ((0, 0), (ph, ph), (pw, pw), (0, 0)))


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Cross-correlate images `x` (N, C, H, W) with `w` (O, C/groups, kh, kw), add `b` (O,): (N, O, H', W').

    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> conv2d(x, np.ones((1, 1, 2, 2)), stride=(2, 2))[0, 0].tolist()
    [[10.0, 18.0], [42.0, 50.0]]
    """
    n, o, kernel = len(x), w.shape[0], w.shape[2:]
    ho, wo = conv2d_output_size(x.shape[2:], kernel, stride, padding, dilation)
    xp = _padded(x, padding)
    wg = w.reshape(groups, o // groups, *w.shape[1:])  # (O, C/G, kh, kw) -> (G, O/G, C/G, kh, kw)
    y = np.zeros((groups, n * ho * wo, o // groups), x.dtype)
    for i, j, rows, cols in _taps(kernel, (ho, wo), stride, dilation):
        y += _by_group(xp[:, rows, cols], groups) @ wg[..., i, j].swapaxes(1, 2)  # (G, P, C/G) @ (G, C/G, O/G)
    y = np.ascontiguousarray(y.transpose(1, 0, 2)).reshape(n, ho, wo, o)
    if b is not None:
        y += b
    return y.transpose(0, 3, 1, 2)


def conv2d_grad_input(
    gy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Gradient to `x`: every tap adds `gy · W[:, :, i, j]` to the pixels that it had read; `gy` (N, O, H', W')."""
    n, c, h, wid = x_shape
    (ph, pw), kernel = padding, w.shape[2:]
    g = _by_group(gy.transpose(0, 2, 3, 1), groups)  # (N, O, H', W') -> (G, P, O/G)
    wg = w.reshape(groups, -1, *w.shape[1:])
    gx = np.zeros((n, h + 2 * ph, wid + 2 * pw, c), gy.dtype)
    for i, j, rows, cols in _taps(kernel, gy.shape[2:], stride, dilation):
        part = gx[:, rows, cols]
        part += (g @ wg[..., i, j]).transpose(1, 0, 2).reshape(part.shape)  # (G, P, O/G) @ (G, O/G, C/G)
    return np.ascontiguousarray(gx[:, ph : ph + h, pw : pw + wid]).transpose(0, 3, 1, 2)


def conv2d_grad_weight(
    gy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Gradient to `w`: for every tap, `gyᵀ · x` summed over all pixels of all images."""
    xp = _padded(x, padding)
    gt = _by_group(gy.transpose(0, 2, 3, 1), groups).swapaxes(1, 2)  # (N, O, H', W') -> (G, O/G, P)
    gw = np.empty((groups, w_shape[0] // groups, *w_shape[1:]), gy.dtype)
    for i, j, rows, cols in _taps(w_shape[2:], gy.shape[2:], stride, dilation):
        gw[..., i, j] = gt @ _by_group(xp[:, rows, cols], groups)  # (G, O/G, P) @ (G, P, C/G)
    return gw.reshape(w_shape)


def matmul(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """`a @ b + bias` for (M, K), (K, N) and (N,)."""
    y = np.matmul(a, b, out=out)
    if bias is not None:
        y += bias
    return y


def integer_matmul(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """`x · wᵀ` of whole numbers (M, K) and (N, K), summed in 64 bits: (M, N) int32."""
    y = x.astype(np.int64) @ w.astype(np.int64).T
    if y.size and abs(y).max() >= 2**31:
        raise OverflowError("a sum does not fit int32")
    return y.astype(np.int32)
