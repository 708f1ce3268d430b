"""The kit: point it at a quantizer, get an answer law by law, with the smallest numbers that break each broken one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np

from tinyqnn.quant import Quantizer, scheme
from tinyqnn.spec import arrays
from tinyqnn.spec.laws import LAWS, Case, Law
from tinyqnn.spec.subject import Subject, UsageError, find
from tinyqnn.tensor import Array

HOLDS, BROKEN, NOT_APPLICABLE = "holds", "does not hold", "not applicable"


@dataclass(frozen=True)
class Finding:
    """The answer to one law.

    verdict          "holds", "does not hold" or "not applicable"
    asked            must it hold? Not if the scheme claimed does not keep it either, or no scheme was claimed
    tried            how many arrays it was asked about
    counterexample   the smallest array found that breaks it
    shown            what to know about that array: Q(x) and the like
    reason           why it is not applicable, or which exception was raised

    >>> finding = check(np.sign, bits=1, laws=["has_at_most_2b_levels"]).findings[0]
    >>> finding.verdict, finding.counterexample.tolist()
    ('does not hold', [0.0, 1.0, -1.0])
    """

    law: Law
    verdict: str
    asked: bool
    tried: int = 0
    counterexample: Array | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def is_failure(self) -> bool:
        return self.verdict == BROKEN and self.asked

    def story(self) -> list[str]:
        """The counterexample, a line for each thing to know about it."""
        lines = [] if self.reason is None else [self.reason]
        if self.counterexample is not None:
            x = self.counterexample
            kind = "" if x.dtype == np.float64 else f"  ({x.dtype})"
            lines.append(f"x = {_short(x)}{kind}")
            lines += [f"{name} = {_short(np.asarray(value))}" for name, value in self.shown.items()]
        return lines


@dataclass(frozen=True)
class Report:
    """All answers about one quantizer; printed, it is the table that `tinyqnn check` shows.

    >>> check("tinyqnn.spec.wrong:BinaryHidesNan", "B-1", examples=5).failed
    {'does_not_hide_nan'}
    """

    name: str
    scheme: Quantizer | None
    findings: tuple[Finding, ...]
    examples: int

    @property
    def passed(self) -> bool:
        """Does every law hold that must?"""
        return not self.failed

    @property
    def failed(self) -> set[str]:
        """The names of the laws that must hold and do not."""
        return {finding.law.name for finding in self.findings if finding.is_failure}

    def __str__(self) -> str:
        claim = "the general laws" if self.scheme is None else f"{self.scheme.notation}, {self.scheme!r}"
        lines = [f"{self.name} against {claim}; {self.examples} random arrays a law", ""]
        for finding in self.findings:
            verdict = finding.verdict
            if verdict == BROKEN and not finding.asked:
                verdict = "need not hold"
            lines.append(f"  {verdict:<15} {finding.law.name:<28} {finding.law.statement}")
            if finding.verdict != NOT_APPLICABLE:
                story = finding.story() if verdict == BROKEN else ["; ".join(finding.story())]
                lines += [f"{'':<19}{line}" for line in story if line]
            elif finding.reason:
                lines[-1] = f"  {verdict:<15} {finding.law.name:<28} {finding.reason}"
            if verdict == "need not hold" and self.scheme is not None:
                why = finding.law.unless.get(_form(self.scheme))
                lines += [f"{'':<19}{self.scheme.notation} does not keep it either: {why}"] if why else []
        counts = {name: sum(f.verdict == name for f in self.findings) for name in (HOLDS, BROKEN, NOT_APPLICABLE)}
        failed, free = len(self.failed), counts[BROKEN] - len(self.failed)
        need_not = f", {free} do not and need not" if free else ""
        lines += ["", f"{counts[HOLDS]} hold, {failed} do not{need_not}, {counts[NOT_APPLICABLE]} do not apply"]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The answers as JSON wants them."""
        return {
            "quantizer": self.name,
            "scheme": None if self.scheme is None else self.scheme.notation,
            "passed": self.passed,
            "laws": {
                f.law.name: {
                    "verdict": f.verdict,
                    "asked": f.asked,
                    "tried": f.tried,
                    **({} if f.counterexample is None else {"counterexample": f.counterexample.tolist()}),
                    **({} if f.reason is None else {"reason": f.reason}),
                }
                for f in self.findings
            },
        }


def check(
    quantizer: Any,
    like: str | Quantizer | None = None,
    *,
    bits: int | None = None,
    gradient: Callable[..., Any] | None = None,
    examples: int = 200,
    seed: int = 0,
    laws: Iterator[str] | list[str] | None = None,
) -> Report:
    """Ask a quantizer every law.

    quantizer   a function of an array to an array (NumPy or PyTorch), a PyTorch module, an object with `quantize` or
                with `encode` and `decode`, or a class of such, which is made with bits= if it takes that; or the
                name of one, "package.module:Name"
    like        the scheme that it claims to be, "P-3"; without one, only the laws are asked that all quantizers keep
    bits        its width, where neither `like` nor the quantizer says it
    gradient    (x, gradient of Q(x)) -> gradient of x; PyTorch's and our own are found without
    examples    how many arrays drawn at random each law is asked about, besides the classic corner cases
    laws        the names of the laws to ask; all if not given

    Raises UsageError if it cannot be asked at all.

    >>> report = check(np.round, bits=3)
    >>> sorted(report.failed)
    ['has_at_most_2b_levels']
    >>> print(next(f for f in report.findings if f.is_failure).story()[0])
    x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    """
    claimed = None if like is None else scheme(like)
    subject = quantizer if isinstance(quantizer, Subject) else None
    if subject is None and isinstance(quantizer, str):
        subject = find(quantizer, bits if claimed is None else claimed.bits)
    if subject is None:
        subject = Subject(quantizer, bits if claimed is None else claimed.bits, gradient)
    known = {law.name: law for law in LAWS}
    for name in (names := list(known) if laws is None else list(laws)):
        if name not in known:
            raise UsageError(f"there is no law {name!r}; there are {', '.join(known)}")
    case = Case(subject, claimed)
    findings = tuple(ask(known[name], case, examples, seed) for name in names)
    return Report(subject.name, claimed, findings, examples)


