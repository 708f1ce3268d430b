"""The layers: each is parameters, under PyTorch's names, plus one call into `functional`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn.functional.conv import Size, pair
from tinyqnn.functional.fold import as_run
from tinyqnn.kernels.channels import Affine
from tinyqnn.nn import init
from tinyqnn.nn.module import Module, Parameter
from tinyqnn.tensor import Array, Tensor, is_unseen, wants_parts

Rng = np.random.Generator


class Sequential(Module):
    """One module after the other.

    >>> len(Sequential(ReLU(), ReLU()))
    2
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for index, module in enumerate(modules):
            self.add_module(str(index), module)

    def forward(self, x: Tensor) -> Tensor:
        waiting = list(reversed(self._modules.values()))

        def next_is(kind: type[Module]) -> bool:
            return bool(waiting) and isinstance(waiting[-1], kind)

        while waiting:
            module = waiting.pop()
            if isinstance(module, Conv2d) and next_is(BatchNorm2d):
                norm, relu = waiting.pop(), waiting.pop() if next_is(ReLU) else None
                x = conv_norm_relu(module, norm, relu, x)
            elif isinstance(module, _BatchNorm) and next_is(ReLU):
                x = norm_relu(module, waiting.pop(), x)
            elif isinstance(module, Linear) and next_is(ReLU):
                x = linear_relu(module, waiting.pop(), x)
            else:
                x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int) -> Module:
        return list(self._modules.values())[index]


class Linear(Module):
    """x Wᵀ + b: (…, in_features) -> (…, out_features). W and b start in U(−1/√in, 1/√in).

    >>> Linear(3, 2)(Tensor(np.zeros((5, 3)))).shape
    (5, 2)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: Any = np.float32, rng: Rng | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = init.uniform((out_features, in_features), bound, rng, dtype)
        self.register_parameter("bias", init.uniform((out_features,), bound, rng, dtype) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Conv2d(Module):
    """2-D convolution: (N, in_channels, H, W) -> (N, out_channels, H', W'), see `functional.conv2d`.

    W and b start in U(−1/√fan_in, 1/√fan_in), fan_in = in_channels / groups · kh · kw.

    >>> Conv2d(3, 8, 3, padding=1)(Tensor(np.zeros((1, 3, 5, 5)))).shape
    (1, 8, 5, 5)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = np.float32,
        rng: Rng | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide both channel counts, got {in_channels}, {out_channels} and groups={groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride, self.padding, self.dilation = (
            pair(stride, "stride"),
            pair(padding, "padding"),
            pair(dilation, "dilation"),
        )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(init.fan_in(shape))
        self.weight = init.uniform(shape, bound, rng, dtype)
        self.register_parameter("bias", init.uniform((out_channels,), bound, rng, dtype) if bias else None)

    def forward(self, x: Tensor, then: Affine | None = None) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, then)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"padding={self.padding}"] * (self.padding != (0, 0)) + [f"dilation={self.dilation}"] * (
            self.dilation != (1, 1)
        )
        parts += [f"groups={self.groups}"] * (self.groups != 1) + ["bias=False"] * (self.bias is None)
        return ", ".join(parts)


