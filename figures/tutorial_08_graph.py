"""The residual network of tutorial 8 as a graph, before and after the rewriting.

python figures/tutorial_08_graph.py       three seconds
"""

from __future__ import annotations

from typing import Any

from drawing import beside, page, plain
from matplotlib.patches import FancyArrowPatch

from tinyqnn.graph import EXPENSIVE, Graph
from tinyqnn.picture import BLUE, GREY, LIGHT, RED


def draw(axes: Any, graph: Graph, title: str) -> None:
    """Operations from left to right, weights above the operation that they flow into, quantizers on their edges."""
    row = [vertex for vertex in graph if vertex.kind in ("input", "operation")]
    place = {vertex.name: (float(index), 0.0) for index, vertex in enumerate(row)}
    for edge in graph.edges:
        if graph[edge.source].kind == "parameter":
            (last,) = [e.target for e in graph.edges if e.source == edge.target] or [edge.target]
            target = last if graph[edge.target].kind == "quantizer" else edge.target
            place[edge.source] = (place[target][0], 1.75)
    for vertex in graph.quantizers():
        (before,), (after,) = graph.in_edges(vertex.name), graph.out_edges(vertex.name)
        x, y = place[before.source]
        u, v = place[after.target]
        place[vertex.name] = ((x + u) / 2 - (0 if y else 0.05), (y + v) / 2 + (0.08 if y else 0))

    for edge in graph.edges:
        start, stop = place[edge.source], place[edge.target]
        skip = start[1] == stop[1] and stop[0] - start[0] > 1.2
        size = {"quantizer": 6, "parameter": 11}
        axes.add_patch(
            FancyArrowPatch(
                start, stop, arrowstyle="-|>", mutation_scale=9, color=GREY, linewidth=1.3,
                connectionstyle="arc3,rad=0.28" if skip else "arc3",
                shrinkA=size.get(graph[edge.source].kind, 21 if start[1] == stop[1] else 18),
                shrinkB=size.get(graph[edge.target].kind, 21 if start[1] == stop[1] else 18),
            )
        )  # fmt: skip
    for vertex in graph:
        x, y = place[vertex.name]
        if vertex.kind == "quantizer":
            axes.plot(x, y, "o", markersize=12, color=RED, zorder=3)
            axes.text(x, y, "Q", ha="center", va="center", color="white", fontsize=8, weight="bold", zorder=4)
            continue
        expensive = vertex.function in EXPENSIVE
        name = "weight" if vertex.kind == "parameter" else vertex.name.replace("block.", "").replace(":2", "")
        label = name if vertex.kind == "parameter" else f"{name}\n{vertex.label}"
        box = {
            "boxstyle": "round,pad=0.35",
            "facecolor": BLUE if expensive else LIGHT if vertex.kind == "operation" else "white",
            "edgecolor": BLUE if expensive else GREY,
        }
        axes.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=9,
            bbox=box,
            zorder=3,
            color="white" if expensive else "black",
        )
    axes.set(xlim=(-0.6, len(row) - 0.4), ylim=(-1.35, 2.2))
    axes.set_title(title, loc="left")
    plain(axes)


def main() -> None:
    told = page("08")
    with beside(__file__, 9, 5.2) as figure:
        before, after = figure.subplots(2, 1)
        draw(before, told["graph"], "before: blue multiplies")
        draw(after, told["quantized"].graph,
             "after: a quantizing vertex Q on every edge into blue, and on no other")  # fmt: skip


if __name__ == "__main__":
    main()
