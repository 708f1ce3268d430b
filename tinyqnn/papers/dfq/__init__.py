"""DFQ: Cheng et al.

*Differentiable Fine-grained Quantization for Deep Neural Network Compression*, arXiv 1810.10351.
"""
