"""How near does a training step come to what the processor can do? Operation by operation, under a roof of two limits.

    tinyqnn bench training --profile
    tinyqnn bench training --picture roofline.png

Products of many numbers are limited by arithmetic, a walk over arrays by memory:

    limit = min(most operations a second, operations a byte · bytes a second)

operations   a product and a sum are two. What makes no products counts one for each number it reads
bytes        each array once: forwards the arguments and the results; backwards these again, results as their gradients,
             and the gradients that are made. What a cache still holds need not come from memory, so small arrays may
             be above that limit
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn.functional.conv import Linear
from tinyqnn.functional.embedding import Embedding
from tinyqnn.functional.mlp import MLP
from tinyqnn.graph.cost import multiply_accumulates
from tinyqnn.picture import BLUE, GREEN, GREY, INK, ORANGE, RED
from tinyqnn.tensor import Array, Function, Observer, Tensor

__all__ = ["Roof", "Spot", "Spotter", "draw", "most", "reading", "roof", "spots", "table"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Roof:
    """What bounds a processor: operations and bytes a second, on all threads."""

    operations: float
    bytes: float

    def seconds(self, spot: Spot) -> float:
        """The least that the processor needs for one call of what is at a spot."""
        return max(spot.operations / self.operations, spot.bytes / self.bytes)


@dataclass(frozen=True)
class Spot:
    """An operation on arrays of some shapes, one way: what a call asks for, its median seconds, and calls a step."""

    name: str
    shapes: tuple[Shape, ...]
    backward: bool
    operations: int
    bytes: int
    seconds: float
    calls: float

    @property
    def total(self) -> float:
        """Seconds a step."""
        return self.seconds * self.calls


class Spotter(Observer):
    """Looks on and notes the time of every call: by operation, shapes, way, operations and bytes.

    >>> with Spotter() as seen:
    ...     y = Tensor(np.ones((2, 3), np.float32)) + 1.0
    >>> list(seen.times)
    [('Add', ((2, 3),), False, 6, 48)]
    """

    parts = False

    def __init__(self) -> None:
        self.times: dict[tuple[str, tuple[Shape, ...], bool, int, int], list[float]] = {}
        self.tape: list[tuple[type[Function], tuple[Shape, ...], list[int], int]] = []  # what may be derived

    def on_forward(
        self,
        function: type[Function],
        args: tuple[Any, ...],
        options: dict[str, Any],
        outputs: tuple[Tensor, ...],
        seconds: float,
    ) -> None:
        arrays = {i: arg.data for i, arg in enumerate(args) if isinstance(arg, Tensor)}
        shapes = {i: array.shape for i, array in arrays.items()}
        products = _products(function, shapes, outputs[0].shape)
        moved = sum(array.nbytes for array in (*arrays.values(), *(output.data for output in outputs)))
        if function is Embedding:  # of all rows it reads those that it gives out
            moved = 2 * outputs[0].data.nbytes
        operations = 2 * sum(products) or sum(array.size for array in arrays.values())
        self._note(function, tuple(shapes.values()), False, operations, moved, seconds)
        if any(output.requires_grad for output in outputs):
            self.tape.append((function, tuple(shapes.values()), products, moved))

    def on_backward(self, function: type[Function], grads: tuple[Array | None, ...], seconds: float) -> None:
        while self.tape and self.tape[-1][0] is not function:
            self.tape.pop()  # no gradient came by there
        if not self.tape:
            return
        _, shapes, products, read = self.tape.pop()
        # Each product has two gradients, its weight's and its input's; that of a network's input nobody asks for.
        operations = 4 * sum(products) - (2 * products[0] if products and grads[0] is None else 0)
        moved = read + sum(grad.nbytes for grad in grads if grad is not None)
        self._note(function, shapes, True, operations or read // 4, moved, seconds)

    def _note(self, function: Any, shapes: Any, backward: bool, operations: int, moved: int, seconds: float) -> None:
        self.times.setdefault((function.__name__, shapes, backward, operations, moved), []).append(seconds)


def _products(function: type[Function], shapes: Mapping[int, Shape], result: Shape) -> list[int]:
    """Multiply-accumulates of each product in an operation, that with the operation's input first."""
    if function is MLP:
        return [math.prod(result[:-1]) * math.prod(shape) for i, shape in shapes.items() if i and len(shape) == 2]
    function = Linear if issubclass(function, Linear) else function
    return [n for n, _, _ in multiply_accumulates(function, shapes, result)]


def spots(step: Callable[[], object], steps: int = 5) -> list[Spot]:
    """What a training step does: the medians of some, after two that warm it up."""
    for _ in range(2):
        step()
    with Spotter() as seen:
        for _ in range(steps):
            step()
    return [
        Spot(name, shapes, backward, operations, moved, statistics.median(times), len(times) / steps)
        for (name, shapes, backward, operations, moved), times in seen.times.items()
    ]


def most(loop: Callable[[int], int], threads: int) -> float:
    """Operations a second of a loop of `kernels/limits.py` on all threads."""
    from tinyqnn.kernels import jit

    steps, best = 400_000, 0.0  # a few milliseconds: the threads' start does not count
    operations = loop(steps)

    def body(first: int, last: int) -> None:
        loop(steps)

    for _ in range(30):
        started = time.perf_counter()
        jit.run(body, threads, 1)
        best = max(best, threads * operations / (time.perf_counter() - started))
    return best


