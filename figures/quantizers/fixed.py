"""FixedQ, F-3: the step is a power of two, and there is one more level below 0 than above."""

from staircase import draw

from tinyqnn.quant import FixedQ

if __name__ == "__main__":
    draw(__file__, FixedQ(bits=3), "FixedQ, F-3: the step is a power of two")
