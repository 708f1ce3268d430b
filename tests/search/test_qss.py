"""QSS: the mixture's two limits and its gradient, what is found, what is recorded, and that it resumes bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from stopping import ctrl_c_after

from tinyqnn import data, graph, kernels, models, nn
from tinyqnn.checks import gradcheck
from tinyqnn.files import load_arrays
from tinyqnn.nn.module import Parameter
from tinyqnn.quant import scheme
from tinyqnn.search import Policy, qss
from tinyqnn.search.mixture import CHUNK, Mix, Mixture, soft_sample
from tinyqnn.search.qss import cooled, default_candidates
from tinyqnn.tensor import Tensor
from tinyqnn.train import evaluate

EIGHT = default_candidates()


def mixed(x, state, temperature, noise=None, names=EIGHT):
    schemes = [scheme(name) for name in names]
    noise = np.zeros(len(names)) if noise is None else noise
    return Mix.apply(
        x, state, schemes=schemes, params=[q.fit(x) for q in schemes], noise=noise, temperature=temperature
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [7, CHUNK + 5000])
def test_a_hot_mixture_is_the_plain_mean_a_cold_one_the_hard_sample(rng, dtype, size):
    x, state = rng.normal(size=size).astype(dtype), Tensor(rng.normal(size=8))
    each = np.stack([scheme(name).quantize(x) for name in EIGHT])
    noise = rng.gumbel(size=8)
    tolerance = 8 * np.finfo(dtype).eps * np.abs(each).max()
    hot = mixed(Tensor(x), state, np.inf, noise).data
    np.testing.assert_allclose(hot, each.mean(axis=0), rtol=0, atol=tolerance)
    chosen = each[(state.data + noise).argmax()]
    assert np.array_equal(mixed(Tensor(x), state, 0.0, noise).data, chosen)
    assert np.array_equal(mixed(Tensor(x), state, 1e-6, noise).data, chosen)


def test_hard_samples_come_as_often_as_their_probabilities_say(rng):
    p = np.array([0.5, 0.3, 0.2])
    drawn = sum(soft_sample(np.log(p), rng.gumbel(size=3), 0.0) for _ in range(20_000)) / 20_000
    np.testing.assert_allclose(drawn, p, atol=3 * 0.0036)  # three standard deviations


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_gradient_of_the_states_is_that_of_differences(rng, temperature):
    x, state = Tensor(rng.normal(size=(3, 4))), Tensor(rng.normal(size=8), requires_grad=True)
    noise = rng.gumbel(size=8)
    assert gradcheck(lambda s: mixed(x, s, temperature, noise), state)


class Clip:
    """A scheme without rounding: what passes straight through is then the whole truth."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def compiled(self):
        return None

    def fit(self, x):
        return {}

    def limits(self):
        return None if self.low is None else (np.array(self.low), np.array(self.high))

    def _quantized(self, x, params):
        return x * 1.0 if self.low is None else np.clip(x, self.low, self.high)


def test_the_gradient_of_the_input_is_that_of_differences_where_nothing_is_rounded(rng):
    schemes = [Clip(-1.0, 1.0), Clip(None, None), Clip(-0.2, 2.0)]
    x, state = Tensor(rng.normal(size=(5, 6)), requires_grad=True), Tensor(rng.normal(size=3), requires_grad=True)
    assert gradcheck(
        lambda x, s: Mix.apply(x, s, schemes=schemes, params=[{}] * 3, noise=np.zeros(3), temperature=0.7), [x, state]
    )


def test_gradients_are_those_of_an_autograd_tree_whatever_the_memory_layout(rng):
    x = np.ascontiguousarray(rng.normal(size=(3, 60, 50, 5))).transpose(0, 3, 1, 2)  # channels-last, over one chunk
    weights = rng.normal(size=x.shape)
    noise, temperature = rng.gumbel(size=8), 0.8
    a, s = Tensor(x, requires_grad=True), Tensor(np.zeros(8), requires_grad=True)
    y = mixed(a, s, temperature, noise)
    (y * weights).sum().backward()
    b, share = Tensor(x, requires_grad=True), soft_sample(np.zeros(8), noise, temperature)
    each = [scheme(name)(b) for name in EIGHT]
    tree = sum(q * float(part) for q, part in zip(each, share))
    (tree * weights).sum().backward()
    liked = np.array([(q.data * weights).sum() for q in each])
    np.testing.assert_allclose(s.grad, share * (liked - share @ liked) / temperature, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(y.data, tree.data, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.grad, b.grad, rtol=1e-12, atol=1e-12)
    assert y.data.strides == x.strides


def test_the_result_does_not_depend_on_the_number_of_threads(rng):
    from tinyqnn.kernels.jit import get_num_threads, set_num_threads

    x, grad, found, before = (
        rng.normal(size=100_003).astype(np.float32),
        rng.normal(size=100_003),
        [],
        get_num_threads(),
    )
    for threads in (1, 3):
        set_num_threads(threads)
        a, s = Tensor(x, requires_grad=True), Tensor(np.zeros(8, np.float32), requires_grad=True)
        y = mixed(a, s, 1.0)
        (y * grad.astype(np.float32)).sum().backward()
        found.append((y.data, a.grad, s.grad))
    set_num_threads(before)
    assert all(np.array_equal(one, three) for one, three in zip(*found))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_the_compiled_mixture_gives_the_bits_of_its_twin(rng, temperature):
    """Only what the states' gradient sums up is summed in another order."""
    x, g, found = rng.normal(size=CHUNK + 5000).astype(np.float32), rng.normal(size=CHUNK + 5000), []
    noise = rng.gumbel(size=8)
    for which in ("compiled", "reference"):
        a, s = Tensor(x, requires_grad=True), Tensor(np.zeros(8, np.float32), requires_grad=True)
        with kernels.using(which):
            y = mixed(a, s, temperature, noise)
            y.backward(g.astype(np.float32))
        found.append((y.data, a.grad, s.grad))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-4, atol=1e-3)


