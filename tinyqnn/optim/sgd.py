"""Stochastic gradient descent: a step downhill, with momentum a ball that rolls."""

from __future__ import annotations

import numpy as np

from tinyqnn import kernels
from tinyqnn.optim.optimizer import Group, Optimizer, Params, State, blocks
from tinyqnn.tensor import Array, Tensor


class SGD(Optimizer):
    """Move each parameter p against its gradient g.

        g ← g + weight_decay · p
        m ← momentum · m + (1 − dampening) · g      (m = g in the first step)
        p ← p − lr · m                              without momentum  p − lr · g
                                                    with nesterov     p − lr · (g + momentum · m)

    PyTorch's arguments and rule, with its "momentum_buffer" for m. Groups of parameters: see `Optimizer`.

    >>> from tinyqnn import Tensor
    >>> w = Tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w * 0.25).sum().backward()
    ...     optimizer.step()
    >>> w.data.tolist()  # 1 − 0.5·0.25 − 0.5·(0.9·0.25 + 0.25)
    [0.637499988079071]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, options)

    def update_all(self, params: list[Tensor], group: Group) -> bool:
        row = self.row(params, "momentum_buffer")
        if not row.serve:
            return False
        fresh = [1.0 - float(group["dampening"])] * len(params)
        if group["momentum"] and row.first:  # somebody's first step
            fresh = [self.remember(p.data, self.state[p], group) for p in params]
            row = self.row(params, "momentum_buffer")
        lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        kernels.updates.sgd(row, fresh, lr, momentum, decay, group["nesterov"])
        return True

    def remember(self, param: Array, state: State, group: Group) -> float:
        """What a gradient counts in m; in the first step, which makes m, all."""
        if "momentum_buffer" not in state and group["momentum"]:
            state["momentum_buffer"] = np.zeros_like(param)
            return 1.0
        return 1.0 - float(group["dampening"])

    def update(self, param: Array, grad: Array, state: State, group: Group) -> None:
        lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        fresh = self.remember(param, state, group)
        for p, g, *buffers in blocks(param, grad, *([state["momentum_buffer"]] if momentum else [])):
            work = np.empty_like(p)
            if decay:
                np.multiply(p, decay, out=work)
                g = np.add(work, g, out=np.empty_like(p))
            if momentum:
                (m,) = buffers
                np.multiply(m, momentum, out=m)
                np.add(m, g if fresh == 1 else np.multiply(g, fresh, out=work), out=m)
                kernels.updates.flush(m)
                if group["nesterov"]:
                    np.multiply(m, momentum, out=work)
                    g = np.add(work, g, out=work)
                else:
                    g = m
            np.multiply(g, lr, out=work)
            np.subtract(p, work, out=p)
