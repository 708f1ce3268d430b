"""QPL: averages reach their targets, the losses are eq. (6), gradients eq. (5), a search resumes bit for bit."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stopping import ctrl_c_after

from tinyqnn import data, graph, models, nn
from tinyqnn.graph import average_bits
from tinyqnn.quant import ActivationQuantizer, WeightQuantizer, bits_gradient, scheme
from tinyqnn.search import LearnedBits, Policy, qpl
from tinyqnn.search.learned import rounded, widths_of
from tinyqnn.search.network import fit
from tinyqnn.search.qpl import PrecisionHook, put_learned
from tinyqnn.search.targets import targets_of
from tinyqnn.tensor import Tensor
from tinyqnn.train import evaluate


def split_of(rng, count=240):
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return data.Split(x, (x[:, 0] + 0.3 * x[:, 1] > 0).astype(int))


def dense(rng, width=16):
    return nn.Sequential(nn.Linear(6, width, rng=rng), nn.ReLU(), nn.Linear(width, 2, rng=rng))


FAST = {"epochs": 6, "lr": 0.05, "batch_size": 10, "progress": False}


@pytest.mark.parametrize("notation", ["C-3", "Z-4", "R-3", "P-3", "F-4"])
@pytest.mark.parametrize("target", [2, 3.5])
def test_averages_reach_their_targets(rng, notation, target):
    model, split = dense(rng, width=40), split_of(rng)
    policy = Policy.of(graph.generate(model, split.x[:2])).changed({"*": notation})
    found = qpl(model, split, policy=policy, target_bits=target, **FAST)
    assert abs(found.average_bits("weights") - target) <= 0.1
    # Activations are 6 and 40 numbers: no widths but whole ones have an average nearer than that.
    steps = [average_bits([a, b], [6, 40]) for a in range(2, 9) for b in range(2, 9)]
    assert found.average_bits("activations") <= target + 0.1
    assert found.average_bits("activations") >= max(s for s in steps if s <= target + 0.1) - 40 / 46
    assert Policy.of(found.model) == found
    assert all(choice.letter == notation[0] for choice in found)


def test_each_role_has_a_target_of_its_own_or_none(rng):
    model, split = dense(rng, width=40), split_of(rng)
    found = qpl(model, split, target_bits={"weights": 5}, **FAST)
    assert abs(found.average_bits("weights") - 5) <= 0.1
    assert [choice.scheme for choice in found.of_role("activations")] == ["C-3", "C-3"]


def test_the_real_averages_go_to_the_target_while_widths_are_learned(rng):
    found = qpl(dense(rng, width=40), split_of(rng), target_bits=2, settled=1, strength=4.0, **FAST)
    for role in ("weights", "activations"):
        choices = found.of_role(role)
        sizes = [choice.elements for choice in choices]
        learned = [average_bits([point[c.vertex] for c in choices], sizes) for point in found.course]
        assert learned[0] == 3
        assert abs(learned[5] - 2) < 0.1
    assert len(found.course) == 7
    assert all(bits.is_integer() for bits in found.course[6].values())


def test_the_precision_loss_is_the_square_of_eq_6_with_its_gradient(rng):
    model, x = dense(rng), rng.normal(size=(2, 6)).astype(np.float32)
    qmodel = graph.generate(model, x, weights="C-3", activations="C-3")
    put_learned(qmodel, ["weights", "activations"])
    hook = PrecisionHook(qmodel, {"weights": 2.0, "activations": 3.5}, 2.0, 0.1, 0.1, learning=4)
    slots = {slot.name: slot for slot in qmodel.quantizers()}
    for number, slot in enumerate(slots.values()):
        slot.module.bits.data[...] = 2 + number
    loss = hook.penalty(SimpleNamespace(epoch=0))
    bits = {name: slot.module.bits.item() for name, slot in slots.items()}  # 2 3 4 5: input, weight, input, weight
    weights = (96 * bits["0.quant.weight"] + 32 * bits["2.quant.weight"]) / 128
    activations = (6 * bits["0.quant.input"] + 16 * bits["2.quant.input"]) / 22
    assert loss.item() == pytest.approx(2 * ((weights - 2) ** 2 + (activations - 3.5) ** 2), rel=1e-6)
    loss.backward()
    assert slots["0.quant.weight"].module.bits.grad == pytest.approx(2 * 2 * (weights - 2) * 96 / 128, rel=1e-6)
    assert slots["2.quant.input"].module.bits.grad == pytest.approx(2 * 2 * (activations - 3.5) * 16 / 22, rel=1e-6)
    assert hook.penalty(SimpleNamespace(epoch=4)) is None, "settled widths have no loss"


def test_widths_get_the_gradient_of_eq_5(rng):
    x, upstream = rng.normal(size=50), rng.normal(size=50)
    for quantizer in (WeightQuantizer("Z-3"), ActivationQuantizer("Z-3")):
        learned = LearnedBits(quantizer)
        learned.bits.data[...] = 3.4
        y = learned(Tensor(x))
        (y * upstream).sum().backward()
        expected = float((upstream * bits_gradient(x, y.data, learned.bits.item())).sum())
        assert learned.bits.grad.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("letter", ["C", "R"])
def test_another_width_begins_averages_of_its_own(rng, letter):
    learned = LearnedBits(ActivationQuantizer(f"{letter}-3"))
    first, second = Tensor(rng.normal(size=30)), Tensor(5 * rng.normal(size=30))
    learned(first)
    learned.bits.data[...] = 2.2
    assert learned.eval()(first).data.tolist() == learned.quantizer(first).data.tolist()
    assert learned.scheme.bits == 3, "evaluation uses the width that was trained"
    learned.train()(second)
    alone = ActivationQuantizer(f"{letter}-2")
    alone(second)
    assert np.array_equal(learned.eval()(first).data, alone.eval()(first).data)
    assert learned.scheme.bits == 2


def test_without_settled_epochs_the_widths_are_whole_and_fit_all_the_same(rng):
    split = split_of(rng, 60)
    found = qpl(dense(rng), split, split, target_bits=2, settled=0, bits_lr=1e-9, **FAST)  # they stay near 3
    assert found.course[-2]["0.quant.weight"] > 2.9
    assert found.average_bits("weights") == found.average_bits("activations") == 2
    assert evaluate(found.model, split).accuracy > 0.5, "averages of the new widths have begun"


def test_widths_stay_in_the_range_of_their_scheme(rng):
    split = split_of(rng, 60)
    policy = Policy.of(graph.generate(dense(rng), split.x[:2])).changed({"*.weight": "C-3", "*.input": "R-3"})
    found = qpl(dense(rng), split, policy=policy, target_bits=1, strength=50.0, bits_lr=1.0, **FAST)
    assert found.average_bits("weights") == found.average_bits("activations") == 1
    assert min(min(point.values()) for point in found.course) >= 1


@pytest.mark.parametrize("letter", "FRZCP")
def test_the_least_width_behind_a_relu_tells_positive_numbers_apart(letter):
    ramp = np.arange(64.0)
    for width in widths_of(letter, after_relu=True):
        assert len(np.unique(scheme(f"{letter}-{width}").quantize(ramp))) > 1
    assert len(np.unique(scheme("C-1").quantize(ramp))) == 1


def test_clipq_never_comes_to_one_bit_behind_a_relu(rng):
    model, split = dense(rng), split_of(rng, 60)
    policy = Policy.of(graph.generate(model, split.x[:2])).changed({"*.input": "C-1"})
    found = qpl(model, split, policy=policy, target_bits={"activations": 2}, strength=50.0, bits_lr=1.0, **FAST)
    behind = [point["2.quant.input"] for point in found.course]
    assert behind[0] == 2
    assert min(behind) >= 2
    assert found["2.quant.input"].bits >= 2
    with pytest.raises(ValueError, match=r"have from 1\.73 to 8"):  # 6 numbers of 1 bit, 16 of 2
        qpl(model, split, policy=policy, target_bits={"activations": 1.5}, **FAST)


class LoudAndQuiet(nn.Module):
    """Two layers of one size; of the second the answer hardly hears anything."""

    def __init__(self, rng, volume):
        super().__init__()
        self.loud, self.quiet, self.volume = nn.Linear(6, 6, rng=rng), nn.Linear(6, 6, rng=rng), volume

    def forward(self, x):
        return self.loud(x) + self.quiet(x) * self.volume


@pytest.mark.parametrize("volume", [0.3, 0.01])
@pytest.mark.parametrize(("notation", "target"), [("C-3", 3), ("Z-3", 3), ("C-4", 4), ("P-3", 3), ("C-3", 4)])
def test_the_layer_that_is_felt_gets_bits_of_the_one_that_is_not(rng, notation, target, volume):
    x = rng.normal(size=(240, 6)).astype(np.float32)
    split = data.Split(x, (x @ rng.normal(size=(6, 6))).argmax(axis=1))
    model = LoudAndQuiet(rng, volume)
    fit(model, split, None, 10, lr=0.1, progress=False)
    policy = Policy.of(graph.generate(model, x[:2])).changed({"*.weight": notation})
    found = qpl(model, split, policy=policy, target_bits={"weights": target}, settled=0, **FAST)
    loud, quiet = found["loud.quant.weight"].bits, found["quiet.quant.weight"].bits
    assert loud > quiet
    assert loud + quiet == 2 * target
    learned = found.course[-2]
    assert learned["loud.quant.weight"] > target + 0.5 > target - 0.5 > learned["quiet.quant.weight"]


def test_schemes_of_one_width_count_but_do_not_learn(rng):
    model, split = dense(rng, width=40), split_of(rng)
    policy = Policy.of(graph.generate(model, split.x[:2])).changed(
        {"0.quant.weight": "T-2", "2.quant.weight": "C-3", "*.input": "float"}
    )
    found = qpl(model, split, policy=policy, target_bits=3, **FAST)
    assert found["0.quant.weight"].scheme == "T-2"
    assert found.average_bits("weights") == pytest.approx(3, abs=0.1)  # 240 of 2 bits, 80 of 6
    assert found["2.quant.input"].scheme == "float"


widths = st.lists(
    st.tuples(
        st.floats(1, 8),
        st.integers(1, 100_000),
        st.sampled_from([range(1, 9), range(2, 5), range(2, 3)]),
        st.floats(-1, 100),
    ),
    min_size=1,
    max_size=8,
)


@given(widths, st.floats(1, 8))
def test_whole_widths_do_not_exceed_the_target_and_stay_in_range(rows, target):
    bits, sizes, ranges, wishes = zip(*rows)
    chosen = rounded(bits, ranges, sizes, target, wishes)
    assert all(width in r for width, r in zip(chosen, ranges))
    assert average_bits(chosen, sizes) <= max(target + 0.1, average_bits([r[0] for r in ranges], sizes)) + 1e-9
    if abs(average_bits(chosen, sizes) - target) <= 0.1 - 0.001 * len(rows):
        assert rounded(chosen, ranges, sizes, target, wishes) == chosen, "whole widths that fit are left alone"


@given(
    st.lists(
        st.tuples(st.floats(1, 8), st.integers(1, 1000), st.floats(-1, 100), st.booleans()), min_size=1, max_size=4
    )
)
@example([(2.5, 6272, 9.0, True), (3.05, 1024, 1.0, False), (3.5, 320, 1.0, False)])
@example([(2.5, 100, 0.0, True), (2.5, 100, 0.0, False), (2.4, 100, 0.0, False)])  # no wishes: that stray least
def test_of_all_widths_next_to_the_learned_ones_none_that_fit_lose_less(rows):
    bits, sizes, wishes, up = zip(*rows)
    target = average_bits([math.ceil(b) if more else math.floor(b) for b, more in zip(bits, up)], sizes)

    def lost(chosen):
        strayed = sum((b - w) ** 2 for b, w in zip(bits, chosen))
        return sum(max(f, 0.0) * 4.0**-w for f, w in zip(wishes, chosen)), strayed

    slack = 0.1 - 0.001 * len(rows)  # sizes are told apart to a thousandth of a bit at every vertex
    every = itertools.product(*({math.floor(b), math.ceil(b)} for b in bits))
    fitting = [chosen for chosen in every if abs(average_bits(chosen, sizes) - target) <= slack]
    found = rounded(bits, [range(1, 9)] * len(rows), sizes, target, wishes)
    assert abs(average_bits(found, sizes) - target) <= 0.1 + 1e-9
    assert all(abs(b - w) < 1 for b, w in zip(bits, found))
    assert lost(found) <= min(map(lost, fitting))


def test_bits_to_spare_go_where_they_are_wished_for():
    every = [range(1, 9)] * 3
    assert rounded([2.4, 2.6, 3.5], every, [1, 1, 1], target=3) == [2, 3, 4], "no wishes: to the nearest"
    assert rounded([2.5, 2.5, 2.5], every, [1, 1, 8], target=2, wishes=[3.0, 4.0, 500.0]) == [2, 3, 2]
    assert rounded([3.0, 3.0, 3.0], every, [1, 1, 8], target=2, wishes=[3.0, 4.0, 500.0]) == [2, 3, 2]
    assert rounded([4.7, 5.8, 1.7], every, [4, 2, 80], target=2, wishes=[9.0, 1.0, 900.0]) == [4, 2, 2]
    assert rounded([1.0, 1.0, 1.0], every, [1, 1, 8], target=2, wishes=[3.0, 4.0, 500.0]) == [2, 3, 2], "any more"


def test_a_wish_is_the_gradient_of_the_task_alone_and_counts_its_width(rng):
    model, x = dense(rng), rng.normal(size=(8, 6)).astype(np.float32)
    qmodel = graph.generate(model, x, weights="C-3", activations="Z-4")
    learned = put_learned(qmodel, ["weights", "activations"])
    hook = PrecisionHook(qmodel, {"weights": 2.0, "activations": 5.0}, 2.0, 0.1, 0.1, learning=4)
    loss = (qmodel.train()(Tensor(x)) ** 2).mean()
    loss.backward()
    task = {name: module.bits.grad.item() for name, module in learned.items()}
    hook.penalty(SimpleNamespace(epoch=0)).backward()
    assert all(module.bits.grad.item() != task[name] for name, module in learned.items())
    hook.after_step(SimpleNamespace(epoch=0))
    for name, wish in hook.wishes.items():
        assert wish == pytest.approx(-task[name] * (4**3 if "weight" in name else 4**4), rel=1e-3)


def test_a_language_model_learns_its_widths(rng):
    text = data.load("grammar").train[:400]
    model = models.LanguageModel(words=int(text.max()) + 1, embedding=6, hidden=5, rng=rng)
    found = qpl(model, text, text[:200], target_bits=4, epochs=2, batch_size=4, seq_len=6, lr=1.0, progress=False)
    assert abs(found.average_bits("weights") - 4) <= 0.1
    assert found.course[0]["lstm.quant.hidden"] != found.course[1]["lstm.quant.hidden"]


@pytest.mark.parametrize("notation", ["C-3", "R-3"])
@pytest.mark.parametrize("steps", [10, 16, 23])  # in epochs 1, 2 and 3 of 4, eight steps each; the last two are settled
def test_a_search_that_was_stopped_ends_with_the_same_bits(tmp_path, notation, steps):
    split = split_of(np.random.default_rng(3), 80)

    def search(path):
        model = dense(np.random.default_rng(1))
        policy = Policy.of(graph.generate(model, split.x[:2])).changed({"*": notation})
        checkpoint = {"checkpoint": tmp_path / path, "resume": True}
        return qpl(model, split, split, policy=policy, target_bits=2, settled=2, **checkpoint, **{**FAST, "epochs": 4})

    whole = search("whole.npz")
    with ctrl_c_after(steps):
        assert search("halved.npz").history.interrupted
    halved = search("halved.npz")
    assert (halved, halved.course) == (whole, whole.course)
    state, other = halved.model.state_dict(), whole.model.state_dict()
    assert all(np.array_equal(state[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("policy", "target", "told"),
    [
        ("C-3", 9, "from 1 to 8"),
        ("C-3", 0.5, r"no widths bring the weights to 0.5 bits"),
        ("P-3", 1.5, r"\(P\) have from 2 to 4"),
        ("F-8", {"activations": 1}, "no widths bring the activations to 1 bits"),
        ("C-3", {"weight": 2}, "'weight'"),
        ("C-3", {}, "no target is given"),
        ("float", 2, "no vertex is quantized"),
    ],
)
def test_a_target_that_no_width_reaches_is_refused(rng, policy, target, told):
    model, split = dense(rng), split_of(rng, 40)
    policy = Policy.of(graph.generate(model, split.x[:2])).changed({"*": policy})
    with pytest.raises(ValueError, match=told):
        qpl(model, split, policy=policy, target_bits=target, **FAST)
    with pytest.raises(ValueError, match=told):
        targets_of(policy, target)


def test_the_schemes_in_the_vertices_are_kept(rng):
    model, split = dense(rng), split_of(rng, 60)
    qmodel = graph.generate(model, split.x[:8], weights="P-3", activations="Z-4")
    found = qpl(qmodel, split, target_bits=3, **{**FAST, "epochs": 2})
    assert {choice.letter for choice in found.of_role("weights")} == {"P"}
    assert found.course[0]["2.quant.input"] == 4
    with pytest.raises(ValueError, match="settled is a number of epochs from 0 to 2"):
        qpl(qmodel, split, settled=3, **{**FAST, "epochs": 2})


def test_the_course_is_drawn(rng, tmp_path):
    found = qpl(dense(rng), split_of(rng, 40), **{**FAST, "epochs": 2})
    found.save_picture(tmp_path / "course.png")
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")
