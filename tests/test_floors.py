"""Imports go downhill: a room imports from floors below its own, and `import tinyqnn` stays light.

The table is the house's plan. A reader who starts anywhere only ever has to go down.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tinyqnn

PACKAGE = Path(tinyqnn.__file__).parent

FLOORS: dict[int, tuple[str, ...]] = {
    8: ("__main__",),
    7: ("cli",),
    6: ("papers", "bench", "quantize"),
    5: ("search", "deploy"),
    4: ("graph", "spec"),
    3: ("quant", "models", "train"),
    2: ("nn", "optim", "checks"),
    1: ("functional", "data", "provenance", "picture"),
    0: ("tensor", "kernels", "random", "files", "warmup"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
KNOWN_TO_ALL = {"random", "warmup", "__version__"}

# What `import tinyqnn` must not load: each costs more than the rest of the package together.
HEAVY = {"numba", "llvmlite", "matplotlib", "tqdm", "hypothesis", "pytest", "torch"}
# Files that nobody imports before they are needed may name Numba at their top.
COMPILED = {"kernels"}


class Import(NamedTuple):
    """`file`, line `line`, imports `module`; `lazy` if a function does it when it is called."""

    file: Path
    line: int
    module: str
    lazy: bool

    @property
    def room(self) -> str:
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")

    @property
    def target(self) -> str | None:
        """The room it goes to; None outside of tinyqnn; "" for the front door itself."""
        first, *rest = self.module.split(".")
        return None if first != "tinyqnn" else rest[0] if rest else ""

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.module}"


def imports_of(file: Path) -> Iterator[Import]:
    """Every import in a file, those inside functions and under TYPE_CHECKING included."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, child.lineno, alias.name, lazy)
            elif isinstance(child, ast.ImportFrom):
                here = ".".join(file.relative_to(PACKAGE.parent).parts[: -child.level]) if child.level else ""
                module = ".".join(filter(None, (here, child.module or "")))
                if module == "tinyqnn":  # from tinyqnn import kernels, random
                    yield from (Import(file, child.lineno, f"tinyqnn.{alias.name}", lazy) for alias in child.names)
                else:
                    yield Import(file, child.lineno, module, lazy)
            yield from walk(child, lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False)


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")
IMPORTS = [found for file in FILES for found in imports_of(file)]


def complaint(found: Import) -> str | None:
    """What is wrong with an import within the house; None if nothing is."""
    room, target = found.room, found.target
    if target is None or room == target or target in KNOWN_TO_ALL:
        return None
    if target not in FLOOR:
        return f"{found}: write the submodule instead of the front door (tinyqnn.tensor, not tinyqnn)"
    if FLOOR[target] < FLOOR[room]:
        return None
    where = "the same floor" if FLOOR[target] == FLOOR[room] else f"floor {FLOOR[target]}, above"
    return f"{found}: {room} is on floor {FLOOR[room]}, {target} on {where}"


def test_every_room_has_a_floor():
    unknown = sorted({found.relative_to(PACKAGE).parts[0].removesuffix(".py") for found in FILES} - FLOOR.keys())
    assert not unknown, f"no floor is known for {', '.join(unknown)}: add it to FLOORS in {Path(__file__).name}"


def test_no_room_is_on_two_floors():
    rooms = [room for rooms in FLOORS.values() for room in rooms]
    assert len(rooms) == len(set(rooms))


def test_imports_go_downhill():
    complaints = [told for found in IMPORTS if found.room in FLOOR and (told := complaint(found))]
    assert not complaints, "imports that do not go down:\n  " + "\n  ".join(complaints)


def test_kernels_and_tensors_do_not_know_each_other():
    meetings = [str(found) for found in IMPORTS if {found.room, found.target} == {"kernels", "tensor"}]
    assert not meetings


def test_layers_do_not_know_quantization():
    """A quantized network is an edit of a traced graph; there is no QuantConv2d."""
    assert not [str(found) for found in IMPORTS if found.room in ("nn", "functional") and found.target == "quant"]


def test_what_is_heavy_is_imported_when_it_is_needed():
    early = [
        str(found)
        for found in IMPORTS
        if not found.lazy and found.module.split(".")[0] in HEAVY and found.room not in COMPILED
    ]
    assert not early, "import these inside the function that needs them:\n  " + "\n  ".join(early)


def test_only_what_is_declared_is_imported():
    """NumPy, Numba, matplotlib and tqdm; PyTorch where a comparison is asked for, pytest where tests are."""
    allowed = sys.stdlib_module_names | {"tinyqnn", "numpy"} | HEAVY - {"hypothesis"}
    strangers = [str(found) for found in IMPORTS if found.module.split(".")[0] not in allowed]
    assert not strangers


def test_no_file_of_ours_is_a_pickle():
    """CIFAR-10 comes as one; its reader lets a pickle name arrays and nothing else. `warmup` has no file: it tells a
    process that it has begun itself."""
    readers = {found.file.name for found in IMPORTS if found.module.split(".")[0] in ("pickle", "shelve", "marshal")}
    assert readers <= {"cifar10.py", "warmup.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import tinyqnn",
        "import tinyqnn; tinyqnn.kernels, tinyqnn.functional.conv2d",
        "import tinyqnn.papers.reproduce",  # whose --list and mistyped names need not wait
    ],
)
def test_importing_tinyqnn_loads_nothing_heavy(statement):
    code = f"import sys; {statement}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []


class TestTheTestItself:
    """It must be able to say no."""

    @staticmethod
    def told(tmp_path: Path, room: str, line: str, monkeypatch) -> list[str | None]:
        file = tmp_path / "tinyqnn" / room / "page.py"
        file.parent.mkdir(parents=True)
        file.write_text(line)
        monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "tinyqnn")
        return [complaint(found) for found in imports_of(file)]

    @pytest.mark.parametrize(
        ("room", "line"),
        [
            ("nn", "from tinyqnn.quant import ClipQ"),
            ("nn", "from tinyqnn import quant"),
            ("nn", "import tinyqnn.quant.clip"),
            ("nn", "from ..quant.clip import ClipQ"),
            ("nn", "def f():\n    from tinyqnn import quant"),
            ("nn", "from tinyqnn.optim import SGD"),
            ("nn", "import tinyqnn as tq"),
            ("kernels", "from tinyqnn.tensor import Tensor"),
            ("tensor", "from tinyqnn import kernels"),
        ],
    )
    def test_a_wrong_way_is_seen(self, tmp_path, room, line, monkeypatch):
        assert self.told(tmp_path, room, line, monkeypatch) != [None]

    @pytest.mark.parametrize(
        ("room", "line"),
        [
            ("nn", "from tinyqnn import functional as F"),
            ("nn", "from tinyqnn.nn.module import Module"),
            ("nn", "from .module import Module"),
            ("tensor", "from tinyqnn import random"),
            ("nn", "import math"),
        ],
    )
    def test_a_right_way_is_not(self, tmp_path, room, line, monkeypatch):
        assert self.told(tmp_path, room, line, monkeypatch) == [None]
