"""Generated scenes: every class is there, thin figures are thin, and colour is a hint but no answer."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn.data import scenes


def test_everybody_gets_the_same_scenes_and_another_generator_others():
    one, two = scenes.load(train=3, test=2), scenes.load(train=3, test=2)
    other = scenes.load(np.random.default_rng(9), train=3, test=2)
    assert (one.train.x == two.train.x).all()
    assert (one.test.y == two.test.y).all()
    assert (one.train.x != other.train.x).any()


def test_all_classes_occur_and_the_ground_most():
    data = scenes.load(train=200, test=1)
    parts = np.bincount(data.train.y.ravel(), minlength=6) / data.train.y.size
    assert parts.argmax() == 0
    assert parts.min() > 0.01


def test_thin_figures_are_thin(rng):
    """Most pixels of a ring or a bar have a neighbour, two to the side or below, that is something else."""
    labels = np.stack([scenes.draw(rng, 48, 1)[1] for _ in range(200)])

    def near_an_edge(kind):
        inside = labels == kind
        thick = inside.copy()
        for axis in (1, 2):
            thick &= np.roll(inside, 3, axis) & np.roll(inside, -3, axis)
        return 1 - thick.sum() / inside.sum()

    ring, bar, disc, square = (near_an_edge(scenes.CLASSES.index(name)) for name in ("ring", "bar", "disc", "square"))
    assert min(ring, bar) > max(disc, square)


def test_colour_is_a_hint_and_no_answer(rng):
    """Each pixel called by the nearest colour of a class: far from right, and better than chance among figures."""
    data = scenes.load(rng, train=100, test=1)
    pixels = data.train.x.transpose(0, 2, 3, 1)[data.train.y > 0] / 255
    right = data.train.y[data.train.y > 0]
    typical = 0.5 * scenes.COLOURS[1:] + 0.25
    called = 1 + ((pixels[:, None] - typical) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.4 < (called == right).mean() < 0.9


@pytest.mark.parametrize("wrong", [{"train": 0}, {"side": 4}, {"figures": 0}])
def test_sizes_that_make_no_scene_are_refused(wrong):
    with pytest.raises(ValueError, match="side 8 or more"):
        scenes.load(**wrong)
