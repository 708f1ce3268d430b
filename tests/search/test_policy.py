"""A policy can be read, edited and applied again; it counts as `graph.cost` does, and says what is wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tinyqnn import functional as F
from tinyqnn import graph, models, nn
from tinyqnn.search import Policy
from tinyqnn.tensor import Tensor


def lenet(rng):
    model = models.create("lenet-bn", rng=rng)
    return model, rng.random((2, 1, 28, 28), np.float32)


def words(rng, length=5):
    model = models.LanguageModel(words=11, embedding=6, hidden=4, rng=rng)
    state = Tensor(np.zeros((1, 2, 4), np.float32)), Tensor(np.zeros((1, 2, 4), np.float32))
    return model, (rng.integers(0, 11, (length, 2)), state)


MIXED = {
    "conv1.quant.weight": "P-4",
    "conv2.quant.weight": "R-3",
    "conv2.quant.input": "Z-5",
    "fc1.quant.weight": "T-2",
    "fc2.quant.*": "float",
    "fc3.quant.weight": "float",
}


def mixed(rng):
    model, x = lenet(rng)
    return model, x, Policy.of(graph.generate(model, x, weights="C-3", activations="C-3")).changed(MIXED)


def test_what_is_applied_is_what_the_policy_says(rng):
    model, x, policy = mixed(rng)
    qmodel = policy.apply(model, x)
    assert Policy.of(qmodel) == policy
    inside = {slot.name: slot.module.scheme.notation for slot in qmodel.quantizers()}
    assert inside == {c.vertex: c.scheme for c in policy if c.scheme != "float"}


def test_averages_bytes_and_compression_are_those_of_graph_cost(rng):
    model, x, policy = mixed(rng)
    counted = graph.cost(policy.apply(model, x))
    assert [policy.average_bits(role) for role in ("weights", "activations")] == [
        counted.average_bits(role) for role in ("weights", "activations")
    ]
    assert (policy.bytes, policy.float32_bytes) == (counted.bytes, counted.float32_bytes)
    assert policy.compression == counted.float32_bytes / counted.bytes


def test_a_weight_of_two_layers_is_stored_once(rng):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4, rng=rng), nn.Linear(4, 4, rng=rng)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(F.relu(self.one(x)))

    qmodel = graph.generate(Tied(), rng.normal(size=(2, 4)).astype(np.float32), weights="C-3", activations="C-3")
    policy, counted = Policy.of(qmodel), graph.cost(qmodel)
    assert (policy.bytes, policy.float32_bytes) == (counted.bytes, counted.float32_bytes)
    assert len(policy) == 4


def test_a_layer_called_twice_with_one_call_kept_float(rng):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4, rng=rng)

        def forward(self, x):
            return self.fc(F.relu(self.fc(x)))

    model, x = Twice(), rng.normal(size=(2, 4)).astype(np.float32)
    policy = Policy.of(graph.generate(model, x, weights="C-3", activations="C-4", keep="first"))
    assert [c.scheme for c in policy] == ["float", "float", "C-4", "C-3"]
    assert Policy.of(policy.apply(model, x)) == policy


def test_an_lstm_may_mix_schemes_and_floats_within_one_layer(rng):
    model, example = words(rng)
    qmodel = graph.generate(model, example, weights="C-3", activations="C-3", batch_axis=1)
    policy = Policy.of(qmodel).changed(
        {"lstm.quant.weight_ih": "float", "lstm.quant.weight_hh": "P-4", "lstm.quant.hidden": "F-6"}
    )
    applied = policy.apply(model, example, batch_axis=1)
    assert Policy.of(applied) == policy
    assert graph.cost(applied).bytes == policy.bytes
    applied.eval()(*example)  # averages have started for the scheme that was put in last


def test_a_text_of_another_length_fits_an_image_of_another_size_does_not(rng):
    model, example = words(rng)
    policy = Policy.of(graph.generate(model, example, weights="C-3", activations="C-3", batch_axis=1))
    longer = words(rng, length=9)[1]
    assert [c.scheme for c in Policy.of(policy.apply(model, longer, batch_axis=1))] == [c.scheme for c in policy]

    conv = nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng), nn.Conv2d(2, 2, 3, rng=rng))
    small, large = rng.random((2, 1, 8, 8), np.float32), rng.random((2, 1, 9, 9), np.float32)
    with pytest.raises(ValueError, match="another model") as told:
        Policy.of(graph.generate(conv, small, activations="C-3")).apply(conv, large)
    assert "0.quant.input: 64 elements in the policy, 81 in the model" in str(told.value)


def test_a_quantized_network_is_given_another_policy_with_its_weights_as_learned(rng):
    model, x, policy = mixed(rng)
    qmodel = graph.generate(model, x, weights="B-1", activations="C-1")
    qmodel.state("fc1.weight")[:] *= 2
    again = policy.apply(qmodel, x)
    assert np.array_equal(again.state("fc1.weight"), 2 * model.fc1.weight.data)
    assert Policy.of(again) == policy


def test_text_and_back(rng, tmp_path):
    _, _, policy = mixed(rng)
    text = policy.to_json()
    assert Policy.from_json(text) == policy
    assert Policy.from_json(json.dumps(json.loads(text))) == policy, "the layout of the text does not matter"
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    with pytest.raises(FileExistsError):
        policy.save(tmp_path / "policy.json")


def test_the_file_can_be_edited_by_hand(rng, tmp_path):
    model, x, policy = mixed(rng)
    (line,) = [line for line in policy.to_json().splitlines() if '"fc1.quant.weight"' in line]
    (tmp_path / "policy.json").write_text(policy.to_json().replace(line, line.replace("T-2", "C-5")))
    edited = Policy.load(tmp_path / "policy.json")
    assert edited == policy.changed({"fc1.quant.weight": "C-5"}) != policy
    assert edited.apply(model, x)._slots["fc1.quant.weight"].module.scheme.notation == "C-5"


def edit(text, change):
    content = json.loads(text)
    change(content, content["vertices"])
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c, v: c.update(format="a recipe"), "format"),
        (lambda c, v: c.update(version=2), "version 2; this tinyqnn reads version 1"),
        (lambda c, v: c.pop("floats"), "the policy: the field 'floats' is missing"),
        (lambda c, v: c.update(note="mine"), "unknown field 'note'"),
        (lambda c, v: c.update(vertices=[]), "vertices is an object"),
        (lambda c, v: v["fc1.quant.weight"].update(bits=3), "fc1.quant.weight: unknown field 'bits'"),
        (lambda c, v: v["fc1.quant.weight"].pop("role"), "fc1.quant.weight: the field 'role' is missing"),
        (lambda c, v: v["fc1.quant.weight"].update(role="bias"), "role is weights or activations"),
        (lambda c, v: v["fc1.quant.weight"].update(elements="48000"), "elements is a whole number"),
        (lambda c, v: v["fc1.quant.weight"].update(elements=True), "elements is a whole number"),
        (lambda c, v: v["fc1.quant.weight"].update(elements=0), "elements is 1 or more"),
        (lambda c, v: v.update({"fc1.quant.weight": "C-3"}), "a vertex is an object"),
        (lambda c, v: v["fc1.quant.weight"].update(scheme="X-3"), "fc1.quant.weight: unknown scheme 'X-3'"),
        (lambda c, v: v["fc1.quant.weight"].update(scheme="C"), "unknown scheme 'C'"),
        (lambda c, v: v["fc1.quant.weight"].update(scheme="C-²"), "unknown scheme"),
        (lambda c, v: v["fc1.quant.weight"].update(scheme="P-5"), r"P \(PotQ\) has 2 to 4 bits, got 5"),
        (lambda c, v: v["fc1.quant.weight"].update(scheme="B-2"), r"B \(Binary\) has 1 bits, got 2"),
    ],
)
def test_a_damaged_policy_is_refused_with_what_and_where(rng, change, told):
    text = edit(mixed(rng)[2].to_json(), change)
    with pytest.raises(ValueError, match=told):
        Policy.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format": "tinyqnn policy", "format": 1}', "[" * 100_000])
def test_what_is_no_policy_is_refused(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json: "):
        Policy.load(tmp_path / "p.json")


def test_what_is_no_file_of_a_policy_is_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*nowhere\.json$"):
        Policy.load(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="is a folder, expected a policy"):
        Policy.load(tmp_path)
    (tmp_path / "long.json").write_text(" " * 100)
    with pytest.raises(ValueError, match="100 bytes, more than the 99 believed of a policy"):
        Policy.load(tmp_path / "long.json", max_bytes=99)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c, v: v.pop("fc1.quant.weight"), "fc1.quant.weight: in the model, not in the policy"),
        (lambda c, v: v.update(fc9=v["fc1.quant.weight"]), "fc9: in the policy, not in the model"),
        (lambda c, v: v["fc1.quant.weight"].update(elements=7), "7 elements in the policy, 48,000 in the model"),
        (lambda c, v: v["fc1.quant.weight"].update(role="activations"), "fc1.quant.weight: activations in the policy"),
        (lambda c, v: v["fc1.quant.weight"].update(feeds="fc2"), "fc1.quant.weight: feeds fc2 in the policy"),
    ],
)
def test_a_policy_for_another_model_is_refused(rng, change, told):
    model, x, policy = mixed(rng)
    edited = Policy.from_json(edit(policy.to_json(), change))
    with pytest.raises(ValueError, match="another model") as error:
        edited.apply(model, x)
    assert told in str(error.value)


def test_a_scheme_that_does_not_follow_relu_is_refused(rng):
    model, x, policy = mixed(rng)
    with pytest.raises(ValueError, match="ReLU"):
        policy.changed({"fc1.quant.input": "T-2"}).apply(model, x)


def test_schemes_with_more_than_a_notation_are_refused(rng):
    from tinyqnn.quant import ClipQ

    model, x = lenet(rng)
    with pytest.raises(ValueError, match="axis=0"):
        Policy.of(graph.generate(model, x, weights=ClipQ(3, axis=0)))


def test_changing_names_what_there_is(rng):
    _, _, policy = mixed(rng)
    with pytest.raises(ValueError, match=r"'conv9\.\*' fits no vertex; there are conv1"):
        policy.changed({"conv9.*": "C-3"})
    with pytest.raises(KeyError, match="conv1"):
        policy["conv9"]
