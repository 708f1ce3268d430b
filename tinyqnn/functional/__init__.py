"""Free functions on tensors, under the names that PyTorch's `torch.nn.functional` gives them."""

from tinyqnn.functional.activation import (
    abs,
    clip,
    exp,
    gumbel_softmax,
    log,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from tinyqnn.functional.conv import conv2d, linear, linear_relu
from tinyqnn.functional.dropout import dropout
from tinyqnn.functional.embedding import embedding
from tinyqnn.functional.loss import cross_entropy, mse_loss
from tinyqnn.functional.mlp import mlp
from tinyqnn.functional.norm import batch_norm, batch_norm_relu
from tinyqnn.functional.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from tinyqnn.functional.recurrent import lstm
from tinyqnn.functional.shape import concat, flatten, pad, stack

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_relu",
    "clip",
    "concat",
    "conv2d",
    "cross_entropy",
    "dropout",
    "embedding",
    "exp",
    "flatten",
    "gumbel_softmax",
    "linear",
    "linear_relu",
    "log",
    "log_softmax",
    "lstm",
    "max_pool2d",
    "mlp",
    "mse_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
]
