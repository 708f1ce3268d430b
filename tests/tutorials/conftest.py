"""The names that a tutorial's fences define, for the tests that answer its exercises."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from functools import cache
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"


@cache
def _run(name: str, skip: tuple[str, ...]) -> dict:
    spec = importlib.util.spec_from_file_location("run_page_for_exercises", TUTORIALS / "run.py")
    runner = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = runner  # dataclasses look their module up
    spec.loader.exec_module(runner)
    namespace: dict = {"__name__": "__page__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for fence in runner.fences(runner.find(name)):
            if fence.language == "python" and not any(text in fence.text for text in skip):
                exec(fence.text, namespace)
    return namespace


@pytest.fixture
def page():
    """`page("01")`: everything that page defines, as a dictionary of names of its own.

    Fences that contain one of the texts in `skip` are left out: those that train, where only definitions are asked for.
    """
    return lambda name, skip=(): dict(_run(name, tuple(skip)))
