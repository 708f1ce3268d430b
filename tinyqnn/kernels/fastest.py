"""Which kernel serves which widths: measured, not guessed.

Bits cost one product for each pair of planes, bytes cost the same whatever the widths are. So bits win where there are
few pairs; how many depends on how well the processor counts bits, and for one row on the bytes of the weights alone:

    rows of x       popcount of whole registers     without it
    many            up to 4 pairs                   1
    up to 3         up to 16                        up to 16

`tinyqnn bench gemm` measures the pairs of the table again, and a test holds the table against what it wrote.
"""

from __future__ import annotations

__all__ = ["FEW_ROWS", "PAIRS", "fastest"]

FEW_ROWS = 3  # rows up to which reading the weights is what takes the time
PAIRS = {("many", True): 4, ("many", False): 1, ("few", True): 16, ("few", False): 16}


def fastest(bits: int, x_bits: int, rows: int, popcount: bool | None = None) -> str:
    """The kernel for weights of `bits` and activations of `x_bits`: "binary", "bitserial" or "int8".

    `popcount`: whether the processor counts the bits of a whole register at once; None asks this one.

    >>> fastest(2, 2, rows=1024, popcount=True), fastest(4, 4, rows=1024, popcount=True), fastest(4, 4, rows=1)
    ('bitserial', 'int8', 'bitserial')
    """
    if popcount is None:
        from tinyqnn.kernels import simd

        popcount = simd.HAS_POPCOUNT
    if bits == x_bits == 1:
        return "binary"
    return "bitserial" if bits * x_bits <= PAIRS["few" if rows <= FEW_ROWS else "many", bool(popcount)] else "int8"