class _BatchNorm(Module):
    """Batch normalisation over all axes but the channels, see `functional.batch_norm`."""

    dimensions: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, dtype: Any = np.float32) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, dtype))
        self.bias = Parameter(np.zeros(num_features, dtype))
        self.register_buffer("running_mean", np.zeros(num_features, dtype))
        self.register_buffer("running_var", np.ones(num_features, dtype))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(**self.arguments(x))

    def arguments(self, x: Tensor) -> dict[str, Any]:
        """Those of `functional.batch_norm`; in training the batch is counted."""
        if x.ndim not in self.dimensions:
            wanted = " or ".join(f"{n} axes" for n in self.dimensions)
            raise ValueError(f"{type(self).__name__} wants an input of {wanted}, got shape {x.shape}")
        if self.training:
            self.num_batches_tracked += 1
        names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        return {"input": x, **{name: getattr(self, name) for name in names}}

    def then(self, floor: float, plus: Tensor | None) -> Affine:
        """What it does in evaluation, with `plus` and a lower bound, to be done by the layer before it."""
        numbers = as_run(self.running_mean, self.running_var, self.weight.data, self.bias.data, self.eps)
        return Affine(**numbers, floor=floor, plus=None if plus is None else plus.data)

    def extra_repr(self) -> str:
        return f"{self.num_features}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L).

    >>> BatchNorm1d(2)(Tensor([[1.0, 2.0], [3.0, 4.0]])).data.round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W).

    >>> BatchNorm2d(3)(Tensor(np.zeros((2, 3, 4, 4)))).shape
    (2, 3, 4, 4)
    """

    dimensions = (4,)


class ReLU(Module):
    """max(x, 0).

    >>> ReLU()(Tensor([-1.0, 1.0])).data.tolist()
    [0.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


def norm_relu(norm: Module, relu: Module, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """`relu(norm(x) + plus)`, as one operation where that can be: see `functional.batch_norm_relu`.

    It is done in parts if an observer wants to see them, as the tracer does, or if `norm` is not a BatchNorm of this
    file or `relu` not its ReLU. The result is the same to the last bit.

    >>> norm_relu(BatchNorm1d(1), ReLU(), Tensor([[1.0], [3.0]])).data.round(2).tolist()
    [[0.0], [1.0]]
    """
    if wants_parts() or type(norm) not in (BatchNorm1d, BatchNorm2d) or type(relu) is not ReLU:
        y = norm(x)
        return relu(y if plus is None else y + plus)
    return F.batch_norm_relu(**norm.arguments(x), plus=plus)


_FLOAT32 = {np.dtype(np.float32)}


def conv_norm_relu(
    conv: Module, norm: Module, relu: Module | None, x: Tensor, plus: Callable[[], Tensor] | None = None
) -> Tensor:
    """`relu(norm(conv(x)) + plus())`; if that can be, each image is normalised as soon as it is made, while it is near.

    relu   None: nothing comes after the norm, and there is no `plus`
    plus   a shortcut, to be run after `conv`, as it stands in the formula

    It can be where nothing is recorded and the norm evaluates, in float32; else, or if modules are not those of this
    file, they run one after the other. The result is the same to the last bit.

    >>> conv_norm_relu(Conv2d(3, 8, 3), BatchNorm2d(8), ReLU(), Tensor(np.zeros((1, 3, 5, 5)))).shape
    (1, 8, 3, 3)
    """
    plain = type(conv) is Conv2d and type(norm) is BatchNorm2d and (relu is None or type(relu) is ReLU)
    if plain and is_unseen() and not norm.training and {x.dtype, conv.weight.dtype, norm.weight.dtype} == _FLOAT32:
        return conv(x, norm.then(-np.inf if relu is None else 0.0, plus() if plus else None))
    y = conv(x)
    return norm(y) if relu is None else norm_relu(norm, relu, y, plus() if plus else None)


def linear_relu(linear: Module, relu: Any, x: Tensor) -> Tensor:
    """`relu(linear(x))`, as one operation where that can be, as in `norm_relu`: see `functional.linear_relu`.

    relu   a ReLU of this file, or `functional.relu` itself

    >>> bool(linear_relu(Linear(1, 2), ReLU(), Tensor([[0.0]])).data.min() >= 0)
    True
    """
    if wants_parts() or type(linear) is not Linear or not _is_relu(relu):
        return relu(linear(x))
    return F.linear_relu(x, linear.weight, linear.bias)


def mlp(linears: Sequence[Module], relu: Any, x: Tensor) -> Tensor:
    """Linear layers with `relu` after all but the last, as one operation where that can be: see `functional.mlp`.

    relu   a ReLU of this file, or `functional.relu` itself

    >>> mlp([Linear(1, 2), Linear(2, 3)], ReLU(), Tensor([[0.0]])).shape
    (1, 3)
    """
    if wants_parts() or [*map(type, linears)].count(Linear) < len(linears) or not _is_relu(relu):
        *hidden, last = linears
        for linear in hidden:
            x = linear_relu(linear, relu, x)
        return last(x)
    weights: list[Any] = [linear._parameters["weight"] for linear in linears]  # found sooner than as attributes
    return F.mlp(x, weights, [linear._parameters["bias"] for linear in linears])


def _is_relu(relu: Any) -> bool:
    return relu is F.relu or type(relu) is ReLU


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ).

    >>> Sigmoid()(Tensor([0.0])).item()
    0.5
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh x.

    >>> Tanh()(Tensor([0.0])).item()
    0.0
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Identity(Module):
    """x itself.

    >>> Identity()(Tensor([1.0])).item()
    1.0
    """

    def forward(self, x: Tensor) -> Tensor:
        return x


class Dropout(Module):
    """In training, zero each element with probability p; nothing in evaluation. See `functional.dropout`.

    >>> Dropout(0.5).eval()(Tensor([1.0])).item()
    1.0
    """

    def __init__(self, p: float = 0.5, rng: Rng | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, between 0 and 1, got {p}")
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, self.rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """(N, C, H, W) -> (N, C·H·W).

    >>> Flatten()(Tensor(np.zeros((2, 3, 4)))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.start_dim, self.end_dim)


class MaxPool2d(Module):
    """The largest value of each window, see `functional.max_pool2d`.

    >>> MaxPool2d(2)(Tensor(np.zeros((1, 3, 4, 4)))).shape
    (1, 3, 2, 2)
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}"


class AvgPool2d(Module):
    """The mean of each window, see `functional.avg_pool2d`.

    >>> AvgPool2d(2)(Tensor(np.ones((1, 3, 4, 4)))).shape
    (1, 3, 2, 2)
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}"


class AdaptiveAvgPool2d(Module):
    """Means over windows chosen so that the result is `output_size` large.

    >>> AdaptiveAvgPool2d(1)(Tensor(np.ones((1, 3, 4, 4)))).shape
    (1, 3, 1, 1)
    """

    def __init__(self, output_size: Size) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"{self.output_size}"


class Embedding(Module):
    """A vector for each of `num_embeddings` words; integers (…) -> (…, embedding_dim). Starts in N(0, 1).

    >>> Embedding(10, 4)(np.array([1, 2, 1])).shape
    (3, 4)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, dtype: Any = np.float32, rng: Rng | None = None
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal((num_embeddings, embedding_dim), 1.0, rng, dtype)

    def forward(self, x: Tensor | Array) -> Tensor:
        return F.embedding(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class LSTM(Module):
    """One or more LSTM layers over a sequence, see `functional.lstm`. All weights start in U(−1/√hidden, 1/√hidden).

    batch_first   input and output are (N, T, features) instead of (T, N, features)
    dropout       between the layers, in training

    >>> output, (h, c) = LSTM(3, 4, num_layers=2)(Tensor(np.zeros((5, 2, 3))))
    >>> output.shape, h.shape
    ((5, 2, 4), (2, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        dtype: Any = np.float32,
        rng: Rng | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.rng = bias, batch_first, dropout, rng
        bound = 1 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            shapes = {
                f"weight_ih_l{layer}": (4 * hidden_size, input_size if layer == 0 else hidden_size),
                f"weight_hh_l{layer}": (4 * hidden_size, hidden_size),
                f"bias_ih_l{layer}": (4 * hidden_size,),
                f"bias_hh_l{layer}": (4 * hidden_size,),
            }
            for name, shape in shapes.items():
                if bias or name.startswith("weight"):
                    self.register_parameter(name, init.uniform(shape, bound, rng, dtype))

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        weights = [
            (
                getattr(self, f"weight_ih_l{layer}"),
                getattr(self, f"weight_hh_l{layer}"),
                getattr(self, f"bias_ih_l{layer}") if self.bias else None,
                getattr(self, f"bias_hh_l{layer}") if self.bias else None,
            )
            for layer in range(self.num_layers)
        ]
        if self.batch_first:
            x = x.transpose(0, 1)
        output, state = F.lstm(x, weights, hx, self.dropout, self.training, self.rng)
        return (output.transpose(0, 1) if self.batch_first else output), state

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + (
            f", num_layers={self.num_layers}" if self.num_layers > 1 else ""
        )
