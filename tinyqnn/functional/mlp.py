"""A multilayer perceptron: linear layers with a ReLU between each and the next.

`mlp` is a loop over `linear_relu`. Where all layers are small it is one operation with the same numbers: on batches of
a hundred rows and layers of a hundred units, to run and to record an operation takes longer than its product.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyqnn import kernels
from tinyqnn.functional.conv import linear, linear_relu
from tinyqnn.tensor import Array, Function, Node, Tensor


class MLP(Function):
    """hₗ = max(hₗ₋₁ Wₗᵀ + bₗ, 0), and in the last layer h Wᵀ + b. The arguments are x, all weights, then all biases.

    layers   the same, looked over
    """

    @staticmethod
    def forward(ctx: Node, x: Array, *parameters: Array | None, layers: kernels.mlp.Layers) -> Array:
        y, hidden = kernels.mlp.forward(layers)
        ctx.save(layers, hidden)
        return y

    @staticmethod
    def backward(ctx: Node, grad: Array) -> tuple[Array | None, ...]:
        layers, hidden = ctx.saved
        need_x, *needed = ctx.needs_input_grad
        grad_x, of_weights, of_biases = kernels.mlp.backward(grad, layers, hidden, need_x, True in needed)
        return grad_x, *[g if need else None for g, need in zip([*of_weights, *of_biases], needed)]


def mlp(input: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """Linear layers, all but the last with a ReLU.

    input     (…, in)
    weights   of each layer, (outputs, inputs)
    biases    of each layer, (outputs,) or None
    result    (…, out)

    As one operation it is one vertex of a graph. In a model call `nn.mlp`, which shows a tracer the parts.

    Raises ValueError for shapes that do not belong together.

    >>> one, two = Tensor([[1.0]]), Tensor([[2.0], [-2.0]])
    >>> mlp(one, [two, Tensor([[1.0, 1.0]])], [None, Tensor([0.5])]).data.tolist()
    [[2.5]]
    """
    if len(weights) != len(biases) or not weights:
        raise ValueError(f"mlp: one bias, or None, for each weight, got {len(weights)} weights, {len(biases)} biases")
    if len(weights) > 1 and not kernels.use_reference():
        arrays = [w.data for w in weights], [None if b is None else b.data for b in biases]
        layers = kernels.mlp.Layers(input.data, *arrays)
        if layers.fit:
            return MLP.apply(input, *weights, *biases, layers=layers)
    h = input
    for weight, bias in zip(weights[:-1], biases):
        h = linear_relu(h, weight, bias)
    return linear(h, weights[-1], biases[-1])
