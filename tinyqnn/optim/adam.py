"""Adam: each parameter gets its own step, its mean gradient divided by how much the gradient usually is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyqnn import kernels
from tinyqnn.optim.optimizer import Group, Optimizer, Params, State, blocks
from tinyqnn.tensor import Array, Tensor


class Adam(Optimizer):
    """Move each parameter p against its gradient g (Kingma & Ba 2015, algorithm 1).

        g ← g + weight_decay · p
        m ← β1 · m + (1 − β1) · g
        v ← β2 · v + (1 − β2) · g²
        p ← p − lr · m̂ / (√v̂ + eps),     m̂ = m / (1 − β1ᵗ),  v̂ = v / (1 − β2ᵗ),  t the number of the step, from 1

    PyTorch's arguments and rule, with its "exp_avg" for m, "exp_avg_sq" for v and "step" for t. The decay is added to
    the gradient, as in PyTorch's Adam (its AdamW subtracts it from p). Groups of parameters: see `Optimizer`.

    >>> from tinyqnn import Tensor
    >>> w = Tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * np.array([1e-3, 1e3], np.float32)).sum().backward()
    >>> optimizer.step()
    >>> w.data.round(4).tolist()  # the first step is lr, whatever the gradient's size
    [0.8999999761581421, 0.8999999761581421]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, group: Any) -> None:
        betas = {**self.defaults, **group}["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are two numbers from 0 to just below 1, got {betas}")
        super().add_param_group(group)

    def update_all(self, params: list[Tensor], group: Group) -> bool:
        row = self.row(params, "exp_avg", "exp_avg_sq")
        if not row.serve:
            return False
        corrections, rates = zip(*[self.remember(p.data, self.state[p], group) for p in params])
        if row.first:  # somebody's first step
            row = self.row(params, "exp_avg", "exp_avg_sq")
        beta1, beta2 = map(float, group["betas"])
        decay, eps = float(group["weight_decay"]), float(group["eps"])
        kernels.updates.adam(row, corrections, rates, (beta1, beta2), decay, eps)
        return True

    def remember(self, param: Array, state: State, group: Group) -> tuple[float, float]:
        """Count the step; what √v is multiplied with, 1 / √(1 − β2ᵗ), and the rate, lr / (1 − β1ᵗ)."""
        beta1, beta2 = map(float, group["betas"])
        if not state:
            state.update(step=0, exp_avg=np.zeros_like(param), exp_avg_sq=np.zeros_like(param))
        state["step"] += 1
        return 1 / math.sqrt(1 - beta2 ** state["step"]), float(group["lr"]) / (1 - beta1 ** state["step"])

    def update(self, param: Array, grad: Array, state: State, group: Group) -> None:
        beta1, beta2 = map(float, group["betas"])
        decay, eps = float(group["weight_decay"]), float(group["eps"])
        correction, rate = self.remember(param, state, group)
        for p, g, m, v in blocks(param, grad, state["exp_avg"], state["exp_avg_sq"]):
            work = np.empty_like(p)
            if decay:
                np.multiply(p, decay, out=work)
                g = np.add(work, g, out=np.empty_like(p))
            np.multiply(m, beta1, out=m)
            np.multiply(g, 1 - beta1, out=work)
            np.add(m, work, out=m)
            np.multiply(v, beta2, out=v)
            np.multiply(g, g, out=work)
            np.multiply(work, 1 - beta2, out=work)
            np.add(v, work, out=v)
            kernels.updates.flush(m, v)
            np.sqrt(v, out=work)
            np.multiply(work, correction, out=work)
            np.add(work, eps, out=work)
            np.divide(m, work, out=work)
            np.multiply(work, rate, out=work)
            np.subtract(p, work, out=p)
