"""The main job: train a float network, find out how to quantize it, train on, and say what it cost and what it saved.

    config.py     what is asked for: `Config`, the recipes, `configure`
    job.py        `run`: from the data to the packed model, to be stopped and resumed anywhere
    methods.py    the ways to a quantized network: autoqnn, dfq, fixed schemes, a policy from a file
    words.py      how it is told; report.py draws it

`run(config, folder)` leaves in the folder

    config.json      what was asked for           result.json    what came out, with versions, seeds and times
    float.npz        the float network            policy.json    the scheme and the width of every tensor
    qss.npz qpl.npz  checkpoints of the method    model.npz      the packed network
    report.png       all of it in one picture
"""

from __future__ import annotations

from tinyqnn.quantize.config import METHODS, RECIPES, Config, configure
from tinyqnn.quantize.job import Result, run
from tinyqnn.quantize.methods import Stopped
from tinyqnn.search import CarriesState

__all__ = ["METHODS", "RECIPES", "CarriesState", "Config", "Result", "Stopped", "configure", "run"]
