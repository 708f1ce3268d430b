"""Which of M widths? Take all of them at once, each as much as a softmax says, and the choice has a gradient.

    q = Σⱼ softmax(α)ⱼ · B(yⱼ),    yⱼ = what the layer puts out with its weights quantized to width j       DFQ eq. (1)

B is batch normalisation of each branch's output: branches of another amplitude are compared by what they say and not by
how loud they say it. `branch.py` puts the branches into a network.

Where a layer's output is no batch of examples (LSTM and embedding layers, linear layers on sequences), the quantized
weights themselves are mixed, Σⱼ softmax(α)ⱼ · Qⱼ(w), by a module in the quantizing vertex. What these layers multiply
the weights with is linear in them, so that is the mixture of the branches' products, with B left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import functional as F
from tinyqnn.graph.cost import FLOAT_BITS
from tinyqnn.nn import Module, Parameter
from tinyqnn.quant import scheme
from tinyqnn.tensor import Array, Function, Node, Tensor

EPS, MOMENTUM = 1e-5, 0.1  # of B, PyTorch's


class Mix(Function):
    """Σⱼ pⱼ yⱼ with p = softmax(α): (M,), M × (…) -> (…). DFQ eq. (1)

    >>> Mix.apply(Tensor([0.0, 0.0]), Tensor([1.0, 3.0]), Tensor([3.0, 7.0])).data.tolist()
    [2.0, 5.0]
    """

    @staticmethod
    def forward(ctx: Node, alpha: Array, *ys: Array) -> Array:
        p = probabilities(alpha)
        ctx.save(p, ys)
        mixed = p[0] * ys[0]
        for share, y in zip(p[1:], ys[1:]):
            mixed += share * y
        return mixed

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        p, ys = ctx.saved
        need_alpha, *need = ctx.needs_input_grad
        grad_alpha = None
        if need_alpha:  # ∂/∂pⱼ = ⟨grad, yⱼ⟩,  ∂pⱼ/∂αₖ = pⱼ ([j = k] − pₖ)
            grad_p = np.array([_dot(grad, y) for y in ys], p.dtype)
            grad_alpha = p * (grad_p - p @ grad_p)
        return grad_alpha, *(share * grad if wanted else None for share, wanted in zip(p, need))


def probabilities(alpha: Array) -> Array:
    """softmax(α) of an array.

    >>> probabilities(np.array([0.0, np.log(3.0)])).round(4).tolist()
    [0.25, 0.75]
    """
    e = np.exp(alpha - alpha.max())
    return e / e.sum()


def _dot(a: Array, b: Array) -> float:
    """Σ a·b, in b's memory order, which is mostly a's as well: no copies."""
    order = np.argsort([-stride for stride in b.strides], kind="stable")
    return float(np.vdot(a.transpose(order), b.transpose(order)))


class Branches(Module):
    """What a relaxed layer has of its own: α, and for B of each branch a running mean and variance.

    γ and β of B are shared by the branches: a branch with a γ of its own could be louder. They start as the spread and
    mean of what the float layer puts out, so that a trained network stays near what it was.
    """

    def __init__(self, notations: tuple[str, ...], channels: int, dtype: Any) -> None:
        super().__init__()
        self.notations = notations
        self.alpha = Parameter(np.zeros(len(notations), dtype))
        self.weight, self.bias = Parameter(np.ones(channels, dtype)), Parameter(np.zeros(channels, dtype))
        for notation in notations:
            self.register_buffer(f"mean_{notation}", np.zeros(channels, dtype))
            self.register_buffer(f"var_{notation}", np.ones(channels, dtype))


class MixedWeight(Module):
    """Σⱼ softmax(α)ⱼ · Qⱼ(w), for the quantizing vertex of a weight.

    >>> MixedWeight(("B-1", "float"))(Tensor([1.0, -3.0])).data.tolist()
    [1.5, -2.5]
    """

    def __init__(self, notations: tuple[str, ...], dtype: Any = np.float32) -> None:
        super().__init__()
        self.notations = notations
        self.quantizers = [None if notation == "float" else scheme(notation) for notation in notations]
        self.alpha = Parameter(np.zeros(len(notations), dtype))

    def forward(self, x: Tensor) -> Tensor:
        return Mix.apply(self.alpha, *(x if quantize is None else quantize(x) for quantize in self.quantizers))

    @property
    def bits(self) -> float:
        """The expected width."""
        return float(probabilities(self.alpha.data) @ [width(notation) for notation in self.notations])


@dataclass(frozen=True)
class Relaxed:
    """A weight whose width is searched for.

    vertex      its quantizing vertex, `conv1.quant.weight`
    feeds       the expensive vertex
    elements    how many weights
    notations   the candidates, narrow ones first
    home        the module that has α: `Branches` or `MixedWeight`
    """

    vertex: str
    feeds: str
    elements: int
    notations: tuple[str, ...]
    home: Any

    @property
    def alpha(self) -> Parameter:
        return self.home.alpha

    @property
    def p(self) -> Array:
        """softmax(α)."""
        return probabilities(self.alpha.data)

    @property
    def bits(self) -> list[int]:
        """The width of each candidate."""
        return [width(notation) for notation in self.notations]


def width(notation: str) -> int:
    """Bits of a notation; 32 for float.

    >>> width("C-3"), width("float")
    (3, 32)
    """
    return FLOAT_BITS if notation == "float" else scheme(notation).bits


def expected_size(layers: list[Relaxed]) -> Tensor:
    """G(α) = Σᵢ nᵢ Σⱼ softmax(αᵢ)ⱼ · bitsⱼ / Σᵢ nᵢ: the expected bits of a weight, with its gradient (DFQ eq. (2)).

    >>> layer = Relaxed("fc.quant.weight", "fc", 10, ("B-1", "C-8"), MixedWeight(("B-1", "C-8")))
    >>> expected_size([layer]).item()
    4.5
    """
    total = sum(layer.elements for layer in layers)
    size = Tensor(np.zeros((), layers[0].alpha.dtype))
    for layer in layers:
        bits = np.array(layer.bits, layer.alpha.dtype) * (layer.elements / total)
        size = size + (F.softmax(layer.alpha) * bits.astype(layer.alpha.dtype)).sum()
    return size
