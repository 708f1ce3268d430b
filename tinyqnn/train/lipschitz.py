"""A layer must not make noise larger: a penalty that pulls every layer's weight towards one that keeps lengths.

    L_R = Σ over layers of ‖WᵀW − I‖²_F        W is (k·k·C_in) × C_out                            Holistic eq. (8)

If WᵀW = I then ‖W v‖ = ‖v‖ for every v: what an activation quantizer adds to a layer's input comes out no larger than
it went in. That bound is the layer's Lipschitz constant, its largest singular value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Array, Function, Node, Tensor
from tinyqnn.train.hook import Hook

if TYPE_CHECKING:
    from tinyqnn.train.loop import Trainer


class NotOrthonormal(Function):
    """‖WᵀW − I‖²_F, group by group: a depthwise convolution is as many layers as it has groups."""

    @staticmethod
    def forward(ctx: Node, weight: Array, *, groups: int) -> Array:
        columns = weight.reshape(groups, len(weight) // groups, -1)  # (C_out, C_in, k, k) -> (groups, C_out', k·k·C_in)
        beyond = columns @ columns.transpose(0, 2, 1)  # (groups, C_out', C_out')
        beyond -= np.eye(beyond.shape[1], dtype=beyond.dtype)
        ctx.save(columns, beyond, weight.shape)
        return np.asarray(np.vdot(beyond, beyond), weight.dtype)

    @staticmethod
    def backward(ctx: Node, grad: Array) -> Array:
        columns, beyond, shape = ctx.saved
        return (4 * grad * (beyond @ columns)).reshape(shape)


def lipschitz(model: nn.Module) -> Tensor:
    """L_R of all convolutions and linear layers of a model, float or quantized; the float weights are asked.

    Raises ValueError for a model that has none.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> model[0].weight.data[...] = [[2.0, 0.0], [0.0, 1.0]]     # WᵀW − I = [[3, 0], [0, 0]]
    >>> model[2].weight.data[...] = [[0.6, 0.8]]                 # of length 1
    >>> round(lipschitz(model).item(), 6)
    9.0
    """
    total = None
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            term = NotOrthonormal.apply(module.weight, groups=getattr(module, "groups", 1))
            total = term if total is None else total + term
    if total is None:
        raise ValueError("the model has neither convolutions nor linear layers, so there is nothing to bound")
    return total


@dataclass(frozen=True)
class Lipschitz(Hook):
    """Adds weight · L_R to the loss of each batch; Holistic §5.4 takes 1e-4.

    >>> Lipschitz().weight
    0.0001
    """

    weight: float = 1e-4

    def penalty(self, trainer: Trainer) -> Tensor:
        return lipschitz(trainer.model) * self.weight
