"""DFQ: the mixture and its gradients, which way α goes, and that a search can be stopped, trusted and read."""

from __future__ import annotations

import functools
import itertools
import operator
from collections import deque

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn import Tensor, graph, models, nn, optim, picture
from tinyqnn import functional as F
from tinyqnn.checks import gradcheck, numerical_gradient
from tinyqnn.data import Split
from tinyqnn.quant import scheme
from tinyqnn.search.branch import relax, start
from tinyqnn.search.dfq import _wider, candidates, dfq
from tinyqnn.search.dfq_found import DFQPolicy
from tinyqnn.search.dfq_step import Search
from tinyqnn.search.policy import Policy
from tinyqnn.search.relax import Branches, Mix, MixedWeight, expected_size, probabilities
from tinyqnn.train import Trainer, evaluate

PAIR = ("B-1", "C-8")


class ConvNet(nn.Module):
    """A grouped convolution that is called twice, batch norm, dropout, a linear layer with bias."""

    def __init__(self, rng):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, rng=rng)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False, rng=rng)
        self.bn, self.drop, self.fc = nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Linear(4, 3, rng=rng)

    def forward(self, x):
        x = self.conv2(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return self.fc(self.drop(F.relu(self.bn(x)).mean(axis=(2, 3))))


def images(rng, n=24):
    x = rng.normal(size=(n, 1, 6, 6)).astype(np.float32)
    return Split(x, (np.arange(n) % 3))


def points(rng, n=120):
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Split(x, ((x @ [1.0, -1.0, 0.5, 0.0]) > 0).astype(int))


def mlp(rng):
    return nn.Sequential(nn.Linear(4, 12, rng=rng), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2, rng=rng))


def relaxed(model, x, notations=PAIR, **options):
    base = graph.generate(model, x[:2])
    network, layers = relax(base, notations, **options)
    return base, network, layers


def scatter(layers, rng):
    """Some α of no special shape."""
    for layer in layers:
        layer.alpha.data[...] = rng.normal(size=layer.alpha.shape)