def reading(threads: int) -> float:
    """Bytes a second that all threads read, of an array that is larger than their caches."""
    from tinyqnn.kernels import jit

    stream, seconds = np.ones(1 << 24, np.float32), []  # 67 MB, of which a maximum reads more a second than a sum
    for _ in range(10):
        started = time.perf_counter()
        jit.run(lambda first, last: stream[first:last].max(), stream.size, stream.size // threads)
        seconds.append(time.perf_counter() - started)
    return stream.nbytes / min(seconds)


def roof(threads: int = 2) -> Roof:
    """The processor's: of float32 on vectors or, where that is more, of six products of bfloat16 on tiles for one."""
    from tinyqnn.kernels import limits

    return Roof(max(most(loop, threads) for loop in (limits.floats_loop, limits.sixths_loop)), reading(threads))


def table(found: Iterable[Spot], over: Roof) -> str:
    """Milliseconds a step, operations and bytes a second and the share of the limit, by operation, the longest first.

    What takes less than a hundredth of the step is left out, and of the rest a way that takes less than a thousandth.

    >>> print(table([Spot("Linear", ((8, 100), (10, 100)), False, 16000, 4800, 1e-4, 5)], Roof(4e8, 1e8)))
                            forward                              backward
                                 ms  10⁹ op/s    GB/s  limit           ms  10⁹ op/s    GB/s  limit
      Linear                   0.50       0.2     0.0   48 %
      all operations           0.50                                  0.00
    """
    found = list(found)
    by_name = {spot.name: [other for other in found if other.name == spot.name] for spot in found}

    def seconds(some: Iterable[Spot]) -> float:
        return sum(spot.total for spot in some)

    def columns(some: list[Spot]) -> str:
        took = seconds(some)
        if took < seconds(found) / 1000:
            return " " * 38
        operations, moved = (sum(getattr(s, name) * s.calls for s in some) for name in ("operations", "bytes"))
        share = sum(over.seconds(spot) * spot.calls for spot in some) / took
        return f"{1e3 * took:>12.2f}{operations / took / 1e9:>10.1f}{moved / took / 1e9:>8.1f}{100 * share:>6.0f} %"

    heads = f"{'ms':>12}  10⁹ op/s    GB/s   limit"
    lines = [f"{'':<24}forward{'backward':>39}", f"{'':<18}{heads}{heads}"]
    for name, group in sorted(by_name.items(), key=lambda item: -seconds(item[1])):
        if seconds(group) >= seconds(found) / 100:
            ways = [[spot for spot in group if spot.backward == way] for way in (False, True)]
            lines.append(f"  {name:<16}{columns(ways[0])}{columns(ways[1])}".rstrip())
    forward, backward = (seconds(spot for spot in found if spot.backward == way) for way in (False, True))
    lines.append(f"  {'all operations':<16}{1e3 * forward:>12.2f}{1e3 * backward:>38.2f}")
    return "\n".join(lines)


LOOKS = {"Conv2d": (BLUE, "o"), "Linear": (GREEN, "s"), "LSTMLayer": (RED, "D"), "MLP": (ORANGE, "^")}
OTHERS = (GREY, "X")


def draw(cases: Mapping[str, Sequence[Spot]], over: Roof, figure: Any) -> None:
    """A panel for each network: operations a second over operations a byte; the area of a spot is its share of time.

    What takes less than a thousandth of the step is left out.
    """
    from matplotlib.lines import Line2D

    panels = figure.subplots(len(cases) // 2 + 1, 2, sharex=True, sharey=True, squeeze=False).flatten()
    left, right, height = 0.03, 3e3, over.operations / 1e9
    for axes, (title, found) in zip(panels, cases.items()):
        whole = sum(spot.total for spot in found)
        axes.plot([left, over.operations / over.bytes, right], [left * over.bytes / 1e9, height, height], color=INK)
        for spot in sorted(found, key=lambda spot: -spot.total):
            if spot.total >= whole / 1000:
                colour, marker = LOOKS.get(spot.name, OTHERS)
                axes.scatter(
                    spot.operations / spot.bytes,
                    spot.operations / spot.seconds / 1e9,
                    s=10 + 600 * spot.total / whole,
                    marker=marker,
                    edgecolors=colour,
                    facecolors="none" if spot.backward else colour,
                    alpha=0.8,
                )
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(0.1, 3e3))
        axes.set_title(title)
        axes.tick_params(labelbottom=True, labelleft=True)

    legend, *spare = panels[len(cases) :]
    for axes in (legend, *spare):
        axes.set_axis_off()
    used = {spot.name for found in cases.values() for spot in found}
    looks = {**{name: look for name, look in LOOKS.items() if name in used}, "the others": OTHERS}
    marks = [Line2D([], [], color=colour, marker=m, linestyle="", label=name) for name, (colour, m) in looks.items()]
    hollow = Line2D([], [], color=GREY, marker="o", markerfacecolor="none", linestyle="", label="hollow: backward")
    limits = f"the limit: {over.bytes / 1e9:.0f} GB/s, {height:,.0f} · 10⁹ op/s"
    legend.legend(handles=[*marks, hollow, Line2D([], [], color=INK, label=limits)], loc="center")
    figure.supxlabel("operations a byte", fontsize=10)
    figure.supylabel("10⁹ operations a second", fontsize=10)
