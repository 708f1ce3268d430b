"""How a run is told: lines of a word and what it found, with one look."""

from __future__ import annotations

from collections import Counter

from tinyqnn.data.dataset import Corpus, Dataset
from tinyqnn.search import Policy
from tinyqnn.search.policy import ROLES
from tinyqnn.train import Score


def line(word: str, text: str) -> str:
    """
    >>> line("float", "lenet-bn")
    'float      lenet-bn'
    """
    return f"{word:<10} {text}"


def described(source: Dataset | Corpus) -> str:
    """How much data there is, and where it is from."""
    if isinstance(source, Corpus):
        text = f"{len(source.train):,} training and {len(source.test):,} test words out of {len(source.vocabulary):,}"
    else:
        text = f"{len(source.train):,} training and {len(source.test):,} test examples in {len(source.classes)} classes"
    return f"{text}, {'read from ' + source.source if source.source else 'made on the spot'}"


def scored(score: Score) -> str:
    """Accuracy in per cent, or perplexity.

    >>> scored(Score(0.1, 0.9875)), scored(Score(2.0, None))
    ('98.75 %', 'perplexity 7.4')
    """
    return f"{100 * score.accuracy:.2f} %" if score.accuracy is not None else f"perplexity {score.perplexity:.1f}"


def compared(before: Score, after: Score) -> str:
    """By how much `after` differs from `before`: points of accuracy, or per cent of perplexity.

    >>> compared(Score(0.1, 0.9875), Score(0.2, 0.9825)), compared(Score(2.0, None), Score(2.1, None))
    ('-0.50 points', '+10.5 %')
    """
    if before.accuracy is not None and after.accuracy is not None:
        return f"{100 * (after.accuracy - before.accuracy):+.2f} points"
    return f"{100 * (after.perplexity / before.perplexity - 1):+.1f} %"


def schemes(policy: Policy) -> str:
    """Which schemes how often: "weights 3 P-3, 2 C-3; activations C-3"."""
    told = []
    for role in ROLES:
        counts = Counter(choice.scheme for choice in policy.of_role(role))
        names = [f"{name}" if len(counts) == 1 else f"{count} {name}" for name, count in counts.most_common()]
        told.append(f"{role} {', '.join(names)}")
    return "; ".join(told)


def bits(policy: Policy) -> str:
    """ "2.06 / 2.08": average widths of weights and activations, "float" where nothing is quantized."""
    told = [
        f"{policy.average_bits(role):.2f}" if any(c.letter for c in policy.of_role(role)) else "float" for role in ROLES
    ]
    return " / ".join(told)
