"""The claims about pictures can go either way: made-up cells in which they are true, and in which they are false.

And what is committed in figures/ is what its cells say.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyqnn.papers import experiment as experiments
from tinyqnn.papers import ledger
from tinyqnn.papers.claims import FAILS, HOLDS, judge
from tinyqnn.papers.experiment import Cell

FIGURES = Path(__file__).resolve().parents[2] / "figures"


def verdicts(name, result):
    """The verdicts on small cells whose results are `result(config)`."""
    experiment = experiments.load(name)
    cells = [Cell(config, result(config), 1.0) for config in experiment.cells("small")]
    return {claim.id.split(".")[-1]: judge(claim, cells).verdict for claim in experiment.CLAIMS}


def losing(w2, a2, w2a2, float_=60.0):
    scores = {"float": float_, "W2": float_ - w2, "A2": float_ - a2, "W2A2": float_ - w2a2}
    return {"parameters": 1000, "accuracy": scores}


def figure_6(config, sign):
    """Width eases both, depth eases weights and hurts activations; or the other way round."""
    small = 8 / config.width * sign
    deep = config.depth / 14 * sign
    return losing(10 + small - deep + 0.01 * config.seed, 10 + small + deep, 20)


def figure_7(config, sign):
    return losing(5, 5 + sign * (1 - config.width), 10)


def figure_8(config, sign):
    block = {"basic": 1.0, "preact": 2.0, "depthwise": 0.5}[config.block]
    loss = sign * block * config.depth / 10
    return losing(1, 20 + loss, 20 + loss)


def table_4(config, sign):
    gain = sign * config.depth / 8
    return {
        "accuracy": {"float": 60.0, "2-bit": 50.0, "2-bit, longer": 50 + gain / 2, "2-bit (L_R + CLR)": 50.0 + gain}
    }


def table_3(config, sign):
    gains = {"W4": {"CLR": 1, "L_R": -1}, "A4": {"CLR": 0, "L_R": 1}, "8/8": {"L_R": -1, "L_R + CLR": 0}}
    found = {"float": 70.0, "W2": {"retrain": 40.0}, "A2": {"retrain": 40.0}}
    for setting in ("W4", "A4", "8/8", "6/6", "4/4", "3/3"):
        given = gains.get(setting, {"L_R": 1, "L_R + CLR": 2})
        found[setting] = {"retrain": 60.0} | {name: 60.0 + sign * gain for name, gain in given.items()}
    return {"miou": found, "maps": {}}


@pytest.mark.parametrize(
    ("name", "result"),
    [("fig6", figure_6), ("fig7", figure_7), ("fig8", figure_8), ("table4", table_4), ("table3", table_3)],
)
def test_claims_hold_where_the_paper_is_right_and_fail_where_it_is_wrong(name, result):
    right = verdicts(f"holistic.{name}", lambda config: result(config, 1))
    wrong = verdicts(f"holistic.{name}", lambda config: result(config, -1))
    assert set(right.values()) == {HOLDS}, right
    assert set(wrong.values()) == {FAILS}, wrong


@pytest.mark.parametrize("name", [name for name in experiments.names() if name.startswith("holistic.")])
def test_what_is_committed_is_what_its_cells_say(name):
    path = FIGURES / f"{ledger.stem(name)}.json"
    if not path.exists():
        pytest.skip(f"{name} has no committed result")
    record, experiment = json.loads(path.read_text(encoding="utf-8")), experiments.load(name)
    cells = ledger.read_cells(experiment, record)
    assert record["claims"] == ledger.entries(experiment, name, record["scale"], cells)
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == experiment.table(cells).rstrip("\n") + "\n"
    listed = json.loads((FIGURES / "claims.json").read_text(encoding="utf-8"))
    assert [entry for entry in listed if entry["id"].startswith(f"{name}.")] == record["claims"]
