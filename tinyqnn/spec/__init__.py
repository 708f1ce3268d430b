"""The papers' definitions as a specification that runs, against our quantizers and against anybody's.

    check(MyQuantizer, "P-3")                  every law, answered; print it, or ask .passed and .failed
    test_mine = laws_of(MyQuantizer, "P-3")    the same as tests in your own suite
    tinyqnn check my.module:MyQuantizer --as P-3

`laws.py` lists the laws, `kit.py` asks them, `arrays.py` makes and shrinks the arrays, `matrix.py` asks them of all
schemes, and `wrong.py` holds quantizers with one mistake each, which must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from tinyqnn.spec.kit import Finding, Report, check, laws_of
from tinyqnn.spec.laws import LAWS, Law
from tinyqnn.spec.subject import Subject, UsageError, find

__all__ = ["LAWS", "Finding", "Law", "Report", "Subject", "UsageError", "check", "find", "laws_of"]


def main(args: argparse.Namespace, write: Callable[[str, str], None]) -> int:
    """`tinyqnn check`: 0 if every law holds that must, 1 if one does not, 2 if it cannot be asked."""
    try:
        if args.examples < 1:
            raise UsageError(f"--examples is 1 or more, got {args.examples}")
        if args.matrix:
            return _main_matrix(args, write)
        report = _main_check(args)
    except ValueError as error:  # a UsageError, or an unknown scheme
        print(f"tinyqnn check: {error}", file=sys.stderr)
        return 2
    print(report)
    if args.json:
        write(args.json, json.dumps(report.record(), indent=2, ensure_ascii=False) + "\n")
    return 0 if report.passed else 1


def _main_check(args: argparse.Namespace) -> Report:
    from tinyqnn.quant import scheme

    if args.quantizer is None:
        raise UsageError("name a quantizer, package.module:Name, or a scheme such as C-3; or say --matrix")
    claimed = None if args.like is None else scheme(args.like)
    if ":" not in args.quantizer and "-" in args.quantizer:
        ours = scheme(args.quantizer)
        return check(ours, claimed or ours, examples=args.examples, seed=args.seed)
    bits = args.bits if claimed is None else claimed.bits
    subject = find(args.quantizer, bits, args.gradient)
    return check(subject, claimed, examples=args.examples, seed=args.seed)


def _main_matrix(args: argparse.Namespace, write: Callable[[str, str], None]) -> int:
    from tinyqnn.spec.matrix import markdown, matrix, record, surprises

    reports = matrix(args.examples, args.seed)
    print(markdown(reports), end="")
    if args.json:
        write(args.json, json.dumps(record(reports), indent=1, ensure_ascii=False) + "\n")
    for surprise in (found := surprises(reports)):
        print(surprise, file=sys.stderr)
    return 1 if found else 0
