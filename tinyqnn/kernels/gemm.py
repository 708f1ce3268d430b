"""Matrix products on plain arrays."""

from __future__ import annotations

from tinyqnn.kernels.reference import matmul

__all__ = ["matmul"]
