"""One picture of a finished run: the training, the weights, the bytes, and how the search went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import picture
from tinyqnn.graph import average_bits
from tinyqnn.tensor import Array


def draw(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[float]],
    measure: str,
    weights: tuple[str, Array, Array] | None,
    sizes: Sequence[tuple[str, float, float]],
    choices: Any = (),
    course: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Write the picture as a PNG file.

    curves    by phase, the score on the test data after each epoch, in the order they were trained
    measure   what the score is, with its unit
    weights   (layer, float weights, values after quantization) of one layer, or None
    sizes     (layer, bytes in float32, bytes quantized) of each layer
    choices   the policy: what each vertex came to
    course    of AutoQNN's search: "probabilities" of the schemes and "bits" of every vertex, epoch by epoch
    """
    with picture.look():
        figure = picture.figure(10, 3.4 if course is None else 6.6)
        figure.suptitle(title)
        rows = figure.subplots(1 if course is None else 2, 3, squeeze=False)
        left, middle, right = rows[0]
        _training(left, curves, measure)
        if weights is None:
            middle.set_visible(False)
        else:
            _levels(middle, *weights)
        _bytes(right, sizes)
        if course is not None:
            _schemes(rows[1, 0], choices, course["probabilities"])
            for axes, role in zip(rows[1, 1:], ("weights", "activations")):
                _widths(axes, role, [choice for choice in choices if choice.role == role], course["bits"])
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
        twin.set_ylim(bottom=0)
        twin.grid(False)
        handles = axes.get_legend_handles_labels()[0] + twin.get_legend_handles_labels()[0]
        axes.legend(handles, ["float weights", "levels"], fontsize=8)


def _bytes(axes: Any, sizes: Sequence[tuple[str, float, float]]) -> None:
    names = [name for name, _, _ in sizes]
    place = np.arange(len(names))
    axes.barh(place - 0.2, [full / 1000 for _, full, _ in sizes], 0.4, color=picture.GREY, label="float32")
    axes.barh(place + 0.2, [small / 1000 for _, _, small in sizes], 0.4, color=picture.RED, label="quantized")
    axes.set(title="size of the weights", xlabel="kB", yticks=place, yticklabels=names)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.invert_yaxis()
    axes.legend(fontsize=8)


def _schemes(axes: Any, choices: Any, course: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Of each state the probability of the scheme that won."""
    roles = {choice.vertex: choice.role for choice in choices}
    for number, state in enumerate(course[0]):
        winner = max(course[-1][state], key=course[-1][state].__getitem__)
        look = picture.line(number // 2 if len(course[0]) > 2 else number)
        look["linestyle"] = "-" if roles.get(state, state) == "weights" else ":"
        label = f"{state.replace('.quant.', ' ')} {winner}"
        axes.plot([point[state][winner] for point in course], **look, markersize=4, label=label)
    axes.set(title="scheme search: the likeliest", xlabel="epoch", ylabel="probability", ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(course[0]) <= 12:
        axes.legend(fontsize=6)


def _widths(axes: Any, role: str, choices: Any, course: Sequence[Mapping[str, float]]) -> None:
    """The learned width of each vertex, and their average."""
    learned = [choice for choice in choices if choice.vertex in course[0]]
    if not learned:
        axes.set_visible(False)
        return
    for number, choice in enumerate(learned):
        look = picture.line(number + 1)
        label = f"{choice.feeds} {choice.scheme}"
        axes.plot([point[choice.vertex] for point in course], **look, markersize=4, label=label)
    sizes = [choice.elements for choice in learned]
    mean = [average_bits([point[choice.vertex] for choice in learned], sizes) for point in course]
    axes.plot(mean, color=picture.INK, linewidth=2.5, label="average")
    axes.set(title=f"bits of {role}", xlabel="epoch", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(learned) <= 12:
        axes.legend(fontsize=6)
