"""Searches: which scheme and how many bits for which tensor? All of them answer with a `Policy`.

    policy = Policy.of(qmodel); policy.save(path); Policy.load(path).apply(model, example)

Start with `policy.py` for what is searched for.
"""

from __future__ import annotations

from tinyqnn.search.policy import Choice, Policy

__all__ = [
    "Choice",
    "Policy",
]
