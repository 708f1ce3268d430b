"""One picture of a finished run: the training, the weights, the bytes, and how the search went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import picture
from tinyqnn.search import Policy
from tinyqnn.search.courses import draw_widths, layers_of, weights_first
from tinyqnn.tensor import Array

NAMED = 24  # rows at most that have their names beside them


def draw(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[float]],
    measure: str,
    weights: tuple[str, Array, Array] | None,
    sizes: Sequence[tuple[str, float, float]],
    policy: Policy,
    course: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Write the picture as a PNG file.

    curves    by phase, the score on the test data after each epoch, in the order they were trained
    measure   what the score is, with its unit
    weights   (layer, float weights, values after quantization) of one layer, or None
    sizes     (layer, bytes in float32, bytes quantized) of each layer
    policy    what each vertex came to
    course    of AutoQNN's search: "probabilities" of the schemes and "bits" of every vertex, epoch by epoch
    """
    with picture.look():
        figure = picture.figure(10, 3.4 if course is None else 7)
        figure.suptitle(title)
        upper = figure
        if course is not None:
            upper, lower = figure.subfigures(2, 1)
            schemes, widths = lower.subfigures(1, 2, width_ratios=(1, 2))
            _schemes(schemes.subplots(), course["probabilities"][-1])
            draw_widths(widths, layers_of(policy), course["bits"])
        left, middle, right = upper.subplots(1, 3)
        _training(left, curves, measure)
        if weights is None:
            middle.set_visible(False)
        else:
            _levels(middle, *weights)
        _bytes(right, sizes)
        picture.save(figure, path)


def _training(axes: Any, curves: Mapping[str, Sequence[float]], measure: str) -> None:
    start = 1
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(range(start, start + len(curve)), curve, **picture.line(number), markersize=4, label=name)
        start += len(curve)
    axes.set(title="training", xlabel="epoch", ylabel=measure)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)


def _levels(axes: Any, layer: str, before: Array, after: Array) -> None:
    """The weights as they are, and the values they are rounded to."""
    edge = float(np.quantile(np.abs(before), 0.999)) * 1.05
    axes.hist(before.ravel(), bins=np.linspace(-edge, edge, 121), color=picture.BLUE, alpha=0.45, label="float weights")
    axes.set(title=f"weights of {layer}", xlabel="value", ylabel="weights in a bin")
    levels, counts = np.unique(after, return_counts=True)
    if len(levels) <= 256:
        twin = axes.twinx()
        twin.vlines(levels, 0, counts / counts.sum() * 100, color=picture.RED, linewidth=2.5, label="levels")
        twin.set_ylabel("weights on a level (%)")
        twin.grid(False)
        for side in (axes, twin):
            side.set_ylim(0, 1.25 * side.get_ylim()[1])  # room for the legend
        handles = axes.get_legend_handles_labels()[0] + twin.get_legend_handles_labels()[0]
        axes.legend(handles, ["float weights", "levels"], fontsize=8)


def _bytes(axes: Any, sizes: Sequence[tuple[str, float, float]]) -> None:
    names = [name for name, _, _ in sizes]
    place = np.arange(len(names))
    axes.barh(place - 0.2, [full / 1000 for _, full, _ in sizes], 0.4, color=picture.GREY, label="float32")
    axes.barh(place + 0.2, [small / 1000 for _, _, small in sizes], 0.4, color=picture.RED, label="quantized")
    axes.set(title="size of the weights", xlabel="kB")
    if len(names) <= NAMED:
        axes.set_yticks(place, names, fontsize=150 / max(len(names), 15))
    else:
        axes.set(yticks=[], ylabel="layers, the first on top")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.invert_yaxis()
    axes.legend(fontsize=8)


def _schemes(axes: Any, found: Mapping[str, Mapping[str, float]]) -> None:
    """How probable each scheme was at the end of the search, a row a state, with a dot on the winner."""
    states = weights_first(found)
    names = list(dict.fromkeys(name for state in states for name in found[state]))
    table = np.array([[found[state].get(name, np.nan) for name in names] for state in states])
    axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
    axes.plot(np.nanargmax(table, axis=1), range(len(states)), "o", color=picture.RED, markersize=4)
    axes.set(title="how likely each scheme is", xlabel="scheme")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    if len(states) <= NAMED:
        axes.set_yticks(range(len(states)), [state.replace(".quant.", " ") for state in states], fontsize=8)
    else:
        axes.set(yticks=[], ylabel="weights, and below them activations")
    axes.grid(False)