def test_the_temperature_falls_from_the_first_to_zero_at_the_end():
    course = [cooled(3.0, 2.0, t, 10) for t in range(11)]
    assert course[0] == 3.0
    assert course[-1] == 0.0
    assert course == sorted(course, reverse=True)


@pytest.mark.parametrize("name", ["B-1", "T-2", "Z-3", "R-3"])
def test_evaluation_uses_the_running_averages_of_the_likeliest_candidate(rng, name):
    names = ("B-1", "T-2", "Z-3", "R-3")
    mixture = Mixture(names, Parameter(np.zeros(4)), np.random.default_rng(0), "activations")
    batches = [rng.normal(size=20) * (i + 1) for i in range(3)]
    for batch in batches:
        mixture(Tensor(batch))
    mixture.state.data[names.index(name)] = 1
    from tinyqnn.quant import ActivationQuantizer

    alone = ActivationQuantizer(name)
    for batch in batches:
        alone(Tensor(batch))
    x = Tensor(rng.normal(size=20))
    assert np.array_equal(mixture.eval()(x).data, alone.eval()(x).data)
    assert mixture.scheme.notation == name


def toy(rng, count=400):
    """Only the sign of each number matters, or only its size: Binary keeps all, or nothing, of what is asked."""
    x = rng.choice([-1.0, 1.0], size=(count, 6)) * rng.choice([0.1, 1.0], size=(count, 6))
    return x.astype(np.float32)


def dense(rng):
    return nn.Sequential(nn.Linear(6, 16, rng=rng), nn.ReLU(), nn.Linear(16, 2, rng=rng))


FAST = {"epochs": 6, "lr": 0.05, "batch_size": 20, "progress": False, "state_lr": 0.1}


@pytest.mark.parametrize("fine", [True, False])
def test_the_obviously_best_scheme_is_found(rng, fine):
    """Inputs of four values ±0.1, ±1 whose sizes decide the class: one bit cannot tell them apart, three bits can."""
    x = toy(rng)
    split = data.Split(x, (np.abs(x[:, 0]) > 0.5).astype(int))
    found = qss(dense(rng), split, candidates={"activations": ["Z-2", "R-5"]}, fine=fine, keep="last", **FAST)
    assert found["0.quant.input"].scheme == "R-5"
    assert found["0.quant.weight"].scheme == "float"
    name = "0.quant.input" if fine else "activations"
    assert [len(found.course), sum(found.course[0][name].values())] == [7, 1]
    assert found.course[-1][name]["R-5"] > 0.8
    assert evaluate(found.model, split).accuracy > 0.9


def test_a_scheme_that_is_no_use_loses_among_weights(rng):
    """The answer is the sign of x₀ + x₁/4: with weights of one magnitude it cannot be told."""
    x = rng.normal(size=(600, 2)).astype(np.float32)
    split = data.Split(x, (x[:, 0] + 0.25 * x[:, 1] > 0).astype(int))
    found = qss(nn.Linear(2, 2, rng=rng), split, candidates={"weights": ["B-1", "Z-6"]}, **FAST)
    assert found["quant.weight" if len(found) == 1 else found.choices[-1].vertex].scheme == "Z-6"


def test_the_model_given_is_not_changed_and_the_policy_fits_it(rng):
    model, x = dense(rng), toy(rng)
    before = model.state_dict()
    split = data.Split(x, (x[:, 0] > 0).astype(int))
    found = qss(model, split, split, **{**FAST, "epochs": 1})
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert Policy.of(found.model) == found == Policy.of(found.apply(model, x[:2]))
    assert not any(isinstance(slot.module, Mixture) for slot in found.model.quantizers())
    letters = {slot.module.scheme.letter for slot in found.model.quantizers() if slot.name == "2.quant.input"}
    assert not letters & {"B", "T", "Q"}, "after a ReLU these are no candidates"
    assert "B-1" in found.course[0]["0.quant.input"]
    assert "B-1" not in found.course[0]["2.quant.input"]


