"""A text from a grammar with dice: small enough to learn in a minute, and one knows beforehand how well it can be
learned.

A sentence grows from S by rules drawn with known probabilities. Verbs agree with nouns that may stand several words
back ("the dogs that see the bird run"), so a network has to remember. Since every sentence has only one derivation,
its probability is the product of its rules', and the entropy of the language follows from the rules alone. With e(A)
the expected entropy of what grows from A, and l(A) its expected length,

    e(A) = H(rules of A) + Σ_rule p(rule) · Σ_{B in rule} e(B),     e(word) = 0
    l(A) =                 Σ_rule p(rule) · Σ_{B in rule} l(B),     l(word) = 1

two systems of linear equations. No model's perplexity can in the long run fall below exp(e(S) / (l(S) + 1)), the 1
for <eos>.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .dataset import Corpus

EOS = "<eos>"


def _list(words: str) -> list[str]:
    """The words of a text."""
    return words.split()


# Words, the commoner first: the i-th of a list has probability ∝ 1 / (i + 2).
ANIMATE = _list(
    "dog cat man woman child bird horse teacher farmer doctor king queen sailor baker singer friend "
    "neighbour student writer painter robot tiger lion rabbit wolf fox bear mouse goat duck"
)
THINGS = _list(
    "house tree book river stone car table door letter ship bridge garden hat lamp clock flower mountain "
    "picture box key road window cup coat drum apple boat candle mirror ladder"
)
ADJECTIVES = _list(
    "old small big young red good black white strange quiet green tall happy blue tired round clever "
    "little yellow brave dark bright slow heavy gentle"
)
ACTS = _list(
    "see like follow know hear help meet call find fear watch teach greet love visit trust admire remember draw miss"
)
HANDLES = _list(
    "see take hold find want carry open paint break move clean sell need lose hide build bring burn buy repair"
)
MOVES = _list(
    "run sleep laugh walk sing dance wait cry dream swim smile talk work stand jump shout travel rest eat play"
)
PLACES = _list("near behind beside under above")
ADVERBS = _list("today often slowly again there now quietly always alone soon")
IRREGULAR = {"man": "men", "woman": "women", "child": "children", "wolf": "wolves", "mouse": "mice"}


def _with_s(word: str) -> str:
    """dog -> dogs, fox -> foxes, cry -> cries: the plural of nouns and the third person of verbs are made alike."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word[-1] == "y" and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "sh", "ch")) else "s")


Choices = list[tuple[float, tuple[str, ...]]]


def _words(words: list[str], change: bool = False) -> Choices:
    """One rule a word; `change` gives each an s."""
    weights = [1.0 / (i + 2) for i in range(len(words))]
    return [(weight / sum(weights), (_with_s(word) if change else word,)) for weight, word in zip(weights, words)]


@cache
def rules() -> dict[str, Choices]:
    """The grammar: for each symbol its rules as (probability, what it becomes). What has no rules is a word.

    Symbols end in "1" for the singular and "2" for the plural; A are those who act, T the things.
    """
    made: dict[str, Choices] = {
        "S": [(0.85, ("CLAUSE",)), (0.15, ("CLAUSE", "and", "CLAUSE"))],
        "CLAUSE": [(0.55, ("A1", "DOES1")), (0.45, ("A2", "DOES2"))],
        "ANYONE": [(0.6, ("A1",)), (0.4, ("A2",))],
        "ANYTHING": [(0.65, ("T1",)), (0.35, ("T2",))],
        "PLACE": _words(PLACES),
        "ADVERB": _words(ADVERBS),
        "ADJ": _words(ADJECTIVES),
    }
    for number, verb_s in (("1", True), ("2", False)):
        made |= {
            f"DOES{number}": [
                (0.25, (f"MOVE{number}",)),
                (0.15, (f"MOVE{number}", "ADVERB")),
                (0.3, (f"ACT{number}", "ANYONE")),
                (0.3, (f"HANDLE{number}", "ANYTHING")),
            ],
            # Who acts may be told apart by what they do, or by what others do to them, or by where they are.
            f"A{number}": [
                (0.62, (f"GROUP-A{number}",)),
                (0.13, (f"GROUP-A{number}", "that", f"DOES{number}")),
                (0.1, (f"GROUP-A{number}", "whom", "CLAUSE-TO")),
                (0.15, (f"GROUP-A{number}", "PLACE", f"GROUP-T{number}")),
            ],
            f"T{number}": [(0.75, (f"GROUP-T{number}",)), (0.25, (f"GROUP-T{number}", "PLACE", "ONE"))],
            f"ACT{number}": _words(ACTS, verb_s),
            f"HANDLE{number}": _words(HANDLES, verb_s),
            f"MOVE{number}": _words(MOVES, verb_s),
            f"NOUN-A{number}": _words(ANIMATE, not verb_s),
            f"NOUN-T{number}": _words(THINGS, not verb_s),
        }
        few, near = ("one", "this") if number == "1" else ("some", "these")
        made[f"ARTICLE{number}"] = [(0.6, ("the",)), (0.3, (few,)), (0.1, (near,))]
        for kind in "AT":
            article, noun = f"ARTICLE{number}", f"NOUN-{kind}{number}"
            made[f"GROUP-{kind}{number}"] = [(0.65, (article, noun)), (0.35, (article, "ADJ", noun))]
    made["CLAUSE-TO"] = [(0.55, ("GROUP-A1", "ACT1")), (0.45, ("GROUP-A2", "ACT2"))]
    made["ONE"] = [(0.5, ("GROUP-T1",)), (0.5, ("GROUP-A1",))]
    return made


