"""Figure 11: the cyclic learning rate, drawn

Eight rates a cycle, base · 10^e with e = 1, ½, 0, −½, −1, −½, 0, ½. On CIFAR-10 the base rate is 1e-4, which is ten
times the last rate of the retraining before (appendix B); a rate stays for an epoch. The exponents are our reading: the
paper's text lost them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyqnn.optim import DiscreteCyclicLR
from tinyqnn.papers.claims import Claim, Finding, exact
from tinyqnn.papers.experiment import Cell, Report

LAST_RATE = 1e-5  # of the retraining: "the base LR is 1e-4, which is 10 times larger than the last LR"


@dataclass(frozen=True)
class Config:
    """A base rate, and how many epochs to look at."""

    base: float = 1e-4
    epochs: int = 40
    seed: int = 0


def cells(scale: str) -> list[Config]:
    return [Config()]


def run(config: Config, report: Report) -> dict[str, Any]:
    schedule = DiscreteCyclicLR()
    return {"rates": [schedule(epoch, config.base) for epoch in range(config.epochs)]}


def _spans(cells: list[Cell]) -> Finding:
    rates = cells[0].result["rates"]
    apart = max(abs(max(rates) / 1e-3 - 1), abs(min(rates) / 1e-5 - 1))
    return exact(apart < 1e-9, apart, "apart, relative")


def _bounds(cells: list[Cell]) -> Finding:
    lowest = min(cells[0].result["rates"]) / LAST_RATE
    return exact(
        abs(lowest - 0.1) < 1e-9,
        lowest,
        "times the last rate",
        "section 4.2 says 0.1 times; the base rate of appendix B and the span of table 4 give 1",
    )


CLAIMS = (
    Claim(
        "holistic.fig11.span",
        "With base rate 1e-4 and eight rates a cycle the rate goes from 1e-3 to 1e-5 (table 4, appendix B).",
        _spans,
    ),
    Claim(
        "holistic.fig11.lowest",
        "The lowest rate is 0.1 times the last rate of the retraining (section 4.2), with the rates of appendix B.",
        _bounds,
    ),
)


def table(cells: list[Cell]) -> str:
    rates = cells[0].result["rates"]
    return "epoch  rate\n" + "\n".join(f"{epoch:>5}  {rate:.2e}" for epoch, rate in enumerate(rates[:9]))


def draw(cells: list[Cell], figure: Any) -> None:
    from tinyqnn import picture

    axes = figure.subplots()
    rates = cells[0].result["rates"]
    axes.stairs(rates, baseline=None, color=picture.BLUE, linewidth=1.8)
    axes.axhline(cells[0].config.base, color=picture.GREY, linestyle=":", label="base rate")
    axes.set(yscale="log", xlabel="epoch of the fine-tuning", ylabel="learning rate")
    axes.legend()
