"""The table of operations that `test_ops.py` asks its questions of.

An `Op` is a row: a function of tensors, float64 arrays to try it on, the same thing written slowly from its definition,
and what PyTorch calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn.tensor import Tensor


@dataclass(frozen=True)
class Op:
    """One row: `f` and `slow` take the same operands, `f` as tensors and `slow` as float64 arrays."""

    name: str
    f: Callable[..., Any]
    operands: Callable[[np.random.Generator], list[np.ndarray]]
    slow: Callable[..., Any]
    torch: Callable[..., Any] | None = None  # takes the module torch, then the operands
    image: bool = False  # the first operand and the result are (N, C, H, W)
    rtol: float = 1e-12


def each(f: Callable[..., float]) -> Callable[..., np.ndarray]:
    """A function of numbers as a function of arrays that repeat to a common shape, one element after the other."""

    def slow(*arrays: np.ndarray) -> np.ndarray:
        arrays = np.broadcast_arrays(*arrays)
        out = np.empty(arrays[0].shape)
        for index in np.ndindex(out.shape):
            out[index] = f(*(float(array[index]) for array in arrays))
        return out

    return slow


def along(f: Callable[[list[float]], Any], axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a list of numbers, applied to every line of an array along `axis`."""
    return lambda x: np.apply_along_axis(lambda line: f([float(v) for v in line]), axis, x)


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda rng: [rng.normal(size=shape) for shape in shapes]