class TestMixture:
    def test_it_is_the_softmax_weighted_sum(self, rng):
        alpha, ys = rng.normal(size=3), rng.normal(size=(3, 2, 5))
        p = np.exp(alpha) / np.exp(alpha).sum()
        mixed = Mix.apply(Tensor(alpha), *map(Tensor, ys))
        np.testing.assert_allclose(mixed.data, np.tensordot(p, ys, 1), rtol=1e-12)

    def test_gradient(self, rng):
        alpha, a, b, c = (
            Tensor(rng.normal(size=s), requires_grad=True) for s in (3, (2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5))
        )
        b.data = b.data.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels last in memory
        assert gradcheck(Mix.apply, [alpha, a, b, c])

    @pytest.mark.parametrize("training", [False, True])
    def test_gradient_of_a_whole_network_with_respect_to_alpha(self, rng, training):
        data = images(rng)
        x, y = data.x.astype(np.float64), data.y
        model = ConvNet(rng).to(np.float64)
        model.drop = nn.Identity()
        base, network, layers = relaxed(model, x, ("B-1", "C-3", "float"))
        start(network, layers, base, Tensor(x))
        scatter(layers, rng)
        network.train(training)
        state = network.state_dict()

        def loss():
            network.load_state_dict({**state, **{k: v for k, v in network.state_dict().items() if k.endswith("alpha")}})
            return F.cross_entropy(network(Tensor(x)), y)

        loss().backward()
        for layer in layers:
            numerical = numerical_gradient(lambda: loss().item(), layer.alpha.data)
            np.testing.assert_allclose(layer.alpha.grad, numerical, rtol=1e-5, atol=1e-8)
            assert np.abs(numerical).max() > 1e-6

    def test_gradient_of_the_expected_size(self, rng):
        _, _, layers = relaxed(ConvNet(rng).to(np.float64), np.zeros((2, 1, 6, 6)), ("B-1", "C-3", "float"))
        scatter(layers, rng)
        expected_size(layers).backward()
        for layer in layers:
            numerical = numerical_gradient(lambda: expected_size(layers).item(), layer.alpha.data)
            np.testing.assert_allclose(layer.alpha.grad, numerical, rtol=1e-6)

    def test_the_expected_size_is_the_bits_of_a_weight(self, rng):
        _, _, layers = relaxed(ConvNet(rng), np.zeros((2, 1, 6, 6), np.float32))
        sizes = np.array([36, 72, 72, 12])  # conv2 is called twice, and chosen twice
        assert [layer.elements for layer in layers] == sizes.tolist()
        assert expected_size(layers).item() == 4.5
        for layer in layers[1:]:
            layer.alpha.data[...] = [30.0, -30.0]
        layers[0].alpha.data[...] = [-30.0, 30.0]
        assert expected_size(layers).item() == pytest.approx((36 * 8 + 156) / 192, rel=1e-6)

    def test_a_network_of_float_branches_is_the_float_network(self, rng):
        """B starts with the spread and the mean of the float layer: on that batch nothing has changed."""
        x = images(rng).x
        model = ConvNet(rng).eval()
        base, network, layers = relaxed(model, x, ("float", "C-8"))
        for layer in layers:
            layer.alpha.data[...] = [40.0, -40.0]
        start(network, layers, base, Tensor(x))
        for layer in layers:
            layer.home.train()  # the statistics of this very batch
        np.testing.assert_allclose(network(x).data, model(Tensor(x)).data, rtol=1e-4, atol=1e-5)

    def test_each_branch_runs_its_own_scheme(self, rng):
        x = rng.normal(size=(8, 4)).astype(np.float32)
        model = nn.Sequential(nn.Linear(4, 3, rng=rng))
        _, network, (layer,) = relaxed(model, x, ("B-1", "P-3"))
        layer.alpha.data[...] = [-40.0, 40.0]
        y = x @ scheme("P-3").quantize(model[0].weight.data).T
        expected = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
        np.testing.assert_allclose(network(x).data, expected, rtol=1e-4, atol=1e-5)

    def test_sequences_mix_their_weights(self, rng):
        model = models.LanguageModel(words=7, embedding=5, hidden=6, rng=rng)
        state = Tensor(np.zeros((1, 2, 6), np.float32))
        tokens = np.arange(6).reshape(3, 2) % 7
        base = graph.generate(model, (tokens, (state, state)), batch_axis=1)
        network, layers = relax(base, PAIR)
        assert {type(layer.home) for layer in layers} == {MixedWeight}
        assert len(layers) == 4
        scatter(layers, rng)
        for layer in layers:
            home, name = base._find(layer.vertex.replace(".quant.weight", ".weight"))[0], layer.vertex.split(".")[-1]
            name = name if name in home._parameters else f"{name}_l0"
            w = home._parameters[name]
            w.data[...] = sum(p * scheme(s).quantize(w.data) for p, s in zip(layer.p, PAIR))
        mixed, by_hand = network(tokens, (state, state))[0], base(tokens, (state, state))[0]
        np.testing.assert_allclose(mixed.data, by_hand.data, rtol=1e-5, atol=1e-6)

    def test_images_mix_their_outputs(self, rng):
        _, _, layers = relaxed(ConvNet(rng), np.zeros((2, 1, 6, 6), np.float32), keep=("fc",))
        assert [layer.feeds for layer in layers] == ["conv1", "conv2", "conv2:2"]
        assert {type(layer.home) for layer in layers} == {Branches}

    def test_probabilities_of_far_logits(self):
        assert probabilities(np.array([1e4, -1e4])).tolist() == [1.0, 0.0]


