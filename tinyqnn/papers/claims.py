"""A claim of a paper is one sentence and a test that decides it; three verdicts are possible, and all are results.

A claim is worded before its run. What it says of a difference ("2 bits cost a deep network more than a shallow one")
is measured once a seed; whether it holds depends on the mean of the seeds and on how far they scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided at this scale"
SEEDS = 3  # the fewest from which a spread can be told


@dataclass(frozen=True)
class Finding:
    """What a test found.

    verdict   "holds", "does not hold" or "undecided at this scale"
    effect    the mean of the measured differences; the claim says that it exceeds `at_least`
    spread    their standard deviation over the seeds; 0 for what has no chance in it
    seeds     how many there are; 0 where nothing is drawn at random
    unit      of effect and spread
    note      what else one should know
    """

    verdict: str
    effect: float
    spread: float
    seeds: int
    at_least: float = 0.0
    unit: str = "points"
    note: str = ""

    def __str__(self) -> str:
        scatter = f" ± {self.spread:.3g}" if self.seeds > 1 else ""
        bar = f", asked more than {self.at_least:g}" if self.at_least else ""
        seeds = f" ({self.seeds} seed{'s' * (self.seeds != 1)})" if self.seeds else ""
        return f"{self.effect:.3g}{scatter} {self.unit}{bar}{seeds}"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and the function of the cells that decides it.

    id       "holistic.fig2.weights-distort": the experiment, and a name
    text     the claim, worded so that it can be wrong
    decide   decide(cells) -> Finding
    """

    id: str
    text: str
    decide: Callable[[list[Any]], Finding]


def decide(differences: Sequence[float], at_least: float = 0.0, unit: str = "points", note: str = "") -> Finding:
    """Do the differences, one a seed, exceed `at_least`, beyond twice the standard error of their mean?

    With m the mean, s the standard deviation (n − 1) and e = s/√n: holds if m − 2e > at_least, does not hold if
    m + 2e ≤ at_least, undecided in between. Fewer than three seeds decide nothing. Three decide little: of claims about
    nothing but noise one in eleven holds, and one in eleven does not (Student's t with two degrees of freedom is above
    2 with probability (1 − 2/√6)/2 = 0.092).

    >>> decide([1.0, 1.2, 0.9]).verdict, decide([1.0, -1.0, 0.3]).verdict, decide([-1.0, -1.2, -0.9]).verdict
    ('holds', 'undecided at this scale', 'does not hold')
    >>> print(decide([1.0, 1.2, 0.9], at_least=0.5))
    1.03 ± 0.153 points, asked more than 0.5 (3 seeds)
    """
    values = [float(value) for value in differences]
    if not values:
        raise ValueError("there are no differences to decide from; did every cell that the claim needs fail?")
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
    error = spread / math.sqrt(n)
    if n < SEEDS or not math.isfinite(mean):
        verdict = UNDECIDED
    elif mean - 2 * error > at_least:
        verdict = HOLDS
    elif mean + 2 * error <= at_least:
        verdict = FAILS
    else:
        verdict = UNDECIDED
    return Finding(verdict, mean, spread, n, at_least, unit, note)


def exact(holds: bool, effect: float = math.nan, unit: str = "", note: str = "") -> Finding:
    """The finding for what has no chance in it: a count, a formula, a solved minimum.

    >>> exact(10 < 12, 12 - 10, "kB").verdict
    'holds'
    """
    value = effect if math.isfinite(effect) else float(holds)
    return Finding(HOLDS if holds else FAILS, value, 0.0, 0, 0.0, unit, note)


def all_of(findings: Sequence[Finding], note: str = "") -> Finding:
    """A claim of several parts: it fails if one part does, holds if all do; its effect is that of its weakest part.

    >>> all_of([decide([3.0, 3.1, 2.9]), decide([0.1, -0.1, 0.2])]).verdict
    'undecided at this scale'
    """
    for verdict in (FAILS, UNDECIDED, HOLDS):
        found = [finding for finding in findings if finding.verdict == verdict]
        if found:
            weakest = min(found, key=lambda finding: finding.effect - finding.at_least)
            parts = f"{sum(f.verdict == HOLDS for f in findings)} of {len(findings)} parts hold"
            told = "; ".join(filter(None, (parts, note, weakest.note)))
            return Finding(verdict, weakest.effect, weakest.spread, weakest.seeds, weakest.at_least, weakest.unit, told)
    raise ValueError("a claim of no parts says nothing")


def judge(claim: Claim, cells: list[Any]) -> Finding:
    """The verdict on a claim; undecided, with the reason, if cells that it needs are missing."""
    try:
        return claim.decide(cells)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        return Finding(UNDECIDED, math.nan, math.nan, 0, note=f"its cells are not there: {error!r}")
