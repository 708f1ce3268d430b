"""The gallery shows every picture, and no picture is without its source."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "figures"
PICTURES = sorted(FIGURES.rglob("*.png"))

_spec = importlib.util.spec_from_file_location("figures_gallery", FIGURES / "gallery.py")
gallery = importlib.util.module_from_spec(_spec)
sys.modules["figures_gallery"] = gallery
_spec.loader.exec_module(gallery)


def test_every_picture_has_a_source_and_every_source_a_picture():
    assert {one.picture for one in gallery.entries()} == set(PICTURES)


def test_the_gallery_is_up_to_date():
    assert (FIGURES / "README.md").read_text(encoding="utf-8") == gallery.text(), "run python figures/gallery.py"


def test_its_links_lead_somewhere():
    page = (FIGURES / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", page):
        assert (FIGURES / target).exists(), f"the gallery links to {target}, which is not there"


def test_what_it_says_in_its_docstrings_is_so():
    assert doctest.testmod(gallery).failed == 0


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_is_light_and_no_wider_than_a_page_shows(picture):
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") <= 1600
    assert len(content) < 800_000


def a_house(tmp_path):
    """A project of one picture with a script, and one of an experiment."""
    for folder in ("figures/quantizers", "tutorials", "tinyqnn/papers/dfq"):
        (tmp_path / folder).mkdir(parents=True)
    figures = tmp_path / "figures"
    (figures / "bars.py").write_text('"""Bars.\n\npython figures/bars.py    a minute\n"""\n')
    (figures / "bars.png").write_bytes(b"")
    record = {"experiment": "dfq.fig1", "scale": "small", "seconds": 700.0}
    (figures / "dfq_fig1.json").write_text(json.dumps(record))
    (figures / "dfq_fig1.png").write_bytes(b"")
    (tmp_path / "tinyqnn/papers/dfq/fig1.py").write_text('"""Figure 1: sizes\n\nmore\n"""\n')
    (tmp_path / "tutorials/07_bits.md").write_text("![five bars](../figures/bars.png)\n")
    return tmp_path


def test_a_picture_is_shown_with_its_meaning_source_command_and_time(tmp_path):
    page = gallery.text(a_house(tmp_path))
    assert "**Bars.**\n\n![five bars](bars.png)" in page
    assert "`python figures/bars.py` (a minute) · [page 7](../tutorials/07_bits.md)" in page
    assert "**Figure 1: sizes.**" in page
    assert "`tinyqnn reproduce dfq.fig1 --scale small --figures figures` (12 min of one core)" in page


def test_the_readme_gets_its_list_of_tutorials(tmp_path):
    house = a_house(tmp_path)
    (house / "tutorials/07_bits.md").write_text("# 7 · Count bits\n")
    (house / "tutorials/10_more.md").write_text("# 10 · More\n")
    before = "# X\n\n- [7 · Bits](tutorials/07_old.md)\n\nwords\n"
    after = "# X\n\n- [7 · Count bits](tutorials/07_bits.md)\n- [10 · More](tutorials/10_more.md)\n\nwords\n"
    assert gallery.with_tutorials(before, house) == gallery.with_tutorials(after, house) == after


def test_what_is_missing_is_named(tmp_path):
    figures = a_house(tmp_path) / "figures"
    (figures / "found.png").write_bytes(b"")
    (figures / "lonely.py").write_text('"""Lonely."""\n')
    (figures / "dfq_fig1.png").unlink()
    (figures / "bars.py").write_text('"""Bars."""\n')
    with pytest.raises(gallery.GalleryError) as error:
        gallery.entries(tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    for name in (
        "bars.py: its docstring wants",
        "found.png has no source",
        "lonely.py has no picture",
        "dfq_fig1.json",
    ):
        assert any(name in line for line in lines)
