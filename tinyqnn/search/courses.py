"""How a search went, drawn over its epochs: probabilities of schemes, widths of layers (AutoQNN, figures 6 to 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyqnn import picture
from tinyqnn.graph import average_bits
from tinyqnn.search.policy import ROLES, Policy

__all__ = ["draw_probabilities", "draw_widths", "layers_of", "weights_first"]

NAMED = 12  # layers at most that are named; of more, looks would be told apart by nobody


def weights_first(states: Iterable[str]) -> list[str]:
    """The states of weights, and then those of activations.

    >>> weights_first(["conv1.quant.input", "conv1.quant.weight", "fc.quant.weight"])
    ['conv1.quant.weight', 'fc.quant.weight', 'conv1.quant.input']
    """
    return sorted(states, key=lambda state: "weight" not in state)


def draw_probabilities(
    figure: Any, course: Sequence[Mapping[str, Mapping[str, float]]], columns: int = 4, legend: bool = True
) -> None:
    """A small picture for each state, those of weights first; a scheme has one look in all of them.

    course   what `SchemeSearch.course` holds: for each epoch {state: {scheme: probability}}
    """
    if not course:
        raise ValueError("there is no course to draw: no search was run")
    states = weights_first(course[0])
    names = dict.fromkeys(name for state in states for name in course[0][state])
    looks = {name: {**picture.line(i), "marker": ""} for i, name in enumerate(names)}
    columns = min(columns, len(states))
    grid = figure.subplots(-(-len(states) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axes, state in zip(grid.flat, states):
        for name, last in course[-1][state].items():
            values = [point[state][name] for point in course]
            axes.plot(values, **looks[name])
            if last == max(course[-1][state].values()):
                axes.annotate(name, (len(values) - 1, last), ha="right", va="bottom", fontsize=8)
        axes.set_title(state.replace(".quant.", ", "), fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("probability", fontsize=8)
    for axes in list(grid.flat)[len(states) :]:
        axes.set_visible(False)
    _finish(figure, list(grid.flat)[: len(states)], looks if legend else {})


def layers_of(policy: Policy) -> dict[str, list[tuple[str, str, int]]]:
    """{role: [(vertex, the layer it feeds, elements)]}, as `draw_widths` wants it."""
    return {role: [(c.vertex, c.feeds, c.elements) for c in policy.of_role(role)] for role in ROLES}


def draw_widths(
    figure: Any, layers: Mapping[str, Sequence[tuple[str, str, int]]], course: Sequence[Mapping[str, float]]
) -> None:
    """Learned widths, weights beside activations, a look for each layer, and their average by elements in black.

    layers   {role: [(vertex, the layer it feeds, elements)]}; those that did not learn a width are left out
    course   what `PrecisionSearch.course` holds: for each epoch {vertex: bits}
    """
    if not course:
        raise ValueError("there is no course to draw: no search was run")
    learned = {role: [layer for layer in layers[role] if layer[0] in course[0]] for role in ROLES}
    names = dict.fromkeys(name for role in ROLES for _, name, _ in learned[role])
    looks: dict[str, dict[str, Any]] = {name: {**picture.line(1 + i), "markersize": 3} for i, name in enumerate(names)}
    looks["average"] = {"color": picture.INK, "linestyle": "-", "linewidth": 2.5}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, role in zip(panels, ROLES):
        for vertex, name, _ in learned[role]:
            axes.plot([point[vertex] for point in course], **looks[name])
        sizes = [elements for _, _, elements in learned[role]]
        mean = [average_bits([point[vertex] for vertex, _, _ in learned[role]], sizes) for point in course]
        axes.plot(mean, **looks["average"])
        axes.set_title(f"bits of {role}", fontsize=9)
    _finish(figure, list(panels), looks if len(names) <= NAMED else {"average": looks["average"]})


def _finish(figure: Any, panels: Sequence[Any], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Name the epochs, and each look once, below."""
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch", fontsize=8)
    handles = [panels[0].plot([], [], **look, label=name)[0] for name, look in looks.items()]
    if handles:
        inches, letter = figure.bbox.width / figure.dpi, 0.07
        columns = min(len(handles), max(1, int(inches / (0.6 + letter * max(map(len, looks))))))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
