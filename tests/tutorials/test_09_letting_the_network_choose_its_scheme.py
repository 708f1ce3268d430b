"""Answers to the exercises of tutorials/09_letting_the_network_choose_its_scheme.md."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

SEARCHES = ("numbers, classes", "scores")


def test_1_the_winner_of_the_race_is_the_draw():
    p, times = np.array([0.5, 0.3, 0.2]), np.random.default_rng(0).exponential(size=(10_000, 3))
    race = (times / p).argmin(axis=1)
    die = (np.log(p) - np.log(times)).argmax(axis=1)
    assert np.array_equal(race, die)  # not on average: draw by draw
    assert np.abs(np.bincount(race) / 10_000 - p).max() < 0.015


def test_2_a_mixture_is_never_worse_than_its_members_on_average_and_often_better_than_both(page):
    names = page("09", skip=SEARCHES)
    x, values, error = names["kinds"]["bell"], dict(zip(names["names"], names["values"]["bell"])), names["error"]
    team, hindered = [], []
    for a, b in itertools.combinations(values, 2):
        both, best = error(x, (values[a] + values[b]) / 2), min(error(x, values[a]), error(x, values[b]))
        assert both <= (error(x, values[a]) + error(x, values[b])) / 2
        (team if both < best else hindered).append({a, b})
    assert {"C-3", "P-3"} in team
    assert {"B-1", "C-3"} in hindered  # too far apart: a good one with a bad one
    assert all({"B-1", name} in hindered for name in values if name != "B-1")
    assert len(team) == len(hindered) == 14  # half and half


@pytest.mark.slow
def test_3_one_choice_for_all_cannot_find_three_different_answers(page):
    names = page("09", skip=SEARCHES)
    fine, coarse = (names["hunt"](names["answers"], loss=names["mean_square"], fine=fine) for fine in (True, False))
    hidden = names["hidden"]
    assert {vertex: fine[vertex].scheme for vertex in hidden} == hidden
    assert len({coarse[vertex].scheme for vertex in hidden}) == 1
    assert len(coarse.course[-1]) == 1  # and it has one state to tell about
    losses = [found.history.rows[-1]["train_loss"] for found in (fine, coarse)]
    assert losses[1] > 5 * losses[0]
