"""All tutorials have one form, so that a reader knows where to look: picture, promise, steps, exercises, answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"
PAGES = sorted(TUTORIALS.glob("[0-9]*.md"))


def prose(page: Path) -> str:
    """A page without its fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_opens_with_its_number_its_picture_and_what_it_promises(page):
    title, picture, promise, *_ = re.split(r"\n\n", prose(page))
    assert re.match(rf"# {int(page.name[:2])} · \S", title)
    assert re.match(rf"!\[[^]]+\]\(\.\./figures/tutorial_{page.name[:2]}_\w+\.png\)$", picture)
    for part in ("**You will do:**", "**You will\nlearn:**", "**You need:**"):
        assert part.replace("\n", " ") in promise.replace("\n", " ")
    assert f"tutorials/run.py {page.name[:2]}" in promise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_at_most_six_steps(page):
    steps = re.findall(r"^## (\d+)\. ", prose(page), re.M)
    assert steps == [str(n) for n in range(1, len(steps) + 1)]
    assert 1 <= len(steps) <= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_ends_with_three_exercises_whose_answers_are_tests(page):
    exercises = prose(page).split("## Try it yourself")[1]
    assert re.findall(r"^(\d)\. ", exercises, re.M) == ["1", "2", "3"]
    answers = Path(__file__).parent / f"test_{page.stem}.py"
    assert f"(../tests/tutorials/{answers.name})" in exercises
    source = answers.read_text(encoding="utf-8")
    for number in (1, 2, 3):
        assert f"def test_{number}_" in source


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_readme_lists_a_page_by_its_title(page):
    title = prose(page).split("\n", 1)[0].removeprefix("# ")
    readme = (TUTORIALS.parent / "README.md").read_text(encoding="utf-8")
    assert f"[{title}](tutorials/{page.name})" in readme, "run python figures/gallery.py"
