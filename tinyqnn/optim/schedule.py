r"""A schedule says what the learning rate is at time t. It is a function of t and remembers nothing.

Time is counted in epochs and may be fractional: after 30 of the 100 batches of epoch 2 (the third), t = 2.3. So a
schedule can be plotted, asked about the future, and resumed by knowing t alone.

    schedule(t)        the factor by which the rate is multiplied
    schedule(t, lr)    the rate, if it started from lr

Names and parameters are PyTorch's; between whole epochs, where PyTorch's schedules stand still, cosine and polynomial
glide. After its last epoch a schedule keeps its last value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tinyqnn.optim.optimizer import Optimizer


class Schedule:
    """The base of all schedules: write `__call__`.

    >>> class Falling(Schedule):
    ...     def __call__(self, t, lr=1.0):
    ...         return lr / (1 + t)
    >>> Falling()(3, lr=0.4)
    0.1
    """

    def __call__(self, t: float, lr: float = 1.0) -> float:
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    def set_lr(self, optimizer: Optimizer, t: float) -> None:
        """Give every group of the optimizer the rate for time t; a group started with its "initial_lr"."""
        for group in optimizer.param_groups:
            group["lr"] = self(t, group["initial_lr"])


@dataclass(frozen=True)
class ConstantLR(Schedule):
    """Always lr; until `total_iters` epochs have passed, factor · lr.

    >>> ConstantLR()(7), ConstantLR(0.1, total_iters=5)(4.9, lr=2.0), ConstantLR(0.1, total_iters=5)(5, lr=2.0)
    (1.0, 0.2, 2.0)
    """

    factor: float = 1.0
    total_iters: float = 0

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return lr * self.factor if t < self.total_iters else lr


@dataclass(frozen=True)
class StepLR(Schedule):
    """Every `step_size` epochs the rate is multiplied by gamma.

    >>> [StepLR(10, gamma=0.5)(t) for t in (0, 9.99, 10, 20)]
    [1.0, 1.0, 0.5, 0.25]
    """

    step_size: float
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _above_zero("step_size", self.step_size)

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return lr * self.gamma ** _steps(t, self.step_size)


@dataclass(frozen=True)
class MultiStepLR(Schedule):
    """At each of `milestones` (epochs) the rate is multiplied by gamma.

    >>> [MultiStepLR([100, 150])(t) for t in (99.9, 100, 150)]  # He et al. 2015 on CIFAR-10
    [1.0, 0.1, 0.010000000000000002]
    """

    milestones: Iterable[float]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return lr * self.gamma ** sum(milestone <= t for milestone in self.milestones)


@dataclass(frozen=True)
class PolynomialLR(Schedule):
    """lr · (1 − t / total_iters)^power: falls to 0 in `total_iters` epochs, power 1 along a straight line.

    >>> [PolynomialLR(10)(t) for t in (0, 5, 10, 11)]
    [1.0, 0.5, 0.0, 0.0]
    """

    total_iters: float
    power: float = 1.0

    def __post_init__(self) -> None:
        _above_zero("total_iters", self.total_iters)

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return lr * (1 - min(t, self.total_iters) / self.total_iters) ** self.power


@dataclass(frozen=True)
class CosineAnnealingLR(Schedule):
    """eta_min + (lr − eta_min) · (1 + cos(π t / T_max)) / 2: half a cosine wave, down to the rate eta_min.

    >>> [round(CosineAnnealingLR(10)(t), 4) for t in (0, 5, 10, 11)]
    [1.0, 0.5, 0.0, 0.0]
    """

    T_max: float
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _above_zero("T_max", self.T_max)

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * min(t, self.T_max) / self.T_max)) / 2


@dataclass(frozen=True)
class DiscreteCyclicLR(Schedule):
    """lr · 10^e with e = 1, ½, 0, −½, −1, −½, 0, ½, over and over, each for `step_size` epochs (Holistic appendix B).

    The rate goes up and down by half a power of ten, which leads out of narrow minima (Holistic §4.2). On CIFAR-10 the
    paper's base rate is 1e-4 and a step is one epoch.

    >>> [round(DiscreteCyclicLR()(t), 3) for t in range(9)]
    [10.0, 3.162, 1.0, 0.316, 0.1, 0.316, 1.0, 3.162, 10.0]
    """

    step_size: float = 1.0
    exponents: tuple[float, ...] = (1.0, 0.5, 0.0, -0.5, -1.0, -0.5, 0.0, 0.5)

    def __post_init__(self) -> None:
        _above_zero("step_size", self.step_size)

    def __call__(self, t: float, lr: float = 1.0) -> float:
        return lr * 10.0 ** self.exponents[_steps(t, self.step_size) % len(self.exponents)]


def _steps(t: float, step_size: float) -> int:
    """How many whole steps fit into t; 0.3 has three of 0.1, although 0.3 / 0.1 is a little less than 3 in floats."""
    return math.floor(t / step_size + 1e-9)


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is a number of epochs above 0, got {value}")
