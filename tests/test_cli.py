"""The command line: what it shows, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyqnn import cli, quantize
from tinyqnn.data import glyphs, rings
from tinyqnn.search import Policy


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    """What is made on the spot has fewer points and images: no test here asks for more."""
    all_points, all_images = rings.load, glyphs.load
    monkeypatch.setattr(rings, "load", lambda: all_points(copies=1, side=67))
    monkeypatch.setattr(glyphs, "load", lambda: all_images(train=1200, test=200))


def run(*args: str) -> int:
    try:
        return cli.main(args)
    except SystemExit as exit:
        return exit.code


def test_alone_it_shows_what_there_is(capsys):
    assert run() == 0
    assert "tinyqnn quantize" in capsys.readouterr().out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("tinyqnn ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["quantise"], ["invalid choice", "did you mean quantize?"]),
        (["quantize", "--modle", "lenet"], ["--modle", "did you mean --model?"]),
        (["quantize", "--epochs", "many"], ["--epochs", "many"]),
        (["bench", "trainig"], ["did you mean training?"]),
    ],
)
def test_wrong_arguments_say_what_was_probably_meant(line, words, capsys):
    assert run(*line) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in [*words, "--help"])


def test_where_nothing_is_like_it_nothing_is_guessed(capsys):
    assert run("claims", "nowhere") == 2
    error = capsys.readouterr().err
    assert "choose from" in error
    assert "did you mean" not in error


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["quantize", "glpyhs"], ["glpyhs", "did you mean 'glyphs'"]),
        (["quantize", "--weights", "X-3"], ["X-3", "C-1…8"]),
        (["quantize", "--weights", "C-9"], ["C-9", "C-1…8"]),
        (["quantize", "--model", "lente"], ["lente", "did you mean 'lenet'"]),
        (["quantize", "--epochs", "0"], ["epochs", "1 or more"]),
        (["quantize", "--keep", "conv9"], ["conv9", "conv1"]),
        (["quantize", "--activations", "B-1"], ["B-1", "ReLU"]),
        (["quantize", "--target-bits", "9"], ["9 bits", "from 1 to 8"]),
        (["quantize", "--target-bits", "0.5"], ["0.5 bits", "from 1 to 8"]),
        (["quantize", "--method", "autoqnn", "--weights", "C-3"], ["--weights C-3", "autoqnn"]),
        (["quantize", "--method", "dfq", "--target-bits", "2"], ["--target-bits", "--theta"]),
        (["quantize", "--theta", "0.1"], ["--theta", "dfq"]),
        (["quantize", "--method", "policy"], ["--policy FILE"]),
        (["quantize", "--policy", "nowhere.json"], ["nowhere.json"]),
        (["quantize", "--weights", "float", "--activations", "float"], ["nothing to search for"]),
        (["quantize", "rings", "--model", "lenet"], ["LeNet", "28×28"]),
        (["quantize", "ag_news"], ["ag_news", "glyphs"]),
        (["quantize", "--resume", "nowhere"], ["nowhere", "runs/glyphs-1"]),
        (["quantize", "mnist", "--root", "nowhere"], ["mnist", "tinyqnn data mnist"]),
        (["data", "mnits"], ["mnits", "did you mean 'mnist'"]),
        (["bench", "training", "resnet21"], ["resnet21", "resnet20"]),
        (["bench"], ["training", "gemm", "--host"]),
        (["bench", "gemm", "--profile"], ["bench gemm", "leave --profile"]),
        (["bench", "first", "--picture", "x.png"], ["bench first", "--picture out"]),
        (["bench", "first", "resnet21"], ["resnet21", "resnet20"]),
    ],
)
def test_errors_name_the_thing_and_the_remedy_without_a_traceback(line, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYQNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(*line) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == [], "nothing half-written is left"


def test_words_and_options_come_in_any_order():
    lines = ("bench training resnet20 vgg --rounds 3", "bench training --rounds 3 resnet20 vgg")
    first, second = (cli.parser().parse_args(line.split()) for line in lines)
    assert first == second
    assert first.cases == ["resnet20", "vgg"]


def test_data_lists_the_sets(capsys):
    assert run("data") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("glyphs", "mnist", "cifar10", "ptb"))


SMALL = ["--epochs", "1", "--search-epochs", "1", "--retrain-epochs", "1", "--model", "fcdnn-16-3"]
SMALL += ["--batch-size", "500"]
TINY = {"model": "fcdnn-16-3", "epochs": 1, "search_epochs": 1, "retrain_epochs": 1, "batch_size": 500}


def test_the_main_job_leaves_a_folder_that_tells_the_story(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("quantize", "rings", *SMALL) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "runs" / "rings-1"
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "float.npz",
        "qss.npz",
        "qpl.npz",
        "policy.json",
        "model.npz",
        "report.png",
        "result.json",
    }
    result = json.loads((folder / "result.json").read_text())
    assert set(result["scores"]) == {"float", "quantized", "packed"}
    assert all(0 <= score["accuracy"] <= 1 for score in result["scores"].values())
    assert 1.9 <= result["totals"]["weight_bits"] <= 2.1
    assert result["totals"]["activation_bits"] <= 2.1
    assert Policy.load(folder / "policy.json").bytes == result["totals"]["bytes"]
    assert (folder / "model.npz").stat().st_size == result["packed"]["bytes"]
    assert len(result["course"]["probabilities"]) == len(result["course"]["bits"]) == 2
    assert f"{100 * result['scores']['quantized']['accuracy']:.2f} %" in shown
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")

    assert run("quantize", "rings", *SMALL, "--out", str(folder)) == 1, "another run's folder is not written into"
    assert "--resume" in capsys.readouterr().err


def test_a_policy_that_was_edited_is_applied_again(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("quantize", "rings", *SMALL, "--method", "fixed", "--target-bits", "2", "--out", str(first)) == 0
    text = (first / "policy.json").read_text()
    assert text.count('"C-2"') == 6
    edited = tmp_path / "mine.json"
    edited.write_text(text.replace('"C-2"', '"P-4"', 1))
    assert run("quantize", "rings", *SMALL, "--policy", str(edited), "--out", str(second)) == 0
    assert Policy.load(second / "policy.json") == Policy.load(edited) != Policy.load(first / "policy.json")
    assert set(json.loads((second / "result.json").read_text())["scores"]) == {
        "float",
        "not retrained",
        "quantized",
        "packed",
    }
    capsys.readouterr()
    assert run("quantize", "rings", *SMALL, "--model", "fcdnn-8-3", "--policy", str(edited)) == 1
    assert "another model" in capsys.readouterr().err


def test_widths_are_searched_for_under_a_bound(tmp_path):
    assert run("quantize", "rings", *SMALL, "--method", "dfq", "--theta", "2", "--out", str(tmp_path / "run")) == 0
    policy = Policy.load(tmp_path / "run" / "policy.json")
    assert {choice.scheme for choice in policy.of_role("activations")} == {"float"}
    assert "float" not in {choice.scheme for choice in policy.of_role("weights")}


@pytest.mark.slow
def test_baselines_are_uniform_policies_no_larger_than_the_target(tmp_path):
    line = ["--target-bits", "2", "--baselines", "--out", str(tmp_path / "run")]
    assert run("quantize", "rings", *SMALL, *line) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["policy"] for row in result["baselines"]] == [
        *("B-1/C-2", "T-2/C-2", "Q-2/C-2", "F-2/F-2", "R-2/R-2", "Z-2/Z-2", "C-2/C-2", "P-2/P-2")
    ]


def test_one_side_may_stay_float(tmp_path):
    config = quantize.configure("rings", activations="float", **TINY)
    assert (config.method, config.activations) == ("autoqnn", None)
    result = quantize.run(config, tmp_path, report=lambda line: None)
    assert result.summary.totals["activation_bits"] == 32
    assert result.summary.totals["weight_bits"] <= 2.1
    assert result.packed is None or result.packed["agree"] > 0


def test_two_runs_with_one_config_end_with_the_same_scores(tmp_path):
    config = quantize.configure("rings", **TINY)
    scores = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        scores.append(quantize.run(config, tmp_path / name, report=lambda line: None).scores)
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", ["float.npz", "qss.npz", "qpl.npz"])
def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(tmp_path, stop_at):
    line = [
        sys.executable,
        "-m",
        "tinyqnn",
        "quantize",
        "rings",
        "--epochs",
        "2",
        "--search-epochs",
        "2",
        "--retrain-epochs",
        "8",
        "--model",
        "fcdnn-32-3",
        "--batch-size",
        "200",
    ]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    subprocess.run([*line, "--out", str(whole)], check=True, capture_output=True, cwd=tmp_path)
    process = subprocess.Popen(
        [*line, "--out", str(halved)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while not (halved / stop_at).exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"--resume {halved}" in err
    subprocess.run(
        [sys.executable, "-m", "tinyqnn", "quantize", "--resume", str(halved)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (whole, halved))
    assert first["scores"] == second["scores"]
    assert first["policy"] == second["policy"]
    assert first["course"] == second["course"]


def test_a_closed_pipe_is_no_error():
    process = subprocess.run(
        f"{sys.executable} -m tinyqnn | head -n 1", shell=True, capture_output=True, text=True, env={**os.environ}
    )
    assert process.stderr == ""
    assert Path(sys.executable).exists()


def test_calibration_takes_as_many_batches_as_there_are():
    from tinyqnn.quantize.job import CALIBRATION_BATCHES, _examples

    train = glyphs.load().train
    assert [len(batch.data) for batch in _examples(train, 500)] == [500, 500, 200]
    assert len(_examples(train, 50)) == CALIBRATION_BATCHES
