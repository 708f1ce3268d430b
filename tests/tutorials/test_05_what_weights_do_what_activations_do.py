"""Answers to the exercises of tutorials/05_what_weights_do_what_activations_do.md."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.data.rings import nearest_label

SKIP = ("holistic_fig2.json",)


@pytest.fixture
def names(page):
    return page("05", skip=SKIP)


def test_1_eight_bits_make_less_noise_and_jump_all_the_same(names):
    network = names["families"][0]
    eight = names["copy_of"](network["float"], bits=8)
    noise, largest_change = names["noise"], names["largest_change"]
    assert noise(eight) < 0.7 * noise(network["A2"])
    assert largest_change(eight, 1_000_000) > 0.5 * largest_change(eight, 100_000)  # no L, still
    assert largest_change(eight, 100_000) < 0.2 * largest_change(network["A2"], 100_000)  # but smaller stairs


def test_2_rounded_weights_that_were_not_trained_on_distort(names):
    for network in names["families"]:
        rounded = names["copy_of"](network["float"], "U-2", steps=0)
        reference = network["float"]
        more_distortion = names["distortion"](rounded, reference) - names["distortion"](network["W2"], reference)
        more_noise = names["noise"](rounded) - names["noise"](network["W2"])
        assert more_distortion > 5 * abs(more_noise)
        assert names["noise"](rounded) < 1.5


def test_3_averaging_takes_noise_away_and_leaves_distortion(names):
    score, plane, disc, side, reach = (names[key] for key in ("score", "plane", "disc", "side", "reach"))
    right = nearest_label(2 * plane).reshape(side, side)
    counted = names["counted"]

    def gained(model):
        scores = score(model, plane).reshape(side, side)
        framed = np.pad(scores, reach, mode="edge")
        mean = sum(framed[reach + i : reach + i + side, reach + j : reach + j + side] for i, j in disc) / len(disc)
        return 100 * float((((mean > 0) == right)[counted]).mean() - (((scores > 0) == right)[counted]).mean())

    gains = {mode: [gained(network[mode]) for network in names["families"]] for mode in ("W2", "A2")}
    assert np.mean(gains["A2"]) > 0.5
    assert np.mean(gains["W2"]) < 0.5 * np.mean(gains["A2"])


def test_the_law_holds_for_any_scheme_of_weights(names):
    """Continuity does not depend on how weights were rounded."""
    model = names["families"][0]["float"]
    for scheme in ("B-1", "T-2", "C-3"):
        copy = names["copy_of"](model, scheme, steps=0)
        divided = names["largest_change"](copy, 1_000) / names["largest_change"](copy, 10_000)
        assert divided == pytest.approx(10, rel=0.1)


def test_majority_leaves_a_straight_boundary_where_it_is(names):
    side = names["side"]
    halves = np.add.outer(np.arange(side), np.arange(side)) > side
    assert (names["majority"](halves) == halves)[8:-8, 8:-8].all()
