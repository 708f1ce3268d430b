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
        (["quantize", "rings", "--model", "lenet"], ["LeNet", "28×28"]),
        (["quantize", "ag_news"], ["ag_news", "glyphs"]),
        (["quantize", "--resume", "nowhere"], ["nowhere", "runs/glyphs-1"]),
        (["quantize", "mnist", "--root", "nowhere"], ["mnist", "tinyqnn data mnist"]),
        (["data", "mnits"], ["mnits", "did you mean 'mnist'"]),
        (["bench", "training", "resnet21"], ["resnet21", "resnet20"]),
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


SMALL = ["--epochs", "1", "--retrain-epochs", "1", "--model", "fcdnn-16-3"]


def test_the_main_job_leaves_a_folder_that_tells_the_story(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("quantize", "rings", *SMALL) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "runs" / "rings-1"
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "float.npz",
        "quantized.npz",
        "report.png",
        "result.json",
    }
    result = json.loads((folder / "result.json").read_text())
    assert set(result["scores"]) == {"float", "not retrained", "quantized"}
    assert all(0 <= score["accuracy"] <= 1 for score in result["scores"].values())
    assert result["totals"]["weight_bits"] == 3
    assert f"{100 * result['scores']['quantized']['accuracy']:.2f} %" in shown
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")

    assert run("quantize", "rings", *SMALL, "--out", str(folder)) == 1, "another run's folder is not written into"
    assert "--resume" in capsys.readouterr().err


def test_two_runs_with_one_config_end_with_the_same_scores(tmp_path):
    config = quantize.configure("rings", model="fcdnn-16-3", epochs=1, retrain_epochs=1)
    scores = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        scores.append(quantize.run(config, tmp_path / name, report=lambda line: None).scores)
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(tmp_path):
    line = [
        sys.executable,
        "-m",
        "tinyqnn",
        "quantize",
        "rings",
        "--epochs",
        "2",
        "--retrain-epochs",
        "1",
        "--model",
        "fcdnn-32-3",
    ]
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    subprocess.run([*line, "--out", str(whole)], check=True, capture_output=True, cwd=tmp_path)
    process = subprocess.Popen(
        [*line, "--out", str(halved)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while not (halved / "float.npz").exists() and process.poll() is None:
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


def test_a_closed_pipe_is_no_error():
    process = subprocess.run(
        f"{sys.executable} -m tinyqnn | head -n 1", shell=True, capture_output=True, text=True, env={**os.environ}
    )
    assert process.stderr == ""
    assert Path(sys.executable).exists()