def load(
    rng: np.random.Generator | None = None, train: int = 100_000, valid: int = 10_000, test: int = 10_000
) -> Corpus:
    """Sentences until there are about as many tokens as asked for (never fewer), each sentence ended by <eos>.

    Without an `rng`, everybody gets the same text. `best_perplexity` is the language's own.

    >>> corpus = load(train=10, valid=10, test=10)
    >>> corpus.words(corpus.train)
    'the child whom one dog follows knows the strange queen that runs soon <eos>'
    >>> round(corpus.best_perplexity, 2)
    13.84
    """
    if min(train, valid, test) < 1:
        raise ValueError(f"train, valid, test: expected at least 1 token each, got {train}, {valid}, {test}")
    rng = np.random.default_rng(3) if rng is None else rng
    words = vocabulary()
    number = {word: i for i, word in enumerate(words)}

    def text(count: int) -> NDArray[np.int64]:
        tokens: list[int] = []
        while len(tokens) < count:
            tokens += [number[word] for word in sentence(rng)[0]] + [number[EOS]]
        return np.array(tokens, np.int64)

    return Corpus("grammar", text(train), text(valid), text(test), words, best_perplexity=best_perplexity())


@cache
def vocabulary() -> tuple[str, ...]:
    """<eos>, then all words of the grammar in alphabetical order."""
    made = rules()
    words = {part for choices in made.values() for _, parts in choices for part in parts if part not in made}
    return (EOS, *sorted(words))


def sentence(rng: np.random.Generator) -> tuple[list[str], float]:
    """A sentence, and the natural logarithm of its probability."""
    made, bounds = rules(), _bounds()
    words, log_probability, waiting = [], 0.0, ["S"]
    while waiting:
        symbol = waiting.pop()
        if symbol not in made:
            words.append(symbol)
            continue
        probability, parts = made[symbol][int(np.searchsorted(bounds[symbol], rng.random(), side="right"))]
        log_probability += math.log(probability)
        waiting.extend(reversed(parts))
    return words, log_probability


@cache
def best_perplexity() -> float:
    """exp(entropy of a sentence / expected number of its tokens, <eos> included)."""
    made = rules()
    names = list(made)
    uses = np.zeros((len(names), len(names)))  # uses[A, B]: how many B are expected in one step from A
    own_entropy, own_words = np.zeros(len(names)), np.zeros(len(names))
    for a, name in enumerate(names):
        for probability, parts in made[name]:
            own_entropy[a] -= probability * math.log(probability)
            for part in parts:
                if part in made:
                    uses[a, names.index(part)] += probability
                else:
                    own_words[a] += probability
    # e = own + uses · e  <=>  (1 − uses) e = own
    both = np.linalg.solve(np.eye(len(names)) - uses, np.stack([own_entropy, own_words], axis=1))
    entropy, length = both[names.index("S")].tolist()
    return math.exp(entropy / (length + 1))


@cache
def _bounds() -> dict[str, NDArray]:
    """For each symbol the running sums of its rules' probabilities, without the last, 1."""
    return {symbol: np.cumsum([p for p, _ in choices])[:-1] for symbol, choices in rules().items()}
