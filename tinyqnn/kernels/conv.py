"""Convolution on plain arrays."""

from __future__ import annotations

from tinyqnn.kernels.reference import conv2d, conv2d_grad_input, conv2d_grad_weight, conv2d_output_size

__all__ = ["conv2d", "conv2d_grad_input", "conv2d_grad_weight", "conv2d_output_size"]
