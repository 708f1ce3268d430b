"""What the tutorials' pictures share: the page's own numbers, one style, one way to be written.

A picture of a page is drawn from what the page computed: `page("01")` runs its python fences and returns their names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tinyqnn.report import BLUE, GREY, ORANGE

__all__ = ["BLUE", "GREY", "LIGHT", "ORANGE", "figure", "page", "plain", "save"]

LIGHT = "#e6e6e6"
STYLE = {"font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}


def page(name: str) -> dict[str, Any]:
    """Everything that the python fences of a tutorial define, run from top to bottom; what they print is dropped."""
    path = Path(__file__).resolve().parents[1] / "tutorials" / "run.py"
    spec = importlib.util.spec_from_file_location("run_page", path)
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    sys.modules["run_page"] = runner
    spec.loader.exec_module(runner)
    namespace: dict[str, Any] = {"__name__": "__page__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for fence in runner.fences(runner.find(name)):
            if fence.language == "python":
                exec(fence.text, namespace)
    return namespace


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of `width` × `height` inches, and its axes."""
    with rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        return drawn, drawn.subplots(rows, columns, **options)


def plain(axes: Any) -> None:
    """No ticks: what is drawn has no scale to read off."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(drawn: Figure, source: str) -> None:
    """Write the picture beside its source file, under the same name."""
    path = Path(source).with_suffix(".png")
    drawn.savefig(path, dpi=110)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
