"""Which law holds for which scheme? Asked, not typed: every cell of the table is an answer of the kit.

A law that does not hold is as much part of a definition as one that does: the smallest numbers that break it stand
under the table, with the reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyqnn.quant import Quantizer, Uniform, scheme
from tinyqnn.spec.kit import BROKEN, HOLDS, Finding, Report, check
from tinyqnn.spec.laws import LAWS, form

COLUMNS: tuple[tuple[str, Quantizer], ...] = (
    *((name, scheme(name)) for name in ("B-1", "T-2", "Q-2", "F-3", "R-3", "Z-3", "C-3", "P-3", "U-3")),
    ("U-2 even", Uniform(bits=2, levels=4)),
    ("U-3 unsigned", Uniform(bits=3, signed=False)),
    ("PACT-3", scheme("PACT-3")),
)
_MARKS = {HOLDS: "✓", BROKEN: "✗"}


def matrix(examples: int = 40, seed: int = 0) -> dict[str, Report]:
    """Every law asked of every scheme."""
    return {name: check(q, q, examples=examples, seed=seed) for name, q in COLUMNS}


def surprises(reports: dict[str, Report]) -> list[str]:
    """Cells that are not as `laws.py` explains them: broken without a reason, or a reason without a counterexample."""
    found = []
    for name, report in reports.items():
        assert report.scheme is not None
        for finding in report.findings:
            law, explained = finding.law, form(report.scheme) in finding.law.unless
            if finding.verdict == BROKEN and not explained:
                found.append(f"{law.name} does not hold for {name}, and nothing says why: {finding.story()}")
            if finding.verdict != BROKEN and explained:
                found.append(f"{law.name} is said not to hold for {name}, and no counterexample was found")
    return found


def markdown(reports: dict[str, Report]) -> str:
    """The table, and under it every ✗ with its smallest counterexample and the reason."""
    names = list(reports)
    rows = [f"| law | {' | '.join(names)} |", f"|---|{':-:|' * len(names)}"]
    by_law = {law.name: [_of(report, law.name) for report in reports.values()] for law in LAWS}
    for law in LAWS:
        marks = " | ".join(_MARKS.get(finding.verdict, "·") for finding in by_law[law.name])
        rows.append(f"| `{law.name}`: {law.statement} | {marks} |")
    cells = [finding for findings in by_law.values() for finding in findings]
    held, broken = (sum(f.verdict == verdict for f in cells) for verdict in (HOLDS, BROKEN))
    rest = len(cells) - held - broken
    rows += [
        "",
        f"✓ holds ({held} cells) · ✗ does not ({broken}) · `·` says nothing about this scheme ({rest})",
        "",
        "## Where a law does not hold",
        "",
    ]
    for law in LAWS:
        for name, finding in zip(names, by_law[law.name]):
            if finding.verdict == BROKEN:
                why = law.unless.get(form(_scheme(reports[name])), "")
                rows.append(f"- `{law.name}`, {name}: {why}. " + "; ".join(f"`{line}`" for line in finding.story()))
    return "\n".join(rows) + "\n"


def record(reports: dict[str, Report]) -> dict[str, Any]:
    """All cells as JSON wants them: the verdict, and the smallest counterexample."""
    return {
        name: {
            f.law.name: {"verdict": f.verdict}
            if f.counterexample is None
            else {
                "verdict": f.verdict,
                "counterexample": f.counterexample.tolist(),
                "dtype": str(f.counterexample.dtype),
                "why": f.law.unless.get(form(_scheme(report)), ""),
            }
            for f in report.findings
        }
        for name, report in reports.items()
    }


def pinned(cell: dict[str, Any]) -> np.ndarray:
    """The counterexample of a recorded cell."""
    return np.array(cell["counterexample"], cell["dtype"])


def _of(report: Report, law: str) -> Finding:
    return next(finding for finding in report.findings if finding.law.name == law)


def _scheme(report: Report) -> Quantizer:
    assert report.scheme is not None
    return report.scheme
