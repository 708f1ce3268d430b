"""A step under the processor's roof: what operations ask for is counted by their definition."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import Tensor, nn, picture
from tinyqnn import functional as F
from tinyqnn.bench import first, roofline, training
from tinyqnn.bench.roofline import Roof, Spot, Spotter
from tinyqnn.kernels import use_reference


def counted(model, x, grad=False):
    """(operation, way) -> (operations, bytes), of a step on the sum of the results."""
    with Spotter() as seen:
        y = model(Tensor(x, requires_grad=grad))
        (y[0] if isinstance(y, tuple) else y).sum().backward()
    return {(name, "backward" if back else "forward"): (ops, moved) for name, _, back, ops, moved in seen.times}


@pytest.mark.parametrize("grad", [False, True])
def test_products_count_two_for_each_multiply_accumulate_and_twice_that_backwards(grad):
    x = np.ones((2, 4, 8, 8), np.float32)
    found = counted(nn.Conv2d(4, 6, 3, padding=1, rng=np.random.default_rng(0)), x, grad)
    macs, weight, y = 2 * 6 * 8 * 8 * 4 * 9, 6 * 4 * 9 + 6, 2 * 6 * 8 * 8
    assert found["Conv2d", "forward"] == (2 * macs, 4 * (x.size + weight + y))
    moved = 4 * (x.size + weight + y + weight + (x.size if grad else 0))
    assert found["Conv2d", "backward"] == ((4 if grad else 2) * macs, moved)


def test_a_perceptron_is_its_products():
    if use_reference():
        pytest.skip("it runs as the layers it is made of")
    weights = [Tensor(np.ones(shape, np.float32), requires_grad=True) for shape in ((5, 3), (2, 5))]
    found = counted(lambda x: F.mlp(x, weights, [None, None]), np.ones((7, 3), np.float32))
    assert found["MLP", "forward"][0] == 2 * 7 * (3 * 5 + 5 * 2)
    assert found["MLP", "backward"][0] == 2 * 7 * (3 * 5 + 2 * 5 * 2)


def test_a_recurrent_layer_is_its_products():
    found = counted(nn.LSTM(3, 5, rng=np.random.default_rng(0)), np.ones((4, 2, 3), np.float32))
    assert found["LSTMLayer", "forward"][0] == 2 * 4 * 2 * 4 * 5 * (3 + 5)


def test_what_makes_no_products_counts_the_numbers_it_reads():
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    with Spotter() as seen:
        y = F.relu(x)
        _ = y + 1.0  # no gradient comes by here
        y.sum().backward()
    found = {(name, back): (ops, moved) for name, _, back, ops, moved in seen.times}
    assert found["ReLU", False] == (6, 48)
    assert found["ReLU", True] == (12, 72)
    assert ("Add", True) not in found


def test_a_table_adds_up_calls_and_takes_the_larger_limit():
    over = Roof(operations=1e9, bytes=1e9)
    found = [
        Spot("A", (), False, 1_000_000, 1, 2e-3, 2),  # half of what arithmetic allows
        Spot("A", (), False, 1, 1_000_000, 4e-3, 1),  # a quarter of what memory allows
        Spot("A", (), True, 1_000_000, 1_000_000, 1e-3, 1),
        Spot("small", (), False, 1, 1, 1e-6, 1),
    ]
    lines = roofline.table(found, over).splitlines()
    assert lines[2].split() == ["A", "8.00", "0.3", "0.1", "38", "%", "1.00", "1.0", "1.0", "100", "%"]
    assert lines[3].split() == ["all", "operations", "8.00", "1.00"]
    assert len(lines) == 4


def test_a_step_is_found_and_drawn_a_panel_a_network(tmp_path):
    case = training.Case("fcdnn", "small", "fcdnn-8-4", (16, 2), 2)
    found = roofline.spots(training.our_step(case), steps=2)
    assert all(spot.calls >= 1 and spot.seconds > 0 for spot in found)
    figure = picture.figure(6, 6)
    roofline.draw({"one": found, "other": found}, Roof(1e12, 1e10), figure)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["one", "other", "", ""]
    picture.save(figure, tmp_path / "roof.png")
    assert (tmp_path / "roof.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_first_step_is_measured_with_an_empty_cache_and_with_a_filled_one():
    seconds = first.measure("fcdnn")
    assert set(seconds) == {"empty_cache", "second_process"}
    assert all(value > 0 for value in seconds.values())


def test_of_several_starts_each_engines_quickest_counts(monkeypatch):
    tries = [{"a": training.Measured([3.0, 3.0, 9.0]), "b": training.Measured([1.0])}]
    tries += [{"a": training.Measured([2.0]), "b": training.Measured([4.0])}]
    coming = iter(tries)
    monkeypatch.setattr(training, "_started", lambda *asked: next(coming))
    found = training.measure("fcdnn", ("a", "b"), starts=2)
    assert {engine: measured.median for engine, measured in found.items()} == {"a": 2.0, "b": 1.0}
    assert {engine: measured.starts for engine, measured in found.items()} == {"a": [3.0, 2.0], "b": [1.0, 4.0]}
