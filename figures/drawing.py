"""What the pictures' scripts share: a page's own numbers, and one way to be written.

A picture of a page is drawn from what the page computed: `page("01")` runs its python fences and returns their names.
Colours, dashes and the look are those of `tinyqnn.picture`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocks
import numpy as np

from tinyqnn import files, picture
from tinyqnn.tensor import Array


def page(name: str) -> dict[str, Any]:
    """Everything that the python fences of a tutorial define, run from top to bottom; what they print is dropped."""
    path = Path(__file__).resolve().parents[1] / "tutorials" / "run.py"
    spec = importlib.util.spec_from_file_location("run_page", path)
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    sys.modules["run_page"] = runner
    spec.loader.exec_module(runner)
    namespace: dict[str, Any] = {"__name__": "__page__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for fence in runner.fences(runner.find(name)):
            if fence.language == "python":
                exec(fence.text, namespace)
    return namespace


@contextlib.contextmanager
def beside(source: str, width: float, height: float) -> Iterator[Any]:
    """An empty figure to draw on; at the end of the block it is written beside its source, under the same name."""
    with picture.look():
        figure = picture.figure(width, height)
        yield figure
        picture.save(figure, Path(source).with_suffix(".png"))


def record(source: str, numbers: Any) -> None:
    """The numbers in a picture, as JSON beside it."""
    text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    with files.atomic_write(Path(source).with_suffix(".json"), overwrite=True) as file:
        file.write(text.encode())


def show(source: str, draw: Callable[[Any], None], tell: Callable[[Any], str]) -> None:
    """What a script recorded, once more as a picture of its cases and as a text, which goes into the pages as well."""
    results = json.loads(Path(source).with_suffix(".json").read_text(encoding="utf-8"))
    draw(results["cases"])
    text = tell(results)
    Path(source).with_suffix(".txt").write_text(text, encoding="utf-8")
    blocks.write()
    print(text)


def plain(axes: Any) -> None:
    """No ticks: what is drawn has no scale to read off."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def decision_map(axes: Any, decide: Callable[[Array], Array], points: Array, labels: Array) -> None:
    """Labelled points on the plane, which is coloured by what `decide` says of it: (N, 2) -> (N,), True or False."""
    from matplotlib.colors import ListedColormap

    line = np.linspace(-2.7, 2.7, 241)
    plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    decided = decide(plane).reshape(len(line), -1)
    axes.contourf(line, line, decided, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#fbe3d4", "#a9cfe6"]))
    axes.contour(line, line, decided, levels=[0.5], colors=picture.GREY, linewidths=1)
    for label, colour, marker in ((0, picture.RED, "o"), (1, picture.BLUE, "s")):
        axes.plot(*points[labels == label].T, marker, color=colour, markersize=1.8)
    plain(axes)
    axes.set_aspect("equal")
