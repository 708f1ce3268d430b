"""One look for all pictures: told apart in grey and by colour-blind eyes, readable on a phone, no state left behind.

figure = picture.figure(7, 4)
axes = figure.subplots()
axes.plot(x, y, **picture.line(0), label="float")
picture.save(figure, "loss.png")
"""

from __future__ import annotations

from typing import Any

from tinyqnn import files
from tinyqnn.files.atomic import PathLike

# Okabe and Ito's colours, from dark to light, so that they differ in grey as well; with them a dash and a marker each.
INK, BLUE, RED, GREEN, ORANGE, SKY, GREY = "#000000", "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#8c8c8c"
LIGHT = "#e6e6e6"
LINES = [(INK, "-", "o"), (BLUE, "--", "s"), (RED, "-.", "^"), (GREEN, ":", "D"), (ORANGE, "-", "v"),
         (SKY, "--", "P"), (GREY, "-", "X"), (INK, ":", "*"), (BLUE, "-", "<"), (RED, "--", ">")]  # fmt: skip
LOOK: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure of `width` × `height` inches, with a canvas of its own and no window.

    Draw under `look()` for the grid and the fonts that all pictures share.

    >>> figure(4, 3).get_size_inches().tolist()
    [4.0, 3.0]
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def look() -> Any:
    """A context in which axes get the look of all pictures; matplotlib's settings are as before after it.

    >>> with look():
    ...     axes = figure(4, 3).subplots()
    """
    from matplotlib import rc_context

    return rc_context(LOOK)


def line(number: int) -> dict[str, str]:
    """Colour, dash and marker of the `number`-th line of a picture, as `axes.plot` takes them.

    >>> line(1)
    {'color': '#0072b2', 'linestyle': '--', 'marker': 's'}
    """
    colour, dash, marker = LINES[number % len(LINES)]
    return {"color": colour, "linestyle": dash, "marker": marker}


def save(made: Any, path: PathLike, dpi: int = 110) -> None:
    """Write the figure as a PNG file, whole or not at all; one that is there is replaced."""
    with files.atomic_write(path, overwrite=True) as file:
        made.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