def test_fine_search_has_a_state_a_vertex_coarse_search_one_a_role(rng):
    x = toy(rng, 40)
    split = data.Split(x, (x[:, 0] > 0).astype(int))
    fine = qss(dense(rng), split, **{**FAST, "epochs": 1})
    coarse = qss(dense(rng), split, fine=False, **{**FAST, "epochs": 1})
    assert list(fine.course[0]) == [choice.vertex for choice in fine]
    assert set(coarse.course[0]) == {"weights", "activations"}
    assert len({choice.scheme for choice in coarse.of_role("weights")}) == 1
    assert not {"B-1", "T-2", "Q-2"} & set(coarse.course[0]["activations"]), "some of them follow a ReLU"


def test_a_text_model_is_searched_with_its_embedding_and_its_hidden_state(rng):
    text = data.load("grammar").train[:600]
    model = models.LanguageModel(words=int(text.max()) + 1, embedding=6, hidden=5, rng=rng)
    candidates = {"weights": ["B-1", "C-3"], "activations": ["R-3", "C-3"]}
    found = qss(model, text, epochs=1, candidates=candidates, batch_size=4, seq_len=8, lr=1.0, progress=False)
    assert {choice.vertex for choice in found} == {
        "embedding.quant.weight",
        "lstm.quant.input",
        "lstm.quant.hidden",
        "lstm.quant.weight_ih",
        "lstm.quant.weight_hh",
        "decoder.quant.input",
        "decoder.quant.weight",
    }
    assert found.course[0] != found.course[1]
    assert found.course[1]["lstm.quant.hidden"]["R-3"] != 0.5


def test_a_search_that_was_stopped_ends_with_the_same_bits(rng, tmp_path):
    x = toy(rng, 200)
    split = data.Split(x, (np.abs(x[:, 0]) > 0.5).astype(int))
    settings = {**FAST, "epochs": 3, "resume": True}

    def search(path):
        return qss(dense(np.random.default_rng(1)), split, split, checkpoint=tmp_path / path, **settings)

    whole = search("whole.npz")
    with ctrl_c_after(14):  # in the middle of the second epoch
        assert search("halved.npz").history.interrupted
    halved = search("halved.npz")
    assert halved == whole
    assert halved.course == whole.course
    state, other = halved.model.state_dict(), whole.model.state_dict()
    assert all(np.array_equal(state[name], other[name]) for name in other)
    assert load_arrays(tmp_path / "halved.npz", kind="checkpoint")[0].keys() == (
        load_arrays(tmp_path / "whole.npz", kind="checkpoint")[0].keys()
    )
    with pytest.raises(ValueError, match="fine: True in the checkpoint, False here"):
        qss(dense(rng), split, split, checkpoint=tmp_path / "whole.npz", fine=False, **settings)


@pytest.mark.parametrize(
    ("candidates", "told"),
    [
        ([], "candidate set for weights is empty"),
        ({"weights": ["C-3"], "activations": []}, "candidate set for activations is empty"),
        ({"weights": None}, "nothing to search for"),
        ({"weight": ["C-3"]}, "'weight'"),
        (["C-3", "X-3"], "unknown scheme 'X-3'"),
        ({"activations": ["B-1", "T-2"]}, r"no candidate is left for 2\.quant\.input"),
    ],
)
def test_a_candidate_set_that_will_not_do_is_refused(rng, candidates, told):
    x = toy(rng, 40)
    with pytest.raises(ValueError, match=told):
        qss(dense(rng), data.Split(x, (x[:, 0] > 0).astype(int)), candidates=candidates, **FAST)


def test_other_slips_are_refused(rng):
    split = data.Split(toy(rng, 40), np.zeros(40, int))
    with pytest.raises(TypeError, match=r"write \['C-3'\]"):
        qss(dense(rng), split, candidates={"weights": "C-3"}, **FAST)
    with pytest.raises(ValueError, match="no tensor is left"):
        qss(dense(rng), split, keep=("0", "2"), **FAST)
    with pytest.raises(ValueError, match="'9' is no expensive vertex"):
        qss(dense(rng), split, keep="9", **FAST)
    with pytest.raises(ValueError, match="temperature"):
        qss(dense(rng), split, temperature=0, **FAST)
    with pytest.raises(TypeError, match="example="):
        qss(nn.Embedding(4, 3, rng=rng), np.arange(50) % 4, **FAST)


def test_the_course_is_drawn(rng, tmp_path):
    x = toy(rng, 40)
    found = qss(dense(rng), data.Split(x, (x[:, 0] > 0).astype(int)), **{**FAST, "epochs": 1})
    found.save_picture(tmp_path / "course.png")
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")


def test_a_graph_that_was_traced_already_is_searched_without_an_example(rng):
    x = toy(rng, 40)
    model = dense(rng)
    split = data.Split(x, (x[:, 0] > 0).astype(int))
    traced = graph.generate(model, x[:2])
    assert qss(traced, split, **{**FAST, "epochs": 1}) == qss(model, split, **{**FAST, "epochs": 1})