class TestStep:
    """One α-step, on its own."""

    @staticmethod
    def stepped(rng, theta):
        data = points(rng, 60)
        model = mlp(rng).to(np.float64)
        data = Split(data.x.astype(np.float64), data.y)
        base, network, layers = relaxed(model, data.x, ("B-1", "C-3"))
        start(network, layers, base, Tensor(data.x))
        scatter(layers, rng)
        search = Search(layers, data, theta, batch_size=60)
        trainer = Trainer(network, optim.Adam(network.parameters()), hooks=[search])
        network.train()
        search.before_epoch(trainer)
        before, alphas = network.state_dict(), [layer.alpha.data.copy() for layer in layers]
        search.after_step(trainer)
        grads = [layer.alpha.grad.copy() for layer in layers]
        for layer, alpha in zip(layers, alphas):
            layer.alpha.data[...] = alpha
        return network, layers, grads, data, before, search

    @staticmethod
    def at_length_1(grads):
        return [grad / np.sqrt(sum(g @ g for g in grads)) for grad in grads]

    def test_above_the_bound_it_goes_down_the_validation_loss_alone(self, rng):
        network, layers, grads, data, _, search = self.stepped(rng, theta=1e-6)
        network.eval()

        def loss():
            return F.cross_entropy(network(Tensor(data.x)), data.y).item()

        numerical = self.at_length_1([numerical_gradient(loss, layer.alpha.data) for layer in layers])
        for grad, wanted in zip(grads, numerical):
            np.testing.assert_allclose(grad, wanted, rtol=1e-5, atol=1e-8)
        assert (search.steps, search.violations) == (1, 1)

    def test_within_the_bound_it_goes_down_the_size_alone(self, rng):
        _, layers, grads, _, _, search = self.stepped(rng, theta=1e6)
        numerical = self.at_length_1(
            [numerical_gradient(lambda: expected_size(layers).item(), layer.alpha.data) for layer in layers]
        )
        for grad, wanted in zip(grads, numerical):
            np.testing.assert_allclose(grad, wanted, rtol=1e-6)
        assert (search.steps, search.violations) == (1, 0)

    @staticmethod
    def walked(theta, loss, valid, steps, batch_size):
        """α after some steps of its own, with weights that stay; and the search."""
        rng = np.random.default_rng(5)
        base, network, layers = relaxed(mlp(rng).to(np.float64), valid.x, ("B-1", "C-8"))
        start(network, layers, base, Tensor(valid.x))
        search = Search(layers, valid, theta, loss, batch_size=batch_size)
        trainer = Trainer(network, optim.Adam(network.parameters()), hooks=[search])
        search.before_epoch(trainer)
        for _ in range(steps):
            search.after_step(trainer)
        return [layer.alpha.data.tolist() for layer in layers], search

    def test_units_of_the_loss_have_no_say(self):
        """In nats or in thousands of nats: with λ → ∞ the steps are the same, down the size and down the loss."""
        x = points(np.random.default_rng(4), 60).x.astype(np.float64)
        answers = mlp(np.random.default_rng(5)).to(np.float64)(Tensor(x)).data.argmax(1)
        data = Split(x, answers)  # its own, so that eight bits are better than one
        plain, search = self.walked(0.47, F.cross_entropy, data, 120, 10)
        assert 60 < search.violations < 110
        small, _ = self.walked(0.47 / 1024, lambda outputs, y: F.cross_entropy(outputs, y) / 1024, data, 120, 10)
        np.testing.assert_allclose(small, plain, rtol=1e-6)

    def test_the_switch_asks_for_the_mean_and_not_for_most_batches(self):
        """One example in ten has all the loss: the mean is 1, above the bound, and nine batches of ten are at 0."""
        valid = Split(np.zeros((100, 4)), np.where(np.arange(100) % 10, 0, 10))
        _, search = self.walked(0.5, lambda outputs, y: outputs.sum() * 0 + float(y.mean()), valid, 200, 1)
        assert search.violations > 100

    def test_what_the_switch_asks_is_never_older_than_once_round_the_validation_data(self):
        valid = Split(np.zeros((12, 4)), np.zeros(12, int))
        assert self.walked(0.5, lambda outputs, y: outputs.sum() * 0, valid, 9, 4)[1].recent.maxlen == 3
        assert self.walked(0.5, lambda outputs, y: outputs.sum() * 0, valid, 2, 4)[1].recent == deque([0.0, 0.0])

    @pytest.mark.parametrize(
        ("schedule", "falls"), [(optim.CosineAnnealingLR(3), True), (None, True), (optim.CosineAnnealingLR(3), False)]
    )
    def test_its_rate_falls_with_that_of_the_weights_where_asked(self, rng, schedule, falls):
        data = points(rng)
        _base, network, layers = relaxed(mlp(rng), data.x)
        rates: list[tuple[float, float]] = []

        class Noting(Search):
            def after_step(self, trainer):
                super().after_step(trainer)
                rates.append(tuple(o.param_groups[0]["lr"] for o in (trainer.optimizer, self.optimizer)))

        alphas = {id(layer.alpha) for layer in layers}
        adam = optim.Adam([p for p in network.parameters() if id(p) not in alphas], lr=0.01)
        search = Noting(layers, data, 0.5, lr=0.3, falls=falls)
        Trainer(network, adam, schedule=schedule, hooks=[search], batch_size=40).fit(data, epochs=3, progress=False)
        weights, alpha = np.array(rates).T
        cosine = (1 + np.cos(np.pi * np.arange(9) / 9)) / 2
        np.testing.assert_allclose(weights, 0.01 * cosine if schedule else 0.01, rtol=1e-9)
        np.testing.assert_allclose(alpha, 0.3 * cosine if schedule and falls else 0.3, rtol=1e-9)

    @pytest.mark.parametrize("theta", [1e-6, 1e6])
    def test_it_moves_alpha_and_nothing_else(self, rng, theta):
        network, layers, _, _, before, _ = self.stepped(rng, theta)
        for name, array in network.state_dict().items():
            assert np.array_equal(array, before[name]), name
        assert all(module.training for module in network.modules())
        alphas = {id(layer.alpha) for layer in layers}
        assert all(p.requires_grad == (id(p) not in alphas) for p in network.parameters())

    def test_the_training_loss_does_not_move_alpha(self, rng):
        data = points(rng)
        _base, network, layers = relaxed(mlp(rng), data.x)
        search = Search(layers, data, 1.0)
        search.after_step = lambda trainer: None
        alphas = {id(layer.alpha) for layer in layers}
        weights = [p for p in network.parameters() if id(p) not in alphas]
        Trainer(network, optim.Adam(weights), hooks=[search], batch_size=40).fit(data, epochs=1, progress=False)
        assert all((layer.alpha.data == 0).all() and layer.alpha.grad is None for layer in layers)

    def test_validation_batches_come_round_in_new_orders(self, rng):
        data = Split(np.arange(10.0).reshape(10, 1), np.arange(10))
        _base, _, layers = relaxed(nn.Sequential(nn.Linear(1, 10, rng=rng)), np.ones((2, 1), np.float32))
        stream = Search(layers, data, 1.0, batch_size=4).valid
        seen: list[list[int]] = []
        for _ in range(6):
            stream.loss(nn.Identity(), lambda outputs, y: seen.append(y.tolist()))
        first, second = functools.reduce(operator.iadd, seen[:3], []), functools.reduce(operator.iadd, seen[3:], [])
        assert sorted(first) == sorted(second) == list(range(10))
        assert first != second


