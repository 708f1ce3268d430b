"""ClipQ, C-3: equal steps around 0; the gradient ends with the codebook, ends included."""

from staircase import draw

from tinyqnn.quant import ClipQ

if __name__ == "__main__":
    draw(__file__, ClipQ(bits=3), "ClipQ, C-3: α = 0.5860·sd; the gradient ends with the codebook")
