"""Holistic: Boo, Shin, Sung.

*Quantized Neural Networks: Characterization and Holistic Optimization*, arXiv 2006.00530.
"""
