"""What DFQ answers with: a policy, the network that has it, whether the bound is kept, and the course of the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyqnn.search.policy import Policy


@dataclass(frozen=True, eq=False)
class DFQPolicy(Policy):
    """The policy that DFQ found, and how.

    theta        the bound that was asked for
    valid_loss   of the network with this policy, after retraining
    model        that network: float weights, each with its quantizer
    history      a row an epoch of the search: epoch, valid_loss, size (expected bits of a weight), violated (part of
                 the α-steps that found the loss above the bound), argmax_bits, probabilities (per vertex)
    tried        (bits of a weight, validation loss) of every policy that was retrained, this one last
    """

    theta: float = math.nan
    valid_loss: float = math.nan
    model: Any = None
    history: tuple[dict[str, Any], ...] = ()
    tried: tuple[tuple[float, float], ...] = ()

    @property
    def keeps_bound(self) -> bool:
        """Does the retrained network keep the bound on the validation data? False: no policy that was tried did."""
        return self.valid_loss <= self.theta

    @property
    def verdict(self) -> str:
        """The bound and what became of it, in a sentence."""
        bits, loss = self.tried[-1]
        if self.keeps_bound:
            return f"keeps the bound: validation loss {loss:.4g} ≤ θ = {self.theta:g} at {bits:.2f} bits a weight"
        told = ", ".join(f"{bits:.2f} bits: {loss:.4g}" for bits, loss in self.tried)
        return f"no policy that was tried keeps θ = {self.theta:g}; validation loss at {told}"

    def draw(self, figure: Any) -> None:
        """θ, the validation loss and the size over the epochs of the search; below, the probabilities of each layer."""
        draw(self.history, self.theta, figure)


def draw(history: Sequence[dict[str, Any]], theta: float, figure: Any) -> None:
    """Draw a search on an empty Figure: the loss and its bound, the size, and each layer's probabilities.

    >>> from tinyqnn import picture
    >>> row = {"epoch": 1, "valid_loss": 0.4, "size": 4.5, "argmax_bits": 1.0, "candidates": ["B-1", "C-8"],
    ...        "probabilities": {"fc.quant.weight": [0.6, 0.4]}}
    >>> made = picture.figure(6, 4); draw([row], 0.5, made); len(made.axes)
    3
    """
    from tinyqnn import picture

    epochs = [row["epoch"] for row in history]
    names = list(history[-1]["probabilities"])
    columns = min(max(2, len(names)), 6)
    grid = figure.add_gridspec(1 + math.ceil(len(names) / columns), columns)
    half = columns // 2
    losses, sizes = figure.add_subplot(grid[0, :half]), figure.add_subplot(grid[0, half:])
    losses.plot(epochs, [row["valid_loss"] for row in history], **picture.line(0), label="validation loss")
    losses.axhline(theta, color=picture.RED, linestyle="--", label="bound θ")
    losses.set(xlabel="epoch", ylim=(0, None))
    losses.legend()
    sizes.plot(epochs, [row["size"] for row in history], **picture.line(1), label="expected, G(α)")
    sizes.plot(epochs, [row["argmax_bits"] for row in history], **picture.line(2), label="of the argmax")
    sizes.set(xlabel="epoch", ylabel="bits of a weight", ylim=(0, None))
    sizes.legend()
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns])
        for number, notation in enumerate(history[-1]["candidates"]):
            shares = [row["probabilities"][name][number] for row in history]
            axes.plot(epochs, shares, **picture.line(number), markersize=3, label=notation)
        axes.set(ylim=(0, 1), title=name.replace(".quant", ""), xlabel="epoch")
        axes.title.set_fontsize(8)
        if place == 0:
            axes.set_ylabel("probability")
            axes.legend(fontsize=8)
