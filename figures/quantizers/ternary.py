"""Ternary, T-2: three values; the upper threshold is kept, the lower one becomes 0."""

from staircase import draw

from tinyqnn.quant import Ternary

if __name__ == "__main__":
    draw(__file__, Ternary(), "Ternary, T-2: thresholds at ±0.7·E|x|, wherever the levels are")
