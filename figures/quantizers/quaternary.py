"""Quaternary, Q-2: ClipQ's values at 2 bits, and a gradient that passes everywhere."""

from staircase import draw

from tinyqnn.quant import Quaternary

if __name__ == "__main__":
    draw(__file__, Quaternary(), "Quaternary, Q-2: ±½α and ±1½α with α = 0.9957·sd")