def found(rng, theta=0.45, **options):
    tq.manual_seed(3)
    data = points(np.random.default_rng(1), 200)
    settings = {"epochs": 6, "lr": 0.02, "alpha_lr": 0.1, "batch_size": 40, "progress": False, **options}
    train, valid = data.take(range(140)), data.take(range(140, 200))
    return dfq(mlp(np.random.default_rng(2)), train, valid, theta=theta, **settings), valid


class TestSearch:
    def test_with_room_to_spare_everything_becomes_narrow(self, rng):
        policy, _valid = found(rng, theta=50.0, bits=(8, 1, 32), widen=3)
        assert [c.scheme for c in policy.of_role("weights")] == ["B-1", "B-1"]
        assert [c.scheme for c in policy.of_role("activations")] == ["float", "float"]
        assert policy.history[-1]["violated"] == 0
        assert policy.keeps_bound
        assert "keeps the bound" in policy.verdict
        assert len(policy.tried) == 1  # nothing to widen
        sizes = [row["size"] for row in policy.history]
        assert all(after < before for before, after in itertools.pairwise(sizes))

    def test_what_is_returned_is_a_policy_with_its_network(self, rng):
        policy, valid = found(rng, bits=(1, 2, 4, 8), scheme="U")
        assert Policy.of(policy.model) == policy == Policy.from_json(policy.to_json())
        assert evaluate(policy.model, valid, 40).loss == policy.valid_loss == policy.tried[-1][1]
        assert policy.average_bits() == policy.tried[-1][0]
        assert policy.keeps_bound == (policy.valid_loss <= 0.45)
        row = policy.history[-1]
        assert row["epoch"] == len(policy.history) == 6
        assert row["candidates"] == ["B-1", "U-2", "U-4", "U-8"]
        assert all(sum(p) == pytest.approx(1, abs=1e-6) for p in row["probabilities"].values())
        assert row["argmax_bits"] == policy.average_bits()

    def test_a_search_whose_rate_falls_comes_to_rest(self, rng):
        def moved(**options):
            shares = [list(row["probabilities"].values()) for row in found(rng, theta=0.3, **options)[0].history]
            return np.abs(np.diff(shares, axis=0)).max(axis=(1, 2))

        swinging, resting = moved(), moved(alpha_falls=True)
        assert resting[-1] < swinging[-1] / 2
        assert resting[-1] < resting.max() / 4

    def test_retraining_has_a_rate_of_its_own_or_that_of_the_search(self, rng):
        still, _ = found(rng, retrain_lr=1e-30)
        same, _ = found(rng, retrain_lr=0.02)
        plain, _ = found(rng)
        first = "0.weight"
        one, two, three = (policy.model.state_dict()[first] for policy in (still, same, plain))
        assert np.array_equal(two, three)
        assert not np.array_equal(one, two)
        assert still.history == plain.history

    def test_a_bound_that_nothing_keeps_is_said(self, rng):
        policy, _ = found(rng, theta=1e-9, epochs=2, widen=9)
        assert not policy.keeps_bound
        assert "no policy that was tried keeps" in policy.verdict
        assert {c.scheme for c in policy.of_role("weights")} == {"C-8"}  # it was widened as far as it goes
        assert policy.history[-1]["violated"] == 1
        assert len(policy.tried) <= 3
        assert policy.tried[-1][0] == 8

    def test_the_widest_for_the_fewest_bits_comes_first(self, rng):
        base, _, layers = relaxed(mlp(rng), np.zeros((2, 4), np.float32), ("B-1", "C-4", "float"))  # 48 and 24 weights
        policy = Policy.of(base).changed({"*.quant.weight": "B-1"})
        seen = []
        while (change := _wider(policy, layers)) is not None:
            seen += change.items()
            policy = policy.changed(change)
        small, large = "3.quant.weight", "0.quant.weight"
        assert seen == [(small, "C-4"), (large, "C-4"), (small, "float"), (large, "float")]
        layers[0].alpha.data[...] = [0.0, 3.0, 0.0]  # whoever is likely to be wide may be twice as large
        assert _wider(Policy.of(base).changed({"*.quant.weight": "B-1"}), layers) == {large: "C-4"}
        assert _wider(policy, layers) is None

    def test_the_model_stays_as_it_was(self, rng):
        model, data = ConvNet(rng), images(rng)
        before = model.state_dict()
        policy = dfq(model, data, data, theta=0.5, epochs=1, keep="first", batch_size=8, progress=False)
        after = model.state_dict()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert model.training
        assert policy["conv1.quant.weight"].scheme == "float"
        assert len(policy.history[0]["probabilities"]) == 3

    def test_text(self, rng):
        model = models.LanguageModel(words=9, embedding=4, hidden=5, rng=rng)
        text = rng.integers(0, 9, 400)
        state = Tensor(np.zeros((1, 2, 5), np.float32))
        policy = dfq(
            model, text[:300], text[300:], theta=2.3, epochs=1, batch_size=4, seq_len=10, progress=False,
        )  # fmt: skip
        assert [c.feeds for c in policy.of_role("weights")] == ["embedding", "lstm", "lstm", "decoder"]
        logits, _ = policy.model(text[:6].reshape(3, 2), (state, state))
        assert logits.shape == (3, 2, 9)
        assert np.isfinite(policy.valid_loss)

    def test_drawing(self, rng):
        policy, _ = found(rng, epochs=2)
        figure = picture.figure(6, 4)
        policy.draw(figure)
        assert len(figure.axes) == 4
        assert "bound θ" in [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


class PowerCutError(Exception):
    pass


CUT = {"after": None}


def loss_until_the_cut(outputs, y):
    if CUT["after"] is not None:
        CUT["after"] -= 1
        if CUT["after"] < 0:
            raise PowerCutError
    return F.cross_entropy(outputs, y)


@pytest.mark.parametrize("after", [15, 28, 40])
def test_a_search_that_was_cut_off_ends_with_the_same_bits(rng, tmp_path, after):
    """In the second epoch of the search, later, and in the retraining."""
    CUT["after"] = None
    options = {"epochs": 3, "loss": loss_until_the_cut, "theta": 0.6}
    whole, _ = found(rng, **options)
    CUT["after"] = after
    with pytest.raises(PowerCutError):
        found(rng, folder=tmp_path, **options)
    CUT["after"] = None
    again, _ = found(rng, folder=tmp_path, resume=True, **options)
    assert again == whole
    assert again.history == whole.history
    assert again.tried == whole.tried
    one, two = again.model.state_dict(), whole.model.state_dict()
    assert all(np.array_equal(one[name], two[name]) for name in two)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"bits": ()}, "nothing to choose with 0 candidates"),
            ({"bits": (8,)}, "nothing to choose with 1 candidates"),
            ({"bits": (1, 9)}, "widths are 1 … 8 and 32"),
            ({"bits": (1, True)}, "widths are 1 … 8 and 32"),
            ({"bits": (1, "X-3")}, "unknown scheme 'X-3'"),
            ({"bits": (1, "B-1")}, "B-1 stands there twice"),
            ({"scheme": "P"}, "P-8"),
            ({"theta": 0.0}, "a number above 0, got 0.0"),
            ({"theta": -1}, "a number above 0, got -1"),
            ({"theta": float("nan")}, "a number above 0, got nan"),
            ({"theta": "0.1"}, "a number above 0, got '0.1'"),
            ({"epochs": 0}, "epochs is 1 or more"),
            ({"alpha_lr": 0.0}, "alpha_lr is above 0"),
            ({"retrain_lr": 0.0}, "retrain_lr is above 0"),
            ({"keep": ("0", "last")}, "no weight to search"),
            ({"keep": "nobody"}, "nobody is no expensive vertex"),
        ],
    )
    def test_values(self, rng, change, told):
        data = points(rng, 20)
        with pytest.raises(ValueError, match=told.replace("(", r"\(")):
            dfq(mlp(rng), data, data, **{"theta": 1.0, "progress": False, **change})

    def test_no_validation_data(self, rng):
        data = points(rng, 20)
        for nothing in (None, np.array([], int)):
            with pytest.raises(ValueError, match=r"valid: there is no such data.*validation_split"):
                dfq(mlp(rng), data, nothing, theta=1.0)

    def test_a_layer_that_has_the_name_already(self, rng):
        model = mlp(rng)
        model[0].mixed_linear_weight = nn.Identity()  # with a child, the layer is called by the name of its call
        with pytest.raises(ValueError, match="mixed_linear_weight"):
            relaxed(model, np.zeros((2, 4), np.float32))


def test_candidates_stand_narrow_first():
    assert candidates(range(1, 9), "R") == ("B-1", *(f"R-{b}" for b in range(2, 9)))
    assert candidates(("float", "T-2", 1)) == ("B-1", "T-2", "float")


def test_a_search_result_can_be_changed_as_any_policy(rng):
    policy, _ = found(rng, epochs=1)
    assert isinstance(policy, DFQPolicy)
    assert policy.changed({"3.quant.weight": "float"})["3.quant.weight"].bits == 32
