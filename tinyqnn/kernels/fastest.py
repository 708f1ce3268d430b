"""Which kernel serves which widths: measured, not guessed.

Bits cost one product for each pair of planes, bytes cost the same whatever the widths are. So bits win where there are
few pairs; how many depends on how well the processor counts bits, and for one row on the bytes of the weights alone:

    rows of x       popcount of whole registers     without it      tiles of bytes
    many            up to 4 pairs                   1               none
    up to 3         up to 16                        up to 16        up to 16

Tiles (`tiles.py`) multiply bytes faster than a popcount multiplies bits, and bytes step up to codes in the same pass,
so they have even the single pair: whoever begins with codes in bytes need not pack them first. Who has packed signs
already gives them to `BinaryGemm`, which widens them on the way to the same tiles, and who has planes gives them to
`BitSerialGemm`, which does likewise. `tinyqnn bench gemm` measures the pairs of the table again, and a test holds the
table against what it wrote.
"""

from __future__ import annotations

__all__ = ["FEW_ROWS", "PAIRS", "WITH_TILES", "fastest", "most_pairs"]

FEW_ROWS = 3  # rows up to which reading the weights is what takes the time
PAIRS = {("many", True): 4, ("many", False): 1, ("few", True): 16, ("few", False): 16}
WITH_TILES = {"many": 0, "few": 16}


def most_pairs(rows: int, popcount: bool | None = None, tiles: bool | None = None) -> int:
    """Up to how many pairs of planes bits serve `rows` rows; the processor is described as for `fastest`.

    >>> most_pairs(1000, popcount=True), most_pairs(1000, popcount=True, tiles=True)
    (4, 0)
    """
    if popcount is None:
        from tinyqnn.kernels import simd
        from tinyqnn.kernels import tiles as registers

        popcount, tiles = simd.HAS_POPCOUNT, registers.allowed() if tiles is None else tiles
    how_many = "few" if rows <= FEW_ROWS else "many"
    return WITH_TILES[how_many] if tiles else PAIRS[how_many, bool(popcount)]


def fastest(bits: int, x_bits: int, rows: int, popcount: bool | None = None, tiles: bool | None = None) -> str:
    """The kernel for weights of `bits` and activations of `x_bits`: "binary", "bitserial" or "int8".

    `popcount`: whether the processor counts the bits of a whole register at once, and `tiles`: whether it has tiles;
    without them this one is asked.

    >>> fastest(2, 2, rows=1024, popcount=True), fastest(4, 4, rows=1024, popcount=True), fastest(4, 4, rows=1)
    ('bitserial', 'int8', 'bitserial')
    >>> fastest(2, 2, rows=1024, popcount=True, tiles=True)
    'int8'
    """
    if bits * x_bits > most_pairs(rows, popcount, tiles):
        return "int8"
    return "binary" if bits == x_bits == 1 else "bitserial"
