"""ZoomQ, Z-3: eight cells from the smallest to the largest number, answered with their middles."""

from staircase import draw

from tinyqnn.quant import ZoomQ

if __name__ == "__main__":
    draw(__file__, ZoomQ(bits=3), "ZoomQ, Z-3: eight cells between min x and max x")
