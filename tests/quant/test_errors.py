"""Bad input is refused by name, with what is allowed."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from quant_tensors import EDGES, MAIN

import tinyqnn as tq
from tinyqnn.quant import SCHEMES

WIDTHS = {"B": "1", "T": "2", "Q": "2", "F": "from 2 to 8", "R": "from 1 to 8", "Z": "from 2 to 8", "C": "from 1 to 8",
          "P": "from 2 to 4", "U": "from 1 to 8", "PACT": "from 1 to 8"}  # fmt: skip


@pytest.mark.parametrize("bits", [0, -1, 9, 32, 2.5, "3", True])
@pytest.mark.parametrize("letter", SCHEMES)
def test_widths_that_a_scheme_has_not_are_refused(letter, bits):
    with pytest.raises(ValueError, match=f"bits must be .*{WIDTHS[letter]}, got {re.escape(repr(bits))}"):
        SCHEMES[letter](bits=bits)


@pytest.mark.parametrize("letter", [letter for letter in SCHEMES if letter not in "BTQ"])
def test_a_width_must_be_given_where_there_is_a_choice(letter):
    with pytest.raises(ValueError, match="bits must be a whole number from"):
        SCHEMES[letter]()


@pytest.mark.parametrize("letter", SCHEMES)
def test_unknown_keywords_are_refused(letter):
    known = {"U": "bits, signed, levels, axis", "PACT": "bits, clip"}.get(letter, "bits, axis")
    with pytest.raises(TypeError, match=f"^{SCHEMES[letter].__name__} takes the keywords {known}; got per_channel$"):
        SCHEMES[letter](2, per_channel=True)
    with pytest.raises(TypeError, match=r"takes the keywords bits.*; got bit_width, per_channel"):
        SCHEMES[letter](2, bit_width=3, per_channel=True)


@pytest.mark.parametrize("name", ["C", "C-", "C3", "c-3", "X-3", "C-9", "P-5", "B-2", "C-0", "", " C-3", None, 3])
def test_unknown_notations_are_refused_and_the_known_ones_listed(name):
    wanted = f"unknown scheme {name!r}; there are B-1, T-2, Q-2, F-2…8, R-1…8"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        tq.quant.scheme(name)


@pytest.mark.parametrize("name", [f"{letter}-{bits}" for letter, page in SCHEMES.items() for bits in page.widths])
def test_notation_is_read_and_written_alike(name):
    if name != "U-1":
        q = tq.quant.scheme(name)
        assert q.notation == name
        assert eval(repr(q), vars(tq.quant)).notation == name
        assert tq.quant.scheme(q) is q


@pytest.mark.parametrize("q", [*MAIN, *EDGES, tq.quant.ClipQ(bits=3, axis=1)], ids=repr)
def test_what_is_printed_of_a_quantizer_makes_it_again(q):
    again = eval(repr(q), vars(tq.quant))
    assert repr(again) == repr(q)
    assert (again.bits, again.axis, again.alphabet.tolist()) == (q.bits, q.axis, q.alphabet.tolist())


@pytest.mark.parametrize("q", MAIN, ids=repr)
def test_what_cannot_be_quantized_is_refused(q):
    with pytest.raises(ValueError, match="got an empty tensor of shape \\(0, 3\\)"):
        q.quantize(np.zeros((0, 3)))
    with pytest.raises(TypeError, match="expected float32 or float64, got int64"):
        q.encode(np.arange(3))
    with pytest.raises(TypeError, match="got float16"):
        q.fit(np.zeros(3, np.float16))
    with pytest.raises(TypeError, match="takes a Tensor, got ndarray"):
        q(np.zeros(3))
    frozen = q.fit(np.array([1.0, -2.0]))
    for bad in (np.nan, np.inf, -np.inf):
        for params in (None, frozen):
            with pytest.raises(ValueError, match=r"got 2 NaN or Inf, the first at index \(0, 1\)"):
                q.encode(np.array([[1.0, bad], [bad, 2.0]]), params)


@pytest.mark.parametrize("q", MAIN, ids=repr)
def test_parameters_and_codes_of_something_else_are_refused(q):
    codes, params = q.encode(np.array([1.0, -2.0]))
    with pytest.raises(ValueError, match="are a dictionary of"):
        q.decode(codes, {"sclae": 1.0})
    with pytest.raises(ValueError, match="finite"):
        q.quantize(np.zeros(2), {name: np.full_like(value, np.nan) for name, value in params.items()})
    with pytest.raises(ValueError, match="whole numbers among"):
        q.decode(codes.astype(np.float32), params)
    with pytest.raises(ValueError, match="whole numbers among"):
        q.decode(codes.astype(np.int64) + 300, params)
    with pytest.raises(ValueError, match="not negative"):
        q.decode(codes, {**params, "scale": -1 - np.abs(params["scale"])})


def test_the_gap_in_binarys_alphabet_is_no_code():
    with pytest.raises(ValueError, match="among -1, 1, got 0"):
        tq.quant.Binary().decode(np.array([0]), {"scale": 1.0})


def test_axes_that_a_tensor_has_not_and_foreign_channels_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) has no axis 1"):
        tq.quant.ClipQ(bits=3, axis=1).fit(np.ones(3))
    with pytest.raises(TypeError, match="axis is a whole number"):
        tq.quant.ClipQ(bits=3, axis=1.0)
    q = tq.quant.ClipQ(bits=3, axis=0)
    params = q.fit(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match="does not fit a tensor of shape"):
        q.quantize(np.arange(6.0).reshape(3, 2), params)
    with pytest.raises(ValueError, match="does not fit"):
        tq.quant.ClipQ(bits=3).quantize(np.arange(6.0).reshape(2, 3), params)


def test_uniform_and_pact_refuse_forms_they_have_not():
    with pytest.raises(ValueError, match="levels must be 3 or 4 at 2 bits, got 5"):
        tq.quant.Uniform(bits=2, levels=5)
    with pytest.raises(ValueError, match="from 2 to 8 when signed, got 1"):
        tq.quant.Uniform(bits=1)
    for clip in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="clip must be a positive number"):
            tq.quant.PACT(bits=3, clip=clip)
    pact = tq.quant.PACT(bits=3)
    pact.clip.data[...] = -0.5
    with pytest.raises(ValueError, match=r"learned clip has become -0\.5"):
        pact.quantize(np.ones(3))
    with pytest.raises(ValueError, match="momentum"):
        tq.quant.ActivationQuantizer("C-3", momentum=1.0)


PAGES = [name for _, name, _ in pkgutil.iter_modules(tq.quant.__path__)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_prints_is_what_it_says(page):
    failed, tried = doctest.testmod(importlib.import_module(f"tinyqnn.quant.{page}"))
    assert failed == 0
    assert tried > 0 or page == "base"


@pytest.mark.parametrize("page", SCHEMES.values())
def test_every_page_states_codebook_encode_decode_and_gradient_in_this_order(page):
    text = inspect.getdoc(page)  # without the indentation, which Python 3.13 takes away
    words = ("\ncodebook ", "\nencode ", "\ndecode ", "\ngradient ", "Corner cases")
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert re.search(r"AutoQNN §|Holistic", text)
    assert re.search(r"Differs from (the )?released code", text)
