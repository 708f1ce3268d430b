"""tinyqnn: quantized neural networks from scratch, in NumPy and Numba, to read, to run and to check against."""
