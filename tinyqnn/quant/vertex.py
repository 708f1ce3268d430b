"""A quantizing vertex is one module with one slot: what is in the slot may be swapped, the graph around it stays.

Weights are there in full at every step, so their parameters are measured anew each time. Activations are seen a batch
at a time: training uses each batch's own parameters and keeps a running average, evaluation uses the average.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.quant.base import Params, Quantizer
from tinyqnn.quant.notation import scheme as _scheme
from tinyqnn.quant.whole import Coded
from tinyqnn.tensor import Tensor, no_grad

Array = np.ndarray


class WeightQuantizer(Module):
    """Quantizes a weight with parameters from the weight itself, in training and in evaluation.

    scheme   a notation such as "P-3", or a quantizer; swap it by assigning another

    >>> WeightQuantizer("B-1")(Tensor([1.0, -3.0])).data.tolist()
    [2.0, -2.0]
    """

    scheme: Quantizer

    def __init__(self, scheme: str | Quantizer) -> None:
        super().__init__()
        self.scheme = _scheme(scheme)

    def forward(self, x: Tensor) -> Tensor:
        return self.scheme(x)

    def frozen(self, x: Array) -> Coded:
        """The scheme with its parameters, which are the weight's own."""
        return Coded(self.scheme, self.scheme.fit(x))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scheme!r})"


class ActivationQuantizer(Module):
    """Quantizes an activation: by its own parameters while training, by their running average in evaluation.

    scheme       a notation such as "C-3", or a quantizer
    momentum     running ← momentum · running + (1 − momentum) · batch; the first batch is taken as it is
    after_relu   True if the input is known not to be negative: Binary, Ternary and Quaternary are refused then
    shape        the activations' shape, asked for only by schemes per channel (`axis=`)

    The averages are buffers: `running_scale` and so on, and `batches`, how many have been seen. Evaluating before the
    first batch raises RuntimeError; train, load a state, or call `calibrate`.

    >>> quant = ActivationQuantizer("B-1")
    >>> _ = quant(Tensor(np.array([1.0, 1.0]))), quant(Tensor(np.array([2.0, 2.0])))
    >>> quant.eval()(Tensor(np.array([5.0]))).data.round(4).tolist()
    [1.1]
    """

    scheme: Quantizer

    def __init__(
        self,
        scheme: str | Quantizer,
        momentum: float = 0.9,
        *,
        after_relu: bool = False,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        quantizer = _scheme(scheme)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if after_relu and quantizer.letter in ("B", "T", "Q"):
            raise ValueError(
                f"{quantizer.notation} is symmetric around 0, and an activation after ReLU is never negative: half of "
                "its few levels would be wasted (AutoQNN §6 leaves it out there); use F, R, Z, C, P, U or PACT"
            )
        self.momentum, self.shape = momentum, shape
        self.scheme = quantizer
        self.reset()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "scheme" and "batches" in self._buffers:
            self.reset()  # averages of another scheme's parameters say nothing about this one's

    def reset(self) -> None:
        """Forget the running averages; assigning another scheme does it, too."""
        self.register_buffer("batches", np.array(0, np.int64))
        for name in [name for name in self._buffers if name.startswith("running_")]:
            del self._buffers[name]
        if not self.scheme.sees_data:
            return
        if self.scheme.axis is None:
            example = np.zeros(1)
        elif self.shape is None:
            raise ValueError(f"{self.scheme!r} averages per channel; pass shape=, the shape of the activations")
        else:
            example = np.zeros([1 if i != self.scheme.axis % len(self.shape) else n for i, n in enumerate(self.shape)])
        for name, value in self.scheme.fit(example).items():
            self.register_buffer(f"running_{name}", np.zeros(value.shape))

    def forward(self, x: Tensor) -> Tensor:
        if not self.scheme.sees_data:
            return self.scheme(x)
        if not self.training:
            return self.scheme(x, self.params)
        params = self.scheme.fit(x)
        self.observe(params)
        return self.scheme.apply(x, params)

    def frozen(self, x: Array) -> Coded:
        """The scheme with its frozen parameters, float32; `x` is what comes in, of which they do not depend."""
        params = self.params if self.scheme.sees_data else self.scheme.fit(np.zeros(1, np.float32))
        return Coded(self.scheme, {name: np.asarray(value, np.float32) for name, value in params.items()})

    @property
    def params(self) -> Params:
        """The frozen parameters that evaluation uses."""
        if self.scheme.sees_data and self.batches == 0:
            raise RuntimeError(
                f"this {self.scheme.notation} activation quantizer has seen no batch, so it has no scale to evaluate "
                "with; train, load_state_dict, or run tq.quant.calibrate(model, batches) first"
            )
        return self.scheme.settle({name: self._buffers[f"running_{name}"] for name in self._names()})

    def _names(self) -> tuple[str, ...]:
        return self.scheme.parameter_names

    def observe(self, params: Params) -> None:
        """Take a batch's parameters, what `scheme.fit` measured of it, into the running averages.

        >>> quant = ActivationQuantizer("B-1")
        >>> quant.observe(quant.scheme.fit(np.array([3.0, -3.0])))
        >>> quant.params["scale"].item()
        3.0
        """
        keep = self.momentum if self.batches > 0 else 0.0
        for name in self._names():
            running = self._buffers[f"running_{name}"]
            running[...] = keep * running + (1 - keep) * params[name]
        self.batches += 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scheme!r}, momentum={self.momentum})"


def calibrate(model: Module, batches: Iterable[Any]) -> None:
    """Let every activation quantizer of `model` see `batches`; all else (batch norm, dropout) stays in evaluation mode.

    Modes are put back afterwards, nothing is learned.

    >>> quant = ActivationQuantizer("B-1")
    >>> calibrate(quant, [Tensor([3.0])])
    >>> quant.eval()(Tensor([5.0])).data.tolist()
    [3.0]
    """
    with evaluating(model), no_grad():
        for module in model.modules():
            if isinstance(module, ActivationQuantizer):
                module.train()
        for batch in batches:
            model(batch if isinstance(batch, Tensor) else Tensor(batch))
