"""Optimizers, which move parameters against their gradients, and schedules, which say how far at what time."""

from tinyqnn.optim.adam import Adam
from tinyqnn.optim.clip import clip_grad_norm
from tinyqnn.optim.optimizer import Optimizer
from tinyqnn.optim.schedule import (
    ConstantLR,
    CosineAnnealingLR,
    DiscreteCyclicLR,
    MultiStepLR,
    PolynomialLR,
    Schedule,
    StepLR,
)
from tinyqnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "ConstantLR",
    "CosineAnnealingLR",
    "DiscreteCyclicLR",
    "MultiStepLR",
    "Optimizer",
    "PolynomialLR",
    "Schedule",
    "StepLR",
    "clip_grad_norm",
]
