"""Figure 2 and table 1: how much each scheme loses on each kind of numbers

The paper's figure is lost to us but for its sentence "no scheme can always achieve the minimum quantization loss across
various distributions"; table 1 names the distributions that each scheme fits. The loss is E(x − Q(x))² / var x, on
100,000 numbers at evenly spaced quantiles, brought to mean 0 and sd 1: there is no chance in it.

What a claim means was written down before it was looked at:

    "S fits D"    at 3 bits (2 for Ternary and Quaternary), of all schemes that have that width, S has on D one of the
                  two smallest losses; "in the strict sense", in the table, asks for the smallest, up to 2 %
    "no scheme is best everywhere"   at 3 bits, no scheme has the smallest loss on all five
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.papers.claims import Claim, Finding, exact
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.quant import SCHEMES, scheme
from tinyqnn.tensor import Array

LETTERS = "TQFRZCP"  # those of table 1 that have 2 bits or more
FITS = {"Uniform": "FZR", "Normal": "TQZC", "Logistic": "C", "Exponential": "C", "Log-Normal": "P"}
SIZE = (12.0, 3.6)


@dataclass(frozen=True)
class Config:
    """One distribution; nothing is drawn at random, so that one seed is all there is."""

    distribution: str
    count: int = 100_000
    seed: int = 0


def cells(scale: str) -> list[Config]:
    return [Config(name, 1_000 if scale == "smoke" else 100_000) for name in FITS]


def numbers(distribution: str, count: int) -> Array:
    """`count` numbers at evenly spaced quantiles of a distribution, of mean 0 and sd 1.

    >>> numbers("Uniform", 4).round(3).tolist()
    [-1.342, -0.447, 0.447, 1.342]
    """
    u = (np.arange(count) + 0.5) / count
    normal = np.array([NormalDist().inv_cdf(float(p)) for p in u])
    drawn = {
        "Uniform": u,
        "Normal": normal,
        "Logistic": np.log(u / (1 - u)),
        "Exponential": -np.log(1 - u),
        "Log-Normal": np.exp(normal),
    }[distribution]
    return (drawn - drawn.mean()) / drawn.std()


def run(config: Config, report: Report) -> dict[str, Any]:
    """scheme -> bits -> E(x − Q(x))² / var x."""
    x = numbers(config.distribution, config.count)
    losses: dict[str, dict[str, float]] = {}
    for letter in LETTERS:
        widths = [bits for bits in SCHEMES[letter].widths if bits >= 2]
        errors = {bits: ((x - scheme(f"{letter}-{bits}").quantize(x)) ** 2).mean() for bits in widths}
        losses[letter] = {str(bits): float(error / x.var()) for bits, error in errors.items()}
    return {"losses": losses}


class Place(NamedTuple):
    """Where a scheme stands on a distribution, among all that have its width."""

    bits: int
    loss: float
    rank: int
    of: int
    best: str
    strict: bool


def place(cells: list[Cell], letter: str, distribution: str) -> Place:
    """The rank of a scheme on a distribution, from 1."""
    bits = 2 if letter in "TQ" else 3
    (losses,) = (cell.result["losses"] for cell in cells if cell.config.distribution == distribution)
    rivals = sorted((by[str(bits)], other) for other, by in losses.items() if str(bits) in by)
    mine = losses[letter][str(bits)]
    rank = [other for _, other in rivals].index(letter) + 1
    return Place(bits, mine, rank, len(rivals), rivals[0][1], mine <= 1.02 * rivals[0][0])


def winners(cells: list[Cell]) -> dict[str, str]:
    """The scheme of the smallest loss on each distribution, at 3 bits."""
    found = {}
    for cell in cells:
        losses = cell.result["losses"]
        found[cell.config.distribution] = min((by["3"], letter) for letter, by in losses.items() if "3" in by)[1]
    return found


def _fits(letter: str, distribution: str) -> Callable[[list[Cell]], Finding]:
    def decide(cells: list[Cell]) -> Finding:
        found = place(cells, letter, distribution)
        return exact(found.rank <= 2, found.rank, f"in order of loss, of {found.of}")

    return decide


def _none_everywhere(cells: list[Cell]) -> Finding:
    best = winners(cells)
    if set(best) != set(FITS):
        raise LookupError("not all distributions were run")
    return exact(len(set(best.values())) > 1, len(set(best.values())), "schemes are best somewhere")


CLAIMS = (
    *(
        Claim(
            f"autoqnn.fig2.{SCHEMES[letter].__name__.lower()}-{distribution.lower()}",
            f"{SCHEMES[letter].__name__} fits {distribution} numbers: of all schemes of its width (3 bits, Ternary and "
            "Quaternary 2) it has one of the two smallest losses there.",
            _fits(letter, distribution),
        )
        for distribution, letters in FITS.items()
        for letter in letters
    ),
    Claim(
        "autoqnn.fig2.none-everywhere",
        "At 3 bits no scheme has the smallest loss on all of the uniform, normal, logistic, exponential and log-normal "
        "distribution.",
        _none_everywhere,
    ),
)


def table(cells: list[Cell]) -> str:
    """What table 1 says, scheme by scheme, and what came out."""
    lines = ["table 1 says               bits     loss   rank   best there   one of two     in the strict sense"]
    held = [0, 0, 0]
    for distribution, letters in FITS.items():
        for letter in letters:
            found = place(cells, letter, distribution)
            held = [n + yes for n, yes in zip(held, (1, found.rank <= 2, found.strict))]
            lines.append(
                f"{SCHEMES[letter].__name__:<10} fits {distribution:<11} {found.bits:>3}   {found.loss:.4f}   "
                f"{found.rank}/{found.of}   {SCHEMES[found.best].__name__:<10}   "
                f"{'holds' if found.rank <= 2 else 'does not hold':<15}{'holds' if found.strict else 'does not hold'}"
            )
    best = ", ".join(f"{name}: {SCHEMES[letter].__name__}" for name, letter in winners(cells).items())
    return "\n".join(
        [*lines, "", f"Of {held[0]} lines {held[1]} hold, {held[2]} in the strict sense.", f"Best at 3 bits: {best}."]
    )


def draw(cells: list[Cell], figure: Any) -> None:
    """A panel a distribution, a line a scheme."""
    from tinyqnn import picture

    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axes, cell in zip(panels, cells):
        for number, (letter, by) in enumerate(cell.result["losses"].items()):
            style = picture.line(number)
            label = f"{SCHEMES[letter].__name__}, {letter}{'' if letter in 'TQ' else '-b'}"
            face = "white" if style["linestyle"] == ":" else style["color"]
            bits = [int(width) for width in by]
            axes.plot(bits, list(by.values()), **style, markersize=5, linewidth=1.3, label=label, markerfacecolor=face)
        axes.set(title=cell.config.distribution, xlabel="bits", yscale="log", xticks=list(range(2, 9)))
        axes.set_ylim(1e-5, 20)
    panels[0].set_ylabel("quantization loss, E(x − Q)² / var x")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
