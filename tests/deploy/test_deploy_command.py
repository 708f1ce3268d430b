"""`tinyqnn inspect` and `tinyqnn run`, as typed."""

from __future__ import annotations

import numpy as np
import pytest

from tinyqnn import cli, deploy, graph, models, quant


@pytest.fixture
def packed(tmp_path, rng):
    model = models.create("fcdnn-32-3", in_features=2, classes=2, rng=rng)
    x = rng.normal(size=(64, 2)).astype(np.float32)
    qmodel = graph.generate(model, x, weights="C-3", activations="U-4")
    quant.calibrate(qmodel, [x])
    path = tmp_path / "model.npz"
    deploy.pack(qmodel.eval()).save(path)
    return path


def test_inspect_prints_the_table(packed, capsys):
    assert cli.main(["inspect", str(packed)]) == 0
    out = capsys.readouterr().out
    assert "linear" in out
    assert "C-3" in out
    assert "U-4" in out
    assert f"file   {packed.stat().st_size:,} bytes" in out
    assert "takes  x (any, 2)" in out


def test_run_answers_and_takes_the_time(packed, capsys):
    assert cli.main(["run", str(packed), "--data", "rings", "--limit", "100", "--batch-size", "50"]) == 0
    out = capsys.readouterr().out
    assert "100 examples of rings:" in out
    assert "% right" in out
    assert "ms each, 50 at a time" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nowhere.npz"], "there is no file nowhere.npz"),
        (["run", "FILE", "--data", "rings", "--limit", "0"], "--limit is 1 or more"),
        (["run", "FILE", "--data", "rings", "--batch-size", "0"], "--batch-size is 1 or more"),
    ],
)
def test_what_goes_wrong_is_said(packed, capsys, arguments, message):
    assert cli.main([str(packed) if word == "FILE" else word for word in arguments]) == 1
    assert message in capsys.readouterr().err


def test_data_of_another_shape_is_refused(tmp_path, rng, capsys):
    x = rng.normal(size=(4, 3)).astype(np.float32)
    model = models.create("fcdnn-8-2", in_features=3, classes=2, rng=rng)
    deploy.pack(graph.generate(model, x, weights="C-3").eval()).save(tmp_path / "m.npz")
    assert cli.main(["run", str(tmp_path / "m.npz"), "--data", "rings"]) == 1
    assert "does not answer rings" in capsys.readouterr().err


def test_inspect_says_what_is_added_up_in_float(tmp_path, rng, capsys):
    model = models.create("separable-8", rng=rng)
    x = rng.normal(size=(2, 1, 28, 28)).astype(np.float32)
    packed = deploy.pack(graph.generate(model, x, weights="C-2", activations="C-2").eval())
    next(layer for layer in packed.layers if layer.name == "block1.depthwise").options["sums"] = "float32"
    deploy.Packed(packed.layers, packed.inputs, packed.outputs, packed.lengths).save(tmp_path / "m.npz")
    assert cli.main(["inspect", str(tmp_path / "m.npz")]) == 0
    assert "sums   in float32: block1.depthwise\n" in capsys.readouterr().out
