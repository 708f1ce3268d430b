"""Split, Dataset, Corpus, and the walks through them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyqnn import data
from tinyqnn.data import Corpus, Dataset, Split, batches, bptt_batches, crop_and_flip, validation_split


def images(rng: np.random.Generator, n: int = 10, c: int = 3, h: int = 8, w: int = 6) -> Split:
    return Split(rng.integers(0, 256, (n, c, h, w), dtype=np.uint8), np.arange(n), (0.5,) * c, (0.25,) * c)


def is_channels_last(x: np.ndarray) -> bool:
    """The strides are those of a transposed (N, H, W, C) array."""
    _, c, h, w = x.shape
    return x.strides == (h * w * c * x.itemsize, x.itemsize, w * c * x.itemsize, c * x.itemsize)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_are_channels_last_whatever_came_in(rng, channels, dtype):
    x = (rng.random((4, channels, 5, 6)) * 255).astype(dtype)
    split = Split(x, range(4))
    assert is_channels_last(split.x)
    assert np.array_equal(split.x, x)
    seen = next(iter(batches(split, 2)))[0]
    assert is_channels_last(seen)
    assert seen.dtype == (np.float32 if dtype == np.uint8 else dtype)


def test_normalization_is_pixel_over_255_minus_mean_over_std(rng):
    x = rng.integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
    mean, std = np.array([0.1, 0.5, 0.7]), np.array([0.2, 0.3, 0.4])
    expected = (x / 255 - mean[:, None, None]) / std[:, None, None]
    seen = Split(x, range(7), mean, std).inputs()
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "complaint"),
    [
        ([[1.0, np.nan]], [0], r"x: 1 of 2 numbers are NaN or infinite, the first at \(0, 1\)"),
        ([[1.0, 2.0], [np.inf, -np.inf]], [0, 1], r"x: 2 of 4 .*\(1, 0\)"),
        ([[1.0]], [np.nan], "y: 1 of 1"),
        ([[1.0], [2.0]], [0], "as many answers as examples"),
        ([1.0, 2.0], [0, 1], "one row an example"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one example"),
        ([[1.0]], [-1], "labels count from 0"),
        (np.zeros((1, 2, 3, 3), np.uint8), [0], None),
    ],
)
def test_bad_examples_are_refused_when_the_split_is_made(x, y, complaint):
    if complaint is None:
        assert len(Split(x, y)) == 1
    else:
        with pytest.raises(ValueError, match=complaint):
            Split(x, y)


def test_numbers_whose_sum_overflows_are_still_numbers():
    big = np.full((2, 3), np.finfo(np.float64).max)
    assert np.array_equal(Split(big, [0, 1]).x, big)


def test_text_and_wrong_means_are_refused():
    with pytest.raises(TypeError, match="real numbers"):
        Split([["a"]], [0])
    with pytest.raises(ValueError, match="expected 3 numbers each"):
        Split(np.zeros((1, 3, 2, 2), np.uint8), [0], mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="std > 0"):
        Split(np.zeros((1, 1, 2, 2), np.uint8), [0], mean=(0.5,), std=(0.0,))
    with pytest.raises(ValueError, match="only for images"):
        Split(np.zeros((1, 2)), [0], mean=(0.5,), std=(0.5,))


def test_a_label_without_a_class_is_refused():
    good, bad = Split([[0.0]], [1]), Split([[0.0], [0.0]], [1, 2])
    with pytest.raises(ValueError, match="test label 2 at index 1, but there are only 2 classes"):
        Dataset("mine", good, bad, ("a", "b"))
    with pytest.raises(ValueError, match="must agree"):
        Dataset("mine", good, Split([[0.0, 1.0]], [0]))


def test_a_token_without_a_word_is_refused():
    with pytest.raises(ValueError, match="valid has tokens 0 … 2"):
        Corpus("mine", np.array([0]), np.array([0, 2]), np.array([1]), ("a", "b"))


@given(st.integers(2, 40), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_a_validation_split_divides_without_loss_or_overlap(n, fraction, seed):
    split = Split(np.arange(2.0 * n).reshape(n, 2), np.arange(n))
    if not 0 < round(fraction * n) < n:
        with pytest.raises(ValueError, match="part"):
            validation_split(split, fraction)
        return
    rest, aside = validation_split(split, fraction, np.random.default_rng(seed))
    assert len(aside) == round(fraction * n)
    assert sorted([*rest.y, *aside.y]) == list(range(n))
    assert np.array_equal(rest.x[:, 0], 2 * rest.y)


@given(st.integers(1, 30), st.integers(1, 12), st.booleans(), st.integers(0, 2**32))
def test_an_epoch_shows_every_example_once(n, batch_size, drop_last, seed):
    split = Split(np.arange(float(n))[:, None], np.arange(n))
    if drop_last and batch_size > n:
        return
    seen = list(batches(split, batch_size, np.random.default_rng(seed), drop_last=drop_last))
    labels = np.concatenate([y for _, y in seen])
    assert all(np.array_equal(x[:, 0], y) for x, y in seen)
    assert len(set(labels.tolist())) == len(labels) == (n // batch_size * batch_size if drop_last else n)
    assert len(seen) == len(batches(split, batch_size, drop_last=drop_last))


def test_an_epoch_resumed_in_the_middle_ends_bit_equal(rng):
    split, first, second = images(rng, 23), np.random.default_rng(5), np.random.default_rng(5)
    whole = list(batches(split, 4, first, crop_and_flip))
    rest = list(batches(split, 4, second, crop_and_flip, start=3))
    assert len(rest) == len(whole) - 3
    for (x, y), (again_x, again_y) in zip(whole[3:], rest):
        assert np.array_equal(x, again_x)
        assert np.array_equal(y, again_y)
    # An epoch draws when it begins: both generators stand at the same place, however far each epoch was walked.
    assert first.bit_generator.state == second.bit_generator.state


def test_epochs_differ_and_one_epoch_can_be_walked_twice(rng):
    split, state = images(rng, 16), np.random.default_rng(5)
    one, two = batches(split, 8, state, crop_and_flip), batches(split, 8, state, crop_and_flip)
    assert not np.array_equal(one.order, two.order)
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, one))


def test_the_same_image_is_augmented_differently_in_each_batch_of_an_epoch():
    same = Split(np.tile(np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8), (40, 1, 1, 1)), np.zeros(40, int))
    first, *others = [x for x, _ in batches(same, 8, np.random.default_rng(0), crop_and_flip)]
    assert not any(np.array_equal(first, other) for other in others)


def test_bad_batches_are_refused():
    split = Split(np.zeros((3, 1)), range(3))
    for arguments in ({"batch_size": 0}, {"batch_size": 4, "drop_last": True}):
        with pytest.raises(ValueError, match="batch_size"):
            batches(split, **arguments)
    with pytest.raises(ValueError, match="start"):
        batches(split, 2, start=3)
    with pytest.raises(ValueError, match="rng"):
        batches(split, 2, augment=crop_and_flip)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 60))
def test_text_in_pieces_is_the_text_in_rows(batch_size, seq_len, extra):
    tokens = np.arange(2 * batch_size + extra)
    pieces = list(bptt_batches(tokens, batch_size, seq_len))
    length = len(tokens) // batch_size
    rows = tokens[: batch_size * length].reshape(batch_size, length)
    assert np.array_equal(np.concatenate([x for x, _ in pieces]).T, rows[:, :-1])
    assert np.array_equal(np.concatenate([y for _, y in pieces]).T, rows[:, 1:])
    assert all(x.shape == y.shape == (seq_len, batch_size) for x, y in pieces[:-1])
    assert len(pieces) == len(bptt_batches(tokens, batch_size, seq_len))
    later = list(bptt_batches(tokens, batch_size, seq_len, batch_first=True, start=len(pieces) - 1))
    assert len(later) == 1
    assert np.array_equal(later[0][0], pieces[-1][0].T)


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match="batch_size 3"):
        bptt_batches(np.arange(5), 3, 2)
    with pytest.raises(ValueError, match="one row of integers"):
        bptt_batches(np.zeros((2, 2), int), 1, 1)


@given(st.integers(0, 2**32), st.integers(0, 3))
def test_each_crop_is_a_window_of_the_framed_image_or_its_mirror(seed, padding):
    x = np.random.default_rng(seed).integers(1, 256, (3, 2, 4, 5), dtype=np.uint8)
    out = crop_and_flip(x, np.random.default_rng(seed), padding)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert is_channels_last(out)
    framed = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for i in range(3):
        offsets = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
        windows = [framed[i, :, top : top + 4, left : left + 5] for top, left in offsets]
        assert any(np.array_equal(out[i], w) or np.array_equal(out[i], w[:, :, ::-1]) for w in windows)


def test_crops_reach_every_offset_and_half_of_them_are_mirrored():
    x = np.zeros((4000, 1, 3, 3), np.uint8)
    x[:, 0, 1, 0] = 1  # a mark left of the middle shows where the image went
    out = crop_and_flip(x, np.random.default_rng(0), padding=1)
    places = {tuple(place) for place in np.argwhere(out[:, 0])[:, 1:].tolist()}
    assert places == {(row, column) for row in range(3) for column in range(3)}
    assert not np.array_equal(out, crop_and_flip(x, np.random.default_rng(0), padding=1, flip=False))
    still = crop_and_flip(x, np.random.default_rng(0), padding=0)
    assert 0.45 < (still[:, 0, 1, 2] == 1).mean() < 0.55
    assert np.array_equal(crop_and_flip(x, np.random.default_rng(0), padding=0, flip=False), x)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("cifar-10", "did you mean 'cifar10'"), ("minst", "did you mean 'mnist'"), ("zzz", "There are rings, glyphs")],
)
def test_an_unknown_name_is_answered_with_the_names(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        data.load(name)


def test_an_unknown_option_is_answered_with_the_options():
    with pytest.raises(TypeError, match="'colour'; it has rng, train, test, difficulty"):
        data.load("glyphs", colour=3)


def test_importing_the_room_loads_none_of_its_sets():
    code = "import sys, tinyqnn.data as d; print([n for n in d.NAMES if 'tinyqnn.data.' + n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
