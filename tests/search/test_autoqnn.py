"""AutoQNN: both searches, one after the other, stopped and resumed anywhere; and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from stopping import ctrl_c_after

from tinyqnn import data, models, nn
from tinyqnn.optim import SGD
from tinyqnn.search import Policy, autoqnn
from tinyqnn.search.autoqnn import fitting
from tinyqnn.search.qss import default_candidates
from tinyqnn.train import evaluate


def split_of(rng, count=240):
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return data.Split(x, (x[:, 0] + 0.3 * x[:, 1] > 0).astype(int))


def dense(rng, width=40):
    return nn.Sequential(nn.Linear(6, width, rng=rng), nn.ReLU(), nn.Linear(width, 2, rng=rng))


FAST = {"search_epochs": 2, "epochs": 6, "lr": 0.05, "batch_size": 10, "progress": False}


@pytest.mark.parametrize("target", [1, 2, 4])
def test_a_network_of_few_bits_that_still_answers(rng, target):
    model, split = dense(rng), split_of(rng)
    before = model.state_dict()
    found = autoqnn(model, split, split, target_bits=target, **FAST)
    assert found.average_bits("weights") <= target + 0.1
    assert found.average_bits("activations") <= target + 0.1
    assert found == Policy.of(found.model) == Policy.from_json(found.to_json())
    assert Policy.of(found.apply(model, split.x[:2])) == found
    assert {choice.letter for choice in found} == {choice.letter for choice in found.schemes} or target == 1
    assert [choice.letter for choice in found] == [choice.letter for choice in found.schemes]
    assert evaluate(found.model, split).accuracy > (0.8 if target > 1 else 0.6)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert not found.interrupted


def test_a_role_without_a_target_stays_float(rng):
    found = autoqnn(dense(rng), split_of(rng, 60), target_bits={"weights": 2}, keep="last", **FAST)
    assert [choice.scheme for choice in found.of_role("activations")] == ["float", "float"]
    assert found["2.quant.weight"].scheme == "float"
    assert found["0.quant.weight"].bits == 2


def test_schemes_without_a_choice_of_width_are_taken_as_they_are(rng):
    candidates = {"weights": ["T-2", "Q-2"], "activations": ["R-3"]}
    found = autoqnn(dense(rng), split_of(rng, 60), target_bits={"weights": 2}, candidates=candidates, **FAST)
    assert found.average_bits("weights") == 2
    assert {choice.letter for choice in found.of_role("weights")} <= {"T", "Q"}


def test_schemes_narrower_than_the_target_do_not_hinder(rng):
    candidates = {"weights": ["B-1", "C-3"], "activations": ["C-3"]}
    split = data.Split(np.sign(split_of(rng, 60).x), split_of(rng, 60).y)  # ±1: one bit says it all
    found = autoqnn(dense(rng), split, target_bits=3, candidates=candidates, **FAST)
    assert found.average_bits("weights") <= 3.1


def test_it_takes_text(rng):
    text = data.load("grammar").train[:300]
    model = models.LanguageModel(words=int(text.max()) + 1, embedding=6, hidden=5, rng=rng)
    candidates = {"weights": ["P-3", "C-3"], "activations": ["C-3"]}
    settings = {"search_epochs": 1, "epochs": 2, "batch_size": 4, "seq_len": 6, "lr": 1.0, "progress": False}
    found = autoqnn(model, text, text[:100], target_bits=3, candidates=candidates, fine=False, **settings)
    assert len(found) == 7
    assert found.average_bits("weights") == pytest.approx(3, abs=0.1)


# Six steps an epoch: two epochs of QSS, six of QPL, of which the last four are settled or begin with float weights.
@pytest.mark.parametrize(("start", "steps"), [("search", 7), ("search", 20), ("float", 20), ("float", 33)])
def test_stopped_anywhere_it_ends_with_the_same_bits(tmp_path, start, steps):
    split = split_of(np.random.default_rng(3), 60)

    def run(name):
        (tmp_path / name).mkdir(exist_ok=True)
        model = dense(np.random.default_rng(1))
        return autoqnn(model, split, split, start=start, folder=tmp_path / name, **FAST)

    whole = run("whole")
    with ctrl_c_after(steps):
        stopped = run("halved")
    assert stopped.interrupted
    assert (stopped.precision is None) == (steps == 7)
    assert (stopped.retrained is None) == (steps < 33)
    halved = run("halved")
    assert halved == whole
    assert not halved.interrupted
    assert (halved.schemes.course, halved.precision.course) == (whole.schemes.course, whole.precision.course)
    state, other = halved.model.state_dict(), whole.model.state_dict()
    assert all(np.array_equal(state[name], other[name]) for name in other)
    whole.save_picture(tmp_path / "course.png")
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")


def test_the_last_epochs_begin_where_they_are_told_to(rng):
    """With a rate of zero no weight moves but those that a search had moved before."""
    model, split = dense(rng), split_of(rng, 60)
    before = model.state_dict()

    for start in ("search", "float"):
        made = []

        def counted(parameters, made=made):
            made.append(len(parameters))
            return SGD(parameters, lr=0.05 if len(made) < 3 else 0.0)

        found = autoqnn(model, split, split, start=start, optimizer=counted, schedule=None, **FAST)
        unmoved = all(np.array_equal(before[name], found.model.state_dict()[name]) for name in before)
        assert unmoved == (start == "float")
        assert len(made) == (3 if start == "float" else 2)
        assert len(found.history) == (4 if start == "float" else 6)
        assert evaluate(found.model, split).accuracy == found.history["valid_accuracy"][-1]
    with pytest.raises(ValueError, match='"search" or "float"'):
        autoqnn(model, split, start="middle", **FAST)
    with pytest.raises(ValueError, match="settled leaves one epoch"):
        autoqnn(model, split, settled=6, **FAST)


def test_candidates_that_cannot_be_as_narrow_as_the_target_are_left_out():
    _, sides = fitting(1, default_candidates())
    assert sides["weights"] == ("B-1", "R-3", "C-3")
    _, sides = fitting({"weights": 2, "activations": 1.5}, default_candidates())
    assert sides == {"weights": default_candidates(), "activations": ("B-1", "R-3")}  # C-1 cannot follow a ReLU


@pytest.mark.parametrize(
    ("target", "candidates", "told"),
    [
        (9, None, "from 1 to 8"),
        (0.5, None, "no candidate brings the weights to 0.5 bits"),
        (5, ["P-3"], "from 2 to 4"),
        (2, [], "empty"),
        ({}, None, "nothing to search for"),
        ({"weight": 2}, None, "'weight'"),
    ],
)
def test_what_cannot_be_reached_is_refused_before_anything_is_trained(rng, target, candidates, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        autoqnn(dense(rng), split_of(rng, 20), target_bits=target, candidates=candidates, folder=tmp_path, **FAST)
    assert not list(tmp_path.iterdir())
