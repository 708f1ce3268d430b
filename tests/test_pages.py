"""Every page runs from top to bottom and prints what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "tutorials").glob("[0-9]*.md"))]

_spec = importlib.util.spec_from_file_location("run_page", ROOT / "tutorials" / "run.py")
runner = importlib.util.module_from_spec(_spec)


LONG = ("04", "05", "06", "07", "09", "10", "14")  # pages that train, or ask laws, for seconds


def setup_module():
    import sys

    sys.modules["run_page"] = runner  # dataclasses look their module up
    _spec.loader.exec_module(runner)


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] * (p.name[:2] in LONG), id=p.name) for p in PAGES]
)
def test_a_page_prints_what_it_says(page, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(page.parent)
    assert runner.run(page) > 0, f"{page.name} has no python fence"


def test_a_page_that_prints_something_else_is_refused_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(runner.PageError, match=r"page\.md, line 8"):
        runner.run(page)


def test_a_traceback_points_into_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words\n\n```python\nx = 1\nx.nothing\n```\n")
    with pytest.raises(AttributeError) as caught:
        runner.run(page)
    assert caught.traceback[-1].lineno + 1 == 5


def test_write_makes_the_page_say_what_it_prints(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\nprint(2)\n```\n\n```text\n```\n\n```python\nprint(3)\n```\n\n```text\nx\ny\n```\nend\n"
    )
    runner.run(page, write=True)
    assert page.read_text() == (
        "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n2\n```\n\n```python\nprint(3)\n```\n\n```text\n3\n```\nend\n"
    )
    assert runner.run(page) == 2


def test_a_fence_that_is_never_closed_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n")
    with pytest.raises(runner.PageError, match="never closed"):
        runner.run(page)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_blocks_are_what_their_files_say(page):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- generated from (\S+) -->\n```console\n(.*?)```\n<!-- end -->", text, re.S)
    assert len(blocks) == text.count("<!-- generated from "), "a block has no console fence, or no end"
    assert blocks or page.name != "README.md", "the README shows a run"
    for name, block in blocks:
        said = (ROOT / name).read_text(encoding="utf-8")
        assert block == said, f"{name} says otherwise; run python figures/blocks.py"


def test_the_readme_begins_with_the_two_commands():
    commands = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(commands) >= 2
    for command in commands[:2]:
        assert command.count("\n") == 1, "one line each"


def test_the_map_of_the_house_shows_every_room_on_its_floor():
    from test_floors import FLOORS

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = {int(line[4]): line for line in text.splitlines() if re.match(r"    \d  ", line)}
    for floor, rooms in FLOORS.items():
        for room in rooms:
            if (ROOT / "tinyqnn" / room).is_dir() or (ROOT / "tinyqnn" / f"{room}.py").exists():
                assert re.search(rf"\b{room}\b", lines.get(floor, "")), f"CONTRIBUTING.md's floor {floor} lacks {room}"
