"""The network as a graph: trace it, put quantizing vertices in, count what it costs.

    graph = trace(model, example)                                            print(graph)
    qmodel = generate(model, example, weights="P-3", activations="C-3")      the same network, quantized; a Module
    print(summary(qmodel))                                                   a row a layer

Start with `vertices.py` for what a graph is, then `trace.py` and `generate.py`.
"""

from __future__ import annotations

from tinyqnn.graph.cost import average_bits, cost
from tinyqnn.graph.generate import EXPENSIVE, generate
from tinyqnn.graph.replay import GraphModule, Slot
from tinyqnn.graph.summary import Summary, summary
from tinyqnn.graph.trace import trace
from tinyqnn.graph.vertices import Edge, Graph, Vertex

__all__ = [
    "EXPENSIVE",
    "Edge",
    "Graph",
    "GraphModule",
    "Slot",
    "Summary",
    "Vertex",
    "average_bits",
    "cost",
    "generate",
    "summary",
    "trace",
]
