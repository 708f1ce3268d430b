"""The sets made on the spot: rings, glyphs, grammar."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from tinyqnn.data import glyphs, grammar, rings


def test_rings_have_the_papers_numbers():
    data = rings.load()
    points, labels = rings.core_points()
    assert len(points) == 2_000
    assert np.bincount(labels).tolist() == [1_000, 1_000]
    assert np.bincount(data.train.y).tolist() == [10_000, 10_000]
    assert np.hypot(*data.test.x.T).max() <= rings.EXTENT
    noise = data.train.x.astype(float).reshape(10, 2_000, 2) - points
    assert np.abs(noise[0]).max() < 1e-6
    assert abs(noise[1:].std() - rings.SIGMA) < 0.005


def test_a_point_has_the_label_of_the_nearest_half_ring(rng):
    points = rng.uniform(-rings.EXTENT, rings.EXTENT, (400, 2))
    points = points[np.abs(points[:, 1]) > 0.2]  # beside the axis the nearest sample may be on the other side
    core, labels = rings.core_points()
    distance = ((points[:, None] - core) ** 2).sum(axis=2)
    order = np.sort(np.sqrt(distance), axis=1)
    nearest = labels[distance.argmin(axis=1)]
    # Where two half rings are almost equally near, 100 samples a half ring cannot decide.
    radius = np.hypot(*points.T)
    clear = np.abs(radius - np.floor(radius) - 0.5) > 0.05
    assert order.shape[0] > 300
    assert np.array_equal(rings.nearest_label(points)[clear], nearest[clear])


def test_every_core_point_off_the_axis_lies_on_its_own_label():
    points, labels = rings.core_points()
    off = np.abs(points[:, 1]) > 1e-9
    assert off.sum() == 2_000 - 40  # only the two ends of each half ring are on it
    assert np.array_equal(rings.nearest_label(points[off]), labels[off])


def test_glyphs_are_the_same_for_everybody_and_new_for_another_generator():
    one, two = glyphs.load(train=60, test=40), glyphs.load(train=60, test=40)
    other = glyphs.load(np.random.default_rng(1), train=60, test=40)
    assert np.array_equal(one.train.x, two.train.x)
    assert np.array_equal(one.test.x, two.test.x)
    assert not np.array_equal(one.train.x, other.train.x)
    assert np.bincount(one.train.y).tolist() == [6] * 10
    assert not np.array_equal(one.train.x[:40], one.test.x)


def test_the_stated_mean_and_std_are_those_of_the_glyphs():
    x = glyphs.load(train=2_000, test=1).train.inputs()
    assert abs(x.mean()) < 0.03
    assert abs(x.std() - 1) < 0.03


def test_ink_along_a_long_straight_stroke_is_one():
    # The formula of the file's head, for a horizontal stroke through the middle of row 14.
    points = np.stack([np.linspace(-10, 38, 200), np.full(200, 14.0)], axis=1).astype(np.float32)[None]
    steps = np.full((1, 200), 48 / 199, np.float32)
    width = 1.1
    pixel = np.arange(28)[:, None]
    gx = np.exp(-0.5 * ((pixel - points[0, :, 0]) / width) ** 2)
    gy = np.exp(-0.5 * ((pixel - points[0, :, 1]) / width) ** 2) * steps[0] / (width * math.sqrt(2 * math.pi))
    assert np.abs((gy @ gx.T)[14] - 1).max() < 1e-3
    assert np.abs(glyphs._gauss((pixel - points[0, :, 0]) / np.float32(width)) - gx).max() < 1e-6


def test_a_spline_passes_through_its_points():
    k = 5
    matrix = glyphs._spline(k)
    assert np.array_equal(matrix[:: glyphs.PER_SEGMENT], np.eye(k))
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-12


def test_neat_digits_are_told_apart_by_their_nearest_mean_and_scrawled_ones_are_not():
    def accuracy(difficulty: float) -> float:
        data = glyphs.load(np.random.default_rng(2), train=1_000, test=300, difficulty=difficulty)
        x, test = (split.x.reshape(len(split), -1).astype(float) for split in (data.train, data.test))
        means = np.stack([x[data.train.y == digit].mean(axis=0) for digit in range(10)])
        return float((((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1) == data.test.y).mean())

    assert accuracy(0.0) > 0.9 > 0.8 > accuracy(1.0) > 0.5


@pytest.mark.parametrize("options", [{"train": 0}, {"test": -1}, {"difficulty": 4.0}, {"difficulty": float("nan")}])
def test_impossible_glyphs_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        glyphs.load(**options)


def test_the_rules_of_every_symbol_are_a_distribution():
    for choices in grammar.rules().values():
        assert sum(probability for probability, _ in choices) == pytest.approx(1, abs=1e-12)


def derivations(words: tuple[str, ...]) -> int:
    """How many derivations a sentence has, counted by trying every rule on every stretch of it."""
    made = grammar.rules()

    @cache
    def stretches(symbol: str, begin: int) -> dict[int, int]:
        """Where a `symbol` that begins here can end, and in how many ways."""
        if symbol not in made:
            return {begin + 1: 1} if begin < len(words) and words[begin] == symbol else {}
        ends: dict[int, int] = {}
        for _, parts in made[symbol]:
            open_ends = {begin: 1}
            for part in parts:
                following: dict[int, int] = {}
                for position, ways in open_ends.items():
                    for end, more in stretches(part, position).items():
                        following[end] = following.get(end, 0) + ways * more
                open_ends = following
            for end, ways in open_ends.items():
                ends[end] = ends.get(end, 0) + ways
        return ends

    return stretches("S", 0).get(len(words), 0)


def test_every_sentence_has_exactly_one_derivation(rng):
    # Otherwise its probability would be a sum over derivations, and the stated perplexity no bound.
    assert {derivations(tuple(grammar.sentence(rng)[0])) for _ in range(300)} == {1}
    assert derivations(("the", "dog", "the")) == 0


def test_the_stated_perplexity_is_that_of_the_sentences(rng):
    drawn = [grammar.sentence(rng) for _ in range(4_000)]
    tokens = sum(len(words) + 1 for words, _ in drawn)
    measured = math.exp(-sum(log_probability for _, log_probability in drawn) / tokens)
    assert measured == pytest.approx(grammar.best_perplexity(), rel=0.02)


def test_the_text_is_as_long_as_asked_for_and_has_words_only_from_the_vocabulary():
    corpus = grammar.load(train=3_000, valid=500, test=500)
    for part, count in ((corpus.train, 3_000), (corpus.valid, 500), (corpus.test, 500)):
        assert count <= len(part) < count + 200
        assert part[-1] == 0
    assert corpus.vocabulary[0] == "<eos>"
    assert len(set(corpus.vocabulary)) == len(corpus.vocabulary)
    assert np.array_equal(corpus.train, grammar.load(train=3_000, valid=1, test=1).train)


def test_verbs_agree_with_their_nouns_across_a_relative_clause(rng):
    singular = {word for _, (word,) in grammar.rules()["NOUN-A1"]}
    for _ in range(300):
        words = grammar.sentence(rng)[0]
        if words[1] in singular and words[2] == "that":
            plain = {word for name in ("ACT2", "HANDLE2", "MOVE2") for _, (word,) in grammar.rules()[name]}
            assert words[3] not in plain
            break
    else:
        pytest.fail("no such sentence among 300")
