"""Table 1 for any network and data: float, 8 bits, a mixture of 1 and 8 bits that DFQ finds, and binary.

All four start from one float network and are trained alike, in two pieces, each with a rate that falls along a cosine:
as long as DFQ searches, and as long as it trains what it has found. The bound θ lies a part of the way, `share`, from
the validation loss of the float network to that of the binary one, both taken after the first piece: there the search
has to meet it, with weights that have learned no longer. Where the network that is found breaks the bound after its
training, one more layer gets 8 bits, at most `widen` times. The test images decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyqnn import random
from tinyqnn.data.loader import Augment
from tinyqnn.nn import Module
from tinyqnn.papers.dfq._cells import mean, policy_of, scored, splits, trained
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.dfq import dfq
from tinyqnn.tensor import Array
from tinyqnn.train import evaluate

FIXED = {"float": "float", "8-bit": "C-8", "binary": "B-1"}


@dataclass(frozen=True)
class Comparison:
    """One seed of table 1; each experiment has its own values.

    data                  see `splits`, and how many of its images are learned from, decide about the bound, are tested
    width                 of the network, in channels
    epochs                of the float network that all start from; `pieces` of each afterwards
    lr                    the rate of the float network; `rates` of the two pieces afterwards; alpha_lr that of α
    alpha_falls           does α's rate fall in the search? One answer for all cells of an experiment
    share                 θ = float + share · (binary − float), of their validation losses after the first piece
    """

    seed: int
    data: str
    width: int
    train: int
    valid: int
    test: int
    batch_size: int
    epochs: int
    search_epochs: int
    retrain_epochs: int
    widen: int
    lr: float
    alpha_lr: float
    share: float
    alpha_falls: ClassVar[bool] = False

    @property
    def rates(self) -> tuple[float, float]:
        """Where the rates of the two pieces begin."""
        raise NotImplementedError(f"{type(self).__qualname__} has no rates for its two pieces")

    @property
    def pieces(self) -> tuple[int, int]:
        """Epochs after the float network: those of a search, and of all retraining that may follow."""
        return self.search_epochs, (1 + self.widen) * self.retrain_epochs


def compare(
    config: Comparison,
    network: Callable[[np.random.Generator], Module],
    report: Report,
    augment: Augment | None = None,
) -> dict[str, Any]:
    """{method: {accuracy, compression, layers, …}}, the bound, whether it is kept, and the course of the search."""
    rng = random.manual_seed(config.seed)
    own = np.random.default_rng((config.seed, 1))
    train, valid, test, source = splits(config.data, config.train, config.valid, config.test, own)

    def fit(model: Module, epochs: int, lr: float) -> Module:
        return trained(model, train, epochs, lr, config.batch_size, config.seed, augment)

    model = fit(network(rng), config.epochs, config.lr)
    found: dict[str, Any] = {}
    between: dict[str, float] = {}  # validation losses after the first piece
    for name, scheme in FIXED.items():
        policy = policy_of(model, train, scheme)
        quantized = policy.apply(model, train.inputs(slice(0, 2)))
        for epochs, rate in zip(config.pieces, config.rates):
            fit(quantized, epochs, rate)
            between.setdefault(name, evaluate(quantized, valid).loss)
        found[name] = scored(policy, quantized, valid, test)
        report(f"{name}: {found[name]}")
    best, worst = between["float"], between["binary"]
    ours = dfq(
        model, train, valid, theta=best + config.share * (worst - best), bits=(1, 8),
        epochs=config.search_epochs, retrain_epochs=config.retrain_epochs, widen=config.widen,
        lr=config.rates[0], retrain_lr=config.rates[1], alpha_lr=config.alpha_lr, alpha_falls=config.alpha_falls,
        batch_size=config.batch_size, augment=augment, seed=config.seed, folder=report.folder, resume=True,
        progress=False,
    )  # fmt: skip
    found["ours"] = scored(ours, ours.model, valid, test)
    report(f"ours: {found['ours']}\n{ours.verdict}\n{ours.history}")
    return {
        **found, "between": between, "theta": ours.theta, "keeps_bound": ours.keeps_bound, "verdict": ours.verdict,
        "history": list(ours.history), "note": source.note,
    }  # fmt: skip


def accuracy_of(cells: list[Cell], method: str) -> Array:
    """Test accuracy of a method, a number a seed."""
    return np.array([cell.result[method]["accuracy"] for cell in cells])


def rows(cells: list[Cell], paper: dict[str, tuple[float, float]]) -> str:
    """Our numbers beside the paper's; `paper` has (compression, accuracy) of each method."""
    lines = ["weights   accuracy here, %   compression   whole file   paper: accuracy   compression"]
    for method, (times, accuracy) in paper.items():
        by = [cell.result[method] for cell in cells]
        lines.append(
            f"{method:<8}  {mean([r['accuracy'] for r in by]):<17}  "
            f"{mean([r['compression'] for r in by]) + '×':<12}  {np.mean([r['file'] for r in by]):.1f}×"
            f"{accuracy:>21.2f}{times:>13}×"
        )
    return "\n".join(lines)


def searches(cells: list[Cell]) -> str:
    """What each search found, and what became of its bound."""
    lines = []
    for cell in cells:
        wide = [f"{name} {scheme}" for name, _, scheme in cell.result["ours"]["layers"] if scheme != "B-1"]
        lines += [
            f"seed {cell.config.seed}, not binary: {', '.join(wide) or 'nothing'}",
            f"        {cell.result['verdict']}",
            f"        float {cell.result['float']['valid_loss']:.4g}, binary {cell.result['binary']['valid_loss']:.4g}",
        ]
        if "between" in cell.result:
            before = ", ".join(f"{name} {loss:.4g}" for name, loss in cell.result["between"].items() if name != "8-bit")
            lines.append(f"        trained as long as the search: {before}")
    return "\n".join(lines)


def scale(c: Comparison) -> str:
    """How much was learned from what, in a sentence."""
    retraining = f"{c.retrain_epochs} of retraining" + (f", {1 + c.widen} times at most" if c.widen else "")
    return (
        f"{c.train:,} training, {c.valid:,} validation and {c.test:,} test images; epochs: {c.epochs} in float, then "
        f"for ours {c.search_epochs} of search and {retraining}, for all others {sum(c.pieces)}"
    )
