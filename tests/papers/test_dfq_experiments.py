"""The experiments on DFQ: what they count, that each runs whole at its smallest, and that the ledger decides them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tinyqnn
from tinyqnn import picture
from tinyqnn.models import Separable
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers import ledger
from tinyqnn.papers.claims import FAILS, HOLDS, judge
from tinyqnn.papers.dfq import fig1, table1_cifar10, table1_mnist
from tinyqnn.papers.dfq._cells import compression
from tinyqnn.papers.dfq._table1 import searches
from tinyqnn.papers.dfq._vgg16 import VGG16
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.reproduce import SIZE
from tinyqnn.search.dfq_found import DFQPolicy
from tinyqnn.search.policy import Choice, Policy
from tinyqnn.train import Trainer

NAMES = ("dfq.fig1", "dfq.lstm", "dfq.table1_cifar10", "dfq.table1_mnist")
FIGURES = Path(tinyqnn.__file__).resolve().parents[1] / "figures"


def policy(*bits: str) -> Policy:
    sizes = (150, 2400, 48000, 10080, 840)
    rows = [(f"l{i}", scheme, n) for i, (scheme, n) in enumerate(zip(bits, sizes))]
    return Policy(tuple(Choice(f"{name}.quant.weight", b, "weights", name, f"{name}.weight", n) for name, b, n in rows))


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_whole_at_its_smallest(name, tmp_path):
    experiment = experiments.load(name)
    configs = experiment.cells("smoke")
    cells = [Cell(c, json.loads(json.dumps(experiment.run(c, Report(tmp_path)))), 0.0) for c in configs[:1]] * 3
    assert all(claim.id.startswith(f"{name}.") for claim in experiment.CLAIMS)
    assert all(judge(claim, cells).seeds == 3 for claim in experiment.CLAIMS)
    assert experiment.table(cells).count("\n") > 5
    figure = picture.figure(*getattr(experiment, "SIZE", SIZE))
    experiment.draw(cells, figure)
    assert figure.axes
    small = [c.seed for c in experiment.cells("small")]
    assert len(set(small)) == len(small) >= 3 == len({c.seed for c in configs})
    assert experiment.cells("paper")


@pytest.mark.parametrize("name", NAMES)
def test_the_ledger_says_what_the_results_say(name):
    """Decided anew from the committed cells."""
    path = FIGURES / f"{ledger.stem(name)}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not in this copy")
    record, experiment = json.loads(path.read_text(encoding="utf-8")), experiments.load(name)
    cells = ledger.read_cells(experiment, record)
    assert ledger.entries(experiment, name, record["scale"], cells) == record["claims"]
    assert experiment.table(cells).rstrip() == path.with_suffix(".txt").read_text(encoding="utf-8").rstrip()
    assert {cell.config for cell in cells} == set(experiment.cells(record["scale"]))


def test_compression_is_counted_as_the_paper_counts_it():
    assert compression(policy(*["B-1"] * 5)) == 32
    assert compression(policy(*["C-8"] * 5)) == 4
    assert compression(policy(*["float"] * 5)) == 1
    assert compression(policy("C-8", *["B-1"] * 4)) == pytest.approx(32 * 61470 / (61470 + 7 * 150))


@pytest.mark.parametrize("bits", [("C-8", "C-4", "C-2", "C-3", "C-8"), ("B-1", "B-1", "C-3", "C-8", "C-5")])
def test_a_random_policy_has_the_size_of_the_other(rng, bits):
    own, drawn = policy(*bits), [fig1.random_policy(policy(*bits), rng) for _ in range(8)]
    assert all(0.97 <= compression(own) / compression(other) <= 1 for other in drawn)
    assert own not in drawn
    assert len(set(drawn)) > 4


@pytest.mark.parametrize("scheme", ["B-1", "C-8"])
def test_beside_a_policy_that_is_alone_of_its_size_stands_the_policy_itself(rng, scheme):
    own = policy(*[scheme] * 5)
    assert fig1.random_policy(own, rng, within=0.0) == own


def test_between_uniform_widths_accuracy_lies_on_a_line_in_the_logarithm():
    points = [{"compression": 4, "accuracy": 90.0}, {"compression": 16, "accuracy": 80.0}]
    assert [fig1.at(points, times) for times in (2, 4, 8, 16, 32)] == [90, 90, 85, 80, 80]


def test_the_pareto_front():
    points = [{"compression": c, "accuracy": a} for c, a in ((4, 90), (8, 91), (16, 85), (16, 84), (32, 80))]
    assert fig1.pareto(points).tolist() == [False, True, True, False, True]


def test_vgg16_has_thirteen_convolutions():
    model = VGG16(width=64)
    assert sum(p.ndim == 4 for p in model.parameters()) == 13
    assert model(tinyqnn.Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape == (1, 10)


def test_all_small_layers_of_the_mnist_network_may_have_8_bits_and_nothing_else_beside_them():
    (config, *_) = table1_mnist.cells("small")
    model = Separable(config.width, stride=2)
    shapes = {name.removesuffix(".weight"): p.shape for name, p in model.named_parameters() if p.ndim > 1}

    def times(*wide):
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        return 32 * sum(sizes.values()) / sum(size * (8 if name in wide else 1) for name, size in sizes.items())

    small = sorted((name for name, shape in shapes.items() if shape[-2:] == (3, 3)), key=lambda name: shapes[name])
    assert small == ["stem", "block1.depthwise", "block2.depthwise"]
    assert times(*small) > 28
    assert all(times(*small, other) < 28 for other in shapes if other not in small)
    assert model.stem(tinyqnn.Tensor(np.zeros((1, 1, 28, 28), np.float32))).shape == (1, config.width, 14, 14)


def test_a_bound_that_no_policy_keeps_stands_in_the_table():
    kept = DFQPolicy(policy(*["B-1"] * 5).choices, theta=0.2, valid_loss=0.1, tried=((1.0, 0.3), (1.2, 0.1)))
    broken = DFQPolicy(kept.choices, theta=0.05, valid_loss=0.1, tried=kept.tried)
    layers = {"layers": [["a", 9, "C-8"], ["b", 9, "B-1"]]}
    losses = {"float": {"valid_loss": 0.02}, "binary": {"valid_loss": 0.4}}
    cells = [
        Cell(table1_mnist.Config(seed), {"ours": layers, "verdict": found.verdict, **losses}, 0.0)
        for seed, found in enumerate((kept, broken))
    ]
    first, second = searches(cells).split("seed 1")
    assert "keeps the bound: validation loss 0.1 ≤ θ = 0.2" in first
    assert "no policy that was tried keeps θ = 0.05" in second
    assert first.count("a C-8") == second.count("a C-8") == 1


def test_all_networks_of_table_1_are_trained_alike(monkeypatch, tmp_path):
    """As long, and in the same pieces: Adam and the cosine begin anew where the search ends."""
    config = table1_mnist.Config(0, search_epochs=3, retrain_epochs=2, widen=4)
    assert config.pieces == (3, 5 * 2)
    seen, fit = [], Trainer.fit

    def noted(trainer, train, valid, epochs, *args, **more):
        group = trainer.optimizer.param_groups[0]
        seen.append((type(trainer.optimizer), group["lr"], trainer.schedule, trainer.batch_size, trainer.seed, epochs))
        return fit(trainer, train, valid, epochs, *args, **more)

    monkeypatch.setattr(Trainer, "fit", noted)
    config = table1_mnist.Config(0, "noise-mnist", 4, 50, 25, 25, 25, 1, 2, 1, 0, search_lr=0.002, retrain_lr=0.004)
    table1_mnist.run(config, Report(tmp_path))
    pieces = list(zip(seen[1::2], seen[2::2]))
    assert len(pieces) == 4
    assert len(set(pieces)) == 1
    assert [(piece[1], piece[-1]) for piece in pieces[0]] == [(0.002, 2), (0.004, 1)]


def outcome(ours, binary, times, floating=98.0):
    rows = {"float": (floating, 1), "8-bit": (97.9, 4), "ours": (ours, times), "binary": (binary, 32)}
    layers = [[f"l{i}", 10, "C-8" if i in (0, 5) else "B-1"] for i in range(6)]
    return {m: {"accuracy": a, "compression": c, "layers": layers} for m, (a, c) in rows.items()}


@pytest.mark.parametrize(
    ("ours", "times", "verdicts"),
    [
        (97.8, 29.0, {"compression": HOLDS, "near-float": HOLDS, "above-binary": HOLDS, "all-at-once": HOLDS}),
        (97.8, 27.0, {"compression": FAILS, "near-float": HOLDS, "above-binary": HOLDS, "all-at-once": FAILS}),
        (96.5, 30.0, {"compression": HOLDS, "near-float": FAILS, "above-binary": FAILS, "all-at-once": FAILS}),
    ],
)
def test_mnist_claims_can_go_either_way(ours, times, verdicts):
    cells = [Cell(table1_mnist.Config(seed), outcome(ours + 0.01 * seed, 97.0, times), 0.0) for seed in range(3)]
    found = {claim.id.rpartition(".")[2]: judge(claim, cells).verdict for claim in table1_mnist.CLAIMS}
    assert {name: found[name] for name in verdicts} == verdicts


@pytest.mark.parametrize(
    ("ours", "times", "verdicts"),
    [
        (
            98.8,
            31.0,
            {"close-to-binary": HOLDS, "above-binary": HOLDS, "far-above-binary": HOLDS, "middle-layers": HOLDS},
        ),
        (97.8, 30.0, {"close-to-binary": HOLDS, "above-binary": HOLDS, "far-above-binary": FAILS}),
        (96.5, 29.0, {"close-to-binary": FAILS, "above-binary": FAILS, "far-above-binary": FAILS}),
    ],
)
def test_cifar_claims_can_go_either_way(ours, times, verdicts):
    cells = [Cell(table1_cifar10.Config(seed), outcome(ours + 0.01 * seed, 97.0, times), 0.0) for seed in range(3)]
    found = {claim.id.rpartition(".")[2]: judge(claim, cells).verdict for claim in table1_cifar10.CLAIMS}
    assert {name: found[name] for name in verdicts} == verdicts
