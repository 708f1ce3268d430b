"""Each experiment of AutoQNN runs from end to end at the smoke scale, and says of known numbers what they say."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tinyqnn import data, models, picture
from tinyqnn.papers.autoqnn import fig2, table2
from tinyqnn.papers.claims import FAILS, HOLDS, UNDECIDED, judge
from tinyqnn.papers.experiment import Cell, Report

NEEDS = {"fig2": None, "table2": None, "table5": "ag_news", "table6": "ptb"}
ACCURATE = {"float": 0.9, "Z-2/P-2": 0.88, "Z-2/P-3": 0.885, "Z-3/P-3": 0.89, "C-2/C-2": 0.86}


@pytest.mark.parametrize(("name", "dataset"), NEEDS.items())
def test_the_smoke_scale_runs_and_is_shown(name, dataset, tmp_path):
    if dataset is not None:
        try:
            data.load(dataset)
        except FileNotFoundError:
            pytest.skip(f"no {dataset} here")
    experiment = importlib.import_module(f"tinyqnn.papers.autoqnn.{name}")
    cells = []
    for config in experiment.cells("smoke"):
        cells.append(Cell(config, experiment.run(config, Report(tmp_path)), 0.0))
    assert experiment.table(cells)
    for claim in experiment.CLAIMS:
        judge(claim, cells)
    with picture.look():
        figure = picture.figure(8, 5)
        experiment.draw(cells, figure)
        picture.save(figure, tmp_path / "figure.png")


def claim(experiment, name):
    return next(found for found in experiment.CLAIMS if found.id.endswith(name))


class TestFigure2:
    cells = tuple(Cell(config, fig2.run(config, None), 0.0) for config in fig2.cells("smoke"))

    def test_the_numbers_have_mean_0_and_sd_1(self):
        for name in fig2.FITS:
            x = fig2.numbers(name, 1_000)
            assert abs(x.mean()) < 1e-12
            assert abs(x.std() - 1) < 1e-12

    def test_clipq_made_for_the_normal_distribution_is_best_there(self):
        found = fig2.place(self.cells, "C", "Normal")
        assert (found.rank, found.best) == (1, "C")
        assert judge(claim(fig2, "clipq-normal"), self.cells).verdict == HOLDS
        assert judge(claim(fig2, "ternary-normal"), self.cells).verdict == FAILS

    def test_a_distribution_that_is_missing_leaves_the_claim_open(self):
        assert judge(claim(fig2, "none-everywhere"), self.cells[:3]).verdict == UNDECIDED


class TestTable2:
    """AutoQNN prints averages without the sizes of the layers; these are the sizes they follow from."""

    @pytest.mark.parametrize(("network", "strategy"), table2.ROWS)
    def test_averages_of_weights_come_out(self, network, strategy):
        row, (weights, _) = table2.ROWS[network, strategy], table2.sizes(network)
        assert round(np.average(row.weights, weights=weights), 2) == row.printed[0]

    @pytest.mark.parametrize(("network", "strategy"), [key for key in table2.ROWS if key[0] != "AlexNet"])
    def test_averages_of_activations_come_out(self, network, strategy):
        row, (_, activations) = table2.ROWS[network, strategy], table2.sizes(network)
        assert round(np.average(row.activations, weights=activations), 2) == row.printed[1]

    def test_alexnets_activations_come_out_once_in_three(self):
        cells = [Cell(config, table2.run(config, None), 0.0) for config in table2.cells("small")]
        finding = judge(claim(table2, "activations-alexnet"), cells)
        assert (finding.verdict, finding.effect) == (FAILS, 1)

    def test_vgg_like_has_the_sizes_of_the_model(self):
        model = models.create("vgg-64", channels=3)
        weights = [p.size for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1]
        assert table2.sizes("VGG-like")[0] == weights[:-1]


class TestTable5:
    def cells(self, **changed):
        table5 = importlib.import_module("tinyqnn.papers.autoqnn.table5")
        accuracy = {policy: [value] for policy, value in {**ACCURATE, **changed}.items()}
        return table5, [Cell(table5.Config(seed=seed), {"accuracy": accuracy}, 0.0) for seed in range(3)]

    def test_half_a_point_is_less_than_one(self):
        table5, cells = self.cells(**{"Z-3/P-3": 0.895})
        finding = judge(claim(table5, "3-3"), cells)
        assert finding.verdict == HOLDS
        assert finding.effect == pytest.approx(0.5)

    def test_two_and_a_half_are_not_less_than_two(self):
        table5, cells = self.cells(**{"Z-2/P-2": 0.875})
        assert judge(claim(table5, "2-2"), cells).verdict == FAILS

    def test_a_bit_that_does_not_help_breaks_the_order(self):
        table5, cells = self.cells()
        assert judge(claim(table5, "each-bit"), cells).verdict == HOLDS
        table5, cells = self.cells(**{"Z-3/P-3": 0.884})
        assert judge(claim(table5, "each-bit"), cells).verdict == FAILS


class TestTable6:
    def test_fifteen_per_cent_of_the_float_perplexity(self):
        table6 = importlib.import_module("tinyqnn.papers.autoqnn.table6")

        def cells(*values):
            runs = [{"policy": "C-2/C-2", "valid": [value]} for value in values]
            return [Cell(table6.Config(("C-2/C-2",)), {"float": {"valid": [120.0, 100.0]}, "quantized": runs}, 0.0)]

        within = claim(table6, "within-15-percent")
        assert judge(within, cells(110, 112, 111)).verdict == HOLDS
        assert judge(within, cells(118, 117, 119)).verdict == FAILS
        assert judge(within, cells(110)).verdict == UNDECIDED
