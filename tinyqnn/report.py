"""One picture of a finished run: how the training went, what became of the weights, and where the bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyqnn import files
from tinyqnn.tensor import Array

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"  # told apart in grey and by colour-blind eyes, too


def draw(
    path: Path,
    title: str,
    curves: dict[str, Sequence[float]],
    measure: str,
    weights: tuple[str, Array, Array] | None,
    sizes: list[tuple[str, float, float]],
) -> None:
    """Write the picture as a PNG file.

    curves    for "float" and "quantized", the score on the test data after each epoch, in the order they were trained
    measure   what the score is, with its unit
    weights   (layer, float weights, values after quantization) of one layer, or None
    sizes     (layer, bytes in float32, bytes quantized) of each layer
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)

    start = 1
    for (name, curve), colour, marker in zip(curves.items(), (BLUE, ORANGE), "os"):
        left.plot(range(start, start + len(curve)), curve, marker=marker, color=colour, label=name)
        start += len(curve)
    left.set(title="training", xlabel="epoch", ylabel=measure)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()

    if weights is not None:
        layer, before, after = weights
        edge = float(np.quantile(np.abs(before), 0.999)) * 1.05
        bins = np.linspace(-edge, edge, 121)
        middle.hist(before.ravel(), bins=bins, color=BLUE, alpha=0.45, label="float weights")
        middle.set(title=f"weights of {layer}", xlabel="value", ylabel="weights in a bin")
        levels, counts = np.unique(after, return_counts=True)
        if len(levels) <= 256:
            twin = middle.twinx()
            twin.vlines(levels, 0, counts / counts.sum() * 100, color=ORANGE, linewidth=2.5, label="levels")
            twin.set_ylabel("weights on a level (%)")
            twin.set_ylim(bottom=0)
            handles = middle.get_legend_handles_labels()[0] + twin.get_legend_handles_labels()[0]
            middle.legend(handles, ["float weights", "levels"], fontsize=8)

    names = [name for name, _, _ in sizes]
    place = np.arange(len(names))
    right.barh(place - 0.2, [full / 1000 for _, full, _ in sizes], 0.4, color=GREY, label="float32")
    right.barh(place + 0.2, [small / 1000 for _, _, small in sizes], 0.4, color=ORANGE, label="quantized")
    right.set(title="size of the weights", xlabel="kB", yticks=place, yticklabels=names)
    right.set_xscale("symlog", linthresh=0.1)
    right.invert_yaxis()
    right.legend()
    for axes in (left, right):
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3)

    with files.atomic_write(path, overwrite=True) as file:
        figure.savefig(file, format="png", dpi=110)
