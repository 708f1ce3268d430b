"""Searches: which scheme and how many bits for which tensor? All of them answer with a `Policy`.

    policy = Policy.of(qmodel); policy.save(path); Policy.load(path).apply(model, example)
    policy = autoqnn(model, train, target_bits=2) both of the following, one after the other (AutoQNN algorithm 2)
    policy = qss(model, train)                    a scheme for every vertex (AutoQNN §3.2)
    policy = qpl(model, train, target_bits=2)     a width for every vertex (AutoQNN §4)
    policy = dfq(model, train, valid, theta=0.1)  widths of weights, as small as a bound on the loss allows (DFQ)

Start with `policy.py` for what is searched for.
"""

from __future__ import annotations

from tinyqnn.search.autoqnn import AutoQNN, autoqnn
from tinyqnn.search.choice import Choice
from tinyqnn.search.dfq import dfq
from tinyqnn.search.learned import LearnedBits
from tinyqnn.search.mixture import Mixture
from tinyqnn.search.network import CarriesState
from tinyqnn.search.policy import Policy
from tinyqnn.search.qpl import PrecisionSearch, qpl
from tinyqnn.search.qss import SchemeSearch, qss

__all__ = [
    "AutoQNN",
    "CarriesState",
    "Choice",
    "LearnedBits",
    "Mixture",
    "Policy",
    "PrecisionSearch",
    "SchemeSearch",
    "autoqnn",
    "dfq",
    "qpl",
    "qss",
]
