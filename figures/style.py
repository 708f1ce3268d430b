"""One look for all figures: told apart in grey and by colour-blind eyes, no state left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, from dark to light, so that they differ in grey as well; with them a dash and a marker each.
INK, BLUE, RED, GREEN, ORANGE, SKY, GREY = "#000000", "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#8c8c8c"
LINES = [(INK, "-", "o"), (BLUE, "--", "s"), (RED, "-.", "^"), (GREEN, ":", "D"), (ORANGE, "-", "v"),
         (SKY, "--", "P"), (GREY, "-", "X"), (INK, ":", "*"), (BLUE, "-", "<"), (RED, "--", ">")]  # fmt: skip
LOOK = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def figure(width: float, height: float) -> Figure:
    """An empty figure with a canvas of its own."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, source: str, numbers: Any = None) -> None:
    """The picture beside its source, under the same name; the numbers in it as JSON."""
    path = Path(source)
    made.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
    if numbers is not None:
        text = json.dumps(numbers, indent=1, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


__all__ = ["BLUE", "GREEN", "GREY", "INK", "LINES", "LOOK", "ORANGE", "RED", "SKY", "figure", "rc_context", "save"]
