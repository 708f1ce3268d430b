"""Uniform, U-3: seven levels, and the step of least squared error on these very numbers."""

from staircase import draw

from tinyqnn.quant import Uniform

if __name__ == "__main__":
    draw(__file__, Uniform(bits=3), "Uniform, U-3: the step of least squared error")
