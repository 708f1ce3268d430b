"""AutoQNN: Gong et al.

*AutoQNN: An End-to-End Framework for Automatically Quantizing Neural Networks*, arXiv 2304.03782.
"""
