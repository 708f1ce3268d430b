"""How a search went, drawn: probabilities of schemes (figures 6 and 8), bits of layers (figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyqnn import picture
from tinyqnn.graph import average_bits
from tinyqnn.search.qss import default_candidates

LOOKS = {name.partition("-")[0]: picture.line(number) for number, name in enumerate(default_candidates())}


def draw_probabilities(
    figure: Any,
    course: Sequence[Mapping[str, Mapping[str, float]]],
    title: str,
    columns: int = 2,
    legend: bool = False,
) -> None:
    """A small picture for each state, a line for each candidate; one look a scheme everywhere."""
    states = sorted(course[0], key=lambda state: ("weight" not in state, list(course[0]).index(state)))
    rows = -(-len(states) // columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.suptitle(title, fontsize=11)
    for axes, state in zip(grid.flat, states):
        for name in course[0][state]:
            look = LOOKS[name.partition("-")[0]]
            values = [point[state][name] for point in course]
            axes.plot(values, color=look["color"], linestyle=look["linestyle"], label=name)
            if values[-1] == max(course[-1][state].values()):
                axes.annotate(name, (len(values) - 1, values[-1]), ha="right", va="bottom", fontsize=8)
        axes.set_title(state.replace(".quant.", ", "), fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in list(grid.flat)[len(states) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("probability", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=8)
    if legend:
        widest = max(grid.flat, key=lambda axes: len(axes.get_lines()))
        handles, labels = widest.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)


def draw_bits(figure: Any, result: Mapping[str, Any], title: str) -> None:
    """Learned widths over the epochs, weights beside activations, and their average by elements in black."""
    figure.suptitle(title, fontsize=11)
    course = result["course"]
    for axes, role in zip(figure.subplots(1, 2, sharey=True), ("weights", "activations")):
        layers = [(vertex, n) for vertex, kind, n in result["layers"] if kind == role and vertex in course[0]]
        for number, (vertex, _) in enumerate(layers):
            look = picture.line(number + 1)
            axes.plot([point[vertex] for point in course], **look, markersize=3, label=vertex.partition(".")[0])
        sizes = [n for _, n in layers]
        mean = [average_bits([point[vertex] for vertex, _ in layers], sizes) for point in course]
        axes.plot(mean, color=picture.INK, linewidth=2.5, label="average")
        axes.set_title(role, fontsize=8)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].set_ylabel("bits", fontsize=8)
    figure.axes[0].legend(fontsize=7, ncols=2)
