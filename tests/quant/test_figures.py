"""What figures and pages say about the schemes is what the schemes do."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn.bench import quantizing, roofline, training
from tinyqnn.search.mixture import Mixture
from tinyqnn.spec.laws import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "figures" / "quantizers").glob("*.json"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_scheme_has_a_picture_beside_its_source():
    shown = {json.loads(file.read_text(encoding="utf-8"))["scheme"].split("(")[0] for file in PICTURES}
    assert shown == {page.__name__ for page in tq.quant.SCHEMES.values()}
    for file in PICTURES:
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert file.with_suffix(".py").exists()


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_the_edges_in_a_picture_are_the_schemes(file):
    shown = json.loads(file.read_text(encoding="utf-8"))
    q = eval(shown["scheme"], vars(tq.quant))
    params = {name: np.array(value) for name, value in shown["params"].items()}
    assert shown["edges"]
    for edge in shown["edges"]:
        x = np.array([edge["x"] - 1e-9, edge["x"], edge["x"] + 1e-9])
        below, at, above = q.quantize(x, params).tolist()
        assert (below, above) == (edge["below"], edge["above"])
        assert edge["at"] in (None, at)
    assert len(shown["edges"]) == len(np.unique(q.codebook(params))) - 1
    limits = q.limits(**params)
    assert shown["gradient_limits"] == (None if limits is None else [float(v) for v in limits])


@pytest.mark.slow
def test_the_page_of_differences_prints_what_it_says_and_names_laws_that_there_are(monkeypatch):
    runner = load(ROOT / "tutorials" / "run.py")
    page = ROOT / "tutorials" / "differences.md"
    assert runner.run(page) == 3
    table = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
    named = {law for line in table for law in re.findall(r"`(\w+)`", line.split("|")[-2])}
    assert named <= set(BY_NAME)
    schemes = {line.split("|")[1].strip() for line in table}
    assert {page.__name__ for page in tq.quant.SCHEMES.values()} - {"PACT", "Uniform"} <= schemes


def test_the_quantized_step_that_is_timed_has_quantizers_on_every_layer():
    case = training.Case("fcdnn", "small", "fcdnn-8-4", (16, 2), 2)
    steps = quantizing.steps(case)
    with roofline.Spotter() as seen:
        losses = [step() for step in steps.values() for _ in range(2)]
    assert all(np.isfinite(losses))
    assert len(set(losses)) == len(losses) == 6
    counts = {kind: training.Measured(seconds) for kind, seconds in zip(steps, ([2, 2], [3, 2.2], [6, 4]))}
    assert [quantizing.ratio(counts, kind) for kind in steps] == pytest.approx([1, 1.3, 2.5])
    assert "5000.0 ms    2.50" in quantizing.table({"vgg": quantizing.record(counts)})
    assert any(name == "StraightThrough" for name, *_ in seen.times)
    searching = steps["QSS"].__closure__[list(steps["QSS"].__code__.co_freevars).index("model")].cell_contents
    assert sum(isinstance(module, Mixture) for module in searching.modules()) == 2 * 4
    quantized = steps["C-3"]
    model = quantized.__closure__[list(quantized.__code__.co_freevars).index("model")].cell_contents
    slots = [m for m in model.modules() if isinstance(m, (tq.quant.WeightQuantizer, tq.quant.ActivationQuantizer))]
    assert len(slots) == 2 * 4
