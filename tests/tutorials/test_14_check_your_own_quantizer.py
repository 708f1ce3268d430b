"""Answers to the exercises of tutorials/14_check_your_own_quantizer.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

import tinyqnn as tq
from tinyqnn import spec

ROOT = Path(__file__).resolve().parents[2]


def definitions(page):
    return page("14", skip=["findings(", "laws_of"])


def test_1_the_law_of_ties_finds_a_round_in_pact():
    def pact(x, rounded):
        return (2.0 * rounded(np.clip(x, 0, 6) / 2)).astype(x.dtype)

    right = spec.check(lambda x: pact(x, lambda u: np.floor(u + 0.5)), "PACT-2", examples=50)
    wrong = spec.check(lambda x: pact(x, np.round), "PACT-2", examples=50)
    assert right.passed
    assert wrong.failed == {"breaks_ties_as"}


def test_2_one_number_shows_that_f_3_is_not_odd(page):
    names = definitions(page)

    def odd(quantize, x):
        return np.array_equal(quantize(-x), -quantize(x))

    f3 = tq.quant.scheme("F-3").quantize
    shown = names["small"](odd, f3, names["broken_by"](odd, f3))
    assert len(shown) == 1
    # One of the eight codes is 0, and seven cannot be shared out evenly: there is a −4 and no 4.
    assert sorted(np.abs([f3(shown)[0], f3(-shown)[0]]) / tq.quant.scheme("F-3").fit(shown)["scale"]) == [3.0, 4.0]
    assert names["broken_by"](odd, tq.quant.scheme("U-3").quantize) is None


def test_3_a_useless_quantizer_keeps_all_laws_that_have_no_scheme():
    assert spec.check(lambda x: x * 0, bits=3, examples=50).passed
    assert not spec.check(lambda x: x * 0, "F-3", examples=50).passed


def test_the_page_finds_nine_levels_with_nine_numbers(page):
    names = definitions(page)

    def forgot_the_clip(x):
        step = 2.0 ** (np.ceil(np.log2(np.abs(x).max())) - 2)
        return step * np.round(x / step)

    few = names["few_levels"]
    shown = names["small"](few, forgot_the_clip, names["broken_by"](few, forgot_the_clip))
    assert len(shown) == len(np.unique(forgot_the_clip(shown))) == 9


def test_the_witnesses_in_the_picture_are_witnesses(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "figures"))
    spec_ = importlib.util.spec_from_file_location("mistakes_figure", ROOT / "figures" / "tutorial_14_mistakes.py")
    figure = importlib.util.module_from_spec(spec_)
    monkeypatch.setitem(sys.modules, spec_.name, figure)
    spec_.loader.exec_module(figure)
    f3 = tq.quant.scheme("F-3").quantize
    for wrong, x in (
        (figure.forgot_the_clip, [7.5]),
        (figure.rounded_the_exponent_up, [1.0]),
        (figure.rounds_ties_to_even, [0.5, 2.0]),
    ):
        assert wrong(np.array(x))[0] != f3(np.array(x))[0]