def ask(law: Law, case: Case, examples: int = 200, seed: int = 0) -> Finding:
    """Ask one law about many arrays; make the first that breaks it as small as can be."""
    asked = law.is_asked_of(case.scheme)
    if case.scheme is not None and not law.is_about(case.scheme):
        return Finding(law, NOT_APPLICABLE, asked, reason=f"it is about {law.letters}")
    if (reason := law.needs(case)) is not None:
        return Finding(law, NOT_APPLICABLE, asked, reason=reason)
    rng = np.random.default_rng(seed)
    dtypes = case.subject.dtypes
    drawn = (arrays.draw(rng, dtypes) for _ in range(examples))
    tried = 0
    for x in islice(chain(arrays.hard(dtypes), drawn), 1 if law.once else None):
        answer = _answer(law, case, x)
        tried += answer is not None
        if answer is False:
            if not law.once:
                x = arrays.shrink(x, lambda y: y.dtype in dtypes and _answer(law, case, y) is False)
            return Finding(law, BROKEN, asked, tried, x, _shown(law, case, x), _raised(law, case, x))
    if not tried:
        return Finding(law, NOT_APPLICABLE, asked, reason="it says nothing about any of the arrays tried")
    return Finding(law, HOLDS, asked, tried)


def _answer(law: Law, case: Case, x: Array) -> bool | None:
    """Does the law hold? An exception is a no: every array asked about is one that can be quantized.

    Where not even Q(x) is a finite number, that is said by the laws about it, and not by all the others as well.
    """
    with np.errstate(all="ignore"):
        try:
            answer = law.ask(case, x)
        except Exception:
            answer = False
        if answer is False and law.name not in ("stays_finite", "keeps_zeros", "does_not_hide_nan", "knows_emptiness"):
            try:
                return None if not np.isfinite(case.subject.quantize(x)).all() else False
            except Exception:
                return None
    return answer


def _raised(law: Law, case: Case, x: Array) -> str | None:
    """What was raised, if that is how the law is broken."""
    try:
        with np.errstate(all="ignore"):
            law.ask(case, x)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return None


def _shown(law: Law, case: Case, x: Array) -> dict[str, Any]:
    """Q(x), and what else the law wants to be seen."""
    shown: dict[str, Any] = {}
    try:
        with np.errstate(all="ignore"):
            shown["Q(x)"] = case.subject.quantize(x.copy())
            shown.update(law.show(case, x))
    except Exception:
        pass
    return shown


def _form(claimed: Quantizer) -> str:
    from tinyqnn.spec.laws import form

    return form(claimed)


def _short(x: Array) -> str:
    """An array in one line."""
    x = np.asarray(x)
    numbers = x.ravel().tolist()
    digits = [f"{v:.6g}" if x.dtype.kind == "f" else str(v) for v in numbers]
    if len(set(digits)) < len(set(numbers)):  # what differs should look different
        digits = [str(v) for v in x.ravel()]
    digits = [d if any(mark in d for mark in ".einf") or x.dtype.kind != "f" else f"{d}.0" for d in digits]
    if len(digits) > 24:
        digits = [*digits[:20], f"… {len(digits)} in all"]
    text = ", ".join(digits)
    return f"[{text}]" if x.ndim == 1 else f"[{text}] of shape {x.shape}" if x.ndim else text


def laws_of(quantizer: Any, like: str | Quantizer | None = None, **options: Any) -> Callable[..., None]:
    """All laws as pytest tests, one each; two lines in a test file are enough:

        from tinyqnn.spec import laws_of
        test_my_quantizer = laws_of(MyQuantizer, "P-3")

    The arguments are those of `check`. A law that is not applicable is skipped, and says why; one that need not hold is
    not asked.

    >>> laws_of(np.round, bits=8)("keeps_zeros")        # pytest calls it with one name after another; silence is a pass
    """
    import pytest

    claimed = None if like is None else scheme(like)
    names = [law.name for law in LAWS if law.is_asked_of(claimed)]

    @pytest.mark.parametrize("law", names)
    def test(law: str) -> None:
        finding = check(quantizer, like, laws=[law], **options).findings[0]
        if finding.verdict == NOT_APPLICABLE:
            pytest.skip(finding.reason or "not applicable")
        if finding.is_failure:
            pytest.fail("\n".join([f"{finding.law.statement}: {BROKEN}", *finding.story()]), pytrace=False)

    return test
