"""PotQ, P-3: ½, 2, 4, 8; dense near 0 and sparse far out."""

from staircase import draw

from tinyqnn.quant import PotQ

if __name__ == "__main__":
    draw(__file__, PotQ(bits=3), "PotQ, P-3: ±α·{½, 2, 4, 8}; products are shifts")