def apart(*shapes: tuple[int, ...], gap: float = 0.01) -> Callable[[np.random.Generator], list[np.ndarray]]:
    """Numbers in random order around 0 of which no two, and no one and 0, are closer than `gap`: no kinks nearby."""

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        return [
            (rng.permutation(math.prod(shape)) - (math.prod(shape) - 1) // 2 + 0.5).reshape(shape) * 10 * gap
            for shape in shapes
        ]

    return draw


def positive(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda rng: [rng.uniform(0.5, 2.0, shape) for shape in shapes]


def then(
    *draws: Callable[[np.random.Generator], list[np.ndarray]],
) -> Callable[[np.random.Generator], list[np.ndarray]]:
    return lambda rng: [array for draw in draws for array in draw(rng)]


def slow_matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x2, y2 = (x[None, :] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    stack = np.broadcast_shapes(x2.shape[:-2], y2.shape[:-2])
    x2, y2 = np.broadcast_to(x2, stack + x2.shape[-2:]), np.broadcast_to(y2, stack + y2.shape[-2:])
    out = np.empty((*stack, x2.shape[-2], y2.shape[-1]))
    for *s, i, j in np.ndindex(out.shape):
        out[(*s, i, j)] = math.fsum(x2[(*s, i, k)] * y2[(*s, k, j)] for k in range(x2.shape[-1]))
    if x.ndim == 1:
        out = out[..., 0, :]
    return out[..., 0] if y.ndim == 1 else out


def slow_conv2d(x, w, b=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    n, _, height, width = x.shape
    out_channels, in_group, kh, kw = w.shape
    rows = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, out_channels, rows, columns))
    for image, o, i, j in np.ndindex(y.shape):
        first_channel = o // (out_channels // groups) * in_group
        terms = [0.0 if b is None else float(b[o])]
        for c, u, v in np.ndindex(in_group, kh, kw):
            row, column = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[1]
            if 0 <= row < height and 0 <= column < width:
                terms.append(x[image, first_channel + c, row, column] * w[o, c, u, v])
        y[image, o, i, j] = math.fsum(terms)
    return y


def slow_pool(kind: str, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int] = (0, 0)):
    def slow(x: np.ndarray) -> np.ndarray:
        n, c, height, width = x.shape
        rows, columns = ((s + 2 * p - k) // t + 1 for s, p, k, t in zip((height, width), padding, kernel, stride))
        y = np.empty((n, c, rows, columns))
        for image, channel, i, j in np.ndindex(y.shape):
            seen = [
                x[image, channel, row, column]
                for row in range(i * stride[0] - padding[0], i * stride[0] - padding[0] + kernel[0])
                for column in range(j * stride[1] - padding[1], j * stride[1] - padding[1] + kernel[1])
                if 0 <= row < height and 0 <= column < width
            ]
            y[image, channel, i, j] = max(seen) if kind == "max" else math.fsum(seen) / (kernel[0] * kernel[1])
        return y

    return slow


def slow_adaptive(height: int, width: int):
    def slow(x: np.ndarray) -> np.ndarray:
        y = np.empty((*x.shape[:2], height, width))
        for n, c, i, j in np.ndindex(y.shape):
            rows = range(math.floor(i * x.shape[2] / height), math.ceil((i + 1) * x.shape[2] / height))
            columns = range(math.floor(j * x.shape[3] / width), math.ceil((j + 1) * x.shape[3] / width))
            seen = [x[n, c, row, column] for row in rows for column in columns]
            y[n, c, i, j] = math.fsum(seen) / len(seen)
        return y

    return slow


def slow_batch_norm(x, weight=None, bias=None, mean=None, var=None, eps=1e-5):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        channel = [float(v) for v in x[:, c].reshape(-1)]
        m = math.fsum(channel) / len(channel) if mean is None else mean[c]
        s = math.fsum((v - m) ** 2 for v in channel) / len(channel) if var is None else var[c]
        gamma, beta = (1 if weight is None else weight[c]), (0 if bias is None else bias[c])
        y[:, c] = gamma * (x[:, c] - m) / math.sqrt(s + eps) + beta
    return y


def slow_softmax(line: list[float]) -> list[float]:
    total = math.fsum(math.exp(v) for v in line)
    return [math.exp(v) / total for v in line]


def slow_cross_entropy(targets: np.ndarray, ignore: int = -100):
    def slow(x: np.ndarray) -> float:
        losses = []
        for place in np.ndindex(targets.shape):
            if targets[place] != ignore:
                line = x[(place[0], slice(None), *place[1:])]
                losses.append(-math.log(slow_softmax([float(v) for v in line])[targets[place]]))
        return math.fsum(losses) / len(losses)

    return slow


def slow_lstm(x, weights, h0=None, c0=None):
    """One gate, one word and one layer at a time: (T, N, in) -> (T, N, hidden), (layers, N, hidden) twice."""

    def sigma(v):
        return 1 / (1 + np.exp(-v))

    hs, cs = [], []
    for layer, (w_ih, w_hh, *biases) in enumerate(weights):
        hidden = w_hh.shape[1]
        h = np.zeros((x.shape[1], hidden)) if h0 is None else h0[layer]
        c = np.zeros((x.shape[1], hidden)) if c0 is None else c0[layer]
        b_ih, b_hh = biases or (np.zeros(4 * hidden), np.zeros(4 * hidden))
        outputs = []
        for word in x:
            gate = {}
            for k, name in enumerate("ifgo"):
                rows = slice(k * hidden, (k + 1) * hidden)
                gate[name] = word @ w_ih[rows].T + b_ih[rows] + h @ w_hh[rows].T + b_hh[rows]
            c = sigma(gate["f"]) * c + sigma(gate["i"]) * np.tanh(gate["g"])
            h = sigma(gate["o"]) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs)
        hs.append(h)
        cs.append(c)
    return x, np.stack(hs), np.stack(cs)


def by_layer(arrays: tuple[Any, ...], per_layer: int) -> list[tuple[Any, ...]]:
    layers = [tuple(arrays[i : i + per_layer]) for i in range(0, len(arrays), per_layer)]
    return [layer if per_layer == 4 else (*layer, None, None) for layer in layers]


def lstm_op(name: str, features: int, hidden: int, layers: int, bias: bool, state: bool) -> Op:
    """A row for an LSTM whose operands are x, then the initial state if there is one, then every weight."""
    shapes = []
    for layer in range(layers):
        shapes += [(4 * hidden, features if layer == 0 else hidden), (4 * hidden, hidden)]
        shapes += [(4 * hidden,), (4 * hidden,)] * bias
    per_layer, states = (4 if bias else 2), [(layers, 2, hidden)] * 2 * state

    def f(x, *rest):
        hx, weights = (tuple(rest[:2]), rest[2:]) if state else (None, rest)
        y, (h, c) = F.lstm(x, by_layer(weights, per_layer), hx)
        return y, h, c

    def slow(x, *rest):
        hx, weights = (rest[:2], rest[2:]) if state else ((None, None), rest)
        return slow_lstm(x, [layer[:per_layer] for layer in by_layer(weights, per_layer)], *hx)

    def torch_lstm(torch, x, *rest):
        hx, weights = (rest[:2], rest[2:]) if state else ([x.new_zeros(layers, 2, hidden)] * 2, rest)
        return torch._VF.lstm(x, hx, weights, bias, layers, 0.0, False, False, False)

    return Op(name, f, normal((3, 2, features), *states, *shapes), slow, torch_lstm, rtol=1e-10)


def concatenated(torch_name: str):
    return lambda torch, *xs, **options: getattr(torch, torch_name)(xs, **options)


WORDS = np.array([[1, 3, 1], [0, 1, 3]])
SEQUENCE_TARGETS = np.array([[0, 2, 1], [-100, 1, 1]])
RUNNING_MEAN, RUNNING_VAR = np.array([0.5, -1.0, 0.1]), np.array([0.3, 2.0, 1.0])
DROPPED = np.random.default_rng(5).random(12, np.float32).reshape(3, 4) >= 0.25  # what the generator of that seed keeps

OPS = [
    Op("add", lambda x, y: x + y, normal((2, 3), (2, 3)), each(lambda x, y: x + y), lambda torch, x, y: x + y),
    Op("add row", lambda x, y: x + y, normal((2, 3), (3,)), each(lambda x, y: x + y), lambda torch, x, y: x + y),
    Op("row add", lambda x, y: x + y, normal((3,), (2, 3)), each(lambda x, y: x + y), lambda torch, x, y: x + y),
    Op("add outer", lambda x, y: x + y, normal((2, 1), (1, 3)), each(lambda x, y: x + y), lambda torch, x, y: x + y),
    Op("add number", lambda x: x + 2.0, normal((2, 3)), each(lambda x: x + 2), lambda torch, x: x + 2),
    Op("number add", lambda x: 2.0 + x, normal((2, 3)), each(lambda x: 2 + x), lambda torch, x: 2 + x),
    Op("sub", lambda x, y: x - y, normal((2, 3), (2, 3)), each(lambda x, y: x - y), lambda torch, x, y: x - y),
    Op("sub column", lambda x, y: x - y, normal((2, 3), (2, 1)), each(lambda x, y: x - y), lambda torch, x, y: x - y),
    Op("column sub", lambda x, y: x - y, normal((2, 1), (2, 3)), each(lambda x, y: x - y), lambda torch, x, y: x - y),
    Op("sub number", lambda x: x - 2.0, normal((2, 3)), each(lambda x: x - 2), lambda torch, x: x - 2),
    Op("number sub", lambda x: 2.0 - x, normal((2, 3)), each(lambda x: 2 - x), lambda torch, x: 2 - x),
    Op("mul", lambda x, y: x * y, normal((2, 3), (2, 3)), each(lambda x, y: x * y), lambda torch, x, y: x * y),
    Op("mul scalar", lambda x, y: x * y, normal((2, 3), ()), each(lambda x, y: x * y), lambda torch, x, y: x * y),
    Op("scalar mul", lambda x, y: x * y, normal((), (2, 3)), each(lambda x, y: x * y), lambda torch, x, y: x * y),
    Op("mul outer", lambda x, y: x * y, normal((3, 1, 2), (4, 1)), each(lambda x, y: x * y), lambda torch, x, y: x * y),
    Op("mul number", lambda x: x * 3, normal((2, 3)), each(lambda x: x * 3), lambda torch, x: x * 3),
    Op("number mul", lambda x: 3 * x, normal((2, 3)), each(lambda x: 3 * x), lambda torch, x: 3 * x),
    Op("div", lambda x, y: x / y, positive((2, 3), (2, 3)), each(lambda x, y: x / y), lambda torch, x, y: x / y),
    Op("div row", lambda x, y: x / y, positive((2, 3), (3,)), each(lambda x, y: x / y), lambda torch, x, y: x / y),
    Op("row div", lambda x, y: x / y, positive((3,), (2, 3)), each(lambda x, y: x / y), lambda torch, x, y: x / y),
    Op("div number", lambda x: x / 4, normal((2, 3)), each(lambda x: x / 4), lambda torch, x: x / 4),
    Op("number div", lambda x: 4 / x, positive((2, 3)), each(lambda x: 4 / x), lambda torch, x: 4 / x),
    Op("neg", lambda x: -x, normal((2, 3)), each(lambda x: -x), lambda torch, x: -x),
    Op("square", lambda x: x**2, normal((2, 3)), each(lambda x: x * x), lambda torch, x: x**2),
    Op("pow 2.5", lambda x: x**2.5, positive((2, 3)), each(lambda x: x**2.5), lambda torch, x: x**2.5),
    Op("pow -1", lambda x: x**-1, positive((2, 3)), each(lambda x: 1 / x), lambda torch, x: x**-1),
    Op("pow 0", lambda x: x**0, normal((2, 3)), each(lambda x: 1.0), lambda torch, x: x**0),
    Op("sqrt", lambda x: x.sqrt(), positive((2, 3)), each(math.sqrt), lambda torch, x: x.sqrt()),
    Op("exp", lambda x: x.exp(), normal((2, 3)), each(math.exp), lambda torch, x: x.exp()),
    Op("functional exp", F.exp, normal((3,)), each(math.exp), lambda torch, x: x.exp()),
    Op("log", lambda x: x.log(), positive((2, 3)), each(math.log), lambda torch, x: x.log()),
    Op("functional log", F.log, positive((3,)), each(math.log), lambda torch, x: x.log()),
    Op("abs", lambda x: x.abs(), apart((2, 3)), each(abs), lambda torch, x: x.abs()),
    Op("functional abs", F.abs, apart((3,)), each(abs), lambda torch, x: x.abs()),
    Op(
        "clip",
        lambda x: x.clip(-0.2, 0.1),
        apart((3, 4)),
        each(lambda x: min(max(x, -0.2), 0.1)),
        lambda torch, x: x.clip(-0.2, 0.1),
    ),
    Op(
        "clip below",
        lambda x: x.clip(min=0.2),
        apart((3, 4)),
        each(lambda x: max(x, 0.2)),
        lambda torch, x: x.clip(min=0.2),
    ),
    Op(
        "clip above",
        lambda x: F.clip(x, max=0.2),
        apart((3, 4)),
        each(lambda x: min(x, 0.2)),
        lambda torch, x: x.clip(max=0.2),
    ),
    Op("matmul", lambda x, y: x @ y, normal((2, 3), (3, 4)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul vectors", lambda x, y: x @ y, normal((3,), (3,)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul vector", lambda x, y: x @ y, normal((2, 3), (3,)), slow_matmul, lambda torch, x, y: x @ y),
    Op("vector matmul", lambda x, y: x @ y, normal((3,), (3, 2)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul stacks", lambda x, y: x @ y, normal((2, 2, 3), (2, 3, 2)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul stack by one", lambda x, y: x @ y, normal((2, 2, 3), (3, 2)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul one by stack", lambda x, y: x @ y, normal((2, 3), (2, 3, 2)), slow_matmul, lambda torch, x, y: x @ y),
    Op(
        "matmul broadcast",
        lambda x, y: x @ y,
        normal((2, 1, 2, 3), (1, 2, 3, 1)),
        slow_matmul,
        lambda torch, x, y: x @ y,
    ),
    Op("matmul vector stack", lambda x, y: x @ y, normal((3,), (2, 3, 2)), slow_matmul, lambda torch, x, y: x @ y),
    Op("matmul stack vector", lambda x, y: x @ y, normal((2, 2, 3), (3,)), slow_matmul, lambda torch, x, y: x @ y),
    Op("sum", lambda x: x.sum(), normal((2, 3)), lambda x: math.fsum(x.flat), lambda torch, x: x.sum()),
    Op("sum axis", lambda x: x.sum(1), normal((2, 3, 2)), along(math.fsum, 1), lambda torch, x: x.sum(1)),
    Op("sum last", lambda x: x.sum(-1), normal((2, 3, 2)), along(math.fsum, -1), lambda torch, x: x.sum(-1)),
    Op(
        "sum axes",
        lambda x: x.sum((0, -1)),
        normal((2, 3, 2)),
        lambda x: along(math.fsum, 0)(along(math.fsum, 2)(x)),
        lambda torch, x: x.sum((0, -1)),
    ),
    Op(
        "sum keepdims",
        lambda x: x.sum(1, keepdims=True),
        normal((2, 3)),
        lambda x: along(math.fsum, 1)(x)[:, None],
        lambda torch, x: x.sum(1, keepdim=True),
    ),
    Op(
        "sum all keepdims", lambda x: x.sum(keepdims=True), normal((2, 3)), lambda x: np.full((1, 1), math.fsum(x.flat))
    ),
    Op("mean", lambda x: x.mean(), normal((2, 3)), lambda x: math.fsum(x.flat) / x.size, lambda torch, x: x.mean()),
    Op(
        "mean axis",
        lambda x: x.mean(0),
        normal((2, 3)),
        along(lambda line: math.fsum(line) / len(line), 0),
        lambda torch, x: x.mean(0),
    ),
    Op(
        "mean axes keepdims",
        lambda x: x.mean((1, 2), True),
        normal((2, 3, 2)),
        lambda x: np.array([[[math.fsum(row.flat) / 6]] for row in x]),
        lambda torch, x: x.mean((1, 2), True),
    ),
    Op("max", lambda x: x.max(), apart((2, 3)), lambda x: max(x.flat), lambda torch, x: x.max()),
    Op("max axis", lambda x: x.max(1), apart((2, 3, 2)), along(max, 1), lambda torch, x: x.amax(1)),
    Op(
        "max axes keepdims",
        lambda x: x.max((0, 2), True),
        apart((2, 3, 2)),
        lambda x: np.array([[[x[:, i].max()] for i in range(3)]]),
        lambda torch, x: x.amax((0, 2), True),
    ),
    Op("min", lambda x: x.min(), apart((2, 3)), lambda x: min(x.flat), lambda torch, x: x.min()),
    Op("min axis", lambda x: x.min(-1), apart((2, 3)), along(min, 1), lambda torch, x: x.amin(-1)),
    Op(
        "min keepdims",
        lambda x: x.min(0, keepdims=True),
        apart((2, 3)),
        lambda x: along(min, 0)(x)[None],
        lambda torch, x: x.amin(0, True),
    ),
    Op(
        "reshape",
        lambda x: x.reshape(3, -1),
        normal((2, 3)),
        lambda x: np.array(list(x.flat)).reshape(3, 2),
        lambda torch, x: x.reshape(3, -1),
    ),
    Op(
        "reshape image",
        lambda x: x.reshape((2, 12)),
        normal((2, 3, 2, 2)),
        lambda x: np.array([list(image.flat) for image in x]),
        lambda torch, x: x.reshape(2, 12),
    ),
    Op(
        "flatten", lambda x: x.flatten(), normal((2, 3)), lambda x: np.array(list(x.flat)), lambda torch, x: x.flatten()
    ),
    Op(
        "flatten from 1",
        lambda x: F.flatten(x, 1),
        normal((2, 3, 2, 2)),
        lambda x: np.array([list(image.flat) for image in x]),
        lambda torch, x: x.flatten(1),
    ),
    Op(
        "flatten middle",
        lambda x: x.flatten(1, -2),
        normal((2, 3, 2, 2)),
        lambda x: np.array([[list(x[n, c, h]) for c in range(3) for h in range(2)] for n in range(2)]),
        lambda torch, x: x.flatten(1, -2),
    ),
    Op(
        "permute",
        lambda x: x.permute(2, 0, 1),
        normal((2, 3, 4)),
        lambda x: np.array([[[x[i, j, k] for j in range(3)] for i in range(2)] for k in range(4)]),
        lambda torch, x: x.permute(2, 0, 1),
    ),
    Op(
        "permute negative",
        lambda x: x.permute((-1, 0, 1)),
        normal((2, 3, 4)),
        lambda x: np.moveaxis(x, -1, 0),
        lambda torch, x: x.permute(-1, 0, 1),
    ),
    Op(
        "transpose",
        lambda x: x.transpose(0, -1),
        normal((2, 3, 4)),
        lambda x: np.swapaxes(x, 0, 2),
        lambda torch, x: x.transpose(0, -1),
    ),
    Op(
        "T",
        lambda x: x.T,
        normal((2, 3)),
        lambda x: np.array([[x[i, j] for i in range(2)] for j in range(3)]),
        lambda torch, x: x.T,
    ),
    Op("item 1", lambda x: x[1], normal((3, 2)), lambda x: np.array([x[1, 0], x[1, 1]]), lambda torch, x: x[1]),
    Op(
        "slice",
        lambda x: x[1:, ::2],
        normal((3, 4)),
        lambda x: np.array([[x[1, 0], x[1, 2]], [x[2, 0], x[2, 2]]]),
        lambda torch, x: x[1:, ::2],
    ),
    Op(
        "ellipsis and new axis",
        lambda x: x[..., None, 0],
        normal((3, 2)),
        lambda x: np.array([[x[i, 0]] for i in range(3)]),
        lambda torch, x: x[..., None, 0],
    ),
    Op(
        "index list",
        lambda x: x[[2, 0, 2]],
        normal((3, 2)),
        lambda x: np.array([list(x[2]), list(x[0]), list(x[2])]),
        lambda torch, x: x[[2, 0, 2]],
    ),
    Op(
        "index pairs",
        lambda x: x[np.array([0, 0, 1]), np.array([1, 1, 0])],
        normal((2, 2)),
        lambda x: np.array([x[0, 1], x[0, 1], x[1, 0]]),
        lambda torch, x: x[[0, 0, 1], [1, 1, 0]],
    ),
    Op(
        "index tensors",
        lambda x: x[Tensor([0, 0, 1]), Tensor([1, 1, 0])],
        normal((2, 2)),
        lambda x: np.array([x[0, 1], x[0, 1], x[1, 0]]),
    ),
    Op("index tensor", lambda x: x[Tensor([1, 1])], normal((2, 2)), lambda x: np.array([x[1], x[1]])),
    Op("mask", lambda x: x[np.array([True, False, True])], normal((3, 2)), lambda x: np.array([x[0], x[2]])),
    Op(
        "pad",
        lambda x: F.pad(x, (1, 2), 7.0),
        normal((2, 2)),
        lambda x: np.array([[7, *row, 7, 7] for row in x]),
        lambda torch, x: torch.nn.functional.pad(x, (1, 2), value=7),
    ),
    Op(
        "pad image",
        lambda x: F.pad(x, (1, 0, 2, 1)),
        normal((1, 2, 2, 3)),
        lambda x: np.pad(x, ((0, 0), (0, 0), (2, 1), (1, 0))),
        lambda torch, x: torch.nn.functional.pad(x, (1, 0, 2, 1)),
        image=True,
    ),
    Op(
        "concat",
        lambda *xs: F.concat(xs),
        normal((2, 3), (1, 3), (2, 3)),
        lambda *xs: np.array([row for x in xs for row in x]),
        concatenated("cat"),
    ),
    Op(
        "concat axis",
        lambda *xs: F.concat(xs, axis=-1),
        normal((2, 3), (2, 1)),
        lambda *xs: np.array([[*a, *b] for a, b in zip(*xs)]),
        lambda torch, *xs: torch.cat(xs, -1),
    ),
    Op(
        "concat channels",
        lambda *xs: F.concat(xs, 1),
        normal((2, 3, 2, 2), (2, 1, 2, 2)),
        lambda x, y: np.array([[*a, *b] for a, b in zip(x, y)]),
        lambda torch, *xs: torch.cat(xs, 1),
        image=True,
    ),
    Op("stack", lambda *xs: F.stack(xs), normal((2, 3), (2, 3)), lambda *xs: np.array(xs), concatenated("stack")),
    Op(
        "stack axis",
        lambda *xs: F.stack(xs, axis=1),
        normal((2, 3), (2, 3)),
        lambda *xs: np.array(list(zip(*xs))),
        lambda torch, *xs: torch.stack(xs, 1),
    ),
    Op(
        "stack last",
        lambda *xs: F.stack(xs, axis=-1),
        normal((2,), (2,), (2,)),
        lambda *xs: np.array(list(zip(*xs))),
        lambda torch, *xs: torch.stack(xs, -1),
    ),
    Op("relu", F.relu, apart((3, 4)), each(lambda x: max(x, 0.0)), lambda torch, x: torch.relu(x)),
    Op(
        "relu image",
        F.relu,
        apart((2, 3, 2, 2)),
        each(lambda x: max(x, 0.0)),
        lambda torch, x: torch.relu(x),
        image=True,
    ),
    Op("sigmoid", F.sigmoid, normal((3, 4)), each(lambda x: 1 / (1 + math.exp(-x))), lambda torch, x: torch.sigmoid(x)),
    Op("tanh", F.tanh, normal((3, 4)), each(math.tanh), lambda torch, x: torch.tanh(x)),
    Op("softmax", F.softmax, normal((3, 4)), along(slow_softmax, 1), lambda torch, x: torch.softmax(x, -1)),
    Op(
        "softmax axis",
        lambda x: F.softmax(x, axis=1),
        normal((2, 3, 2)),
        along(slow_softmax, 1),
        lambda torch, x: torch.softmax(x, 1),
    ),
    Op(
        "log_softmax",
        F.log_softmax,
        normal((3, 4)),
        along(lambda line: [math.log(p) for p in slow_softmax(line)], 1),
        lambda torch, x: torch.log_softmax(x, -1),
    ),
    Op(
        "log_softmax axis",
        lambda x: F.log_softmax(x, axis=0),
        normal((2, 3)),
        along(lambda line: [math.log(p) for p in slow_softmax(line)], 0),
        lambda torch, x: torch.log_softmax(x, 0),
    ),
    Op(
        "gumbel_softmax",
        lambda x: F.gumbel_softmax(x, 0.7, rng=np.random.default_rng(3)),
        normal((3, 4)),
        lambda x: along(slow_softmax, 1)((x + np.random.default_rng(3).gumbel(size=x.shape)) / 0.7),
    ),
    Op(
        "gumbel_softmax axis",
        lambda x: F.gumbel_softmax(x, 2.0, axis=0, rng=np.random.default_rng(3)),
        normal((3, 4)),
        lambda x: along(slow_softmax, 0)((x + np.random.default_rng(3).gumbel(size=x.shape)) / 2),
    ),
    Op(
        "linear",
        F.linear,
        normal((2, 3), (4, 3), (4,)),
        lambda x, w, b: slow_matmul(x, w.T) + b,
        lambda torch, x, w, b: torch.nn.functional.linear(x, w, b),
    ),
    Op(
        "linear_relu",
        F.linear_relu,
        normal((2, 3), (4, 3), (4,)),
        lambda x, w, b: np.maximum(slow_matmul(x, w.T) + b, 0),
        lambda torch, x, w, b: torch.relu(torch.nn.functional.linear(x, w, b)),
    ),
    Op(
        "linear_relu sequence",
        F.linear_relu,
        normal((2, 2, 3), (4, 3)),
        lambda x, w: np.maximum(slow_matmul(x, w.T), 0),
        lambda torch, x, w: torch.relu(torch.nn.functional.linear(x, w)),
    ),
    Op(
        "mlp",
        lambda x, w, v, b: F.mlp(x, [w, v], [b, None]),
        normal((2, 3), (4, 3), (2, 4), (4,)),
        lambda x, w, v, b: slow_matmul(np.maximum(slow_matmul(x, w.T) + b, 0), v.T),
        lambda torch, x, w, v, b: torch.relu(torch.nn.functional.linear(x, w, b)) @ v.T,
    ),
    Op(
        "linear without bias",
        F.linear,
        normal((2, 3), (4, 3)),
        lambda x, w: slow_matmul(x, w.T),
        lambda torch, x, w: torch.nn.functional.linear(x, w),
    ),
    Op(
        "linear sequence",
        F.linear,
        normal((2, 2, 3), (4, 3), (4,)),
        lambda x, w, b: slow_matmul(x, w.T) + b,
        lambda torch, x, w, b: torch.nn.functional.linear(x, w, b),
    ),
    Op(
        "linear vector",
        F.linear,
        normal((3,), (2, 3), (2,)),
        lambda x, w, b: slow_matmul(x, w.T) + b,
        lambda torch, x, w, b: torch.nn.functional.linear(x, w, b),
    ),
    Op(
        "conv2d",
        F.conv2d,
        normal((2, 2, 3, 3), (3, 2, 2, 2), (3,)),
        slow_conv2d,
        lambda torch, x, w, b: torch.conv2d(x, w, b),
        image=True,
    ),
    Op(
        "conv2d without bias",
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        normal((1, 2, 4, 3), (3, 2, 3, 3)),
        lambda x, w: slow_conv2d(x, w, None, (2, 2), (1, 1)),
        lambda torch, x, w: torch.conv2d(x, w, None, 2, 1),
        image=True,
    ),
    Op(
        "conv2d pointwise",
        F.conv2d,
        normal((2, 3, 2, 2), (2, 3, 1, 1), (2,)),
        slow_conv2d,
        lambda torch, x, w, b: torch.conv2d(x, w, b),
        image=True,
    ),
    Op(
        "conv2d depthwise",
        lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=3),
        normal((1, 3, 3, 3), (3, 1, 3, 3), (3,)),
        lambda x, w, b: slow_conv2d(x, w, b, padding=(1, 1), groups=3),
        lambda torch, x, w, b: torch.conv2d(x, w, b, 1, 1, 1, 3),
        image=True,
    ),
    Op(
        "max_pool2d",
        lambda x: F.max_pool2d(x, 2),
        apart((2, 2, 4, 3)),
        slow_pool("max", (2, 2), (2, 2)),
        lambda torch, x: torch.max_pool2d(x, 2),
        image=True,
    ),
    Op(
        "max_pool2d overlapping, padded",
        lambda x: F.max_pool2d(x, 3, 2, 1),
        apart((2, 2, 5, 3)),
        slow_pool("max", (3, 3), (2, 2), (1, 1)),
        lambda torch, x: torch.max_pool2d(x, 3, 2, 1),
        image=True,
    ),
    Op(
        "max_pool2d oblong",
        lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)),
        apart((1, 2, 4, 5)),
        slow_pool("max", (3, 2), (1, 2), (1, 0)),
        lambda torch, x: torch.max_pool2d(x, (3, 2), (1, 2), (1, 0)),
        image=True,
    ),
    Op(
        "avg_pool2d",
        lambda x: F.avg_pool2d(x, 2),
        normal((2, 2, 4, 3)),
        slow_pool("avg", (2, 2), (2, 2)),
        lambda torch, x: torch.nn.functional.avg_pool2d(x, 2),
        image=True,
    ),
    Op(
        "avg_pool2d overlapping, padded",
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        normal((1, 2, 5, 3)),
        slow_pool("avg", (3, 3), (2, 2), (1, 1)),
        lambda torch, x: torch.nn.functional.avg_pool2d(x, 3, 2, 1),
        image=True,
    ),
    Op(
        "avg_pool2d oblong",
        lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (0, 1)),
        normal((1, 2, 3, 5)),
        slow_pool("avg", (2, 3), (1, 2), (0, 1)),
        lambda torch, x: torch.nn.functional.avg_pool2d(x, (2, 3), (1, 2), (0, 1)),
        image=True,
    ),
    Op(
        "adaptive_avg_pool2d 1",
        lambda x: F.adaptive_avg_pool2d(x, 1),
        normal((2, 3, 2, 3)),
        slow_adaptive(1, 1),
        lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, 1),
        image=True,
    ),
    Op(
        "adaptive_avg_pool2d odd",
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        normal((1, 2, 5, 4)),
        slow_adaptive(2, 3),
        lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, (2, 3)),
        image=True,
    ),
    Op(
        "adaptive_avg_pool2d larger",
        lambda x: F.adaptive_avg_pool2d(x, (3, 5)),
        normal((1, 2, 2, 3)),
        slow_adaptive(3, 5),
        lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, (3, 5)),
        image=True,
    ),
    Op(
        "adaptive_avg_pool2d one row",
        lambda x: F.adaptive_avg_pool2d(x, (1, 2)),
        normal((1, 2, 3, 3)),
        slow_adaptive(1, 2),
        lambda torch, x: torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)),
        image=True,
    ),
    Op(
        "batch_norm",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        normal((5, 3), (3,), (3,)),
        slow_batch_norm,
        lambda torch, x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
        rtol=1e-10,
    ),
    Op(
        "batch_norm image",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        normal((2, 3, 2, 2), (3,), (3,)),
        slow_batch_norm,
        lambda torch, x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
        image=True,
        rtol=1e-10,
    ),
    Op(
        "batch_norm_relu",
        lambda x, w, b: F.batch_norm_relu(x, None, None, w, b, training=True),
        normal((5, 3), (3,), (3,)),
        lambda x, w, b: np.maximum(slow_batch_norm(x, w, b), 0),
        lambda torch, x, w, b: torch.relu(torch.nn.functional.batch_norm(x, None, None, w, b, True)),
        rtol=1e-10,
    ),
    Op(
        "batch_norm_relu with a shortcut",
        lambda x, w, b, plus: F.batch_norm_relu(x, None, None, w, b, training=True, plus=plus),
        normal((2, 3, 2, 2), (3,), (3,), (2, 3, 2, 2)),
        lambda x, w, b, plus: np.maximum(slow_batch_norm(x, w, b) + plus, 0),
        lambda torch, x, w, b, p: torch.relu(torch.nn.functional.batch_norm(x, None, None, w, b, True) + p),
        image=True,
        rtol=1e-10,
    ),
    Op(
        "batch_norm_relu eval with a shortcut",
        lambda x, w, b, plus: F.batch_norm_relu(x, RUNNING_MEAN, RUNNING_VAR, w, b, plus=plus),
        normal((4, 3), (3,), (3,), (4, 3)),
        lambda x, w, b, plus: np.maximum(slow_batch_norm(x, w, b, RUNNING_MEAN, RUNNING_VAR) + plus, 0),
    ),
    Op(
        "batch_norm sequence",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=0.1),
        normal((2, 3, 4), (3,), (3,)),
        lambda x, w, b: slow_batch_norm(x, w, b, eps=0.1),
        lambda torch, x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True, eps=0.1),
        rtol=1e-10,
    ),
    Op(
        "batch_norm plain",
        lambda x: F.batch_norm(x, training=True),
        normal((5, 3)),
        slow_batch_norm,
        lambda torch, x: torch.nn.functional.batch_norm(x, None, None, training=True),
        rtol=1e-10,
    ),
    Op(
        "batch_norm scale only",
        lambda x, w: F.batch_norm(x, None, None, w, training=True),
        normal((5, 3), (3,)),
        slow_batch_norm,
        lambda torch, x, w: torch.nn.functional.batch_norm(x, None, None, w, training=True),
        rtol=1e-10,
    ),
    Op(
        "batch_norm shift only",
        lambda x, b: F.batch_norm(x, None, None, None, b, training=True),
        normal((5, 3), (3,)),
        lambda x, b: slow_batch_norm(x, None, b),
        rtol=1e-10,
    ),
    Op(
        "batch_norm eval",
        lambda x, w, b: F.batch_norm(x, RUNNING_MEAN, RUNNING_VAR, w, b),
        normal((2, 3, 2, 2), (3,), (3,)),
        lambda x, w, b: slow_batch_norm(x, w, b, RUNNING_MEAN, RUNNING_VAR),
        lambda torch, x, w, b: torch.nn.functional.batch_norm(
            x, torch.tensor(RUNNING_MEAN), torch.tensor(RUNNING_VAR), w, b
        ),
        image=True,
    ),
    Op(
        "batch_norm eval plain",
        lambda x: F.batch_norm(x, RUNNING_MEAN, RUNNING_VAR),
        normal((4, 3)),
        lambda x: slow_batch_norm(x, None, None, RUNNING_MEAN, RUNNING_VAR),
    ),
    Op("batch_norm eval of the batch", lambda x: F.batch_norm(x), normal((4, 3)), slow_batch_norm, rtol=1e-10),
    Op(
        "batch_norm eval of the batch, half given",
        lambda x: F.batch_norm(x, RUNNING_MEAN),
        normal((4, 3)),
        slow_batch_norm,
        rtol=1e-10,
    ),
    Op(
        "dropout",
        lambda x: F.dropout(x, 0.25, rng=np.random.default_rng(5)),
        normal((3, 4)),
        lambda x: np.where(DROPPED, x / 0.75, 0),
    ),
    Op("dropout eval", lambda x: F.dropout(x, 0.25, training=False), normal((3, 4)), lambda x: x),
    Op("dropout of all", lambda x: F.dropout(x, 1.0), normal((3, 4)), lambda x: 0 * np.abs(x)),
    Op(
        "embedding",
        lambda w: F.embedding(WORDS, w),
        normal((5, 2)),
        lambda w: np.array([[list(w[i]) for i in row] for row in WORDS]),
        lambda torch, w: torch.nn.functional.embedding(torch.tensor(WORDS), w),
    ),
    Op(
        "embedding of a tensor",
        lambda w: F.embedding(Tensor(WORDS[0]), w),
        normal((5, 2)),
        lambda w: np.array([list(w[i]) for i in WORDS[0]]),
    ),
    Op(
        "cross_entropy",
        lambda x: F.cross_entropy(x, np.array([2, 0, 1])),
        normal((3, 3)),
        slow_cross_entropy(np.array([2, 0, 1])),
        lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor([2, 0, 1])),
    ),
    Op(
        "cross_entropy sequence",
        lambda x: F.cross_entropy(x, SEQUENCE_TARGETS),
        normal((2, 3, 3)),
        slow_cross_entropy(SEQUENCE_TARGETS),
        lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor(SEQUENCE_TARGETS)),
    ),
    Op(
        "cross_entropy ignoring 1",
        lambda x: F.cross_entropy(x, Tensor([2, 1, 0]), ignore_index=1),
        normal((3, 3)),
        slow_cross_entropy(np.array([2, 1, 0]), 1),
        lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor([2, 1, 0]), ignore_index=1),
    ),
    Op(
        "cross_entropy of one",
        lambda x: F.cross_entropy(x, 2),
        normal((3,)),
        lambda x: -math.log(slow_softmax(list(x))[2]),
        lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor(2)),
    ),
    Op(
        "cross_entropy image",
        lambda x: F.cross_entropy(x, np.array([[[0, 2], [1, 1]]])),
        normal((1, 3, 2, 2)),
        slow_cross_entropy(np.array([[[0, 2], [1, 1]]])),
        lambda torch, x: torch.nn.functional.cross_entropy(x, torch.tensor([[[0, 2], [1, 1]]])),
    ),
    Op(
        "mse_loss",
        F.mse_loss,
        normal((2, 3), (2, 3)),
        lambda x, t: math.fsum((v - u) ** 2 for v, u in zip(x.flat, t.flat)) / 6,
        lambda torch, x, t: torch.nn.functional.mse_loss(x, t),
    ),
    lstm_op("lstm", 2, 3, layers=1, bias=True, state=True),
    lstm_op("lstm from zeros", 3, 2, layers=1, bias=True, state=False),
    lstm_op("lstm without bias", 2, 2, layers=1, bias=False, state=True),
    lstm_op("lstm two layers", 2, 2, layers=2, bias=True, state=True),
    lstm_op("lstm three layers without bias", 1, 1, layers=3, bias=False, state=False),
]


def tensors(arrays: list[np.ndarray], requires_grad: bool = True) -> list[Tensor]:
    return [Tensor(array, requires_grad=requires_grad) for array in arrays]


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def values_and_gradients(op: Op, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs, and the gradients of Σ w·output for weights w that are the same in every call."""
    xs = tensors(arrays)
    ys = as_tuple(op.f(*xs))
    weights = np.random.default_rng(1)
    sum(
        ((y * weights.normal(size=y.shape).astype(y.dtype)).sum() for y in ys), Tensor(np.zeros((), ys[0].dtype))
    ).backward()
    return [y.data for y in ys], [x.grad for x in xs]


def close(actual: list[np.ndarray], expected: list[np.ndarray], rtol: float, atol: float | None = None) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol if atol is None else atol, strict=True)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
