"""An experiment is a function of a frozen config to a result; its cells are found again by the hash of their config."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

PAPERS = ("holistic", "dfq", "autoqnn")
SCALES = ("smoke", "small", "paper")


class Cell(NamedTuple):
    """One finished run: its config, what came out (plain JSON), and how many seconds of CPU time it took."""

    config: Any
    result: dict[str, Any]
    seconds: float


class Report:
    """What `run` gets: a way to say something, and a folder of the cell's own for checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str) -> None:
        """Add a line to the cell's log."""
        with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")


class Experiment(Protocol):
    """The module of an experiment, as `tinyqnn.papers` describes it."""

    __name__: str
    Config: Any
    CLAIMS: tuple[Any, ...]

    def cells(self, scale: str) -> list[Any]: ...
    def run(self, config: Any, report: Report) -> dict[str, Any]: ...
    def table(self, cells: list[Cell]) -> str: ...
    def draw(self, cells: list[Cell], figure: Any) -> None: ...


def names() -> list[str]:
    """The names of all experiments, "holistic.fig2" and so on, paper by paper.

    >>> all(name.count(".") == 1 for name in names())
    True
    """
    found = []
    for paper in PAPERS:
        package = importlib.import_module(f"tinyqnn.papers.{paper}")
        modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
        found += [f"{paper}.{name}" for name in modules if not name.startswith("_")]
    return found


def load(name: str) -> Experiment:
    """The experiment of a name; an unknown one is an error that says which there are.

    >>> load("holistic.fig99")
    Traceback (most recent call last):
    ValueError: there is no experiment 'holistic.fig99'; ...
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"there is no experiment {name!r}; {hint}see tinyqnn reproduce --list")
    return cast(Experiment, importlib.import_module(f"tinyqnn.papers.{name}"))


def title(experiment: Experiment) -> str:
    """The first line of its docstring."""
    return (experiment.__doc__ or "").strip().split("\n", 1)[0]


def describe(config: Any) -> str:
    """A config in a few words: its values, those that are the same as their default left out.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     network: str
    ...     bits: int = 2
    ...     seed: int = 0
    >>> describe(Config("128-3", seed=1))
    '128-3, seed 1'
    """
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "seed":
            continue
        if value != field.default:
            words.append(value if isinstance(value, str) else f"{field.name} {value}")
    return ", ".join([*words, f"seed {config.seed}"])


def version(experiment: Experiment) -> int:
    """1, or what the experiment says."""
    return int(getattr(experiment, "VERSION", 1))


def key(name: str, experiment: Experiment, config: Any) -> str:
    """The name of a cell's folder: equal for equal configs, another for any other.

    An experiment whose code changed so that old cells are wrong says so by another VERSION.
    """
    content = [name, version(experiment), dataclasses.asdict(config)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_config(experiment: Experiment, fields: dict[str, Any]) -> Any:
    """A config from its JSON, in which tuples became lists."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(part) for part in value) if isinstance(value, list) else value

    return experiment.Config(**{name: frozen(value) for name, value in fields.items()})
