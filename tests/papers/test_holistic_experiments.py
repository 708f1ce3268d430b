"""Every experiment of the first paper runs from end to end in seconds, and says what it is asked to say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tinyqnn import picture
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers.claims import FAILS, HOLDS, UNDECIDED, judge
from tinyqnn.papers.experiment import Cell, Report, read_config
from tinyqnn.papers.reproduce import SIZE

NAMES = [name for name in experiments.names() if name.startswith("holistic.")]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke cells of an experiment, run once."""
    kept = {}

    def run(name):
        if name not in kept:
            experiment = experiments.load(name)
            report = Report(tmp_path_factory.mktemp("cell"))
            kept[name] = [Cell(c, experiment.run(c, report), 1.0) for c in experiment.cells("smoke")]
        return experiments.load(name), kept[name]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_smoke_runs_and_its_result_is_json_that_finds_its_config_again(name, smoke):
    experiment, cells = smoke(name)
    for cell in cells:
        assert json.loads(json.dumps(cell.result, allow_nan=False)) == cell.result
        fields = json.loads(json.dumps(cell.config.__dict__))
        assert read_config(experiment, fields) == cell.config


@pytest.mark.parametrize("name", NAMES)
def test_table_and_picture_are_made_of_whatever_cells_there_are(name, smoke):
    experiment, cells = smoke(name)
    assert experiment.table(cells).strip()
    drawn = picture.figure(*getattr(experiment, "SIZE", SIZE))
    with picture.look():
        experiment.draw(cells, drawn)
    assert drawn.get_axes() or drawn.subfigs


