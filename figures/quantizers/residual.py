"""ResQ, R-3: a sign and a scale, three times; the steps are uneven."""

from staircase import draw

from tinyqnn.quant import ResQ

if __name__ == "__main__":
    draw(__file__, ResQ(bits=3), "ResQ, R-3: ±α₁ ±α₂ ±α₃")
