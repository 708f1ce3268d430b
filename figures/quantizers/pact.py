"""PACT, 3 bits: from 0 to a learned clip; at the clip the gradient goes to the clip."""

from staircase import draw

from tinyqnn.quant import PACT

if __name__ == "__main__":
    draw(__file__, PACT(bits=3, clip=3.5), "PACT, 3 bits, a = 3.5: at x = a the gradient goes to a, not to x")
