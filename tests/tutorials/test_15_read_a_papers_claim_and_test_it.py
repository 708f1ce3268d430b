"""Answers to the exercises of tutorials/15_read_a_papers_claim_and_test_it.md."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.papers.claims import decide

TRAINING = ["lost(", "decide(differences", "ledger.read"]


def means_and_errors(d):
    return d.mean(-1), d.std(-1, ddof=1) / d.shape[-1] ** 0.5


def test_1_three_seeds_want_more_than_four_standard_errors(rng):
    m, e = means_and_errors(rng.normal(size=(200_000, 3)))
    tried = np.arange(2.0, 6.0, 0.1)
    rates = np.array([np.mean(m > k * e) for k in tried])
    assert tried[np.argmax(rates < 1 / 40)] == pytest.approx(4.3, abs=0.15)  # Student's t with 2 degrees of freedom


def test_2_going_on_until_it_is_decided_doubles_the_false_alarms(rng):
    d = rng.normal(size=(4_000, 30))
    verdicts = np.zeros(len(d), int)
    for n in range(3, 31):
        m, e = means_and_errors(d[:, :n])
        open_ = verdicts == 0
        verdicts[open_ & (m - 2 * e > 0)] = 1
        verdicts[open_ & (m + 2 * e <= 0)] = -1
    m, e = means_and_errors(d[:, :3])
    assert np.mean(verdicts == 1) > 2 * np.mean(m - 2 * e > 0)
    assert np.mean(verdicts == 0) < 0.65  # and the rest goes on


def test_3_a_difference_of_half_its_scatter_is_missed_by_few_seeds(rng):
    def found(seeds):
        m, e = means_and_errors(0.5 + rng.normal(size=(20_000, seeds)))
        return np.mean(m - 2 * e > 0)

    assert found(3) < 0.3 < found(10) < 0.5 < 0.7 < found(30)


def test_the_rule_of_step_4_is_that_of_decide(rng):
    for _ in range(100):
        d = rng.normal(0.3, 1, rng.integers(3, 12))
        m, e = means_and_errors(d)
        by_hand = "holds" if m - 2 * e > 0 else "does not hold" if m + 2 * e <= 0 else "undecided at this scale"
        assert decide(d).verdict == by_hand


def test_three_readings_of_ten_lines_give_three_counts(page):
    names = page("15", skip=TRAINING)
    counts = {sum(holds(*line) for line in names["lines"]) for holds in names["readings"].values()}
    assert len(counts) == 3
    assert names["claim"].decide(names["cells"]).verdict == "holds"