@pytest.mark.parametrize("name", NAMES)
def test_claims_are_named_after_their_experiment_and_one_seed_decides_none_of_chance(name, smoke):
    experiment, cells = smoke(name)
    assert len({claim.id for claim in experiment.CLAIMS}) == len(experiment.CLAIMS)
    for claim in experiment.CLAIMS:
        assert claim.id.startswith(f"{name}.")
        finding = judge(claim, cells)
        assert finding.verdict in ((HOLDS, FAILS) if name in ("holistic.table1", "holistic.fig11") else (UNDECIDED,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_cells_of_chance_have_three_seeds(name, scale):
    configs = experiments.load(name).cells(scale)
    assert len(set(configs)) == len(configs)
    if name not in ("holistic.table1", "holistic.fig11"):
        networks = {tuple(v for k, v in c.__dict__.items() if k != "seed") for c in configs}
        assert len(configs) == 3 * len(networks)


class TestVerdicts:
    """Made-up cells in which a claim is plainly true, and plainly false."""

    @staticmethod
    def rings(harm):
        """Cells of figure 2 whose measures are `harm(width, depth, residual, mode)` -> (distortion, noise)."""
        from tinyqnn.papers.holistic import fig2

        cells = []
        for config in fig2.cells("small"):
            width, depth = map(int, config.network.split("-"))
            measured = {}
            for mode in ("float", "float again", "W2", "A2", "W2A2"):
                moved, noise = harm(width, depth, config.residual, mode)
                noise += 0.01 * config.seed
                wrong = moved + noise + (20 if depth == 3 and width == 128 else 0)
                measured[mode] = {"accuracy": 100 - wrong, "noise": noise, "distortion": moved, "length": 1.0}
            cells.append(Cell(config, {"measured": measured, "maps": {}}, 1.0))
        return {claim.id.split(".")[-1]: judge(claim, cells).verdict for claim in fig2.CLAIMS}

    def test_the_papers_picture_makes_every_claim_hold(self):
        def harm(width, depth, residual, mode):
            ease = 0.5 if residual else 1.0
            moved = 5000 / (width * depth**2) * ease if mode in ("W2", "W2A2") else 0.1
            noise = depth * 100 / width * (2 - ease) if mode in ("A2", "W2A2") else 0.1
            return moved, noise

        verdicts = self.rings(harm)
        assert set(verdicts.values()) == {HOLDS}, verdicts

    def test_the_opposite_makes_every_claim_about_quantization_fail(self):
        def harm(width, depth, residual, mode):
            ease = 0.5 if residual else 1.0
            moved = width * depth**2 / 1000 / ease if mode == "W2" else 0.1
            noise = {"W2": 9.0, "A2": width / depth / 50 * ease}.get(mode, 0.0)
            return moved, noise

        verdicts = self.rings(harm)
        assert verdicts.pop("float-needs-size") == HOLDS
        assert verdicts.pop("weights-distort") != UNDECIDED
        assert set(verdicts.values()) == {FAILS}, verdicts


class TestMaps:
    """The two measures tell a moved boundary from flips that stand alone."""

    def test_a_turned_map_is_distorted_and_not_noisy(self):
        from tinyqnn.papers.holistic import _rings as rings

        right, _ = rings.truth(211)
        moved = np.roll(right, 3, axis=1)  # by 0.3 of a ring's width
        measured = rings.measure(moved, right)
        assert measured.distortion > 10
        assert measured.noise < 0.5
        assert measured.length == pytest.approx(1.0, abs=0.05)

    def test_flips_that_stand_alone_are_noise_and_move_nothing(self, rng):
        from tinyqnn.papers.holistic import _rings as rings

        right, counted = rings.truth(211)
        flipped = right ^ (rng.random(right.shape) < 0.04)
        measured = rings.measure(flipped, right)
        own = rings.measure(right, right)
        assert measured.noise - own.noise == pytest.approx(100 * (flipped != right)[counted].mean(), rel=0.2)
        assert measured.distortion < 1.0
        assert measured.length > 2

    def test_both_at_once_are_told_apart(self, rng):
        from tinyqnn.papers.holistic import _rings as rings

        right, _ = rings.truth(211)
        moved = np.roll(right, 3, axis=1)
        both = moved ^ (rng.random(right.shape) < 0.04)
        alone, together = rings.measure(moved, right), rings.measure(both, right)
        assert together.distortion == pytest.approx(alone.distortion, rel=0.1)
        assert together.noise == pytest.approx(4, rel=0.15)


def test_a_pact_stands_behind_every_relu_and_nowhere_else(rng):
    from tinyqnn.models import MobileNetV2, ResNet
    from tinyqnn.papers.holistic._retrain import bounds

    images = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
    assert "conv1" not in bounds(ResNet(8, 4, rng=rng), images, 2)
    names = set(bounds(MobileNetV2(0.05, rng=rng), images, 2))
    assert "features.2.conv.0.0" not in names  # its input comes from a linear bottleneck
    assert {"features.2.conv.1.0", "features.2.conv.2"} <= names


def test_the_first_bound_has_the_least_squared_error(rng):
    from tinyqnn import nn
    from tinyqnn.papers.holistic._retrain import bounds

    model = nn.Sequential(nn.ReLU(), nn.Linear(500, 2, rng=rng))
    x = rng.normal(size=(8, 500)).astype(np.float32)
    found = bounds(model, x, 2)["1"].clip.item()
    seen = np.maximum(x, 0)

    def error(clip):
        step = clip / 3
        return float(((seen - np.clip(np.floor(seen / step + 0.5), 0, 3) * step) ** 2).sum())

    assert error(found) <= min(error(clip) for clip in np.linspace(0.5, 3.5, 61)) * 1.001
    assert math.isfinite(found)


def test_first_bounds_are_those_of_activations_in_training(rng):
    from tinyqnn import nn
    from tinyqnn.papers.holistic._retrain import bounds

    model = nn.Sequential(nn.Conv2d(3, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, rng=rng))
    images = rng.normal(size=(8, 3, 9, 9)).astype(np.float32)
    model.eval()
    found = bounds(model, images, 2)["3"].clip.item()
    norm = model[1]
    norm.running_mean[:], norm.running_var[:] = rng.normal(size=4), 1e-4  # far from the images'
    before = {name: value.copy() for name, value in model.state_dict().items()}
    assert bounds(model, images, 2)["3"].clip.item() == found
    for name, value in model.state_dict().items():  # the float network stays what it is
        np.testing.assert_array_equal(value, before[name])
    assert not model[1].training
